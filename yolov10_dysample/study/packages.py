"""Whether the packages that a study needs can be imported, said before hours of work rather than after them.

It knows the standard library only, so that it can say so where all of them are missing.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

__all__ = ["require_packages"]


def require_packages(modules: Sequence[str], extra: str) -> None:
    """Import modules of packages that come with an extra of this package.

    Raises:
        ValueError: If one cannot be imported, with the command that installs it.

    Example:
        >>> require_packages(["no_such_module"], "compare")
        Traceback (most recent call last):
        ...
        ValueError: no_such_module cannot be imported; run: pip install "yolov10-dysample[compare]"
    """
    missing = [name for name in modules if not _can_be_imported(name)]
    if missing:
        raise ValueError(f'{" and ".join(missing)} cannot be imported; run: pip install "yolov10-dysample[{extra}]"')


def _can_be_imported(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception:  # a broken package may raise anything
        return False
    return True
