"""Checkpoints: they survive a kill, open wherever they are used, keep their outputs, and name what they need."""

import copy
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks
from ultralytics.utils import ROOT as HOST
from ultralytics.utils.torch_utils import ModelEMA

from tests.conftest import clean_environ, run
from tests.fixtures import make as first_release
from yolov10_dysample.dysample import DySample

EPOCHS = 4
#: Stands in the line that Ultralytics logs at the start of each epoch, after it has saved the one before.
EPOCH_STARTS = "GPU_mem"
UPSAMPLING = (11, 14)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder."""
    return tmp_path_factory.mktemp("user")


def epochs_in(run_folder):
    results = run_folder / "results.csv"
    rows = list(csv.reader(results.read_text().splitlines())) if results.is_file() else []
    return [int(row[0]) for row in rows[1:] if len(row) == len(rows[0])]


@pytest.fixture(scope="module")
def killed(yolo: Path, digits: Path, folder: Path) -> Path:
    """The folder of a training run that was killed within its second epoch or a later one."""
    settings = f"imgsz=64 batch=2 epochs={EPOCHS} workers=0 plots=False deterministic=False name=killed".split()
    command = [yolo, "train", "model=yolov10n-dysample.yaml", f"data={digits}", f"project={folder}", *settings]
    log = folder / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=clean_environ(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        deadline = time.monotonic() + 300
        while log.read_text().count(EPOCH_STARTS) < 2:
            assert process.poll() is None, f"ended by itself:\n{log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"no second epoch yet:\n{log.read_text()[-4000:]}"
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    return folder / "killed"


@pytest.fixture(scope="module")
def resumed(killed: Path, warm_shell, folder: Path) -> tuple[list[int], str]:
    """The epochs that were done before the kill, and what `yolo train resume` printed."""
    before = epochs_in(killed)
    return before, warm_shell(f"yolo train resume model='{killed / 'weights/last.pt'}'", cwd=folder)


@pytest.fixture(scope="module")
def weights(killed: Path, resumed: tuple[list[int], str]) -> Path:
    """best.pt of the run that was killed and resumed."""
    return killed / "weights" / "best.pt"


@pytest.mark.slow
def test_training_killed_within_an_epoch_resumes_after_the_last_finished_one(resumed, killed):
    before, output = resumed
    assert before == list(range(1, len(before) + 1))
    assert 0 < len(before) < EPOCHS, "the kill came too late to interrupt anything"
    assert re.search(rf"Resuming training .* from epoch {len(before) + 1} to {EPOCHS} total epochs", output)
    assert "yolov10_dysample.dysample.DySample" in output
    assert epochs_in(killed) == list(range(1, EPOCHS + 1))


VIDEO = """
import cv2, numpy as np
writer = cv2.VideoWriter("moving.avi", cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 64))
for i in range(4):
    frame = np.full((64, 64, 3), 200, np.uint8)
    frame[20:44, 10 + 3 * i : 34 + 3 * i] = 30
    writer.write(frame)
