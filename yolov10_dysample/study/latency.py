"""How long each arm's trained model takes for an image, in turn in one process. It must never touch the records."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from yolov10_dysample.study.records import environment_record
from yolov10_dysample.study.statistics import compared
from yolov10_dysample.study.timing import time_interleaved

__all__ = ["measure_latency"]

ROUNDS = 30


@torch.inference_mode()
def measure_latency(
    weights: dict[str, Path], imgsz: int, device: str, tell: Callable[[int, int], None]
) -> dict[str, Any]:
    """Milliseconds of every arm's model, one image at a time, by its weights; the ratios are to the first arm's."""
    from ultralytics import YOLO

    place = torch.device(device if device == "cpu" else f"cuda:{device}")
    image = torch.rand(1, 3, imgsz, imgsz).to(place, memory_format=torch.channels_last)
    calls = {}
    for name, file in weights.items():
        model: Any = YOLO(file).model
        model = model.eval().fuse(verbose=False).float().to(place, memory_format=torch.channels_last)
        calls[name] = functools.partial(model, image)
    times = time_interleaved(calls, ROUNDS, place, tell)
    arms = compared(times, "ms", next(iter(weights)))
    return {
        "arms": arms,
        "imgsz": imgsz,
        "rounds": ROUNDS,
        "threads": torch.get_num_threads(),
        **environment_record(),
    }
