"""JSON on disk that a killed process cannot spoil: files written whole, and files with one record a line.

Lines are appended by one process at a time and never changed. It must never lose a line that was written to its end.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock

from yolov10_dysample.files import write_whole

__all__ = ["append_line", "append_once", "read_lines", "write_json"]


def write_json(file: Path, content: Any) -> None:
    """Write a whole JSON file, and its folder. JSON has no NaN: null stands for it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, (json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n").encode())


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Every record of a file, but for the half of one that a killed process may have left at its end.

    Raises:
        ValueError: If another line is not JSON.
    """
    *lines, rest = (file.read_bytes() if file.is_file() else b"").split(b"\n")
    if _is_json(rest):
        lines.append(rest)
    return [_parsed(file, number, line) for number, line in enumerate(lines, start=1)]


def append_line(file: Path, line: dict[str, Any]) -> None:
    """Append a record; other processes may append to the same file at the same time.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "records.jsonl"
        ...     append_line(file, {"seed": 0})
        ...     _ = file.write_text(file.read_text() + '{"seed": ')  # a process was killed here
        ...     append_line(file, {"seed": 1, "loss": float("nan")})
        ...     read_lines(file)
        [{'seed': 0}, {'seed': 1, 'loss': None}]
    """
    with _alone(file):
        _append(file, line)


def append_once(file: Path, line: dict[str, Any], key: Sequence[str]) -> dict[str, Any]:
    """Append a record unless there is one with the same values of ``key``; returns the one that stands.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "pairs.jsonl"
        ...     _ = append_once(file, {"seed": 0, "arm": "nearest"}, key=["seed"])
        ...     append_once(file, {"seed": 0, "arm": "bilinear"}, key=["seed"])
        {'seed': 0, 'arm': 'nearest'}
    """
    with _alone(file):
        for other in read_lines(file):
            if all(other[name] == line[name] for name in key):
                return other
        _append(file, line)
        return line


def _alone(file: Path) -> filelock.BaseFileLock:
    file.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(file.with_name(f".{file.name}.lock"))


def _append(file: Path, line: dict[str, Any]) -> None:
    with file.open("a+b") as stream:
        stream.seek(0)
        rest = stream.read().rpartition(b"\n")[2]
        if _is_json(rest):
            stream.write(b"\n")
        elif rest:
            stream.truncate(stream.tell() - len(rest))
        stream.write(json.dumps(_without_nan(line), allow_nan=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parsed(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:
        cure = "restore it" + (", or delete that line: the same command then makes its run again" if number > 1 else "")
        raise ValueError(
            f"{file} must have one JSON record a line, got {line[:40]!r} in line {number}; {cure}"
        ) from None


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
