"""Carries out the runs of a comparison, some at a time, and tells how far they are.

Where runs are carried out is behind :class:`Workers`: here on this machine, each in a process of its own, which gets
a :class:`Run` as JSON. It must never repeat a run that was finished, nor stop the others because one failed.
"""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from yolov10_dysample.study.comparison import EPOCH_MARK, MAP, Run, is_scored
from yolov10_dysample.study.progress import Reporter
from yolov10_dysample.study.settings import gpu_alone

__all__ = ["LocalWorkers", "Workers", "carry_out", "carry_out_all"]

ALL_RUNS = "epochs of all runs"
#: Seconds that a process that was told to stop has to do so.
PATIENCE = 10
#: The process of a run. As for `yolo`, a folder that happens to be the current one is no place to import from.
PROCESS = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
import json
from yolov10_dysample.study.schedule import Run, carry_out
carry_out(Run(**json.loads(sys.argv[1])))
"""


def carry_out(run: Run) -> None:
    """Do what is left to do of a run. It is recorded before it is scored: a score that fails costs no training."""
    # If a comparison is killed, its trainings may go on: the next comparison waits for them here, and uses them. What
    # takes seconds comes after the lock, by which a comparison with other settings sees that the folder is taken.
    with run.lock():
        run.check_folder()
        # Only who carries out a run needs torch, not who hands it to another process or machine.
        import torch

        from yolov10_dysample.study.scoring import score
        from yolov10_dysample.study.training import train

        if run.device != "cpu" and not torch.cuda.is_available():  # Ultralytics would take the CPU without a word
            raise RuntimeError(f"{run.title}: it was to have a GPU, and torch finds none here; yolo checks says why")
        if not run.is_trained:
            train(run)
        if not is_scored(run.record()):
            score(run)


class Workers(Protocol):
    """Where runs are carried out, some at a time."""

    def is_free(self) -> bool:
        """Whether one more run can be started."""

    def start(self, run: Run) -> None:
        """Start a run; it records itself."""

    def running(self) -> list[tuple[Run, int]]:
        """The runs under way, with the epochs that each has done."""

    def ended(self) -> list[tuple[Run, str]]:
        """The runs that ended since the last call, after a moment; with why, if it failed, else with nothing."""

    def stop(self) -> None:
        """Stop what still runs."""


class _Busy(NamedTuple):
    run: Run
    process: subprocess.Popen


class LocalWorkers:
    """Processes of this machine, which take turns on its devices.

    Args:
        devices (Sequence[str]): ``cpu``, or indices of GPUs.
        parallel (int): Runs at a time.
    """

    def __init__(self, devices: Sequence[str], parallel: int) -> None:
        self._devices = devices
        self._places: dict[int, _Busy | None] = dict.fromkeys(range(parallel))
        self._epochs: dict[str, int] = {}  # of each run, as far as they were seen

    def is_free(self) -> bool:
        return None in self._places.values()

    def start(self, run: Run) -> None:
        place = next(place for place, busy in self._places.items() if busy is None)
        device = self._devices[place % len(self._devices)]
        environment = dict(os.environ)
        if device != "cpu":
            environment |= gpu_alone(device)
            device = ""
        run = run._replace(device=device)
        run.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", PROCESS, json.dumps(run._asdict())]
        with run.log.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        self._places[place] = _Busy(run, process)

    def running(self) -> list[tuple[Run, int]]:
        runs = [busy.run for busy in self._places.values() if busy]
        for run in runs:  # the bars of older releases of Ultralytics push the last epoch out of the log's end
            self._epochs[run.title] = max(self._epochs.get(run.title, 0), _epochs_done(run))
        return [(run, self._epochs[run.title]) for run in runs]

    def ended(self) -> list[tuple[Run, str]]:
        time.sleep(0.5)
        found = []
        for place, busy in self._places.items():
            if busy and busy.process.poll() is not None:
                failed = f"the end of {busy.run.log}:\n{_end_of_log(busy.run)}" if busy.process.returncode else ""
                found.append((busy.run, failed))
                self._places[place] = None
        return found

    def stop(self) -> None:
        left = [busy.process for busy in self._places.values() if busy]
        for process in left:
            process.terminate()
        for process in left:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def carry_out_all(runs: Sequence[Run], workers: Workers, report: Reporter) -> list[Run]:
    """Carry out what is not finished of some runs; returns those that failed."""
    missing = [run for run in runs if not is_scored(run.record())]
    waiting, total, failed, ended = collections.deque(missing), len(missing), [], 0
    report(f"{len(runs)} runs, {len(runs) - total} of them finished before")
    try:
        while ended < total:
            while waiting and workers.is_free():
                workers.start(waiting.popleft())
            _tell(workers, ended, missing, report)
            for run, why in workers.ended():
                ended += 1
                report.over(run.title)
                _tell(workers, ended, missing, report)
                if why:
                    failed.append(run)
                    report(f"{run.title}: failed, {'not trained' if not run.is_trained else 'not scored'}; {why}")
                    continue
                result = f"{MAP} {run.record()['epochs'][-1][MAP]:.3f}"
                left = report.time_left(ALL_RUNS)
                report(f"{run.title}: {result}; {ended} of {total}{f', {left}' if left else ''}")
    finally:
        workers.stop()
        report.over(ALL_RUNS)
    return failed


def _tell(workers: Workers, ended: int, runs: Sequence[Run], report: Reporter) -> None:
    epochs = runs[0].settings["epochs"]  # of all alike
    running = workers.running()
    for run, done in running:
        report.running(run.title, done, epochs)
    report.running(ALL_RUNS, ended * epochs + sum(done for _, done in running), len(runs) * epochs)


def _epochs_done(run: Run) -> int:
    marks = [line for line in _log_lines(run) if line.startswith(EPOCH_MARK)]
    return int(marks[-1].split()[1]) if marks else 0


def _end_of_log(run: Run, lines: int = 8) -> str:
    return "\n".join(f"  {line}" for line in _log_lines(run)[-lines:])


def _log_lines(run: Run) -> list[str]:
    """The lines at the end of a log; the bars of Ultralytics make it long."""
    with run.log.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - 20_000))
        return stream.read().decode(errors="replace").splitlines()
