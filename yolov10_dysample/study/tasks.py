"""The tasks of a benchmark, each run in a process of its own: ``python -m yolov10_dysample.study.tasks``.

The process tells its parent on stdout, one JSON message a line, how far it is and what came of it. Whatever else it or
a library prints goes to ``log.txt`` in its current folder: nothing may reach the parent that is not a message.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from yolov10_dysample.exporting import SAMPLING_SWITCH
from yolov10_dysample.study.candidates import (
    exported_candidates,
    load,
    make_images,
    make_training_step,
    predicting,
    predicting_candidates,
    training_candidates,
)
from yolov10_dysample.study.exports import OPENERS, Opened, export, open_onnx, size_of
from yolov10_dysample.study.model_cost import count_operations, peak_memory
from yolov10_dysample.study.operators import Tell, measure_onnx_operators, measure_operators
from yolov10_dysample.study.settings import COMPILE, OTHER_SAMPLING, OURS, STOCK, TORCH, Settings, predicting_format
from yolov10_dysample.study.statistics import compared
from yolov10_dysample.study.timing import WARMUP, merged, prepare_candidates, time_interleaved

__all__ = ["TASKS", "cells_of_growth", "main"]

#: Up to how many pixels a call has all rounds in the measurement of growth, and how many rounds a larger one has.
FULL_ROUNDS_PIXELS, LEAST_ROUNDS = 640**2, 5


def measure_format(settings: Settings, tell: Tell, name: str, other_sampling: bool = True) -> dict[str, Any]:
    """The whole model in a runtime, by each name that the record has for it; sampling in the other form, too."""
    if name in (TORCH, COMPILE):
        return {name: time_torch(settings, tell, name)}
    files: dict[str, Path | Exception] = {}
    samplings = dict.fromkeys(exported_candidates(settings), "auto")
    if name in OTHER_SAMPLING and other_sampling:
        samplings[f"{OURS}, {OTHER_SAMPLING[name]}"] = OTHER_SAMPLING[name]
    candidates = list(samplings)
    for i, (candidate, sampling) in enumerate(samplings.items()):
        tell(f"{name}: exporting", i, len(candidates))
        os.environ[SAMPLING_SWITCH] = sampling
        try:
            yolo = load(candidate.partition(",")[0], settings)
            files[candidate] = export(yolo, name, Path.cwd() / candidate, settings)
        except Exception as error:  # the other candidates are still measured, and the record names this one
            files[candidate] = error
    del os.environ[SAMPLING_SWITCH]
    tell(f"{name}: exporting", len(candidates), len(candidates))
    return {
        label: time_exports(files, opener, settings, functools.partial(tell, f"{label}: timing"))
        for label, opener in OPENERS[name].items()
    }


@torch.inference_mode()
def time_torch(settings: Settings, tell: Tell, name: str = TORCH) -> dict[str, Any]:
    """Without an export, as `yolo predict` runs a model, with ``compile=True`` or without."""
    layout = predicting_format(settings.torch_device)
    batch = make_images(settings).to(settings.torch_device, memory_format=layout)

    def prepare(candidate: str) -> tuple[Callable[[], Any], dict[str, Any]]:
        model = predicting(candidate, settings)
        if name == COMPILE:
            model(batch)  # makes the head's anchors for this size, which no graph can hold
            tell(f"{name}: compiling {candidate}", 1, 1)
            model = torch.compile(model, mode="default", backend="inductor")  # what Ultralytics asks for
        return lambda: model(batch), {}

    candidates = (*exported_candidates(settings), *predicting_candidates(settings))
    if name == COMPILE:  # which takes a minute each
        candidates = (STOCK, OURS)
    runs, facts = prepare_candidates(dict.fromkeys(candidates), prepare)
    stage = functools.partial(tell, f"{name}: timing")
    figures = compared(time_interleaved(runs, settings.rounds, settings.torch_device, stage), "ms", STOCK)
    named = "channels_last" if layout == torch.channels_last else "contiguous"
    detail = f"torch, {named}, {torch.get_num_threads()} threads"
    return {"detail": detail, "candidates": merged(facts, figures)}


@torch.inference_mode()
def time_exports(
    files: dict[str, Path | Exception],
    opener: Callable[..., Opened],
    settings: Settings,
    tell: Callable[[int, int], None],
) -> dict[str, Any]:
    """The exports of all candidates, or why there is none."""
    batch = make_images(settings)

    def prepare(name: str) -> tuple[Callable[[], Any], dict[str, Any]]:
        file = files[name]
        if isinstance(file, Exception):
            raise file
        run, detail = opener(file, batch, settings)
        return run, {"bytes": size_of(file), "detail": detail}

    runs, facts = prepare_candidates(files, prepare)
    times = time_interleaved(runs, settings.rounds, settings.torch_device, tell)
    details = {fact.pop("detail") for fact in facts.values() if "detail" in fact}
    return {"detail": "; ".join(sorted(details)), "candidates": merged(facts, compared(times, "ms", STOCK))}


def measure_growth(settings: Settings, tell: Tell, name: str) -> dict[str, list[dict[str, Any]]]:
    """The whole model in a runtime at several sizes and numbers of images; in ONNX Runtime also one file for all sizes.

    The published code is left out.
    """
    given = settings._replace(reference=None)
    found = {name: [_measure_cell(cell, tell, name) for cell in cells_of_growth(given)]}
    if name == "onnx":
        found[f"{name}, dynamic"] = _measure_dynamic(given._replace(grow_batch=given.grow_batch[:1]), tell)
    return found


def cells_of_growth(settings: Settings) -> list[Settings]:
    """A call of many pixels takes seconds: it gets fewer rounds."""
    cells = []
    for batch in settings.grow_batch:
        for imgsz in settings.grow:
            fewer = max(LEAST_ROUNDS, settings.rounds * FULL_ROUNDS_PIXELS // (batch * imgsz**2))
            cells.append(settings._replace(imgsz=imgsz, batch=batch, rounds=min(settings.rounds, fewer)))
    return cells


def _measure_cell(cell: Settings, tell: Tell, name: str) -> dict[str, Any]:
    stage = f"{cell.imgsz} px, batch {cell.batch}, "
    measured = measure_format(cell, lambda what, done, total: tell(stage + what, done, total), name, False)
    return _cell_record(cell, measured[name])


def _measure_dynamic(settings: Settings, tell: Tell) -> list[dict[str, Any]]:
    files: dict[str, Path | Exception] = {}
    for candidate in (STOCK, OURS):
        tell(f"onnx, dynamic: exporting {candidate}", 1, 1)
        try:
            folder = Path.cwd() / f"{candidate}-dynamic"
            files[candidate] = export(load(candidate, settings), "onnx", folder, settings, dynamic=True)
        except Exception as error:
            files[candidate] = error
    records = []
    for cell in cells_of_growth(settings):
        stage = functools.partial(tell, f"{cell.imgsz} px, onnx, dynamic: timing")
        records.append(_cell_record(cell, time_exports(files, open_onnx, cell, stage)))
    return records


def _cell_record(cell: Settings, measured: dict[str, Any]) -> dict[str, Any]:
    return {"imgsz": cell.imgsz, "batch": cell.batch, "rounds": cell.rounds, **measured}


def measure_size(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Parameters and multiply-adds an image of the model as it predicts."""
    batch = make_images(settings)[:1].to(settings.torch_device)
    record = {
        name: count_operations(predicting(name, settings).to(memory_format=torch.contiguous_format), batch)
        for name in exported_candidates(settings)
    }
    tell("parameters and multiply-adds: counted", 1, 1)
    return record


