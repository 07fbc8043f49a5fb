"""Says in one line what an error says in several, for messages that quote it. Knows the standard library only."""

from __future__ import annotations

__all__ = ["described", "one_line"]


def one_line(error: BaseException) -> str:
    """What an error says.

    Example:
        >>> one_line(ValueError("no model:\\n    x.yaml"))
        'no model: x.yaml'
    """
    return " ".join(str(error).split())


def described(error: BaseException) -> str:
    """What kind of error it is, and what it says.

    Example:
        >>> described(ValueError("no model:\\n    x.yaml"))
        'ValueError: no model: x.yaml'
        >>> described(KeyboardInterrupt())
        'KeyboardInterrupt'
    """
    return f"{type(error).__name__}: {one_line(error)}".removesuffix(": ")
