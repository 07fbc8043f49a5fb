"""Writes a file whole or not at all, so that nobody ever reads half of one. Knows the standard library only."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(file: Path, content: bytes) -> None:
    """Replace what is in ``file`` by ``content`` in one step; a failure leaves what was there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder) / "note.txt", b"whole")
        ...     [file.name for file in Path(folder).iterdir()]
        ['note.txt']
    """
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
