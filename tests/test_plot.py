"""Pictures of DySample: the offsets that are shown are the layer's, at their places, and looking changes nothing."""

import copy
import itertools
import os
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from ultralytics import YOLO
from ultralytics.engine.results import Results

from tests.conftest import run
from yolov10_dysample import offsets
from yolov10_dysample import plot as pictures
from yolov10_dysample.commands.main import main
from yolov10_dysample.commands.plot import COMMAND
from yolov10_dysample.dysample import DySample, dysample

SMALL = """\
nc: 1
kpt_shape: [4, 3]
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
head:
  - [-1, 1, {row}]
  - [-1, 1, Conv, [16, 3, 2]]
  - [[3, 2], 1, {head}]
"""
STOCK = 'nn.Upsample, [None, 2, "nearest"]'
HEADS = {"detect": "Detect, [1]", "segment": "Segment, [1, 4, 8]", "pose": "Pose, [1, [4, 3]]", "obb": "OBB, [1, 1]"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Makes a model whose layer 2 upsamples from a quarter of the image's size to half of it."""

    def make(row="DySample, [2]", task="detect"):
        torch.manual_seed(0)
        file = tmp_path_factory.mktemp("model") / "small.yaml"
        file.write_text(SMALL.format(row=row, head=HEADS[task]))
        model = YOLO(file, task=task)
        model.model.kpt_shape = [4, 3]  # in Ultralytics 8.3.0 only the trainer says so
        return model

    return make


def picture(height, width):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


# What is measured


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


def test_the_magnified_part_is_around_the_surest_detection():
    image = np.zeros((100, 200, 3), np.uint8)
    boxes = torch.tensor([[0, 0, 20, 20, 0.3, 0], [100, 50, 200, 100, 0.9, 0], [0, 0, 200, 100, 0.5, 0]])
    turned = torch.tensor([[40, 80, 20, 10, 0.7, 0.9, 0]])
    assert pictures._focus(Results(image, "", {0: "a"}, boxes=boxes)) == pytest.approx((0.75, 0.75))
    assert pictures._focus(Results(image, "", {0: "a"}, obb=turned)) == pytest.approx((0.2, 0.8))
    assert pictures._focus(Results(image, "", {0: "a"}, boxes=boxes[:0])) == (0.5, 0.5)


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
        monkeypatch.setattr(DySample, "predict_offset", broken)
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


def test_a_network_without_its_yolo_is_refused(small):
    with pytest.raises(ValueError, match=r"the model must be YOLO\(\.\.\.\) .* got DetectionModel"):
        offsets.offset_fields(small().model, picture(32, 32))


# The command


@pytest.fixture(scope="module")
def weights(small, tmp_path_factory):
    """A folder with a model with DySample and one without."""
    here = tmp_path_factory.mktemp("weights")
    torch.save({"model": small().model}, here / "best.pt")
    torch.save({"model": small(STOCK).model}, here / "stock.pt")
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
    ([*GOOD, "out=image.png/a/b"], "out must be a folder, but image.png is a file"),
    ([*GOOD, "out=/proc/pictures"], "/proc/pictures"),
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
def test_the_command_draws_into_the_next_free_folder_and_nowhere_else(python, folder):
    before = contents(folder)
    for name in ("plot", "plot2"):
        command = [python, "-m", "yolov10_dysample", "plot", *GOOD, "other=stock.pt"]
        *files, figures = run(*command, cwd=folder).splitlines()
        assert files == [f"runs/dysample/{name}/{file}.png" for file in ("offsets-layer2", "predictions")]
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