writer.release()
"""
USES = {
    "val": "model.val(data={data!r}, imgsz=64, workers=0, plots=False)",
    "predict": "model.predict({image!r}, imgsz=64)",
    "export": "YOLO(model.export(format='onnx', imgsz=64)).predict({image!r}, imgsz=64)",
    "track": VIDEO
    + "tracks = model.track('moving.avi', tracker={tracker!r}, conf=1e-6, imgsz=64)\n"
    + "assert len(tracks) == 4 and all(frame.boxes.is_track for frame in tracks), tracks",
}


@pytest.mark.slow
def test_best_pt_opens_where_only_ultralytics_is_imported_for_every_use(weights, python, digits, tmp_path):
    # A barely trained model is sure of nothing: the tracker must take what there is.
    tracker = yaml.safe_load((HOST / "cfg/trackers/bytetrack.yaml").read_text())
    tracker |= {"track_high_thresh": 1e-6, "track_low_thresh": 1e-7, "new_track_thresh": 1e-6, "fuse_score": False}
    (tmp_path / "tracker.yaml").write_text(yaml.safe_dump(tracker))
    values = {
        "data": str(digits),
        "image": str(next((digits.parent / "images/val").iterdir())),
        "tracker": str(tmp_path / "tracker.yaml"),
    }
    opens = f"model = YOLO({str(weights)!r})"
    uses = "\n".join(f"{opens}\n{code.format(**values)}\nprint('done: {name}')" for name, code in USES.items())
    # Without it, a missing `lap` would be installed on the spot into whatever environment this is.
    env = {"YOLO_AUTOINSTALL": "false"}
    output = run(python, "-c", f"from ultralytics import YOLO\n{uses}", cwd=tmp_path, env=env)
    assert [line[6:] for line in output.splitlines() if line.startswith("done: ")] == list(USES)


@pytest.mark.slow
def test_safe_load_opens_it_because_registration_allows_its_class(weights, python, tmp_path):
    code = f"from ultralytics import YOLO; print(type(YOLO({str(weights)!r}).model.model[11]).__name__)"
    safe = {"ULTRALYTICS_SAFE_LOAD": "1"}
    assert run(python, "-c", code, cwd=tmp_path, env=safe).endswith("DySample\n")
    unregistered = {**safe, "YOLOV10_DYSAMPLE_AUTOLOAD": "0"}
    assert "yolov10_dysample.dysample.DySample" in run(python, "-c", code, cwd=tmp_path, env=unregistered, ok=False)


# By default Ultralytics asks pip for what a checkpoint names; no index, so that this does not depend on what is there.
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "UV_OFFLINE": "1"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "shown"),
    [
        (OFFLINE, r"\['yolov10_dysample'\] not found, attempting AutoUpdate"),
        ({"YOLO_AUTOINSTALL": "false"}, r"\['yolov10_dysample'\] not found, AutoUpdate disabled"),
        ({"ULTRALYTICS_SAFE_LOAD": "1"}, r"Unsupported global: GLOBAL yolov10_dysample\.dysample\.DySample"),
    ],
    ids=["by default", "without automatic installs", "with safe load"],
)
def test_without_the_package_the_error_names_it(env, shown, bare_environment, tmp_path):
    checkpoint = first_release.HERE / f"{first_release.NAME}.pt"
    output = run(
        bare_environment.yolo, "predict", f"model={checkpoint}", "source=none.jpg", cwd=tmp_path, env=env, ok=False
    )
    assert re.search(shown, output)
    if "ULTRALYTICS_SAFE_LOAD" not in env:
        assert f"{checkpoint} appears to require 'yolov10_dysample'" in output
        assert output.rstrip().endswith("ModuleNotFoundError: No module named 'yolov10_dysample'")


@pytest.mark.slow
def test_an_export_runs_where_the_package_is_not(trained, digits, bare_environment, tmp_path):
    shutil.copy(trained, tmp_path)
    image = next((digits.parent / "images/val").iterdir())
    for export_format in ("torchscript", "onnx"):
        file = YOLO(tmp_path / trained.name).export(format=export_format, imgsz=64)
        words = (f"model={file}", f"source={image}", "imgsz=64", f"name={export_format}")
        assert "Results saved to" in run(bare_environment.yolo, "predict", *words, cwd=tmp_path)


TOLERANCE = 1e-4


# tests/fixtures/make.py made the file, with release 0.1.0; `make compat` opens it in every supported Ultralytics.
def test_a_checkpoint_of_the_first_release_opens_and_gives_the_outputs_it_gave_then():
    model = YOLO(first_release.HERE / f"{first_release.NAME}.pt").model
    expected = recorded()
    for layer, numbers in first_release.outputs(model).items():
        assert difference(torch.tensor(numbers), torch.tensor(expected[layer])) < TOLERANCE, layer
    assert [type(model.model[i]) for i in first_release.LAYERS[:2]] == [DySample, DySample]


@pytest.mark.parametrize("layer", first_release.LAYERS[:2])
def test_the_outputs_of_the_first_release_cannot_be_had_without_its_offsets(layer):
    model = YOLO(first_release.HERE / f"{first_release.NAME}.pt").model
    nn.init.zeros_(model.model[layer].offset.weight)
    nn.init.zeros_(model.model[layer].offset.bias)
    numbers = first_release.outputs(model)
    assert difference(torch.tensor(numbers[str(layer)]), torch.tensor(recorded()[str(layer)])) > 100 * TOLERANCE


def test_a_checkpoint_of_the_first_release_predicts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = first_release.HERE / f"{first_release.NAME}.pt"
    (result,) = YOLO(checkpoint).predict(first_release.image().clamp(0, 1), conf=0.0, imgsz=64, verbose=False)
    assert len(result.boxes) > 0


def recorded():
    return json.loads((first_release.HERE / f"{first_release.NAME}.json").read_text())["outputs"]


X = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    """A model whose output depends on its offsets; a fresh one's does not, to seven digits."""
    torch.manual_seed(0)
    model = tasks.DetectionModel("yolov10n-dysample.yaml", nc=3, verbose=False).train()
    for i in UPSAMPLING:
        nn.init.normal_(model.model[i].offset.weight, std=0.02)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model(torch.rand(8, 3, 128, 128, generator=torch.Generator().manual_seed(2)))
    return model.eval()


