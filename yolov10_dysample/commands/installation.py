"""What pip wrote down when it installed this package, and which of its files are no longer so.

``doctor`` asks it, so it must know the standard library only, and must not stop at an installation that is half there.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from yolov10_dysample.commands.keys import PROGRAM

__all__ = ["Damage", "Installation", "installations", "version"]

ENTRY_POINT = "_yolov10_dysample_autoload:autoload"
#: What an install copies out of a checkout, editable or not, and what it copies.
START_UP, START_UP_SOURCE = "_yolov10_dysample_autoload.py", Path(__file__).resolve().parent.parent / "autoload.py"


class Damage(NamedTuple):
    """A file that is not as it was installed.

    Attributes:
        file (str): Its path as in pip's RECORD, from the folder of the packages.
        fault (str): What is wrong with it, such as "is missing".
        harmful (bool): Whether something cannot work; else the file was only changed.
    """

    file: str
    fault: str
    harmful: bool = True


class Installation(NamedTuple):
    """One installation of this package, editable or not.

    Attributes:
        name (str): Name, version and place.
        has_entry_point (bool): Whether torch finds the entry point of the autoload in it.
        damage (list[Damage]): Files that are not as they were installed. Of an editable install, pip wrote only a few.
    """

    name: str
    has_entry_point: bool
    damage: list[Damage]


def installations() -> list[Installation]:
    """Every installation of this package on Python's path: one, unless something went wrong."""
    found = {}
    for distribution in metadata.distributions(name=PROGRAM):
        place = Path(str(distribution.locate_file(""))).resolve()
        name = f"{PROGRAM} {_version(distribution)} in {place}"
        has_entry_point = False
        with contextlib.suppress(Exception):  # metadata of a half-removed package may be anything
            points = distribution.entry_points.select(group="torch.backends")
            has_entry_point = any(point.value == ENTRY_POINT for point in points)
        found[name] = Installation(name, has_entry_point, list(_damage(distribution)))
    return list(found.values())


def version(distribution: str) -> str | None:
    """The version of an installed distribution, or None.

    Example:
        >>> version("pip-of-mars") is None
        True
    """
    with contextlib.suppress(Exception):  # a half-removed package has broken metadata
        return metadata.version(distribution)
    return None


def _version(distribution: metadata.Distribution) -> str:
    with contextlib.suppress(Exception):
        return distribution.version or "of unknown version"
    return "of unknown version"


def _damage(distribution: metadata.Distribution) -> Iterator[Damage]:
    # Not `distribution.files`: from Python 3.12 on it leaves out the files that are missing.
    try:
        record = distribution.read_text("RECORD")
        rows = list(csv.reader((record or "").splitlines()))
    except (ValueError, csv.Error, OSError):
        yield Damage("RECORD", "cannot be read")
        return
    if not record:
        yield Damage("RECORD", "is missing" if record is None else "is empty")
        return
    whole = [row for row in rows if len(row) == len(("file", "digest", "size"))]
    if whole != rows:
        yield Damage("RECORD", "is cut off")
    for file, digest, size in whole:
        if not digest:  # byte code, which Python writes again, and RECORD itself
            continue
        path = Path(str(distribution.locate_file(file)))
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            yield Damage(file, "is missing")
            continue
        except (OSError, ValueError) as error:
            yield Damage(file, f"cannot be read ({getattr(error, 'strerror', None) or error})")
            continue
        if not content and size != "0":
            yield Damage(file, "is empty")
        elif _is_code(file) and not _matches(content, digest):
            yield Damage(file, "was changed after it was installed", harmful=False)
        elif file == START_UP and START_UP_SOURCE.is_file() and content != START_UP_SOURCE.read_bytes():
            yield Damage(file, "is not the checkout's, which has changed since", harmful=False)


def _is_code(file: str) -> bool:
    """Whether a file is one that only its reader changes: tools that move environments rewrite scripts and paths."""
    return not file.startswith("..") and file.endswith((".py", ".yaml"))


def _matches(content: bytes, digest: str) -> bool:
    algorithm, _, expected = digest.partition("=")
    if algorithm not in hashlib.algorithms_available:
        return False
    found = base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest())
    return found.decode().rstrip("=") == expected
