"""Measures what DySample costs: a model beside its twin in every runtime, and the operator beside its peers.

Every task runs in a fresh process, all candidates of a comparison in turn in one, and each round gives one ratio, so
that whatever slows the machine down slows all of them. It must never install anything, nor leave out in silence what
it could not measure.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolov10_dysample.study.candidates import predicting_candidates, training_candidates
from yolov10_dysample.study.settings import GROWING, PUBLISHED, STOCK, Settings, gpu_alone, why_missing
from yolov10_dysample.study.statistics import compared
from yolov10_dysample.study.timing import merged

__all__ = ["measure", "run_task"]

#: Told what is being done; the steps done and all steps may follow.
Report = Callable[..., None]


def measure(settings: Settings, report: Report) -> dict[str, Any]:
    """Everything that is not skipped, as the record has it."""
    record: dict[str, Any] = {}
    if "model" not in settings.skip:
        record["model"] = {
            "size": run_task("size", settings, report),
            "runtimes": _runtimes(settings, report),
            "memory": _memory("predicting memory", predicting_candidates(settings), settings, report),
        }
    if "growth" not in settings.skip:
        record["growth"] = {}
        for name in [name for name in GROWING if name in settings.formats]:
            reason = why_missing(name, settings.device)
            result = {"missing": reason} if reason else run_task("growth", settings, report, name)
            record["growth"].update(result if name in result else {name: result})
    if "train" not in settings.skip:
        record["train"] = {
            "step": run_task("training", settings, report),
            "memory": _memory("training memory", training_candidates(settings), settings, report),
        }
    if "operator" not in settings.skip:
        reason = why_missing("onnx", "cpu")
        record["operator"] = {
            **run_task("operators", settings, report),
            "onnxruntime": {"missing": reason} if reason else run_task("onnx operators", settings, report),
        }
    return record


def _runtimes(settings: Settings, report: Report) -> dict[str, Any]:
    runtimes: dict[str, Any] = {}
    for name in settings.formats:
        reason = why_missing(name, settings.device)
        if reason:
            report(f"{name}: {reason}")
            runtimes[name] = {"missing": reason}
            continue
        result = run_task("format", settings, report, name)
        if "failed" in result and settings.reference:
            # A runtime that crashes on the published code must not hide what it does with ours.
            crash, result = result, run_task("format", settings._replace(reference=None), report, name)
            for measured in () if "failed" in result else result.values():
                measured["candidates"][PUBLISHED] = crash
        if "failed" in result:
            report(f"{name}: {result['failed']}")
        runtimes.update({name: result} if "failed" in result else result)
    return runtimes


def _memory(task: str, candidates: tuple[str, ...], settings: Settings, report: Report) -> dict[str, Any]:
    """Peak memory of fresh processes, in turn."""
    peaks: dict[str, list[float]] = {name: [] for name in candidates}
    failed = {}
    for i in range(settings.memory_runs):
        for name in [name for name in candidates if name not in failed]:
            peak = run_task(task, settings, report, name)
            if isinstance(peak, dict):
                failed[name] = peak
            else:
                peaks[name].append(peak)
        report(f"{task}: fresh processes", i + 1, settings.memory_runs)
    figures = compared({name: peaks[name] for name in candidates if name not in failed}, "mib", STOCK)
    return merged({name: failed.get(name, {}) for name in candidates}, figures)


def run_task(task: str, settings: Settings, report: Report, *arguments: str) -> Any:
    """What a task in a fresh process gives, or ``{"failed": why}``.

    Args:
        task (str): A name of :data:`yolov10_dysample.study.tasks.TASKS`.
        settings (Settings): Handed on.
        report (Callable): Told how far the task is.
        *arguments (str): The task's own.
    """
    module = "yolov10_dysample.study.tasks"  # not imported here: it is for the other process
    device = {} if settings.device == "cpu" else gpu_alone(settings.device)
    own_settings = settings._replace(device="0") if device else settings
    command = [sys.executable, "-m", module, task, json.dumps(own_settings._asdict()), *arguments]
    threads = {name: str(settings.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    last: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        environment = {**os.environ, **device, **threads, "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": folder}
        # Ctrl-C reaches this process alone, which then ends the other one, before the folder is removed.
        own: dict[str, Any] = {"cwd": folder, "env": environment, "start_new_session": True}
        with subprocess.Popen(command, **own, stdout=subprocess.PIPE, text=True) as process:
            try:
                for line in process.stdout or ():
                    with contextlib.suppress(ValueError):  # half a message, of a process that crashed
                        last = json.loads(line)
                        if "told" in last:
                            report(*last["told"])
            except BaseException:
                # With what it has started itself, a converter say.
                os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
                raise
        if process.returncode == 0:
            return last["result"]
        log = Path(folder, "log.txt")
        lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return {"failed": f"the process ended with {process.returncode}: {lines[-1] if lines else 'it printed nothing'}"}