def measure_predicting_memory(settings: Settings, tell: Tell, name: str) -> float:
    model, batch = predicting(name, settings), make_images(settings)
    batch = batch.to(settings.torch_device, memory_format=predicting_format(settings.torch_device))
    with torch.inference_mode():
        for _ in range(WARMUP):
            model(batch)
    return peak_memory(settings.torch_device)


def measure_training_memory(settings: Settings, tell: Tell, name: str) -> float:
    step = make_training_step(name, settings)
    for _ in range(WARMUP):
        step()
    return peak_memory(settings.torch_device)


def measure_training(settings: Settings, tell: Tell) -> dict[str, Any]:
    """A training step of all candidates."""
    candidates = training_candidates(settings)
    runs, facts = prepare_candidates(candidates, lambda name: (make_training_step(name, settings), {}))
    stage = functools.partial(tell, "training step: timing")
    times = time_interleaved(runs, max(2, settings.rounds // 2), settings.torch_device, stage)
    return merged(facts, compared(times, "ms", STOCK))


#: What the parent may ask for, some of it with an argument: a format or a candidate.
TASKS: dict[str, Callable[..., Any]] = {
    "format": measure_format,
    "growth": measure_growth,
    "size": measure_size,
    "predicting memory": measure_predicting_memory,
    "training memory": measure_training_memory,
    "training": measure_training,
    "operators": measure_operators,
    "onnx operators": measure_onnx_operators,
}


def main(task: str, settings: str, *arguments: str) -> None:
    """Do one task in this process, and tell its result."""
    messages = os.fdopen(os.dup(1), "w")  # a copy that programs started from here do not inherit
    with Path("log.txt").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    import ultralytics  # noqa: F401  it sets torch's threads when it is imported

    given = Settings(**json.loads(settings))
    torch.set_num_threads(given.threads)

    def tell(what: str, done: int, total: int) -> None:
        print(json.dumps({"told": [what, done, total]}), file=messages, flush=True)

    print(json.dumps({"result": TASKS[task](given, tell, *arguments)}), file=messages, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
