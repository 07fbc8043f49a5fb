"""Tells how far a long measurement is: a bar with the time left on a terminal, plain lines elsewhere.

Everything goes to stderr, so that what a command prints can be piped. It must never be the only place of a result.
"""

from __future__ import annotations

import math
import time

from rich.console import Console
from rich.markup import escape
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
        # A step may take hours: the time left follows from all steps so far, not from those of the last 30 seconds.
        self._progress = Progress(*columns, TimeRemainingColumn(), console=self.console, speed_estimate_period=math.inf)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Reporter:
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: float = 1, total: float = 1) -> None:
        """Tell how far a stage is: a bar, and a line when it is done, since a screen has room for few bars."""
        if done < total:
            if self.console.is_terminal:
                self.running(what, done, total)
        else:
            self.over(what)
            self.console.print(f"{time.strftime('%H:%M:%S')} {what}", highlight=False, markup=False, soft_wrap=True)

    def running(self, what: str, done: float, total: float) -> None:
        """Tell how far something is that is only worth a line while it runs, and none where there is no terminal."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(escape(what), total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)

    def over(self, what: str) -> None:
        """Take away the line of something that no longer runs."""
        if what in self._tasks:
            self._progress.remove_task(self._tasks.pop(what))

    def time_left(self, what: str) -> str:
        """How long something that runs will still take, in words; nothing if that cannot be known yet.

        Example:
            >>> report = Reporter()
            >>> report.running("training", 0, 10)
            >>> report.time_left("training")
            ''
        """
        task = self._progress.tasks[self._progress.task_ids.index(self._tasks[what])]
        share = task.completed / task.total if task.total else 0
        if not 0 < share < 1 or not task.elapsed:
            return ""
        minutes = task.elapsed * (1 - share) / share / 60
        return f"about {minutes / 60:.1f} h left" if minutes > 90 else f"about {max(1, minutes):.0f} min left"
