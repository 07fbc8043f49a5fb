"""Measures the operator alone beside its peers, in torch and in ONNX Runtime. Runs in a process of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import torch
from torch import Tensor

from yolov10_dysample.study.exports import OPSET, open_onnx
from yolov10_dysample.study.model_cost import count_operations
from yolov10_dysample.study.names import ADAPTED, OURS, PUBLISHED
from yolov10_dysample.study.peers import make_upsamplers
from yolov10_dysample.study.settings import OFFSET_SPREAD, Settings
from yolov10_dysample.study.statistics import compared, ratio, rounded
from yolov10_dysample.study.timing import SEED, merged, prepare_candidates, time_interleaved

__all__ = ["MEMORY_FORMATS", "SHAPES", "YOLO_SHAPES", "Tell", "measure_onnx_operators", "measure_operators"]

#: Told what is being done, the steps done, and all steps.
Tell = Callable[[str, int, int], None]

PAPER_SHAPE = (1, 256, 120, 120)
#: Of the two DySample rows of yolov10n at 640 pixels.
YOLO_SHAPES = ((1, 256, 20, 20), (1, 128, 40, 40))
SHAPES = (*YOLO_SHAPES, (4, 256, 40, 40), PAPER_SHAPE)
SWEEP_CHANNELS = 128
MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
#: What every other upsampler's time is divided by.
BASE = "nearest"


def measure_operators(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Every upsampler at every shape, in both memory formats, and by size."""
    shapes = [time_upsamplers(shape, layout, settings, tell) for layout in MEMORY_FORMATS for shape in SHAPES]
    sweep = [
        time_upsamplers((1, SWEEP_CHANNELS, size, size), "channels_last", settings, tell) for size in settings.sizes
    ]
    if not settings.reference:
        return {"shapes": shapes, "sweep": sweep}
    ratios = {
        layout: [e["ours_over_published"]["median"] for e in shapes if e["memory_format"] == layout]
        for layout in MEMORY_FORMATS
    }
    means = {layout: rounded(geometric_mean(values)) for layout, values in ratios.items()}
    return {"shapes": shapes, "ours_over_published": means, "sweep": sweep}


def time_upsamplers(shape: tuple[int, ...], memory_format: str, settings: Settings, tell: Tell) -> dict[str, Any]:
    """Every upsampler at one shape."""
    torch.manual_seed(SEED)
    layout, device = MEMORY_FORMATS[memory_format], settings.torch_device
    batch = torch.randn(shape).to(device)
    modules = make_upsamplers(shape[1], batch, OFFSET_SPREAD, settings.reference)
    if memory_format == "contiguous":
        modules.pop(ADAPTED, None)  # the same as published
    counts = {name: count_operations(module, batch) for name, module in modules.items()}
    modules = {name: module.to(memory_format=layout) for name, module in modules.items()}
    batch = batch.contiguous(memory_format=layout)
    with torch.inference_mode():
        runs, facts = prepare_candidates(modules, lambda name: (lambda: modules[name](batch), counts[name]))
        stage = functools.partial(tell, f"operators, {memory_format}, {'x'.join(map(str, shape))}: timing")
        times = time_interleaved(runs, settings.rounds, device, stage)
        outputs = {name: runs[name]() for name in (OURS, PUBLISHED, ADAPTED) if name in runs}
    return {
        "shape": list(shape),
        "memory_format": memory_format,
        **_beside_published(times, outputs),
        "candidates": merged(facts, compared(times, "ms", BASE)),
    }


def measure_onnx_operators(settings: Settings, tell: Tell) -> list[dict[str, Any]]:
    """Single operators in ONNX Runtime on the CPU, at the shapes of yolov10n."""
    return [time_onnx_operators(shape, settings._replace(device="cpu"), tell) for shape in YOLO_SHAPES]


def time_onnx_operators(shape: tuple[int, ...], settings: Settings, tell: Tell) -> dict[str, Any]:
    """Nearest, ours and the published code at one shape."""
    torch.manual_seed(SEED)
    batch = torch.randn(shape)
    modules = make_upsamplers(shape[1], batch, OFFSET_SPREAD, settings.reference)

    def prepare(name: str) -> tuple[Callable[[], Any], dict[str, Any]]:
        file = Path(f"{name}.onnx")
        torch.onnx.export(modules[name], (batch,), str(file), opset_version=OPSET, dynamo=False)
        run, detail = open_onnx(file, batch, settings)
        return run, {"detail": detail}

    wanted = [name for name in (BASE, OURS, PUBLISHED) if name in modules]
    runs, facts = prepare_candidates(wanted, prepare)
    stage = functools.partial(tell, f"operators, onnxruntime, {'x'.join(map(str, shape))}: timing")
    times = time_interleaved(runs, settings.rounds, settings.torch_device, stage)
    outputs = {name: torch.from_numpy(runs[name]()[0]) for name in (OURS, PUBLISHED) if name in runs}
    return {
        "shape": list(shape),
        **_beside_published(times, outputs),
        "candidates": merged(facts, compared(times, "ms", BASE)),
    }


def _beside_published(times: dict[str, list[float]], outputs: dict[str, Tensor]) -> dict[str, Any]:
    """Ours over the published code, as it is or else made to run; nothing if neither runs."""
    peer = next((name for name in (PUBLISHED, ADAPTED) if name in outputs), None)
    if peer is None or OURS not in outputs:
        return {}
    return {
        "ours_over_published": ratio(times[OURS], times[peer]),
        "largest_difference": rounded(float((outputs[OURS] - outputs[peer]).abs().max())),
    }
