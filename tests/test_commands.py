"""What users type, in real child processes: stock `yolo` commands in an empty folder, the plain Python API, and
`make` in a checkout, wherever that lies.
"""

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, TRAIN, Environment, fill_user_folder, run
from tests.documents import README_COMMANDS, code_blocks, shortened

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder, empty at first."""
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def user_files(tmp_path_factory, photographs: Path, trained: Path, stock: Path) -> Path:
    """A folder with the files that the README's commands name."""
    return fill_user_folder(tmp_path_factory.mktemp("readme"), photographs, trained, stock)


@pytest.fixture(scope="module")
def weights(trained: Path, folder: Path) -> Path:
    """best.pt of the stock training command, in the user's folder."""
    return Path(shutil.copy(trained, folder))


@pytest.fixture(scope="module")
def readme(user_files: Path, wheel_environment: Environment) -> tuple[Path, list[str]]:
    """The user's folder after the README's four commands, from a wheel, and what each of them printed."""
    (block,) = (text for place, text in code_blocks("bash") if place == README_COMMANDS)
    lines = shortened(block).splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["yolo", "detect"], ["yolo", "detect"], ["yolo", "detect"], ["yolo", "export"],
    ]  # fmt: skip
    output = wheel_environment.shell("\n".join(f"{line}\necho @next" for line in lines), cwd=user_files)
    return user_files, output.split("@next\n")


def test_training_names_the_class_and_leaves_nothing_but_its_run(trained):
    (log,) = trained.parents[5].glob("log.txt")
    assert "yolov10_dysample.dysample.DySample" in log.read_text()
    assert [path.name for path in (log.parent / "user").iterdir()] == ["runs"]


def test_from_a_wheel_it_trains_from_stock_weights(readme):
    folder, (printed, *_) = readme
    assert "Transferred 595/599 items from pretrained weights" in printed
    assert len(list(folder.glob("runs/detect/train/weights/best.pt"))) == 1


def test_from_a_wheel_it_validates(readme):
    assert "YOLOv10n-dysample summary (fused)" in readme[1][1]


def test_from_a_wheel_predictions_are_drawn(readme):
    assert [file.name for file in readme[0].glob("runs/detect/predict*/*.jpg")] == ["image.jpg"]


def test_from_a_wheel_an_export_is_named_after_its_weights(readme):
    assert len(list(readme[0].glob("runs/detect/train/weights/best.onnx"))) == 1


def test_retraining_from_best_keeps_every_weight(warm_shell, weights, digits, folder):
    output = warm_shell(f"yolo detect train model='{weights}' data='{digits}' {' '.join(TRAIN)}", cwd=folder)
    assert "Transferred 599/599 items from pretrained weights" in output


def test_an_export_of_an_untrained_model_is_named_after_its_yaml(warm_shell, tmp_path):
    warm_shell("yolo export model=yolov10n-dysample.yaml format=onnx imgsz=64", cwd=tmp_path)
    assert (tmp_path / "yolov10n-dysample.onnx").is_file()


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

def model(swapped):
    made = YOLO("yolov10n.yaml")
    for i in (11, 14) if swapped else ():
        old = made.model.model[i]
        new = DySample(256 if i == 11 else 128)
        new.i, new.f, new.type, new.np = old.i, old.f, old.type, 0
        made.model.model[i] = new
    return made

for made in (model(swapped=False), YOLO({weights!r})):
    made.predict({image!r}, imgsz=64)
print("stock and ours predict")
model(swapped=True).predict({image!r}, imgsz=64)
"""


def test_the_published_code_fails_where_ours_predicts(warm_shell, weights, digits, folder):
    # Non-regression: `yolo predict` runs the model in channels_last.
    image = str(next((digits.parent / "images/val").iterdir()))
    code = PUBLISHED.format(checkout=str(ROOT), weights=str(weights), image=image)
    (folder / "published.py").write_text(code)
    output = warm_shell("! python published.py", cwd=folder)
    assert "stock and ours predict" in output
    assert "view size is not compatible" in output


def test_python_needs_nothing_but_from_ultralytics_import_yolo(python, digits, folder):
    image = next((digits.parent / "images/val").iterdir())
    assert "boxes" in run(python, "-c", PYTHON.format(image=str(image)), cwd=folder)


def test_switched_off_the_model_name_is_unknown_and_stock_models_work(yolo, digits, folder):
    off = {"YOLOV10_DYSAMPLE_AUTOLOAD": "0"}
    predict = (yolo, "predict", f"source={next((digits.parent / 'images/val').iterdir())}", "imgsz=64")
    assert "does not exist" in run(*predict, "model=yolov10n-dysample.yaml", cwd=folder, env=off, ok=False)
    assert "dysample" not in run(*predict, "model=yolov10n.yaml", "name=stock", cwd=folder, env=off).lower()
    assert len(list(folder.glob("runs/**/stock/*.jpg"))) == 1


def test_switched_off_a_wheel_does_not_know_the_model_name(wheel_environment: Environment, digits, tmp_path):
    command = (wheel_environment.yolo, "detect", "train", f"data={digits}", *TRAIN, "model=yolov10n-dysample.yaml")
    assert "does not exist" in run(*command, cwd=tmp_path, env={"YOLOV10_DYSAMPLE_AUTOLOAD": "0"}, ok=False)


# `make` trains nothing here: the environment holds scripts that note what they were called with, which must be what the
# Makefile means.

NOTE = '#!/bin/sh\nprintf "%s\\n" "$@" >> "$NOTES"\n'


@pytest.fixture(params=["a folder", "Müll", 'it\'s "$HOME" & `more`; #1'], ids=["space", "umlaut", "shell"])
def checkout(request, tmp_path) -> Path:
    """A checkout with the name that a clone has, in a folder of an awkward name, its environment built."""
    folder = tmp_path / request.param / "yolov10_dysample"
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copyfile(ROOT / name, folder / name)
    for name in ("python", "yolo", "yolov10-dysample"):
        (programs / name).write_text(NOTE)
        (programs / name).chmod(0o755)
    (folder / ".venv" / "installed").touch()
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("target", ["demo", "compare"])
def test_make_saves_its_runs_in_the_checkout_whatever_its_folder_is_called(target, checkout, tmp_path):
    notes = tmp_path / "notes"
    run("make", target, cwd=checkout, env={"NOTES": str(notes)})
    projects = [Path(line.partition("=")[2]) for line in notes.read_text().splitlines() if line.startswith("project=")]
    assert projects
    assert {project.parts[: len(checkout.parts) + 1] for project in projects} == {(checkout / "runs").parts}


@pytest.mark.parametrize("checkout", ["a folder"], indirect=True)
def test_make_compare_starts_from_no_training_that_was_stopped(checkout, tmp_path):
    notes, half_trained = tmp_path / "notes", checkout / "runs" / "stock" / "weights" / "last.pt"
    half_trained.parent.mkdir(parents=True)
    half_trained.touch()
    trainings = []
    for _ in range(2):
        run("make", "compare", cwd=checkout, env={"NOTES": str(notes)})
        trainings.append(notes.read_text().splitlines().count("name=stock"))
    assert trainings == [1, 1]
    assert not half_trained.exists()
