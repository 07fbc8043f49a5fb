"""What DySample does to an image, as numbers and as pictures: the offsets are the layer's, at their places; places,
lines and labels say what is so; looking changes nothing.
"""

import copy
import functools
import io
import itertools
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from matplotlib.text import Text
from PIL import Image, ImageColor
from ultralytics import YOLO
from ultralytics.engine.results import Results

from scripts import readme_picture
from tests.conftest import ROOT, run
from tests.small_models import STOCK, picture, small_model
from yolov10_dysample import figures, offsets
from yolov10_dysample import plot as pictures
from yolov10_dysample.commands.main import main
from yolov10_dysample.commands.plot import COMMAND
from yolov10_dysample.dysample import DySample, dysample
from yolov10_dysample.offsets import OffsetField


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Makes small models, see small_model."""
    return functools.partial(small_model, tmp_path_factory.mktemp("model"))


# Offsets


@pytest.mark.parametrize("row", ["DySample, [2, lp, 2]", "DySample, [4, pl, 2]", "DySample, [2, lp, 2, True, nearest]"])
def test_the_field_has_the_offsets_that_the_layer_samples_at(small, row):
    """x of every group before y of every group, in pixels of the layer's input."""
    model = small(row)
    layer = model.model.model[2]
    moved = torch.tensor([[0.5, -0.25], [2.0, 1.0]])  # [x or y, group]
    with torch.no_grad():
        layer.offset.weight.zero_()
        layer.offset.bias.view(2, 2, -1).copy_(moved[..., None] * 4)
    (field,) = offsets.offset_fields(model, picture(32, 64), imgsz=64)
    assert (field.i, field.scale, field.groups, field.init) == (2, layer.scale, 2, layer.init)
    assert (field.size, field.stride) == ((8, 16), 4)
    assert field.offset.shape == (2, 2, 8 * layer.scale, 16 * layer.scale)
    assert torch.equal(field.offset, moved[..., None, None].expand_as(field.offset))


def test_the_network_sees_the_image_at_the_size_that_a_prediction_would_take_unless_told(trained):
    model = YOLO(trained)  # trained at 64 px
    assert [field.size for field in offsets.offset_fields(model, picture(64, 64))] == [(2, 2), (4, 4)]
    assert [field.size for field in offsets.offset_fields(model, picture(64, 64), imgsz=128)] == [(4, 4), (8, 8)]
    model.overrides["imgsz"] = [64, 96]  # as a checkpoint may say it
    assert [field.size for field in offsets.offset_fields(model, picture(96, 96))] == [(3, 3), (6, 6)]


