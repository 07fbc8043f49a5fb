"""Carries out the runs of a comparison as tasks of a Ray cluster, whose machines need not share a folder.

A task gets what is known of its run and returns what came of it, weights included. The driver alone writes records:
what Ray repeats because a machine was lost is recorded once. It must never be imported where no cluster was asked for.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import ray

from yolov10_dysample.files import write_whole
from yolov10_dysample.study.comparison import PAIRS, Run, is_scored, same_as_its_pair
from yolov10_dysample.study.json_files import read_lines
from yolov10_dysample.study.schedule import PATIENCE, carry_out

__all__ = ["Cluster", "RayWorkers", "connect"]

#: How often a run is begun again because its machine was lost. After that it has failed, and the others go on.
RETRIES = 5


class Cluster(NamedTuple):
    """What a Ray cluster has.

    Attributes:
        cores (list[int]): Those of each machine.
        gpus (int): Of all machines.
    """

    cores: list[int]
    gpus: int


def connect(address: str) -> Cluster:
    """Join a running cluster.

    Raises:
        ValueError: If there is none.
    """
    host, _, port = address.rpartition(":")
    try:
        if port.isdecimal() and "/" not in host:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"ray must be the address of a running cluster, or auto on one of its machines, got {address!r}: "
            f"{' '.join(str(error).split())[:120]}; start one with: ray start --head"
        ) from None
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    if not cores:
        ray.shutdown()
        raise ValueError(f"ray must be a cluster with CPUs for tasks, got {address!r}, which has none")
    return Cluster(cores, int(sum(machine.get("GPU", 0) for machine in machines)))


class _Parcel(NamedTuple):
    """What goes to another machine, and comes back.

    Attributes:
        lines (list[dict]): Of the run's record.
        pairs (list[dict]): What runs of its seed start from and see.
        weights (bytes | None): The trained weights.
        why (str): Why it failed, if it did.
    """

    lines: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    weights: bytes | None
    why: str = ""


class RayWorkers:
    """Tasks of the cluster that :func:`connect` has joined.

    Args:
        parallel (int): Runs at a time; Ray itself lets wait what finds no free machine.
        do (Callable[[Run], None]): What a task does to its run; by default, all that is left to do.
    """

    def __init__(self, parallel: int, do: Callable[[Run], None] = carry_out) -> None:
        self._parallel, self._do = parallel, do
        self._waiting: list[Run] = []  # another comparison of this machine is at them
        self._tasks: dict[Any, Run] = {}
        self._ended: list[tuple[Run, str]] = []
        self._locks: dict[str, Any] = {}  # as long as the run is a task, by its title

    def is_free(self) -> bool:
        return len(self._waiting) + len(self._tasks) < self._parallel

    def start(self, run: Run) -> None:
        self._waiting.append(run)
        self._hand_over()

    def _hand_over(self) -> None:
        """Make a task of each run that no other comparison is at; what such a one has finished has ended."""
        for run in list(self._waiting):
            lock = run.lock()
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                continue
            self._waiting.remove(run)
            self._locks[run.title] = lock
            try:
                run.check_folder()
                if is_scored(run.record()):
                    self._end(run)
                else:
                    self._submit(run)
            except (OSError, RuntimeError, ValueError) as error:
                self._end(run, str(error))

    def _end(self, run: Run, why: str = "") -> None:
        self._locks.pop(run.title).release()
        self._ended.append((run, why))

    def _submit(self, run: Run) -> None:
        on_gpu = run.device != "cpu"
        # A process for each run, as on one machine: a training leaves seeds and settings of torch behind.
        needs: dict[str, Any] = {"num_cpus": run.threads, "num_gpus": int(on_gpu)}
        task: Any = ray.remote(max_retries=RETRIES, max_calls=1, **needs)(_carry_out_apart)
        start = Path(run.model).read_bytes() if Path(run.model).is_file() else None
        data = str(Path(run.data).resolve()) if Path(run.data).is_file() else run.data
        self._tasks[task.remote(run._replace(data=data)._asdict(), start, _packed(run), self._do)] = run

    def running(self) -> list[tuple[Run, int]]:
        return []  # which of the tasks have begun, and how far they are, stays on their machines

    def ended(self) -> list[tuple[Run, str]]:
        self._hand_over()
        for task in self._done_within(0.5):
            run = self._tasks.pop(task)
            try:
                parcel = ray.get(task)
                _unpack(run, parcel)
                why = parcel.why
            except (ray.exceptions.RayError, RuntimeError, OSError, ValueError) as error:  # a full disk, say
                why = str(error)
            self._end(run, why)
        found, self._ended = self._ended, []
        return found

    def _done_within(self, seconds: float) -> list[Any]:
        """The tasks that are done, after as long at most, or all of it if there is none."""
        if not self._tasks:
            time.sleep(0 if self._ended else seconds)
            return []
        return ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=seconds)[0]

    def stop(self) -> None:
        try:
            for task in self._tasks:
                ray.cancel(task)  # so that each removes its folder
            self._done_within(PATIENCE if self._tasks else 0)
            for task in self._tasks:
                ray.cancel(task, force=True)
        finally:
            for lock in self._locks.values():
                lock.release()
            ray.shutdown()


def _carry_out_apart(about: dict[str, Any], start: bytes | None, known: _Parcel, do: Callable[[Run], None]) -> _Parcel:
    """The task: carries a run out in a folder of its own, which goes with it."""
    with tempfile.TemporaryDirectory(prefix="compare-", ignore_cleanup_errors=True) as folder:
        run = Run(**about)._replace(out=folder)
        if run.device != "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = str(ray.get_gpu_ids()[0])  # which Ray may have been told not to set
            run = run._replace(device="")
        if start is not None:
            file = Path(folder, "start", Path(run.model).name)
            file.parent.mkdir()
            file.write_bytes(start)
            run = run._replace(model=str(file))
        _unpack(run, known)
        why = ""
        try:
            do(run)
        except Exception:
            why = "\n".join(traceback.format_exc().splitlines()[-8:])
        found = _packed(run)
        return found._replace(lines=found.lines[len(known.lines) :], why=why)


def _packed(run: Run) -> _Parcel:
    """What the run's folder knows of it."""
    lines = [line for line in read_lines(run.records) if (line.get("arm"), line.get("seed")) == (run.arm, run.seed)]
    pairs = [line for line in read_lines(Path(run.out) / PAIRS) if line["seed"] == run.seed]
    return _Parcel(lines, pairs, run.weights.read_bytes() if run.weights.is_file() else None)


def _unpack(run: Run, parcel: _Parcel) -> None:
    """Add what another machine knows of a run to its folder, unless it is known there.

    Raises:
        RuntimeError: If the run is not alike to the others of its seed, or the folder has become another comparison's;
            it is not recorded then.
    """
    if is_scored(run.record()):
        return
    run.check_folder()
    for line in parcel.pairs:
        same_as_its_pair(run._replace(arm=line["arm"]), line["what"], line["digest"])
    if parcel.weights is not None and parcel.lines:
        run.weights.parent.mkdir(parents=True, exist_ok=True)
        write_whole(run.weights, parcel.weights)
    for line in parcel.lines:
        run.note(**{name: value for name, value in line.items() if name not in ("arm", "seed")})
