"""One run in a process of its own: ``python -m yolov10_dysample.study.run RUN``, with a :class:`Run` as JSON.

A run is recorded as soon as it is trained, and scored after that: a score that fails costs no training.
"""

from __future__ import annotations

import json
import sys

import filelock

from yolov10_dysample.study.comparison import Run, is_scored
from yolov10_dysample.study.scoring import score
from yolov10_dysample.study.training import train

__all__ = ["carry_out"]


def carry_out(run: Run) -> None:
    """Do what is left to do of a run."""
    run.unfinished.parent.mkdir(parents=True, exist_ok=True)
    # If a comparison is killed, its trainings may go on: the next comparison waits for them here, and uses them.
    with filelock.FileLock(f"{run.unfinished}.lock"):
        if not run.is_trained:
            train(run)
        if not is_scored(run.record()):
            score(run)


if __name__ == "__main__":
    carry_out(Run(**json.loads(sys.argv[1])))