def test_offsets_that_depend_on_the_image_are_those_of_this_image(small):
    model = small()
    inputs = []
    layer = model.model.eval().model[2]
    torch.nn.init.normal_(layer.offset.weight)
    image = picture(32, 64)
    (field,) = offsets.offset_fields(model, image, imgsz=64)
    model.model.model[1].register_forward_hook(lambda module, args, output: inputs.append(output))
    with torch.no_grad():
        model.model(torch.tensor(image[..., ::-1].copy()).permute(2, 0, 1)[None] / 255)
        expected = layer.predict_offset(inputs[0])[0]
    assert expected.std() > 0.01
    torch.testing.assert_close(field.offset.flatten(0, 1), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(os.name == "nt", reason="no file there may be called so")
def test_a_file_whose_name_would_mean_others_too_is_looked_at_itself(small, tmp_path):
    for name, size in (("a[1]*.png", (32, 32)), ("a1b.png", (64, 32)), ("a[1]b.png", (64, 64))):
        Image.fromarray(picture(*size)).save(tmp_path / name)
    (field,) = offsets.offset_fields(small(), tmp_path / "a[1]*.png", imgsz=32)
    np.testing.assert_array_equal(field.image, picture(32, 32))


def test_the_image_is_what_the_network_saw_in_true_colours_with_its_padding(small):
    red = np.zeros((40, 64, 3), np.uint8)
    red[..., 2] = 255  # arrays are BGR, as in predict()
    (field,) = offsets.offset_fields(small(), red, imgsz=64)
    assert field.image.shape == (64, 64, 3)
    assert field.image[32, 32].tolist() == [255, 0, 0]
    assert field.image[0, 0].tolist() == [114, 114, 114]


def test_a_shift_that_is_the_same_in_every_cell_has_no_spread():
    generator = torch.Generator().manual_seed(0)
    one_cell = torch.randn(3, 4, 2, 2, generator=generator)  # another one for each image, group and sub-pixel
    found = offsets.offset_statistics(one_cell.repeat(1, 1, 5, 7), scale=2)
    assert found["spread"] == pytest.approx(0, abs=1e-12)
    assert found["largest"] == pytest.approx(torch.hypot(*one_cell.chunk(2, dim=1)).max().item())


def test_statistics_of_a_known_pattern():
    offset = torch.zeros(1, 2, 20, 20)
    offset[:, 0, :, :10], offset[:, 0, :, 10:] = 3, -3
    found = offsets.offset_statistics(offset, scale=2)
    assert found == pytest.approx({"mean": 3, "p99": 3, "largest": 3, "spread": (9 / 2) ** 0.5})  # x varies, y does not
    offset[0, 1, 0, :5] = 4  # 5 of 400 lengths
    found = offsets.offset_statistics(offset, scale=2)
    assert (found["p99"], found["largest"]) == (5, 5)
    offset[0, 1, 0, :2] = 0  # 3 of 400
    assert offsets.offset_statistics(offset, scale=2)["p99"] == 3


@pytest.mark.parametrize(("scale", "init"), list(itertools.product([2, 3, 4], ["bilinear", "nearest"])))
def test_places_are_where_the_operator_samples(scale, init):
    height, width, groups = 3, 5, 2
    row, column = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    coordinates = torch.stack((column, row)).repeat(groups, 1, 1)[None]
    generator = torch.Generator().manual_seed(0)
    offset = torch.randn(2, groups, height * scale, width * scale, generator=generator) * 2  # some leave the map
    sampled = dysample(coordinates, offset.flatten(0, 1)[None], scale, init)[0].unflatten(0, (groups, 2))
    places = offsets.sampling_places(offset, scale, init, stride=8)
    torch.testing.assert_close(places, (sampled.transpose(0, 1) + 0.5) * 8, rtol=0, atol=1e-4)


def test_a_network_without_its_yolo_is_refused(small):
    with pytest.raises(ValueError, match=r"the model must be YOLO\(\.\.\.\) .* got DetectionModel"):
        offsets.offset_fields(small().model, picture(32, 32))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_offsets_that_are_not_finite_are_refused_with_their_layer_and_number(small, value):
    model = small("DySample, [2, lp, 2]")
    model.model.model[2].offset.bias.data[0] = value  # one of 2 axes x 2 groups x 4 sub-pixels
    message = (
        r"offsets must be finite numbers, and those of .*small.yaml are not: 128 of 2048 in layer 2; "
        r"the model has diverged: train it again with a lower lr0, or take an earlier checkpoint"
    )
    with pytest.raises(ValueError, match=message):
        offsets.offset_fields(model, picture(32, 64), imgsz=64)


# Pictures


def test_the_magnified_part_is_around_the_surest_detection():
    image = np.zeros((100, 200, 3), np.uint8)
    boxes = torch.tensor([[0, 0, 20, 20, 0.3, 0], [100, 50, 200, 100, 0.9, 0], [0, 0, 200, 100, 0.5, 0]])
    turned = torch.tensor([[40, 80, 20, 10, 0.7, 0.9, 0]])
    assert pictures.focus_of(Results(image, "", {0: "a"}, boxes=boxes)) == pytest.approx((0.75, 0.75))
    assert pictures.focus_of(Results(image, "", {0: "a"}, obb=turned)) == pytest.approx((0.2, 0.8))
    assert pictures.focus_of(Results(image, "", {0: "a"}, boxes=boxes[:0])) == (0.5, 0.5)


# What stays as it was


def state(model):
    return {
        "hooks": [m for m in model.model.modules() if m._forward_hooks or m._forward_pre_hooks],
        "training": [m.training for m in model.model.modules()],
        "trainable": [p.requires_grad for p in model.model.parameters()],
        "weights": {name: (weight.data_ptr(), weight._version) for name, weight in model.model.state_dict().items()},
        "network": id(model.model),
        "predictor": id(model.predictor),
    }


def broken(layer, x):
    raise RuntimeError("broken on purpose")


@pytest.mark.parametrize("fails", [False, True], ids=["after success", "after a failure"])
@pytest.mark.parametrize("used", [False, True], ids=["new model", "model that predicted"])
def test_the_model_is_left_as_it_was(small, used, fails, monkeypatch, tmp_path):
    model = small()
    if used:
        model.predict(picture(32, 32), imgsz=32, verbose=False)
    model.model.train()
    before = state(model)
    if fails:
        monkeypatch.setattr(DySample, "forward", broken)
        with pytest.raises(ValueError, match=r"small.yaml cannot predict on the source: RuntimeError: broken on purp"):
            pictures.plot(model, picture(32, 32), tmp_path / "out", imgsz=32)
        assert not (tmp_path / "out").exists()
    else:
        pictures.plot(model, picture(32, 32), tmp_path / "out", imgsz=32, other=model)
    assert state(model) == before
    assert not before["hooks"]


def test_the_users_own_figures_and_settings_of_matplotlib_are_left_alone(small, tmp_path):
    from matplotlib import pyplot, rcParams

    before, figures = copy.copy(rcParams), pyplot.get_fignums()
    pictures.plot(small(), picture(32, 32), tmp_path / "out", imgsz=32)
    assert rcParams == before
    assert pyplot.get_fignums() == figures


@pytest.mark.slow
def test_importing_it_loads_neither_ultralytics_nor_matplotlib(python, tmp_path):
    loaded = "sorted({name.partition('.')[0] for name in sys.modules} & {'ultralytics', 'matplotlib'})"
    assert run(python, "-c", f"import sys, yolov10_dysample.plot; print({loaded})", cwd=tmp_path) == "[]\n"


# What is drawn

SHAPES = [
    ("DySample, [2]", (40, 300), "detect"),
    ("DySample, [2, lp, 8, True]", (300, 40), "segment"),
    ("DySample, [4, pl, 2]", (33, 47), "pose"),
    ("DySample, [2, lp, 1, False, nearest]", (64, 64), "obb"),
    ("DySample, [8, lp, 4]", (1, 1), "detect"),
    ("DySample, [3, lp, 4, True]", (500, 700), "detect"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("row", "size", "task"), SHAPES, ids=str)
def test_every_image_size_kind_of_layer_and_task_can_be_drawn(small, row, size, task, tmp_path):
    model = small(row, task)
    torch.nn.init.normal_(model.model.model[2].offset.bias)
    grey = tmp_path / "grey.png"
    Image.fromarray(picture(*size)[..., 0]).save(grey)
    files = pictures.plot(model, grey, tmp_path / "out", imgsz=64, other=small(STOCK, task), conf=0)
    assert [file.name for file in files] == ["offsets-layer2.png", "predictions.png"]
    assert sorted(os.listdir(tmp_path / "out")) == ["offsets-layer2.png", "predictions.png"]
    for file in files:
        with Image.open(file) as image:
            assert image.width == 1500
            assert len(image.convert("RGB").resize((100, 100)).getcolors(10_000)) > 100


def test_nothing_is_written_of_a_model_that_has_diverged(small, tmp_path):
    model = small()
    model.model.model[2].offset.bias.data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"offsets must be finite numbers.* 2048 of 2048 in layer 2; .*lower lr0"):
        pictures.plot(model, picture(32, 32), tmp_path / "out", imgsz=32)
    assert not (tmp_path / "out").exists()


def field(offset, init="bilinear"):
    return OffsetField(2, offset, 2, init, np.full((64, 64, 3), 200, np.uint8))


def test_dots_arrows_and_lengths_are_those_of_the_offsets(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "png", lambda figure: drawn.append(figure) or b"")
    offset = torch.zeros(2, 2, 16, 16)  # [x or y, group]: both groups go right and down, the first five times as far
    offset[0, 0], offset[1, 0], offset[0, 1], offset[1, 1] = 0.5, 0.25, 0.1, 0.05
    figures.offsets(field(offset), (0.5, 0.5))
    places, arrows, *groups = drawn[0].axes

    (quiver,) = (one for one in arrows.collections if isinstance(one, Quiver))
    assert (quiver.V > 0).all()
    assert pytest.approx(2) == quiver.U / quiver.V
    assert [groups[i].images[0].get_array().mean() for i in range(2)] == pytest.approx([0.3125**0.5, 0.0125**0.5])
    rings, dots = ([line for line in places.lines if line.get_markersize() == size] for size in (7, 4))
    rings = [line for line in rings if len(line.get_xdata())]  # the others are those of the legend
    dots = [line for line in dots if len(line.get_xdata())]
    assert len(dots) == 4
    for before, after in zip(rings, dots, strict=True):
        moved = np.stack((after.get_xdata() - before.get_xdata(), after.get_ydata() - before.get_ydata()))
        first, second = np.split(moved, 2, axis=1)
        for found, pixels in ((first, (4, 2)), (second, (0.8, 0.4))):  # of the image, 8 for one of the map
            assert found == pytest.approx(np.broadcast_to(np.array(pixels)[:, None], found.shape), abs=1e-4)


@pytest.fixture
def texts(monkeypatch):
    """What is written in the picture of a layer, as one text."""

    def read(field):
        drawn = []
        monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
        figures.offsets(field, (0.5, 0.5))
        return "\n".join(text.get_text() for text in drawn[0].findobj(Text))

    return read


@pytest.mark.parametrize("init", ["bilinear", "nearest"])
def test_offsets_of_zero_are_said_in_words(texts, init):
    said = texts(field(torch.zeros(2, 4, 16, 16), init))
    assert f"All offsets are 0: the layer samples as nn.Upsample(scale_factor=2, mode='{init}')" in said
    assert "99 %" not in said
    assert "99 %" in texts(field(torch.full((2, 4, 16, 16), 0.1), init))


def test_places_that_coincide_are_said_to_coincide(texts):
    """At init=nearest one dot, the last that is drawn, would stand for four."""
    shared, one_dot, four = (
        "all sub-pixels of a cell start at its centre",
        "all sub-pixels of a cell, at",
        "top left of",
    )
    zero, moved = torch.zeros(2, 4, 16, 16), torch.full((2, 4, 16, 16), 0.1)
    found = {
        (init, name): [part in texts(field(offset, init)) for part in (shared, one_dot, four)]
        for init in ("nearest", "bilinear")
        for name, offset in (("zero", zero), ("moved", moved))
    }
    assert found == {
        ("nearest", "zero"): [True, True, False],
        ("nearest", "moved"): [True, False, True],
        ("bilinear", "zero"): [False, False, True],
        ("bilinear", "moved"): [False, False, True],
    }


SIZES = [64, 320, 640, 2000]  # pixels a side
GREY = 90


def drawn(result):
    """The picture of what was found, without its title and margin, in values of red, green and blue."""
    with Image.open(io.BytesIO(figures.predictions([("best.pt", result)], 0.25))) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    within = (pixels != 255).any(axis=2)
    columns = np.flatnonzero(within[-40])  # a row of the image below all boxes, from edge to edge
    rows = np.flatnonzero(within[:, columns[0] + 2])
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def results(size, boxes, **others):
    image = np.full((size, size, 3), GREY, np.uint8)
    rows = torch.tensor([[*(edge * size for edge in box), 0.9 - 0.01 * k, 0] for k, box in enumerate(boxes)])
    return Results(image, "", {0: "tree"}, boxes=rows, **others)


@pytest.mark.parametrize("size", SIZES)
def test_lines_are_as_wide_on_a_small_image_as_on_a_large_one(size):
    pixels = drawn(results(size, [(0.25, 0.25, 0.75, 0.75)]))
    middle = pixels[len(pixels) // 2]
    line = np.flatnonzero((abs(middle - GREY) > 80).any(axis=1))  # half as blue as the line
    assert len(line) in range(4, 11)  # two lines, each of 2 to 5 pixels of 1500


def test_boxes_are_where_they_were_found_on_axes_of_another_shape_than_the_image():
    result = Results(np.zeros((540, 960, 3), np.uint8), "", {0: "a"}, torch.zeros(0, 6))
    result.update(boxes=torch.tensor([[480.0, 400.0, 720.0, 500.0, 0.9, 0.0]]))
    axis = Figure(figsize=(4, 4)).add_axes((0, 0, 1, 1))
    figures.draw_detections(axis, result, labels=False)
    shown = axis.images[0].get_array().sum(axis=2) > 0
    rows, columns = (np.flatnonzero(shown.any(axis=k)) / shown.shape[1 - k] for k in (1, 0))
    assert (rows[0], rows[-1]) == pytest.approx((400 / 540, 500 / 540), abs=0.01)
    assert (columns[0], columns[-1]) == pytest.approx((480 / 960, 720 / 960), abs=0.01)


@pytest.mark.parametrize("size", SIZES)
def test_labels_hide_nothing_that_is_found(size):
    edges = [k / 10 for k in range(1, 9)]
    boxes = [(x, y, x + 0.095, y + 0.095) for y in edges for x in edges]  # hardly room between them
    pixels = drawn(results(size, boxes))
    side, line = len(pixels), 5
    hidden = []
    for box in boxes:
        left, top, right, bottom = (round(edge * side) for edge in box)
        inside = pixels[top + line : bottom - line, left + line : right - line]
        hidden.append((abs(inside - GREY) > 30).any(axis=2).mean())
    assert max(hidden) < 0.13  # of what is within the lines: a tenth of the box
    above = pixels[round(0.06 * side) : round(0.095 * side)]
    assert (abs(above - GREY) > 30).any(axis=2).mean() > 0.2  # there is room for labels


@pytest.mark.parametrize("size", SIZES)
def test_keypoints_and_masks_are_drawn_where_they_are_and_the_result_stays(size):
    mask = torch.zeros(1, 64, 64)
    mask[:, 32:48, 32:48] = 1
    points = torch.tensor([[[0.4 * size, 0.3 * size]]])
    result = results(size, [(0.2, 0.2, 0.8, 0.8)], masks=mask, keypoints=points)
    before = copy.deepcopy(result)
    pixels = drawn(result)
    coloured = (abs(pixels - GREY) > 30).any(axis=2)
    side = len(pixels)
    shown = {(x, y): bool(coloured[round(y * side), round(x * side)]) for x in (0.4, 0.6) for y in (0.3, 0.6)}
    assert shown == {(0.4, 0.3): True, (0.6, 0.6): True, (0.4, 0.6): False, (0.6, 0.3): False}
    for part in ("boxes", "masks", "keypoints"):
        assert torch.equal(getattr(result, part).data, getattr(before, part).data)
    assert np.array_equal(result.orig_img, before.orig_img)


LABEL = (20, 6)  # width and height
ROOM = [
    ("above", [(30, 40, 60, 80)], [(30, 34, 50, 40)]),
    ("below, at the top edge", [(30, 2, 60, 40)], [(30, 40, 50, 46)]),
    ("inside, in a box as high as the image", [(30, 0, 90, 100)], [(30, 0, 50, 6)]),
    ("to the left, at the right edge", [(85, 40, 99, 80)], [(79, 34, 99, 40)]),
    ("not over the label of a surer one", [(30, 40, 60, 80), (31, 41, 61, 81)], [(30, 34, 50, 40), (31, 81, 51, 87)]),
    ("not over another box", [(30, 40, 50, 60), (30, 30, 50, 39.5)], [(30, 60, 50, 66), (30, 24, 50, 30)]),
]


def test_a_label_stands_where_there_is_room():
    found = {name: figures.label_places(boxes, [LABEL] * len(boxes), (100, 100)) for name, boxes, _ in ROOM}
    assert found == {name: expected for name, _, expected in ROOM}
    assert figures.label_places([(2, 2, 18, 18)], [LABEL], (19, 19)) == [None]


# The command


@pytest.fixture(scope="module")
def weights(small, tmp_path_factory):
    """A folder with a model with DySample and one without."""
    here = tmp_path_factory.mktemp("weights")
    torch.save({"model": small().model}, here / "best.pt")
    torch.save({"model": small(STOCK).model}, here / "stock.pt")
    diverged = small().model
    diverged.model[2].offset.weight.data[0] = float("nan")
    torch.save({"model": diverged}, here / "diverged.pt")
    return here


@pytest.fixture
def folder(weights, tmp_path, monkeypatch):
    """The current folder: models and an image, and things that are neither."""
    here = tmp_path / "here"
    shutil.copytree(weights, here)
    monkeypatch.chdir(here)
    Image.fromarray(picture(48, 80)).save("image.png")
    (here / "folder.pt").mkdir()
    for name in ("text.pt", "text.png", "film.mp4", "best.onnx"):
        (here / name).write_text("hello")
    (here / "empty.png").touch()
    (here / "blocked/predictions.png").mkdir(parents=True)
    return here


@pytest.fixture
def plot(capfd, folder):
    """Run `yolov10-dysample plot` here: its exit status, standard output and standard error."""

    def call(*arguments):
        return (main(["plot", *arguments]), *capfd.readouterr())

    return call


def contents(folder):
    return {file: file.is_file() and file.read_bytes() for file in folder.rglob("*")}


GOOD = ["weights=best.pt", "source=image.png", "imgsz=64"]
BAD_ARGUMENTS = [
    ([], "weights is missing; write weights=best.pt"),
    (GOOD[:1], "source is missing; write source=image.jpg"),
    ([*GOOD, "size=64"], "there is no key 'size'; there are weights, source, other, imgsz, conf, out"),
    ([*GOOD, "img=64"], "there is no key 'img'; did you mean imgsz?"),
    (["best.pt", "image.png"], "got 'best.pt'; write yolov10-dysample plot weights=best.pt source=image.png"),
    ([*GOOD, "out="], "arguments are key=value, got 'out='; write yolov10-dysample plot weights=best.pt"),
    ([*GOOD, "imgsz=32"], "imgsz is given twice, the second time as 'imgsz=32'"),
    (
        [*GOOD, "--conf", "0.5"],
        "got '--conf'; write yolov10-dysample plot weights=best.pt source=image.png imgsz=64 conf=0.5",
    ),
    (["weights=none.pt", *GOOD[1:]], "weights must be a .pt file, but none.pt is not there"),
    (["weights=folder.pt", *GOOD[1:]], "weights must be a .pt file, but folder.pt is a folder"),
    (["weights=best.onnx", *GOOD[1:]], "weights must be a .pt file: an export no longer has the layers"),
    (["weights=text.pt", *GOOD[1:]], "weights must be a checkpoint of Ultralytics, and text.pt cannot be opened: "),
    (["weights=stock.pt", *GOOD[1:]], "stock.pt has no DySample layer: train one (yolo train model=yolov10n-dysample"),
    (
        ["weights=diverged.pt", *GOOD[1:]],
        "offsets must be finite numbers, and those of diverged.pt are not: 256 of 8192 in layer 2; the model has "
        "diverged: train it again with a lower lr0, or take an earlier checkpoint",
    ),
    ([*GOOD, "other=text.pt"], "other must be a checkpoint of Ultralytics, and text.pt cannot be opened: "),
    ([*GOOD, "other=yolov10n.pt"], "other must be a .pt file, but yolov10n.pt is not there"),
    ([GOOD[0], "source=none.png"], "source must be an image file, but there is no none.png"),
    ([GOOD[0], "source=https://a.bc/d.png"], "source must be an image file, but there is no https://a.bc/d.png"),
    ([GOOD[0], "source=."], "source must be one image file, and . is a folder"),
    ([GOOD[0], "source=film.mp4"], "source must be an image file ("),
    ([GOOD[0], "source=text.pt"], "webp), got text.pt"),
    ([GOOD[0], "source=text.png"], "source must be an image file, and text.png cannot be read as one"),
    ([GOOD[0], "source=empty.png"], "source must be an image file, and empty.png cannot be read as one"),
    ([*GOOD[:2], "imgsz=31"], "imgsz must be a whole number, at least 32, got '31'"),
    ([*GOOD[:2], "imgsz=64.5"], "imgsz must be a whole number, at least 32, got '64.5'"),
    ([*GOOD[:2], "imgsz=[64,64]"], "imgsz must be a whole number, at least 32, got '[64,64]'"),
    ([*GOOD, "conf=1.5"], "conf must be a number from 0 to 1, got '1.5'"),
    ([*GOOD, "conf=nan"], "conf must be a number from 0 to 1, got 'nan'"),
    ([*GOOD, "conf=high"], "conf must be a number from 0 to 1, got 'high'"),
    ([*GOOD, "out=image.png"], "out must be a folder, but image.png is a file"),
    ([*GOOD, "out=blocked"], "there is a folder of that name: "),
    ([*GOOD, "out=image.png/a/b"], "out must be a folder, but image.png is a file"),
    *([([*GOOD, "out=/proc/pictures"], "/proc/pictures")] if sys.platform == "linux" else []),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS, ids=[" ".join(a) for a, _ in BAD_ARGUMENTS])
def test_a_refused_call_says_why_in_one_line_and_writes_nothing(arguments, message, plot, folder):
    before = contents(folder)
    status, out, err = plot(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("yolov10-dysample plot: ")
    assert message in err
    assert err.count("\n") == 1
    assert contents(folder) == before


def test_a_write_that_fails_halfway_leaves_no_half_file(plot, folder, monkeypatch):
    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(folder), "write_bytes", full)
    assert plot(*GOOD, "out=out") == (2, "", "yolov10-dysample plot: [Errno 28] No space left on device\n")
    assert not [file for file in (folder / "out").rglob("*") if file.is_file()]


def test_help_teaches_with_commands_and_the_keys(plot):
    status, out, _ = plot("--help")
    assert status == 0
    assert "yolov10-dysample plot weights=best.pt source=image.jpg other=yolov10n.pt" in out
    assert re.findall(r"^  (\w+) {2,}\S", out.partition("keys:")[2], re.M) == [key.name for key in COMMAND.keys]


def test_what_an_ultralytics_run_has_set_up_is_what_it_finds_afterwards(plot):
    from ultralytics.utils import LOGGER

    before = LOGGER.level
    assert plot(*GOOD, "other=stock.pt", "out=out")[0] == 0
    assert LOGGER.level == before


@pytest.mark.slow
def test_the_command_draws_into_the_next_free_folder_and_nowhere_else(wheel_environment, warm_shell, folder):
    before = contents(folder)
    command = f"yolov10-dysample plot {' '.join(GOOD)} other=stock.pt"
    for name, shell in (("plot", wheel_environment.shell), ("plot2", warm_shell)):
        *files, figures = shell(command, cwd=folder).splitlines()
        assert files == [str(Path(f"runs/dysample/{name}/{file}.png")) for file in ("offsets-layer2", "predictions")]
        assert re.fullmatch(
            r"layer 2: offsets in pixels of its input: mean \S+, p99 \S+, largest \S+, spread \S+", figures
        )
        for file in files:
            with Image.open(folder / file) as image:
                image.load()
                assert (image.format, image.width) == ("PNG", 1500)
        after = contents(folder)
        new = {file for file in after if after[file] and file not in before}
        assert {str(file.relative_to(folder)) for file in new} == set(files)
        assert before.items() <= after.items()
        before = after


# The README's picture


def test_the_readmes_picture_shows_layer_11_in_the_colours_of_plot():
    photograph = np.repeat(np.repeat(picture(10, 10), 64, axis=0), 64, axis=1)
    content = readme_picture.readme_picture(YOLO("yolov10n-dysample.yaml"), photograph)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.mode, image.width) == ("PNG", "P", 1500)
        found = {colour for _, colour in image.convert("RGB").getcolors()}
    assert {ImageColor.getrgb(colour) for colour in figures.COLOURS} <= found


def test_the_readmes_picture_of_a_model_without_that_layer_is_refused():
    with pytest.raises(ValueError, match=r"yolov10n.yaml has no DySample layer"):
        readme_picture.readme_picture(YOLO("yolov10n.yaml"), picture(640, 640))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png"], "image must be one of 528000, 541000, OSBS_029, SOAP_061 or an image file, got none.png"),
        (["image.png"], "must lie within the photograph of 700 x 650 px, got left=300 top=300; write other --left"),
        (["image.png", "--left=61", "--top=0"], "got left=61 top=0"),
        (["image.png", "--left=0", "--top=-1"], "got left=0 top=-1"),
    ],
)
def test_a_refused_call_for_the_readmes_picture_writes_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture(650, 700)).save("image.png")
    with pytest.raises(SystemExit, match="2"):
        readme_picture.main(["best.pt", arguments[0], "out.png", *arguments[1:]])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


def test_the_picture_of_the_readme_loads_quickly():
    assert (ROOT / "docs/trees.png").stat().st_size <= 250_000
