"""What the export of a model with DySample layers needs: a form that its runtime computes right, and an ONNX opset.

Called by Ultralytics' own exporter (``registration`` puts :func:`on_export_start` there). It must leave the exported
files of every other model as they are, and must not import Ultralytics.
"""

from __future__ import annotations

import difflib
import logging
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Protocol

from torch import nn

from yolov10_dysample.dysample import DySample

__all__ = [
    "OPSETS",
    "SAMPLINGS",
    "SAMPLING_SWITCH",
    "TRACED_FORMS_BY_FORMAT",
    "on_export_start",
    "traced_form",
]

#: ONNX opsets that export DySample and that every runtime reads right.
OPSETS = (16, 19)
#: How layers sample in each export format; ``grid_sample`` in the others.
TRACED_FORMS_BY_FORMAT = {
    "openvino": "gather",  # keeps its places in bfloat16, which OpenVINO computes in by default where the CPU can
    "engine": "gather",  # TensorRT 10.14 to 11.1 compute GridSample wrongly (NVIDIA/TensorRT#4813)
    "litert": "gather",  # writes GridSample out in many ops, and with int8=True computes its places in 8 bits
    "executorch": "gather",  # has a portable kernel for GridSample only, none made for speed
    "hailo": "gather",  # Ultralytics writes opset 11 there, which has no GridSample
    "rknn": "gather",  # has no GridSample, nor have the converters of the next two
    "coreai": "gather",
    "paddle": "x2paddle_gather",
}
#: Formats whose converters take gathers without a word, and make another model of them (onnx2tf) or one that does not
#: run (pnnx).
_GRID_SAMPLE_ONLY = ("saved_model", "pb", "tflite", "edgetpu", "tfjs", "ncnn")
#: Other names of a format: older releases of Ultralytics leave what the user wrote in the exporter's arguments.
_ALIASES = {"tensorrt": "engine", "trt": "engine"}
#: The switch for who knows better.
SAMPLING_SWITCH = "YOLOV10_DYSAMPLE_SAMPLING"
SAMPLINGS = ("auto", "gather", "grid_sample")

_logger = logging.getLogger("ultralytics")  # what the user sees of Ultralytics goes through it


class Exporter(Protocol):
    """What is used of Ultralytics' exporter."""

    model: nn.Module
    args: SimpleNamespace


def on_export_start(exporter: Exporter) -> None:
    """Prepare the model of an export, now or as soon as the exporter has it."""
    if _format(exporter) == "mnn":
        _leave_out_mnn_log()
    if hasattr(exporter, "model"):
        _prepare_export(exporter, OPSETS[0] + 1)  # Ultralytics' own choice has been 20 in some releases
    else:
        # These releases let torch choose its ONNX exporter. A newer torch chooses one that writes opset 18, and makes
        # mistakes when it converts that to 17.
        _wait_for_model(exporter, lambda: _prepare_export(exporter, OPSETS[0] + 2))


def _wait_for_model(exporter: Exporter, prepare: Callable[[], None]) -> None:
    """Call ``prepare`` when the exporter gets its model.

    Ultralytics 8.3.0 to 8.3.125 announce the start of an export before the exporter has a copy of the model, and
    announce nothing between that and the export. The one event there is to see is ``self.model = ...``; only a class
    sees it, so this exporter, and no other, is of a subclass until then.
    """
    its_class = type(exporter)

    class WaitingExporter(its_class):  # type: ignore[misc, valid-type]
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "model":
                self.__class__ = its_class  # type: ignore[assignment]
                prepare()

    exporter.__class__ = WaitingExporter  # type: ignore[assignment]


def _leave_out_mnn_log() -> None:
    """Make MNN's converter do without its usage log, as it does where that cannot be imported.

    Ultralytics never writes to that log. In MNN 3.0 to 3.6 its import runs ``pip install -U aliyun-log-python-sdk``
    with whichever pip is on the PATH, which takes protobuf below what onnx needs. Where that package is installed, the
    import waits for a server.
    """
    sys.modules.setdefault("MNN.tools.utils.log", None)  # type: ignore[arg-type]


def _format(exporter: Exporter) -> str:
    """The name of the format. Of one that it does not know, Ultralytics exports the closest that it knows."""
    written = exporter.args.format.lower()
    name = _ALIASES.get(written, written)
    host = sys.modules.get("ultralytics.engine.exporter")
    known = host.export_formats()["Argument"][1:] if host else ()
    return name if name in known else next(iter(difflib.get_close_matches(name, known, n=1)), name)


def traced_form(export_format: str) -> str:
    """How the layers of an exported model sample: as suits the format, or as ``YOLOV10_DYSAMPLE_SAMPLING`` says.

    Raises:
        ValueError: If the switch is set to something that it does not know, or that comes out wrong in that format.

    Example:
        >>> traced_form("engine"), traced_form("onnx")
        ('gather', 'grid_sample')
    """
    wanted = os.environ.get(SAMPLING_SWITCH) or "auto"
    if wanted not in SAMPLINGS:
        raise ValueError(f"{SAMPLING_SWITCH} must be one of {', '.join(SAMPLINGS)}, got {wanted!r}")
    if wanted == "gather" and export_format in _GRID_SAMPLE_ONLY:
        raise ValueError(
            f"{SAMPLING_SWITCH} must be auto or grid_sample for format={export_format}, got {wanted!r}: what "
            f"its converter makes of gathers is wrong. Unset it"
        )
    own = TRACED_FORMS_BY_FORMAT.get(export_format, "grid_sample")
    fits = wanted == "auto" or own.endswith(wanted)
    return own if fits else wanted


def _prepare_export(exporter: Exporter, default_opset: int) -> None:
    """Export a model with DySample layers in the form that suits the format, at an ONNX opset that keeps its maths."""
    layers = [layer for layer in exporter.model.modules() if isinstance(layer, DySample)]
    if not layers:
        return
    form = traced_form(_format(exporter))
    if not form.endswith("gather"):
        _check_grid_sample(exporter.args)
    if exporter.args.opset is None:
        exporter.args.opset = default_opset
    if form == "grid_sample" and _format(exporter) == "onnx":
        _logger.info(
            f"DySample samples by GridSample here, which suits ONNX Runtime. TensorRT 10.14 to 11.1 compute "
            f"it wrongly (NVIDIA/TensorRT#4813): for an engine use format=engine, or set {SAMPLING_SWITCH}=gather"
        )
    for layer in layers:
        layer.traced_form = form


def _check_grid_sample(args: SimpleNamespace) -> None:
    """Refuse an ONNX opset without GridSample; say what is known of others."""
    opset = OPSETS[0] if args.opset is None else args.opset
    if opset < OPSETS[0]:
        raise ValueError(
            f"DySample needs ONNX opset {OPSETS[0]} or newer, which has GridSample, got opset={opset}. "
            f"Leave opset out, use {OPSETS[0]} to {OPSETS[1]}, or set {SAMPLING_SWITCH}=gather"
        )
    if opset > OPSETS[1]:
        _logger.warning(
            f"DySample at ONNX opset {opset}: from opset 20 on TensorRT misreads GridSample's mode and samples "
            f"nearest, without a word (NVIDIA/TensorRT#4646). Use opset {OPSETS[0]} to {OPSETS[1]}, or set "
            f"{SAMPLING_SWITCH}=gather."
        )
