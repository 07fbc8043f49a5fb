"""Writes files whole or not at all, so that nobody ever reads half of one. Knows the standard library only."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_all", "write_whole"]


def write_whole(file: Path, content: bytes) -> None:
    """Replace what is in ``file`` by ``content`` in one step; a failure leaves what was there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder) / "note.txt", b"whole")
        ...     [file.name for file in Path(folder).iterdir()]
        ['note.txt']
    """
    write_all({file: content})


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Do :func:`write_whole` to several files; none is replaced before all are written beside their places.

    Raises:
        IsADirectoryError: If there is a folder where a file is to be.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_all({Path(folder) / name: b"whole" for name in ("a.txt", "b.txt")})
        ...     sorted(file.name for file in Path(folder).iterdir())
        ['a.txt', 'b.txt']
    """
    parts = {file: file.with_name(f"{file.name}.{os.getpid()}.part") for file in contents}
    try:
        for file, content in contents.items():
            if file.is_dir():
                raise IsADirectoryError(errno.EISDIR, "there is a folder of that name", str(file))
            parts[file].write_bytes(content)
        for file, part in parts.items():
            part.replace(file)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
