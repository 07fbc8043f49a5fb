"""The README and docs/ keep their word: commands run from a wheel, Python runs, links lead somewhere.

Each block runs as it is printed, in a user's folder of its own; STAND_INS makes it a matter of seconds.
"""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.documents import PAGES, README, README_COMMANDS, code_blocks, documented, shortened

#: Lines for which other tests stand: installing, make, and what test_compare and test_benchmark look at as it runs.
NOT_RUN = re.compile(r"^(pip|make|git|python -m (venv|pip)|yolov10-dysample (compare|benchmark)) ")


def blocks(language):
    """The code of a language that is run here; a command of ours that several pages have, once."""
    ours = set()
    for place, text in code_blocks(language):
        lines = [line for line in text.splitlines() if not NOT_RUN.match(line)]
        lines = [line for line in lines if (command := line.partition("#")[0].strip()) not in ours or not command]
        ours |= {line.partition("#")[0].strip() for line in lines if line.startswith("yolov10-dysample ")}
        if any(lines) and place != README_COMMANDS:  # test_commands looks at what these leave
            yield pytest.param("\n".join(lines), id=place)


@pytest.mark.slow
@pytest.mark.parametrize("block", list(blocks("bash")))
def test_a_block_of_commands_runs_from_a_wheel(block, user_folder, warm_shell):
    warm_shell(shortened(block), cwd=user_folder)


@pytest.mark.slow
@pytest.mark.parametrize("block", list(blocks("python")))
def test_a_block_of_python_runs(block, user_folder, warm_shell):
    (user_folder / "block.py").write_text(shortened(block))
    warm_shell("python block.py", cwd=user_folder)


@pytest.mark.parametrize(("command", "lines"), [("compare", 2), ("benchmark", 1)])
def test_what_is_not_run_here_is_no_more_than_what_the_tests_of_these_commands_run(command, lines):
    assert len(documented(command)) == lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if not re.match(r"https?:", link)]
    for link in links:
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def anchors(page):
    """The names that a Markdown page's headings have in links, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_can_be_read_in_a_few_minutes():
    assert len(README.read_text().split()) <= 900


def test_every_page_is_reached_from_the_readme():
    linked = {(ROOT / link).resolve() for link in re.findall(r"\]\(([^)\s#]+)", README.read_text())}
    assert not [page.name for page in Path(ROOT / "docs").glob("*.md") if page.resolve() not in linked]
