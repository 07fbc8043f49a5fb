"""What the README and docs/ list and count is what the code and the records have."""

import importlib
import inspect
import json
import re

import pytest

import yolov10_dysample
from tests.conftest import ROOT
from yolov10_dysample import registration
from yolov10_dysample.dysample import VARIANTS, DySample

README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL_YAML = (ROOT / "docs/model-yaml.md").read_text(encoding="utf-8")
HOW_IT_WORKS = (ROOT / "docs/how-it-works.md").read_text(encoding="utf-8")


def test_the_list_of_what_is_changed_in_ultralytics_is_repeated():
    for what, how in registration.HOST_CHANGES:
        assert f"| `{what}` | {how} |" in HOW_IT_WORKS


@pytest.mark.parametrize("text", [README, MODEL_YAML], ids=["README.md", "docs/model-yaml.md"])
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