def seen_by_the_head(model):
    """The maps that the head reads, on one axis."""
    found = []
    hook = model.model[-1].register_forward_pre_hook(
        lambda _, maps: found.append(torch.cat([y.flatten() for y in maps[0]]))
    )
    with torch.no_grad():
        model(X.to(next(model.parameters()).dtype))
    hook.remove()
    return found[0].float()


def difference(actual, expected):
    """The size of the difference over the size of what was expected."""
    return ((actual - expected).norm() / expected.norm()).item()


def test_the_outputs_compared_below_depend_on_the_offsets(model):
    still = copy.deepcopy(model)
    for i in UPSAMPLING:
        nn.init.zeros_(still.model[i].offset.weight)
    assert difference(seen_by_the_head(still), seen_by_the_head(model)) > 0.05


def pickled(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "change", [copy.deepcopy, pickled, lambda model: ModelEMA(model).ema], ids=["copied", "pickled", "averaged"]
)
def test_a_model_gives_the_same_numbers_when(change, model):
    assert torch.equal(seen_by_the_head(change(model)), seen_by_the_head(model))


@pytest.fixture(scope="module")
def stock(model):
    """The same model with nn.Upsample: what rounding costs it is the host's own."""
    stock = copy.deepcopy(model)
    for i in UPSAMPLING:
        old, stock.model[i] = stock.model[i], nn.Upsample(scale_factor=2)
        stock.model[i].i, stock.model[i].f = old.i, old.f
    return stock


@pytest.mark.parametrize(
    ("change", "most"),
    [
        (lambda model: copy.deepcopy(model).fuse(verbose=False), 1e-4),
        (lambda model: pickled(copy.deepcopy(model).fuse(verbose=False)), 1e-4),
        (lambda model: pickled(copy.deepcopy(model).half()).float(), 0.05),
        (lambda model: copy.deepcopy(model).half(), 0.05),
    ],
    ids=["fused", "fused and pickled", "saved in half", "run in half"],
)
def test_a_model_loses_no_more_than_nn_upsample_does_when(change, most, model, stock):
    lost, stock_lost = (difference(seen_by_the_head(change(one)), seen_by_the_head(one)) for one in (model, stock))
    assert lost < most
    assert lost < 1.5 * stock_lost


def test_an_average_moves_towards_the_model_by_its_decay(model):
    ema = ModelEMA(model, decay=0.5, tau=1e-9)
    moved = copy.deepcopy(model)
    for i in UPSAMPLING:
        moved.model[i].offset.weight.data += 1
    ema.update(moved)
    for i in UPSAMPLING:
        torch.testing.assert_close(ema.ema.model[i].offset.weight, model.model[i].offset.weight + 0.5)
