"""``yolov10-dysample doctor``: whether `yolo` commands find DySample here, and if not, what to do.

It must work where torch, Ultralytics or any other file of this package is missing or damaged: it imports none of them,
but looks at what fresh Python processes make of them (``probe.py``), and at what pip wrote down (``installation.py``).
"""

from __future__ import annotations

import concurrent.futures
import importlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from yolov10_dysample.commands.installation import Damage, Installation, installations, version
from yolov10_dysample.commands.keys import PROGRAM, REINSTALL, Command

__all__ = ["COMMAND"]

PACKAGE = Path(__file__).resolve().parent.parent
PROBE = PACKAGE / "commands/probe.py"
SWITCHES = ("YOLOV10_DYSAMPLE_AUTOLOAD", "TORCH_DEVICE_BACKEND_AUTOLOAD")
#: What this package's own switches may be set to, and what comes of anything else.
SETTINGS = {
    "YOLOV10_DYSAMPLE_SAMPLING": (("auto", "gather", "grid_sample"), "exports are refused"),
    "YOLOV10_DYSAMPLE_AUTOLOAD": (("0", "1"), "it switches nothing off"),
    "YOLOV10_DYSAMPLE_PLOTS": (("0", "1"), "it switches nothing off"),
}

#: What `yolo export` needs to make and to run a format, as {format: {distribution: module}}.
RUNTIMES = {
    "ONNX": {"onnx": "onnx", "onnxslim": "onnxslim", "onnxruntime": "onnxruntime", "onnxruntime-gpu": "onnxruntime"},
    "OpenVINO": {"openvino": "openvino"},
    "TensorRT": {"tensorrt": "tensorrt", "tensorrt-cu12": "tensorrt", "tensorrt-cu13": "tensorrt"},
    "CoreML": {"coremltools": "coremltools"},
    "ncnn": {"ncnn": "ncnn", "pnnx": "pnnx"},
    "MNN": {"MNN": "MNN"},
    "TensorFlow, TFLite": {
        "tensorflow": "tensorflow",
        "onnx2tf": "onnx2tf",
        "ai-edge-litert": "ai_edge_litert",
        "litert-torch": "litert_torch",
    },
    "Paddle": {"paddlepaddle": "paddle", "paddlepaddle-gpu": "paddle", "x2paddle": "x2paddle"},
    "ExecuTorch": {"executorch": "executorch"},
    "RKNN": {"rknn-toolkit2": "rknn.api"},
}

#: How many seconds a fresh process may take for torch, Ultralytics and this package, and for one runtime.
PROBE_SECONDS = 300
RUNTIME_SECONDS = 60


class Probed(NamedTuple):
    """What the probe found, why it did not find the rest, and what this package printed meanwhile."""

    found: dict[str, Any]
    errors: dict[str, str]
    said: list[str]


class Runtime(NamedTuple):
    """An installed distribution that exports need, and why it cannot be imported, if so."""

    name: str
    version: str
    failure: str | None


def _run(values: dict[str, Any]) -> int:
    probed, runtimes = _probe_everything()
    installed = installations()
    for name, fact in _facts(probed, installed, runtimes):
        print(f"{name:12} {fact}")
    for warning in _warnings(probed, installed, runtimes):
        print(f"warning: {warning}")
    problems = list(_problems(probed, installed))
    for problem in problems:
        print(f"problem: {problem}")
    print(f"not healthy: {len(problems)} problem{'s' * (len(problems) > 1)}" if problems else "healthy")
    return 1 if problems else 0


# What fresh processes find


def _probe_everything() -> tuple[Probed, dict[str, list[Runtime]]]:
    """A process for torch, Ultralytics and this package, and one for each runtime: some take seconds, some crash."""
    code = PROBE.read_text(encoding="utf-8") if PROBE.is_file() else ""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        packages = pool.submit(_probe, code, [], PROBE_SECONDS)
        tried = {
            name: pool.submit(_probe, code, [module], RUNTIME_SECONDS)
            for modules in RUNTIMES.values()
            for name, module in modules.items()
            if version(name)
        }
    runtimes = {
        kind: [
            Runtime(name, version(name) or "", tried[name].result().errors.get(module))
            for name, module in modules.items()
            if name in tried
        ]
        for kind, modules in RUNTIMES.items()
    }
    return packages.result(), runtimes


