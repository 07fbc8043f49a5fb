"""Writes files whole or not at all, so that nobody ever reads half of one. Knows the standard library only."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

__all__ = ["next_free", "write_all", "write_whole"]


def next_free(path: Path) -> Path:
    """The path itself, or with the first number behind its name under which there is nothing yet.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "model.json").touch()
        ...     [next_free(Path(folder) / name).name for name in ("model.json", "other.json")]
        ['model2.json', 'other.json']
    """
    names = itertools.chain([path.name], (f"{path.stem}{n}{path.suffix}" for n in itertools.count(2)))
    return next(free for name in names if not (free := path.with_name(name)).exists())


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
    # A link stays one, and what it leads to is replaced.
    targets = {file: file.resolve() for file in contents}
    parts = {
        target: target.with_name(f"{target.name}.{os.getpid()}-{threading.get_ident()}.part")
        for target in targets.values()
    }
    try:
        for file, content in contents.items():
            target = targets[file]
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, "there is a folder of that name", str(file))
            parts[target].write_bytes(content)
            if target.exists():
                with contextlib.suppress(OSError):  # some disks of networks have no modes
                    shutil.copymode(target, parts[target])
        for target, part in parts.items():
            part.replace(target)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
