"""What exports lose in half precision and 8 bits: how it is counted, that the docs say what was recorded, and where an
engine of float16 samples, simulated on a whole graph.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.utils import checks

from scripts import precision, precision_report
from scripts.half_engine import LARGEST_ERROR, find_layer, simulate, zigzags
from tests.conftest import ROOT
from tests.small_models import small_model
from yolov10_dysample.dysample import dysample
from yolov10_dysample.exporting import SAMPLING_SWITCH
from yolov10_dysample.study.operators import spread_all_offsets


@pytest.fixture(scope="module")
def record():
    return json.loads((ROOT / "results/precision.json").read_text())


def boxes(*rows):
    return np.array(rows, dtype=float).reshape(-1, 6)


def test_a_box_is_paired_with_the_one_of_its_class_that_it_overlaps_most():
    expected = boxes([0, 0, 10, 10, 0.9, 1], [20, 0, 30, 10, 0.8, 1], [0, 0, 10, 10, 0.7, 2])
    actual = boxes([0, 0, 10, 8, 0.5, 1], [0, 0, 10, 9, 0.6, 1], [20, 0, 30, 10, 0.8, 3], [0, 0, 10, 10, 0.7, 2])
    counts = precision.compare(expected, actual)
    assert (counts.expected, counts.matched, counts.unmatched) == (3, 2, 3)
    assert counts.overlap == pytest.approx(0.9 + 1)
    assert counts.confidence == pytest.approx(0.3)


def test_boxes_that_overlap_by_less_than_half_are_not_the_same():
    counts = precision.compare(boxes([0, 0, 10, 10, 0.9, 1]), boxes([0, 0, 10, 4.9, 0.9, 1]))
    assert (counts.matched, counts.unmatched) == (0, 2)


@pytest.mark.parametrize("part", ["versions", "settings"])
def test_a_record_is_not_joined_with_one_of_other_versions_or_settings(part):
    now = {"versions": {"onnx": "1"}, "settings": {"imgsz": 640}}
    precision.require_same({}, now)
    precision.require_same({**now, "command": "another"}, now)
    with pytest.raises(ValueError, match=f"--formats needs a record of the same {part}, got"):
        precision.require_same({**now, part: {}}, now)


@pytest.mark.parametrize(("loss", "expected"), [(0.05, "worse"), (0.0, "no difference shown"), (-0.05, "closer")])
def test_an_arm_is_worse_than_stock_only_by_more_than_images_and_calibrations_differ(loss, expected):
    rng = np.random.default_rng(0)

    def counts(overlap):
        overlaps = overlap + rng.normal(0, 0.01, (3, 30))
        return np.stack([np.full_like(overlaps, 1.0)] * 2 + [overlaps, 1 - overlaps, np.zeros_like(overlaps)], axis=-1)

    found = precision.beside_stock(counts(0.9 - loss), counts(0.9))
    assert {name: precision_report.verdict(name, score) for name, score in found.items()} == {
        "iou": expected,
        "confidence": expected,
        "unmatched": "no difference shown",
    }
    low, high = found["iou"]["interval"]
    assert low <= -loss <= high


def test_the_docs_show_the_record(record):
    document = (ROOT / precision_report.DOCUMENT).read_text()
    assert precision_report.with_section(document, record) == document


def test_no_export_of_dysample_loses_more_than_stocks(record):
    worse = {
        (export_format, name)
        for export_format, measured in record["formats"].items()
        for name, arms in measured["precisions"].items()
        for arm in ("swapped", "moved")
        for score, entry in arms[arm]["beside_stock"].items()
        if precision_report.verdict(score, entry) == "worse"
    }
    assert not worse


def test_the_record_has_every_precision_and_both_forms_of_an_engine(record):
    expected = {name: {*map(str, precisions)} for name, precisions in precision.PRECISIONS.items()}
    assert {name: {*measured["precisions"]} for name, measured in record["formats"].items()} == expected
    engine = {(row["sampling"], row["imgsz"], row["layer"]) for row in record["half_engine"]}
    assert engine == {(form, px, i) for form in ("gather", "grid_sample") for px in (640, 1280) for i in (11, 14)}


def test_gathers_kept_every_place_on_record_to_a_hundredth_of_a_pixel(record):
    assert max(row["largest"] for row in record["half_engine"] if row["sampling"] == "gather") <= LARGEST_ERROR


def test_zigzags_tell_a_place_that_is_wrong_by_a_hundredth_wherever_it_is():
    x = zigzags(4, 9, 7).double()
    offset = torch.zeros(1, 2, 18, 14, dtype=torch.float64)
    for side in range(2):
        moved = offset.clone()
        moved[:, side] = 0.01
        inside = (dysample(x, moved) - dysample(x, offset)).abs()[0, 2 * side : 2 * side + 2, 2:-2, 2:-2].amax(0)
        assert inside.min() == pytest.approx(0.01)
        assert inside.max() == pytest.approx(0.01)


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """A model whose DySample layer samples a map 160 pixels wide at places that offsets have spread, and its export."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checks, "AUTOINSTALL", False)
    yolo = small_model(tmp_path)
    images = torch.rand(1, 3, 64, 640, generator=torch.Generator().manual_seed(1))
    layer = yolo.model.model[2]
    nn.init.normal_(layer.offset.weight, generator=torch.Generator().manual_seed(2))
    yolo.model.eval()
    spread_all_offsets(yolo.model, images, 0.5)

    def export(form):
        monkeypatch.setenv(SAMPLING_SWITCH, form)
        return Path(yolo.export(format="onnx", imgsz=[64, 640]))

    return yolo, images, export


@pytest.mark.slow
def test_an_engine_of_half_precision_keeps_its_places_with_gathers_and_not_with_grid_sample(exported):
    yolo, images, export = exported
    found = {form: simulate(yolo, export(form), images)[2] for form in ("gather", "grid_sample")}
    assert found["gather"]["map"] == [16, 160]
    assert found["gather"]["largest"] <= LARGEST_ERROR
    assert found["grid_sample"]["largest"] > 2 * LARGEST_ERROR
    # Without rounding both are right: it is the rounding that is seen.
    exact = simulate(yolo, export("grid_sample"), images, half=False)[2]
    assert exact["largest"] < LARGEST_ERROR / 100


@pytest.mark.slow
def test_a_layer_that_is_not_in_a_graph_is_not_found(exported):
    import onnx

    *_, export = exported
    with pytest.raises(ValueError, match="layer 7 must take one map"):
        find_layer(onnx.load(export("gather")).graph, 7)
