"""The README and docs/ keep their word: commands run from a wheel, Python runs, links lead somewhere, and what they
list and count is what the code and the records have.

Each block runs as it is printed, in a user's folder of its own; STAND_INS makes it a matter of seconds.
"""

import importlib
import inspect
import json
import re
from pathlib import Path

import pytest
import torch
from ultralytics.nn import tasks

import yolov10_dysample
from tests.conftest import ROOT
from tests.documents import PAGES, README, README_COMMANDS, code_blocks, documented, shortened
from yolov10_dysample import registration
from yolov10_dysample.dysample import VARIANTS, DySample

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


# What they list and count

README_TEXT = README.read_text(encoding="utf-8")
MODEL_YAML = (ROOT / "docs/model-yaml.md").read_text(encoding="utf-8")
HOW_IT_WORKS = (ROOT / "docs/how-it-works.md").read_text(encoding="utf-8")


def test_the_list_of_what_is_changed_in_ultralytics_is_repeated():
    for what, how in registration.HOST_CHANGES:
        assert f"| `{what}` | {how} |" in HOW_IT_WORKS


@pytest.mark.parametrize("text", [README_TEXT, MODEL_YAML], ids=["README.md", "docs/model-yaml.md"])
def test_the_rows_of_a_model_yaml_are_legal_and_all_kinds_are_shown(text):
    rows = [
        re.sub(r"\blp\b|\bnearest\b", r"'\g<0>'", row) for row in re.findall(r"\[-1, 1, DySample, (\[.*?\])\]", text)
    ]
    arguments = [eval(row) for row in rows]
    assert {len(a) for a in arguments} == set(range(len(inspect.signature(DySample).parameters)))
    for a in arguments:
        DySample(64, *a)


PRINTED = {"dysample": "DySample", "dysample+": "DySample+", "dysample-s": "DySample-S", "dysample-s+": "DySample-S+"}


@pytest.mark.parametrize(("variant", "printed"), list(PRINTED.items()))
def test_the_parameter_counts_are_those_of_the_layers(variant, printed):
    (row,) = (line for line in MODEL_YAML.splitlines() if line.startswith(f"| {printed} | `["))
    counts = [int(number.replace(",", "")) for number in row.split("|")[3].split(" / ")]
    widths = [(256, 128), (512, 256), (576, 384), (512, 512), (640, 640)]
    assert counts == [
        sum(p.numel() for c in pair for p in DySample(c, **VARIANTS[variant]).parameters()) for pair in widths
    ]


def test_the_start_up_cost_is_the_recorded_one():
    record = json.loads((ROOT / "results/startup.json").read_text())
    cost = record["the entry point alone (load and call)"]
    assert cost["n"] == 20
    assert f"It costs {cost['median']:.1f} ms (median of 20 fresh processes" in HOW_IT_WORKS
    assert cost["median"] < 5
    assert f"whole, {record['import torch, without']['median'] / 1000:.1f} s" in HOW_IT_WORKS.replace("\n", " ")


@pytest.mark.parametrize("name", [name for name in yolov10_dysample.__all__ if not name.startswith("__")])
def test_a_public_name_is_the_same_object_whatever_was_imported_before(name):
    home = importlib.import_module(f"yolov10_dysample.{yolov10_dysample._HOMES[name]}")
    assert getattr(yolov10_dysample, name) is getattr(home, name)


def test_the_docs_say_how_much_of_stock_weights_is_transferred_to_each_size():
    def shapes(name):
        with torch.device("meta"):
            layers, _ = tasks.parse_model(tasks.yaml_model_load(name), 3, verbose=False)
        return {key: value.shape for key, value in layers.state_dict().items()}

    text = (ROOT / "docs/weights.md").read_text(encoding="utf-8")
    for size in "nsmblx":
        stock, ours = (shapes(f"yolov10{size}{end}.yaml") for end in ("", "-dysample"))
        assert f"{sum(ours.get(key) == shape for key, shape in stock.items())}/{len(ours)}`" in text
