"""What users type, in real child processes: stock `yolo` commands in an empty folder, and the plain Python API."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, TRAIN, Environment, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder, empty at first."""
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def weights(trained: Path, folder: Path) -> Path:
    """best.pt of the stock training command, in the user's folder."""
    return Path(shutil.copy(trained, folder))


def test_training_names_the_class_and_leaves_nothing_but_its_run(trained):
    (log,) = trained.parents[5].glob("log.txt")
    assert "yolov10_dysample.dysample.DySample" in log.read_text()
    assert [path.name for path in (log.parent / "user").iterdir()] == ["runs"]


def test_val(yolo, weights, digits, folder):
    output = run(yolo, "detect", "val", f"model={weights}", f"data={digits}", "imgsz=64", "workers=0", cwd=folder)
    assert "YOLOv10n-dysample summary (fused)" in output


def test_predict_runs_channels_last_and_draws_pictures(yolo, weights, digits, folder):
    source = digits.parent / "images/val"
    run(yolo, "predict", f"model={weights}", f"source={source}", "imgsz=64", cwd=folder)
    assert len(list(folder.glob("runs/**/predict/*.jpg"))) == len(list(source.iterdir()))


def test_resume_continues_an_interrupted_run(yolo, digits, folder, weights):
    # A run of two epochs that its user stopped after the first.
    stop = (
        "from ultralytics import YOLO\n"
        "def stop(trainer):\n"
        "    if trainer.epoch == 1: raise KeyboardInterrupt\n"
        "model = YOLO('yolov10n-dysample.yaml')\n"
        "model.add_callback('on_train_epoch_start', stop)\n"
        f"model.train(data={str(digits)!r}, epochs=2, imgsz=64, batch=8, workers=0, plots=False, name='cut')"
    )
    python = yolo.parent / "python"
    run(python, "-c", stop, cwd=folder, ok=False)
    (last,) = folder.glob("runs/**/cut/weights/last.pt")
    output = run(yolo, "train", "resume=True", f"model={last}", cwd=folder)
    assert "Resuming training" in output
    assert len((last.parent.parent / "results.csv").read_text().splitlines()) == 3


def test_retraining_from_best_keeps_every_weight(yolo, weights, digits, folder):
    output = run(yolo, "detect", "train", f"model={weights}", f"data={digits}", *TRAIN, cwd=folder)
    assert "Transferred 599/599 items from pretrained weights" in output


@pytest.mark.parametrize("model", ["yaml", "pt"])
def test_export_to_onnx_is_named_after_the_model_and_predicts(yolo, weights, digits, folder, model):
    given = weights if model == "pt" else "yolov10n-dysample.yaml"
    run(yolo, "export", f"model={given}", "format=onnx", "imgsz=64", cwd=folder)
    exported = weights.with_suffix(".onnx") if model == "pt" else folder / "yolov10n-dysample.onnx"
    run(yolo, "predict", f"model={exported}", f"source={digits.parent / 'images/val'}", "imgsz=64", cwd=folder)


PYTHON = """
from ultralytics import YOLO
model = YOLO("yolov10s-dysample.yaml")
assert type(model.model.model[11]).__name__ == "DySample"
results = model.predict({image!r}, imgsz=64, verbose=False)
print("boxes", len(results[0].boxes))
"""


PUBLISHED = """
import sys
sys.path.insert(0, {checkout!r})
from tests.reference.published_dysample import DySample
from ultralytics import YOLO
model = YOLO("yolov10n.yaml")
for i in (11, 14) if {swapped} else ():
    old = model.model.model[i]
    new = DySample(256 if i == 11 else 128)
    new.i, new.f, new.type, new.np = old.i, old.f, old.type, 0
    model.model.model[i] = new
model.predict({image!r}, imgsz=64)
"""


def test_the_published_code_fails_where_ours_predicts(python, weights, digits, folder):
    # Non-regression: `yolo predict` runs the model in channels_last.
    image = str(next((digits.parent / "images/val").iterdir()))
    code = PUBLISHED.format(checkout=str(ROOT), swapped=True, image=image)
    assert "view size is not compatible" in run(python, "-c", code, cwd=folder, ok=False)
    run(python, "-c", code.replace("if True", "if False"), cwd=folder)
    run(python, "-c", f"from ultralytics import YOLO; YOLO({str(weights)!r}).predict({image!r})", cwd=folder)


def test_python_needs_nothing_but_from_ultralytics_import_yolo(python, digits, folder):
    image = next((digits.parent / "images/val").iterdir())
    assert "boxes" in run(python, "-c", PYTHON.format(image=str(image)), cwd=folder)


def test_safe_load_opens_a_checkpoint(yolo, weights, digits, folder):
    image = next((digits.parent / "images/val").iterdir())
    run(yolo, "predict", f"model={weights}", f"source={image}", cwd=folder, env={"ULTRALYTICS_SAFE_LOAD": "1"})


def test_switched_off_the_model_name_is_unknown_and_stock_models_work(yolo, digits, folder):
    off = {"YOLOV10_DYSAMPLE_AUTOLOAD": "0"}
    train = (yolo, "detect", "train", f"data={digits}", *TRAIN)
    assert "does not exist" in run(*train, "model=yolov10n-dysample.yaml", cwd=folder, env=off, ok=False)
    assert "Transferred" not in run(*train, "model=yolov10n.yaml", cwd=folder, env=off)


def test_switched_off_a_wheel_does_not_know_the_model_name(wheel_environment: Environment, digits, tmp_path):
    # That it works while it is on, test_docs shows with the README's own commands.
    command = (wheel_environment.yolo, "detect", "train", f"data={digits}", *TRAIN, "model=yolov10n-dysample.yaml")
    assert "does not exist" in run(*command, cwd=tmp_path, env={"YOLOV10_DYSAMPLE_AUTOLOAD": "0"}, ok=False)
