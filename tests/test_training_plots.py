"""What a training leaves of its DySample layers is so, for every task, and never changes or fails a training."""

import copy
import csv
import pickle
import random
import shutil
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.utils import LOGGER, SETTINGS, callbacks

from tests.small_models import HEADS, SMALL, STOCK, small_model
from yolov10_dysample import figures, training_plots
from yolov10_dysample.dysample import DySample
from yolov10_dysample.offsets import OffsetField, OffsetRecorder, offset_statistics

NAMES = [f"dysample/layer2_{name}" for name in ("mean", "p99", "largest", "spread")]
BLANK = figures.png(Figure(figsize=(1, 1)))
FILES = {"dysample_offsets.csv", "dysample_offsets.png"}


def without_other_plots(trainer):
    """Leave out Ultralytics' own pictures, which take longer than these trainings; ours are decided on by now."""
    trainer.args.plots = trainer.validator.args.plots = False


@pytest.fixture
def train(digits, tmp_path, monkeypatch):
    """Trains a model of one upsampling layer, its second, for seconds and with ``plots=True``; gives the trainer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(training_plots.SWITCH, raising=False)
    monkeypatch.setattr(DetectionTrainer, "plot_training_labels", lambda self: None)

    def run(name="run", row="DySample, [2]", model=None, task="detect", data=digits, on=(), drawn=False, **settings):
        if not drawn:  # which takes longer than all the rest
            monkeypatch.setattr(figures, "training", lambda fields, rows: BLANK)
        file = tmp_path / "small.yaml"
        file.write_text(SMALL.format(row=row, head=HEADS[task]).replace("nc: 1", "nc: 10"))
        yolo = YOLO(model or file, task=task)
        for event, callback in [("on_train_start", without_other_plots), *on]:
            yolo.add_callback(event, callback)
        usual = {"epochs": 1, "imgsz": 32, "batch": 8, "workers": 0, "plots": True, "val": True, "device": "cpu"}
        yolo.train(**{**usual, "data": str(data), "project": str(tmp_path), "name": name, **settings})
        return yolo.trainer

    return run


@pytest.fixture
def warnings(monkeypatch):
    """The warnings of Ultralytics and of this package that are about DySample."""
    said = []
    monkeypatch.setattr(LOGGER, "warning", lambda message, *_: said.append(str(message)))
    return lambda: [message for message in said if "dysample" in message.lower()]


def files(trainer):
    return {path.name for path in trainer.save_dir.iterdir()}


def rows(trainer, name="dysample_offsets.csv"):
    with (trainer.save_dir / name).open(newline="") as lines:
        return list(csv.DictReader(lines))


def epochs(trainer):
    return [int(row["epoch"]) for row in rows(trainer)]


# What is left


def test_the_csv_has_a_row_an_epoch_with_the_figures_of_each_layer_on_the_first_validation_images(train):
    trainer = train(epochs=2)
    table = rows(trainer)
    assert list(table[0]) == ["epoch", *NAMES]
    assert epochs(trainer) == [1, 2]

    network, layer = trainer.ema.ema.model, trainer.ema.ema.model[2]
    images = next(iter(trainer.test_loader))["img"][:4].float() / 255
    with torch.no_grad():
        expected = offset_statistics(layer.predict_offset(network[1](network[0](images))), layer.scale)
    found = {name.rpartition("_")[2]: float(value) for name, value in table[-1].items() if name != "epoch"}
    assert found == pytest.approx(expected, rel=1e-3)
    assert table[0] != table[1]


@pytest.mark.slow
def test_the_picture_is_left_beside_those_of_ultralytics(train):
    trainer = train(on=[("on_train_start", lambda trainer: setattr(trainer.args, "plots", True))], drawn=True)
    assert FILES | {"results.csv", "results.png"} <= files(trainer)
    with Image.open(trainer.save_dir / "dysample_offsets.png") as image:
        assert len(image.convert("RGB").resize((100, 100)).getcolors(10_000)) > 100


@pytest.mark.slow
def test_the_picture_shows_the_validation_images_which_the_plots_of_ultralytics_write_over(train, monkeypatch):
    def with_all_plots(trainer):
        trainer.args.plots = trainer.validator.args.plots = True

    drawn = []
    monkeypatch.setattr(figures, "training", lambda fields, rows: drawn.append(fields) or BLANK)
    trainer = train(on=[("on_train_start", with_all_plots)], drawn=True)
    image = next(iter(trainer.test_loader))["img"][0].permute(1, 2, 0)
    np.testing.assert_array_equal(drawn[0][0].image, image)


def labelled(task, digits, folder):
    """The data set with the labels of a task: each box as a polygon or four corners, or with keypoints in them."""
    shutil.copytree(digits.parent, folder)
    for file in folder.glob("labels/*/*.txt"):
        lines = []
        for row in (line.split() for line in file.read_text().splitlines()):
            x, y, w, h = map(float, row[1:])
            corners = [(x + a * w / 2, y + b * h / 2) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            points = [value for corner in corners for value in (*corner, 2)[: 3 if task == "pose" else 2]]
            lines.append(" ".join([*(row if task == "pose" else row[:1]), *map(str, points)]))
        file.write_text("\n".join(lines))
    data = yaml.safe_load((folder / "data.yaml").read_text())
    (folder / "data.yaml").write_text(yaml.safe_dump({**data, "path": str(folder), "kpt_shape": [4, 3]}))
    return folder / "data.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_every_task_leaves_them(task, train, digits, tmp_path, warnings):
    trainer = train(task=task, data=labelled(task, digits, tmp_path / "data"), drawn=True)
    assert files(trainer) >= FILES
    assert epochs(trainer) == [1]
    assert not warnings()


def test_a_distillation_leaves_those_of_the_network_that_learns(tmp_path):
    from ultralytics.nn.distill_model import DistillationModel
    from ultralytics.nn.tasks import DetectionModel

    teacher, student = (DetectionModel("yolov10n-dysample.yaml", verbose=False) for _ in range(2))
    student.args = SimpleNamespace(imgsz=64, dis=1.0)
    network = DistillationModel(teacher, student).eval()
    validator, ema = SimpleNamespace(training=True), SimpleNamespace(ema=network)
    trainer = SimpleNamespace(save_dir=tmp_path, ema=ema, start_epoch=0, epoch=0, metrics={}, validator=validator)
    diary = training_plots.OffsetDiary(trainer)
    diary.begin_epoch(trainer)

    def hooks():
        return [[*module._forward_pre_hooks.values(), *module._forward_hooks.values()] for module in network.modules()]

    before = hooks()
    diary.watch(validator)
    with torch.inference_mode():
        network(torch.rand(2, 3, 64, 64))
    assert hooks() == before  # one batch is noted, and no more
    diary.note_epoch(trainer)
    (row,) = rows(trainer)
    assert {"dysample/layer11_p99", "dysample/layer14_p99"} < row.keys()


@pytest.mark.slow
def test_a_resumed_training_goes_on_with_the_rows_up_to_its_checkpoint(train, tmp_path):
    class Stop(Exception):
        pass

    def stop(trainer):
        if trainer.epoch == 1:
            raise Stop

    with pytest.raises(Stop):
        train(epochs=3, on=[("on_fit_epoch_end", stop)])
    file = tmp_path / "run/dysample_offsets.csv"
    before = file.read_text().splitlines()
    assert [line.split(",")[0] for line in before] == ["epoch", "1", "2"]
    file.write_text("\n".join([*before, "3" + ",7" * len(NAMES)]))  # of an epoch after the checkpoint

    trainer = train(model=tmp_path / "run/weights/last.pt", resume=True)
    assert file.read_text().splitlines()[:3] == before
    assert epochs(trainer) == [1, 2, 3]
    assert rows(trainer)[2][NAMES[0]] != "7"
    assert files(trainer) >= FILES


@pytest.mark.slow
def test_a_new_training_in_an_old_folder_starts_the_rows_anew(train):
    train(epochs=2)
    assert epochs(train(exist_ok=True)) == [1]


# Ultralytics' loggers


@pytest.mark.slow
def test_loggers_are_handed_the_figures_each_epoch_and_the_files_at_the_end_and_results_csv_is_not(train):
    seen, at_end = [], []

    def log(trainer):  # as the loggers do, which come after the callbacks that Ultralytics starts with
        seen.append([name for name in NAMES if name in trainer.metrics])
        trainer.args.val = False  # so that what stays in trainer.metrics is written again

    def log_end(trainer):
        at_end.append((FILES & files(trainer), [path.name for path in trainer.plots]))

    trainer = train(epochs=4, patience=0, on=[("on_fit_epoch_end", log), ("on_train_end", log_end)])
    assert epochs(trainer) == [1, 4]  # the last is always validated
    assert seen == [NAMES, [], [], NAMES, []]  # and then the best model
    assert at_end == [(FILES, ["dysample_offsets.png"])]
    assert len(rows(trainer, "results.csv")) == 4
    assert not any("dysample" in line for line in (trainer.save_dir / "results.csv").read_text().splitlines())
    assert all(None not in row for row in rows(trainer, "results.csv"))


def test_figures_are_there_before_the_loggers_look_after_the_callbacks_of_a_model_were_reset(tmp_path, monkeypatch):
    def log(trainer):
        """What a logger adds for the end of an epoch."""

    monkeypatch.setattr("ultralytics.utils.callbacks.tensorboard.callbacks", {"on_fit_epoch_end": log})
    monkeypatch.setitem(SETTINGS, "tensorboard", True)
    model = small_model(tmp_path)
    model.reset_callbacks()
    trainer = DetectionTrainer.__new__(DetectionTrainer)
    trainer.callbacks = {event: list(of_event) for event, of_event in model.callbacks.items()}
    callbacks.add_integration_callbacks(trainer)
    of_event = trainer.callbacks["on_fit_epoch_end"]
    assert of_event.index(training_plots.on_fit_epoch_end) < of_event.index(log)


@pytest.mark.slow
def test_tensorboard_gets_the_picture(train, monkeypatch):
    writer = Mock()
    monkeypatch.setattr("ultralytics.utils.callbacks.tensorboard.WRITER", writer, raising=False)
    trainer = train()
    ((tag, image, step), named) = writer.add_image.call_args
    assert (tag, step, named) == ("dysample_offsets", 1, {"dataformats": "HWC"})
    assert np.array_equal(image, np.asarray(Image.open(trainer.save_dir / "dysample_offsets.png").convert("RGB")))


# What stays as it is


def generators():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()


@pytest.mark.slow
def test_a_training_gives_the_same_weights_and_draws_the_same_numbers_with_and_without(train, monkeypatch):
    results = []
    for name, switch in (("with", "1"), ("without", "0")):
        monkeypatch.setenv(training_plots.SWITCH, switch)
        trainer = train(name, epochs=2, drawn=True)
        results.append((trainer, generators()))
    (ours, drawn), (other, expected) = results
    assert files(ours) >= FILES
    assert not FILES & files(other)
    assert drawn == expected
    for mine, its in zip((ours.model, ours.ema.ema), (other.model, other.ema.ema), strict=True):
        for (name, weight), same in zip(mine.state_dict().items(), its.state_dict().values(), strict=True):
            assert torch.equal(weight, same), name
    mine, its = ([{**row, "time": ""} for row in rows(trainer, "results.csv")] for trainer in (ours, other))
    assert mine == its


@pytest.mark.slow
@pytest.mark.parametrize("validated", ["the usual network", "another network"])
def test_checkpoints_have_no_hooks(validated, train, monkeypatch):
    validate = DetectionValidator.__call__

    def validate_another(self, trainer=None, model=None):
        if trainer:
            trainer, network = copy.copy(trainer), copy.deepcopy(trainer.ema.ema)
            trainer.ema = SimpleNamespace(ema=network)
        return validate(self, trainer, model)

    if validated == "another network":
        monkeypatch.setattr(DetectionValidator, "__call__", validate_another)
    trainer = train(epochs=2)
    for weights in (trainer.last, trainer.best):
        layers = YOLO(weights).model.modules()
        assert not [layer for layer in layers if layer._forward_hooks or layer._forward_pre_hooks]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "row", "variable", "settings"),
    [
        ("a stock model", STOCK, {}, {}),
        ("no plots wanted", "DySample, [2]", {}, {"plots": False}),
        ("switched off", "DySample, [2]", {training_plots.SWITCH: "0"}, {}),
        ("a second process", "DySample, [2]", {"RANK": "1"}, {}),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_nothing_is_watched_and_nothing_left_of(case, row, variable, settings, train, monkeypatch):
    def watch(*_):
        raise AssertionError(case)

    monkeypatch.setattr(training_plots.OffsetDiary, "__init__", watch)
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    assert not FILES & files(train(row=row, **settings))


def test_the_processes_of_several_gpus_are_handed_names_only():
    """Ultralytics pickles the lists of callbacks for them."""
    for callback in training_plots.CALLBACKS:
        assert callbacks.default_callbacks[callback.__name__].count(callback) == 1
        assert pickle.loads(pickle.dumps(callback)) is callback
        assert len(pickle.dumps(callback)) < 100


# What goes wrong


def fail(*_, **__):
    raise RuntimeError("broken\non purpose")


def fail_on_few(predict_offset):
    """Fails where only some images of a batch are looked at, as is done beside the forward pass."""
    return lambda layer, x: fail() if len(x) == training_plots.IMAGES else predict_offset(layer, x)


BREAKS = {
    "starting": (training_plots.OffsetDiary, "__init__", fail),
    "watching": (OffsetRecorder, "__init__", fail),
    "looking": (DySample, "predict_offset", fail_on_few(DySample.predict_offset)),
    "counting": (OffsetRecorder, "statistics", fail),
    "writing": (training_plots, "write_whole", fail),
    "drawing": (figures, "training", fail),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BREAKS)
def test_whatever_fails_is_one_warning_and_the_training_ends_well(what, train, monkeypatch, warnings):
    monkeypatch.setattr(*BREAKS[what])
    trainer = train(epochs=2, drawn=what == "drawing")
    assert trainer.last.exists()
    assert len(rows(trainer, "results.csv")) == 2
    assert warnings() == [
        "dysample_offsets are left out of this training, which goes on: RuntimeError: broken on purpose. "
        "YOLOV10_DYSAMPLE_PLOTS=0 switches them off."
    ]


@pytest.mark.slow
def test_offsets_that_are_not_finite_are_told_once_written_and_drawn_as_such(train, warnings):
    def diverge(trainer):
        trainer.ema.ema.model[2].offset.bias.data.fill_(float("nan"))

    logged = []
    watched = [("on_train_epoch_end", diverge), ("on_fit_epoch_end", lambda t: logged.extend(t.metrics))]
    trainer = train(epochs=2, on=watched, drawn=True)
    assert rows(trainer)[0][NAMES[1]] == "nan"
    assert files(trainer) >= FILES
    assert not set(logged) & set(NAMES)
    assert len(warnings()) == 1
    assert "the offsets of DySample layer 2 are not finite numbers: the model has diverged" in warnings()[0]


# The picture


SHAPES = [((64, 64), [1]), ((64, 640), [4]), ((640, 64), [4, 4, 4]), ((96, 128), [16, 2])]


@pytest.mark.slow
@pytest.mark.parametrize("value", [1e-9, float("nan")])
@pytest.mark.parametrize(("size", "groups"), SHAPES, ids=str)
def test_no_text_is_cut_off_and_none_hides_another(value, size, groups, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "png", lambda figure: shown.append(figure) or b"")
    image = np.full((*size, 3), 200, np.uint8)
    fields = [
        OffsetField(11 + 3 * k, torch.full((2, n, size[0] // 8, size[1] // 8), value), 2, "bilinear", image)
        for k, n in enumerate(groups)
    ]
    row = {f"dysample/layer{f.i}_{name}": value for f in fields for name in ("mean", "p99", "largest", "spread")}
    figures.training(fields, [{"epoch": float(epoch), **row} for epoch in range(1, 301)])
    (figure,) = shown
    FigureCanvasAgg(figure).draw()
    titles = [text for text in figure.findobj(Text) if text.get_visible() and len(text.get_text()) > 5]
    boxes = [text.get_window_extent() for text in titles]
    for text, box in zip(titles, boxes, strict=True):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text.get_text()
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text.get_text()
        hidden = [
            other.get_text() for other, b in zip(titles, boxes, strict=True) if other is not text and box.overlaps(b)
        ]
        assert not hidden, text.get_text()


def test_the_magnified_part_is_where_offsets_vary_most_and_not_the_padding(monkeypatch):
    windows = []
    monkeypatch.setattr(figures, "draw_places", lambda axis, field, window: windows.append(window))
    image = np.full((160, 320, 3), 200, np.uint8)
    image[:, 240:] = figures.PADDING
    offset = torch.zeros(2, 1, 40, 80)
    offset[0, 0, 20:24, 20:24] = 0.1  # cells 10 and 11, both ways
    offset[0, 0, 4:8, 70:74] = 5.0  # in the padding
    row = dict.fromkeys(("dysample/layer2_mean", "dysample/layer2_p99", "dysample/layer2_spread"), 1.0)
    figures.training([OffsetField(2, offset, 2, "bilinear", image)], [{"epoch": 1.0, **row}])
    ((left, right, top, bottom),) = windows
    assert left <= 10 < 12 <= right
    assert top <= 10 < 12 <= bottom