def _probe(code: str, names: list[str], seconds: float) -> Probed:
    if not code:
        return Probed({}, {}, [])
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *names], capture_output=True, text=True, errors="replace", timeout=seconds
        )
        lines = done.stdout.splitlines() or [""]
        result = json.loads(lines[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:  # a crash, not an exception
        late = isinstance(error, subprocess.TimeoutExpired)
        imported = names or ["torch", "ultralytics"]
        reason = (
            f"a Python process that imports {' and '.join(names or ['torch', 'Ultralytics'])} "
            f"{f'takes more than {seconds} s' if late else f'does not end well ({error})'}"
        )
        return Probed({}, dict.fromkeys(imported, reason), [])
    said = [line for line in (*lines[:-1], *done.stderr.splitlines()) if _names_this_package(line)]
    return Probed(result["found"], result["errors"], said)


def _names_this_package(text: str) -> bool:
    """Whether a text speaks of this package, rather than of a file in a folder of that name."""
    return bool(re.search(r"(?<![/\\])\byolov10_dysample\b(?![/\\])", text))


# What is said


def _facts(
    probed: Probed, installed: list[Installation], runtimes: dict[str, list[Runtime]]
) -> Iterator[tuple[str, str]]:
    own = getattr(importlib.import_module("yolov10_dysample"), "__version__", "of unknown version")
    yield PROGRAM, f"{own}  {PACKAGE}"
    yield "python", f"{platform.python_version()}  {sys.executable}"
    for package in ("torch", "ultralytics"):
        yield package, "  ".join(probed.found.get(package) or [_why_not_found(package, probed)])
    yield "registered", _registered(probed)
    yield "autoload", _autoload([installation.name for installation in installed if installation.has_entry_point])
    folder, count = probed.found.get("configs") or ("a folder that is not known", "unknown number")
    yield "configs", f"{count} in {folder}"
    for kind, distributions in runtimes.items():
        yield "export", f"{kind}: {', '.join(map(_described, distributions)) or 'not installed'}"


def _why_not_found(package: str, probed: Probed) -> str:
    if package not in probed.errors:
        return "not looked at"
    if package == "ultralytics" and "torch" in probed.errors:
        return "cannot be imported: it needs torch"
    return f"cannot be imported: {probed.errors[package]}"


def _described(runtime: Runtime) -> str:
    failure = f" (installed, cannot be imported: {runtime.failure})" if runtime.failure else ""
    return f"{runtime.name} {runtime.version}{failure}"


def _ours(probed: Probed) -> bool:
    return probed.found.get("registered_by_autoload") == "yolov10_dysample.dysample"


def _registered(probed: Probed) -> str:
    if _ours(probed):
        return "yes, by itself"
    if probed.found.get("registered_on_request"):
        return "not by itself, but `import yolov10_dysample` does it"
    return "no"


def _switched_off() -> list[str]:
    ours, torchs = SWITCHES
    # torch takes every value but 1 for off, the empty one too.
    is_off = {ours: os.environ.get(ours) == "0", torchs: os.environ.get(torchs, "1") != "1"}
    return [switch for switch in SWITCHES if is_off[switch]]


def _autoload(places: list[str]) -> str:
    if _switched_off():
        return f"off: {', '.join(f'{switch}={os.environ[switch]}' for switch in _switched_off())} in the environment"
    count = {0: "never", 1: "once", 2: "twice"}.get(len(places), f"{len(places)} times")
    return f"on, entry point found {count}" + (f": {'; '.join(places)}" if places else "")


# What is wrong


def _problems(probed: Probed, installed: list[Installation]) -> Iterator[str]:
    """One line for each cause: what follows from another problem is none of its own."""
    damage = [one for one in _files(installed) if one.harmful] or _missing_probe()
    if damage:
        yield f"damaged: {_listed(damage)}: {_reinstall(damage)}"
    broken = next((package for package in ("torch", "ultralytics") if package in probed.errors), None)
    if broken and not (damage and _names_this_package(probed.errors[broken])):
        yield f"{broken} cannot be imported: {_cure(broken, probed.errors[broken])}"
    if len(installed) > 1:
        names = "; ".join(installation.name for installation in installed)
        yield f"installed more than once ({names}): pip uninstall {PROGRAM} until none is left, then install"
    if broken or damage:
        return
    if not _ours(probed):
        yield from _why_not_registered(probed, installed)
    elif "registered_on_request" in probed.errors:
        yield f"`import yolov10_dysample` does not work ({probed.errors['registered_on_request']}): {REINSTALL}"
    if probed.found.get("configs", ["", 1])[1] == 0:
        yield f"the shipped model YAMLs are missing: {REINSTALL}"


def _files(installed: list[Installation]) -> list[Damage]:
    """The damage of the only installation: of several, each has files of the others."""
    return installed[0].damage if len(installed) == 1 else []


def _missing_probe() -> list[Damage]:
    """The file that doctor needs, where pip wrote down nothing about it."""
    is_there = PROBE.is_file() and PROBE.stat().st_size
    return [] if is_there else [Damage(str(PROBE), "is missing or empty")]


def _listed(damage: list[Damage], most: int = 5) -> str:
    shown = [f"{one.file} {one.fault}" for one in damage[:most]]
    return ", ".join(shown) + (f" and {len(damage) - most} more files" if len(damage) > most else "")


def _reinstall(damage: list[Damage]) -> str:
    """Without RECORD pip cannot uninstall, so that it can only write over what is there."""
    no_record = Damage("RECORD", "is missing") in damage
    return REINSTALL.replace("--force-reinstall", "--ignore-installed") if no_record else REINSTALL


def _cure(package: str, error: str) -> str:
    plugin = re.search(r"Failed to load the backend extension: (\w+)", error)
    if plugin is None:
        return f"install it again (pip install --force-reinstall {package})"
    if plugin[1] == "yolov10_dysample":
        return f"it cannot load the start-up file of this package: {REINSTALL}"
    return f"it cannot load its plugin {plugin[1]}: install that again, or pip uninstall it"


def _why_not_registered(probed: Probed, installed: list[Installation]) -> Iterator[str]:
    on_request = probed.found.get("registered_on_request")
    steps = ("registered_by_autoload", "registered_on_request")
    reasons = [*probed.said, *(probed.errors[step] for step in steps if step in probed.errors)]
    if _switched_off():
        yield f"autoload is off: unset {' and '.join(_switched_off())}"
    elif not any(installation.has_entry_point for installation in installed):
        yield "the autoload entry point is not installed: pip install . in the clone, not only a folder on the path"
    elif on_request:
        yield "torch did not call the autoload entry point: torch 2.5 or newer is needed"
    if not on_request:
        yield reasons[0] if reasons else "DySample could not be registered, for a reason that was not given"


def _warnings(probed: Probed, installed: list[Installation], runtimes: dict[str, list[Runtime]]) -> Iterator[str]:
    """What does not keep `yolo` from DySample, but may surprise."""
    changed = [one for one in _files(installed) if not one.harmful]
    if changed:
        yield f"{_listed(changed)}; this undoes it: {REINSTALL}"
    for runtime in (runtime for distributions in runtimes.values() for runtime in distributions):
        if runtime.failure and runtime.failure != probed.errors.get("torch"):
            yield f"{runtime.name} cannot be imported: exports that need it fail until it is installed again"
    for switch, (values, effect) in SETTINGS.items():
        if os.environ.get(switch, "") not in ("", *values):
            yield f"{switch} must be one of {', '.join(values)}, got {os.environ[switch]!r}: {effect}"
    yield from _other_ultralytics(probed)


def _other_ultralytics(probed: Probed) -> Iterator[str]:
    """Folders that Python may import as ``ultralytics`` instead of the one above, from here or in another process."""
    if "ultralytics" not in probed.found:
        return
    imported = Path(probed.found["ultralytics"][1]).resolve().parent
    folders = dict.fromkeys(Path(entry or ".").resolve() for entry in ("", *sys.path))
    for folder in folders:
        other = folder / "ultralytics"
        if (other / "__init__.py").is_file() and other.resolve() != imported:
            yield f"another ultralytics lies in {folder}; Python started there, or with it on its path, may import it"


COMMAND = Command(
    name="doctor",
    summary="is everything in place? if not, what to do",
    description="""
        Print the versions, where Ultralytics is imported from, whether a fresh Python process knows DySample without
        being told, and which export runtimes are installed and can be imported.
    """,
    keys=(),
    examples="yolov10-dysample doctor",
    run=_run,
    status="The exit status is 0 if `yolo` commands find DySample here and no file of this package is missing, else 1; "
    "what to do about it is printed.",
)
