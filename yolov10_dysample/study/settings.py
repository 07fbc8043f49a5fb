"""What a benchmark is asked to measure: settings that its processes hand on, and the names of all that it can be asked.

It must never import a runtime to find out whether it is there, nor hold a default. What onnxruntime was built for, only
onnxruntime knows.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import platform
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

__all__ = [
    "ADAPTED",
    "COMPILE",
    "GROWING",
    "OFFSET_SPREAD",
    "ON_REQUEST",
    "OTHER_SAMPLING",
    "OURS",
    "PARTS",
    "PUBLISHED",
    "RUNTIMES",
    "STOCK",
    "TORCH",
    "Runtime",
    "Settings",
    "gpu_alone",
    "known_device",
    "predicting_format",
    "torch_device",
    "usable_cores",
    "why_missing",
]

#: What records call the candidates.
STOCK, OURS, PUBLISHED = "stock", "dysample", "published"
#: The published code stops in channels_last; this is what it would cost if it did not.
ADAPTED = "published, made to accept channels_last"
#: Runtimes in which the form that their format does not get by itself is measured beside it, as ``dysample, FORM``.
OTHER_SAMPLING = {"onnx": "gather", "openvino": "grid_sample", "litert": "grid_sample", "executorch": "grid_sample"}
#: What is measured, and can be skipped.
PARTS = ("model", "growth", "operator", "train")

TORCH, COMPILE = "torch", "compile"


class Runtime(NamedTuple):
    """What a runtime needs to export and to run a model.

    Attributes:
        modules (dict[str, str]): What is imported, and what pip installs for it.
        gpu (bool): Whether it is measured on a GPU too.
    """

    modules: dict[str, str]
    gpu: bool = False


_ONNX = {"onnx": "onnx", "onnxslim": "onnxslim"}
RUNTIMES = {
    TORCH: Runtime({}, gpu=True),  # without an export, as `yolo predict` runs a .pt file
    COMPILE: Runtime({}, gpu=True),  # the same as `yolo predict compile=True` runs it
    "torchscript": Runtime({}, gpu=True),
    "onnx": Runtime({**_ONNX, "onnxruntime": "onnxruntime"}, gpu=True),
    "openvino": Runtime({"openvino": "openvino"}),
    "ncnn": Runtime({"ncnn": "ncnn", "pnnx": "pnnx==20260526"}),  # the release that Ultralytics pins
    "mnn": Runtime({**_ONNX, "MNN": "MNN"}),
    "litert": Runtime({"litert_torch": "litert-torch", "ai_edge_litert": "ai-edge-litert"}),
    "executorch": Runtime({"executorch": "executorch"}),
}
#: The runtimes that are measured only if they are named: few environments have them, whose packages are many and large.
ON_REQUEST = ("litert", "executorch")

#: The runtimes that are measured by size and number of images, if they are asked for.
GROWING = (TORCH, "onnx")


def why_missing(name: str, device: str) -> str | None:
    """Why a runtime cannot be measured here, or None.

    Example:
        >>> why_missing("torch", device="cpu")
    """
    absent = [pip for module, pip in RUNTIMES[name].modules.items() if importlib.util.find_spec(module) is None]
    if absent:
        return f"not installed: pip install {' '.join(absent)}"
    if device != "cpu" and not RUNTIMES[name].gpu:
        return "runs on the CPU only: use device=cpu"
    if device != "cpu" and name == "onnx":
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            return "runs on the CPU only as installed: pip uninstall onnxruntime, then pip install onnxruntime-gpu"
    return None


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has, in a job of a cluster."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def known_device(text: str) -> str:
    """The device of a command's key.

    Raises:
        ValueError: If this machine does not have it.
    """
    import torch

    gpus = torch.cuda.device_count()
    if text != "cpu" and not (text.isdecimal() and int(text) < gpus):
        raise ValueError(f"must be cpu, or the index of one of this machine's {gpus} GPUs, got {text!r}")
    return text


def gpu_alone(index: str) -> dict[str, str]:
    """The environment of a process that shall see one of the GPUs of this one, by its index here.

    There it is the first, and what Ultralytics takes by itself: its releases differ in whether an index counts all GPUs
    of the machine, or those that ``CUDA_VISIBLE_DEVICES`` leaves.
    """
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    return {"CUDA_VISIBLE_DEVICES": visible[int(index)] if visible else index}


def torch_device(name: str) -> torch.device:
    """The device of ``cpu`` or of the index of a GPU."""
    import torch

    return torch.device(name if name == "cpu" else f"cuda:{name}")


def predicting_format(device: torch.device) -> torch.memory_format:
    """The memory format that ``yolo predict`` runs a ``.pt`` file in, in the Ultralytics that is installed."""
    import torch
    from ultralytics.nn.autobackend import AutoBackend

    if "channels_last" not in inspect.signature(AutoBackend.__init__).parameters:  # a release from before it chose
        return torch.contiguous_format
    x86 = platform.machine() in ("AMD64", "x86_64") and sys.platform != "darwin"
    return torch.channels_last if device.type == "cpu" and x86 else torch.contiguous_format


#: Standard deviation of the offsets of fresh layers, in pixels of their input.
OFFSET_SPREAD = 0.5


class Settings(NamedTuple):
    """What is measured, and how.

    Attributes:
        stock, dysample (str): The two models: a name or a file that ``YOLO()`` takes.
        trained (bool): Whether the offsets are those of a training, and stay.
        imgsz, batch (int): Size and number of the images of a prediction.
        device (str): ``"cpu"``, or the index of a GPU.
        threads (int): Of every runtime.
        formats (list[str]): Names of :data:`RUNTIMES`.
        grow, grow_batch (list[int]): Sizes and numbers of images at which :data:`GROWING` are measured as well.
        rounds (int): Timed rounds; half as many for training.
        sizes (list[int]): Heights and widths of the operators' sweep.
        skip (list[str]): Some of :data:`PARTS`.
        train_batch, train_imgsz (int): Images of a training step, and their size.
        amp (bool): Whether a training step is one of mixed precision.
        memory_runs (int): Fresh processes for each peak of memory.
        reference (str | None): The file of the published code; None leaves it out.
    """

    stock: str
    dysample: str
    trained: bool
    imgsz: int
    batch: int
    device: str
    threads: int
    formats: list[str]
    grow: list[int]
    grow_batch: list[int]
    rounds: int
    sizes: list[int]
    skip: list[str]
    train_batch: int
    train_imgsz: int
    amp: bool
    memory_runs: int
    reference: str | None

    @property
    def torch_device(self) -> torch.device:
        return torch_device(self.device)
