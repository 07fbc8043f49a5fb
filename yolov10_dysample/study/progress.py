"""Tells how far a long measurement is: a bar with the time left on a terminal, plain lines elsewhere.

Everything goes to stderr, so that what a command prints can be piped. It must never be the only place of a result.
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

__all__ = ["Reporter"]


class Reporter:
    """Stages of work, each told with how much of it is done.

    Example:
        >>> with Reporter() as report:
        ...     report("timing", 1, 2)
        ...     report("timing", 2, 2)
        ...     report("written")
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:g}/{task.total:g}"))
        self._progress = Progress(*columns, TimeRemainingColumn(), console=self.console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Reporter:
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: float = 1, total: float = 1) -> None:
        """Tell how far a stage is; a stage of one step is a line of its own."""
        if self.console.is_terminal and total > 1:
            if what not in self._tasks:
                self._tasks[what] = self._progress.add_task(what, total=total)
            self._progress.update(self._tasks[what], completed=done, total=total)
        elif done >= total:
            self.console.print(f"{time.strftime('%H:%M:%S')} {what}", highlight=False, markup=False, soft_wrap=True)
