"""What every record says of where and with what it was made. It must never guess: what is not known is said so."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from yolov10_dysample.study.settings import ON_REQUEST, RUNTIMES
from yolov10_dysample.study.statistics import rounded

__all__ = ["PACKAGES", "environment_record", "gpu_name"]

PACKAGES = ("yolov10-dysample", "ultralytics", "torch", "onnx", "onnxruntime", "openvino", "ncnn", "pnnx", "MNN")


def environment_record(device: Any = None) -> dict[str, Any]:
    """Date, revision, machine and versions, as every record has them; ``device`` is where the work is done."""
    versions = {}
    rare = [package for runtime in ON_REQUEST for package in RUNTIMES[runtime].modules.values()]
    for name in (*PACKAGES, *rare):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in PACKAGES:
                versions[name] = "not installed"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "revision": _revision(),
        "machine": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "gpu": gpu_name(device),
            "system": f"{platform.system()} {platform.machine()}",
            "load_at_start": rounded(os.getloadavg()[0]) if hasattr(os, "getloadavg") else None,
        },
        "versions": {"python": platform.python_version(), **versions},
    }


def gpu_name(device: Any = None) -> str | None:
    """What the GPU of a device is called, or torch's current one; None for a CPU, or where there is none, or no torch.

    It starts CUDA, and then ``CUDA_VISIBLE_DEVICES``, by which older Ultralytics chooses a GPU, is read no more.
    """
    try:
        import torch  # `make compat` notes where it ran, and that may be without it
    except ImportError:
        return None
    if not torch.cuda.is_available() or (device is not None and torch.device(device).type != "cuda"):
        return None
    return torch.cuda.get_device_name(device)


def _revision() -> str:
    """That of the checkout this file is in, with ``-dirty`` if more has changed there than records and documents.

    A wheel may be installed within somebody else's repository: it is not that one's.
    """
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "pyproject.toml").is_file():
        return "not a git checkout"
    written = (":(exclude)results", ":(exclude)docs", ":(exclude)*.md")
    asked = (
        ("describe", "--always", "--abbrev=12", "--exclude=*"),
        ("status", "--porcelain", "--untracked-files=no", "--", ".", *written),
    )
    try:
        revision, changed = (
            subprocess.run(["git", "-C", str(checkout), *words], capture_output=True, text=True).stdout.strip()
            for words in asked
        )
    except OSError:
        return "not a git checkout"
    return f"{revision}{'-dirty' if changed else ''}" if revision else "not a git checkout"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
