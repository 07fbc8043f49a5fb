"""The README and docs/ keep their word: commands run from a wheel, Python runs, links lead somewhere.

Each block runs as it is printed, in a user's folder of its own; STAND_INS makes it a matter of seconds.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, Environment, run

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md"))]

#: What a block says, and what is run: less of the same.
STAND_INS = {
    r"\bepochs=\d+": "epochs=1",
    r"\bimgsz=640": "imgsz=64",
    r"(model\.train\(data=\"coco8\.yaml\")": r"\1, imgsz=64, workers=0",
    r"(yolo detect train .*)": r"\1 workers=0 plots=False",
    r"\bseeds=0-4": "seeds=0",
    r"\bformats=(\S+)": r"formats=\1 rounds=2 memory_runs=1 skip=train,operator",
}
#: Blocks for which other tests stand: installing, and make.
NOT_RUN = re.compile(r"^(pip|make|git|python -m (venv|pip)) ")


def blocks(language):
    """Every code block of a language, with where it stands."""
    for page in PAGES:
        for number, text in enumerate(re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)):
            lines = [line for line in text.splitlines() if not NOT_RUN.match(line)]
            if any(lines):
                yield pytest.param("\n".join(lines), id=f"{page.relative_to(ROOT)}-{number}")


def shortened(text):
    for pattern, less in STAND_INS.items():
        text = re.sub(pattern, less, text)
    return text


@pytest.fixture
def folder(tmp_path, digits, trained, wheel_environment):
    """A user's folder with the files that the blocks name, at the places where the commands before would leave them."""
    shutil.copy(digits, tmp_path / "coco8.yaml")
    shutil.copy(next((digits.parent / "images/val").iterdir()), tmp_path / "image.jpg")
    shutil.copy(trained, tmp_path / "best.pt")
    code = "from ultralytics import YOLO; YOLO('yolov10n.yaml').save('yolov10n.pt')"
    run(wheel_environment.python, "-c", code, cwd=tmp_path)
    stock = wheel_environment.site / "ultralytics/cfg/models/v10/yolov10n.yaml"
    shutil.copy(stock, tmp_path / "mine.yaml")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("block", list(blocks("bash")))
def test_a_block_of_commands_runs_from_a_wheel(block, folder, wheel_environment: Environment):
    path = f"{wheel_environment.path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    run("bash", "-euc", shortened(block), cwd=folder, env={"PATH": path, "YOLO_AUTOINSTALL": "false"})


@pytest.mark.slow
@pytest.mark.parametrize("block", list(blocks("python")))
def test_a_block_of_python_runs(block, folder, wheel_environment: Environment):
    (folder / "block.py").write_text(shortened(block))
    run(wheel_environment.python, "block.py", cwd=folder, env={"YOLO_AUTOINSTALL": "false"})


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
