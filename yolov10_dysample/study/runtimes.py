"""What each runtime of a benchmark needs, by the name that Ultralytics gives its export format.

It knows the standard library only, and must never import a runtime to find out whether it is there.
"""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

__all__ = ["RUNTIMES", "TORCH", "Runtime", "why_missing"]

TORCH = "torch"


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
    "torchscript": Runtime({}, gpu=True),
    "onnx": Runtime({**_ONNX, "onnxruntime": "onnxruntime"}, gpu=True),
    "openvino": Runtime({"openvino": "openvino"}),
    "ncnn": Runtime({"ncnn": "ncnn", "pnnx": "pnnx==20260526"}),  # the release that Ultralytics pins
    "mnn": Runtime({**_ONNX, "MNN": "MNN"}),
}


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
    return None
