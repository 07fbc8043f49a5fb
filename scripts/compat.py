"""Tests the range of versions that the package claims, at its ends and between: ``make compat``.

Every combination gets a virtual environment of its own, removed afterwards; no other environment is changed. What could
not be installed or run is a line of the table and makes the exit status 1: it must never look like a pass. This runs
where torch is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from scripts.make_digits import make_digits
from yolov10_dysample.files import write_all
from yolov10_dysample.study.records import environment_record

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "compat"

PARAMETERS = 2_787_872  # of yolov10n-dysample with 80 classes
#: What the checks need beside the package: their tests, the data set of some, and an export and its runtime.
RUNTIME = ("pytest>=8", "filelock>=3", "scikit-learn>=1.4", "onnx", "onnxruntime", "onnxslim")
OLDEST_HOST = ("ultralytics==8.3.0", "onnxslim==0.1.34")  # which it would install by itself, in place of a newer one
OLDEST_TORCH = ("torch==2.5.0", "torchvision==0.20.0")
NEWEST_TORCH = ("torch", "torchvision")


class Combination(NamedTuple):
    """Versions that are installed together; an empty ``python`` is the one that runs this."""

    name: str
    python: str
    requirements: tuple[str, ...]


COMBINATIONS = (
    # The last onnxruntime for this Python reads no files of the newest onnx.
    Combination("oldest", "3.10", (*OLDEST_HOST, *OLDEST_TORCH, "onnx<1.18")),
    Combination("newest host, oldest torch", "3.10", ("ultralytics", *OLDEST_TORCH)),
    # This host leaves the choice of ONNX exporter to torch, whose newer one needs onnxscript, for stock models too.
    Combination("oldest host, newest torch", "", (*OLDEST_HOST, *NEWEST_TORCH, "onnxscript")),
    Combination("middle", "3.12", ("ultralytics==8.3.252", "torch==2.9.1", "torchvision==0.24.1")),
    Combination("newest", "", ("ultralytics", *NEWEST_TORCH)),
    Combination("newest, newest Python", "3.13", ("ultralytics", *NEWEST_TORCH)),
)

#: What the table says of where and when a combination was run.
ABOUT: dict[str, Callable[[dict[str, Any]], str]] = {
    "date": lambda entry: entry["date"][:10],
    "revision": lambda entry: entry["revision"],
    "machine": lambda entry: f"{entry['machine']['system']}, {entry['machine']['cores']} cores",
}
SHOWN = ("ultralytics", "torch", "torchvision", "numpy", "opencv-python", "onnx", "onnxruntime")

COUNT = f"""
from ultralytics import YOLO
count = sum(parameter.numel() for parameter in YOLO("yolov10n-dysample.yaml").model.parameters())
assert count == {PARAMETERS}, count
"""
OPSET = """
import sys, onnx
model = onnx.load(sys.argv[1])
opset = next(entry.version for entry in model.opset_import if not entry.domain)
kinds = [node.op_type for node in model.graph.node]
assert 16 <= opset <= 19 and "GridSample" in kinds, (opset, kinds.count("GridSample"))
"""
REFUSED = """
import subprocess, sys
words, *command = sys.argv[1:]
done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
print(done.stdout)
assert done.returncode and words in done.stdout, f"not refused with the words {words!r}"
"""
VERSIONS = """
import importlib.metadata, json, platform, sys
found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
print(json.dumps({"python": platform.python_version(), **{name: found.get(name) for name in sys.argv[1:]}}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="interpreters; default: python3.X on the PATH")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these combinations and keep the others' records")
    parser.add_argument("--out", type=Path, default=ROOT / "results", help="folder of compat.json and compat.md")
    parser.add_argument("--keep", action="store_true", help="keep the environments (about 6 GB each)")
    options = parser.parse_args()

    names = [c.name for c in COMBINATIONS]
    unknown = [name for name in options.only or () if name not in names]
    if unknown:
        parser.error(f"--only must be of {', '.join(map(repr, names))}, got {', '.join(map(repr, unknown))}")
    chosen = [c for c in COMBINATIONS if not options.only or c.name in options.only]
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    about = environment_record()  # of what the wheel is made of
    del about["versions"]  # those of this process
    wheel, data = _wheel(), _data_set()
    record = options.out / "compat.json"
    earlier = json.loads(record.read_text())["combinations"] if options.only and record.is_file() else []
    results = {entry["name"]: entry for entry in earlier}
    for combination in chosen:
        python = _find_python(combination.python, options.pythons)
        results[combination.name] = _try(combination, python, wheel, data, options.keep) | about
        _write(options.out, results)
    passed = sum(_is_pass(results[c.name]) for c in chosen)
    print(f"{passed} of {len(chosen)} combinations passed; see {options.out / 'compat.md'} and the logs in {BUILD}")
    sys.exit(passed < len(chosen))


def _wheel() -> Path:
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    subprocess.run([*pip, "--wheel-dir", BUILD, ROOT], check=True)
    (wheel,) = BUILD.glob("*.whl")
    return wheel


def _data_set() -> Path:
    return make_digits(BUILD / "digits", train=24, val=8, imgsz=64).data


def _find_python(version: str, given: Iterable[str]) -> str | None:
    """The first interpreter of that version that runs: a version manager's stand-in may be there and not work."""
    if not version:
        return sys.executable
    for candidate in (*given, sys.executable, f"python{version}"):
        found = shutil.which(candidate)
        if found is None:
            continue
        found = os.path.abspath(found)  # it is started from other folders, too
        ask = [found, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            answer = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
        except OSError:
            continue
        if answer == version:
            return found
    return None


def _try(combination: Combination, python: str | None, wheel: Path, data: Path, keep: bool) -> dict[str, Any]:
    print(f"== {combination.name}: {', '.join(combination.requirements)}, Python {combination.python or 'as here'}")
    folder = BUILD / combination.name.replace(", ", "-").replace(" ", "-")
    user = folder / "user"
    user.mkdir(parents=True)
    entry: dict[str, Any] = {"name": combination.name, "asked": list(combination.requirements), "checks": {}}
    if python is None:
        return {**entry, "not run": f"no Python {combination.python} here"}
    environment = folder / "venv"
    bin_folder = environment / ("Scripts" if os.name == "nt" else "bin")
    own = bin_folder / "python"
    install = [own, "-m", "pip", "install", wheel, *combination.requirements, *RUNTIME]
    for name, command in (("venv", [python, "-m", "venv", environment]), ("install", install)):
        done = _run(command, user, folder / f"{name}.log")
        if not done["passed"]:
            return {**entry, "not run": f"{name} failed: {done['why']}"}
    entry["install seconds"] = done["seconds"]
    entry["versions"] = json.loads(subprocess.check_output([own, "-c", VERSIONS, *SHOWN], cwd=user, text=True))
    for name, steps in _checks(own, bin_folder / "yolo", user, data).items():
        entry["checks"][name] = _run_all(steps, user, folder / f"{name}.log")
        print(f"   {name}: {_cell(entry['checks'][name])}", flush=True)
    if not keep:
        shutil.rmtree(environment)
    return entry


def _checks(python: Path, yolo: Path, user: Path, data: Path) -> dict[str, list[list]]:
    """What is run, by name: commands, each in a process of its own."""
    copy = user.parent / "copy"  # without the package, so that the tests find the installed one
    for part in ("tests", "scripts", "configs"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    weights = user / "runs" / "first" / "weights" / "best.pt"
    exported = weights.with_suffix(".onnx")
    settings = [f"project={user / 'runs'}", "imgsz=64"]
    train = [yolo, "detect", "train", f"data={data}", "batch=8", "epochs=1", "workers=0", "plots=False", *settings]
    val = [yolo, "detect", "val", f"data={data}", "workers=0", "plots=False", *settings]
    predict = [yolo, "predict", f"source={data.parent / 'images' / 'val'}", *settings]
    export = [yolo, "export", f"model={weights}", "format=onnx", "imgsz=64"]
    return {
        "parameters": [[python, "-c", COUNT]],
        "operator": [[*pytest, copy / "tests" / "test_dysample.py"]],
        "registration": [[*pytest, copy / "tests" / "test_registration.py"]],
        "0.1.0 checkpoint": [[*pytest, copy / "tests" / "test_checkpoints.py", "-k", "first_release"]],
        "train": [[*train, "model=yolov10n-dysample.yaml", "name=first"]],
        "val": [[*val, f"model={weights}"]],
        "predict": [[*predict, f"model={weights}"]],
        "retrain": [[*train, f"model={weights}", "name=second"]],
        "onnx": [export, [python, "-c", OPSET, exported], [*predict, f"model={exported}"]],
        "onnx, opset 13": [[python, "-c", REFUSED, "DySample needs ONNX opset 16", *export, "opset=13"]],
    }


def _run_all(commands: list[list], cwd: Path, log: Path) -> dict[str, Any]:
    seconds = 0.0
    for command in commands:
        done = _run(command, cwd, log)
        seconds += done["seconds"]
        if not done["passed"]:
            break
    return {**done, "seconds": round(seconds, 1)}


def _run(command: list, cwd: Path, log: Path) -> dict[str, Any]:
    hidden = ("PYTHONPATH", "YOLOV10_DYSAMPLE_AUTOLOAD", "TORCH_DEVICE_BACKEND_AUTOLOAD", "ULTRALYTICS_SAFE_LOAD")
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    # A check must not install what it misses, nor use the settings of whoever runs it.
    env |= {"YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(cwd.parent / "settings")}
    words = [str(part) for part in command]
    start = time.monotonic()
    done = subprocess.run(words, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    result: dict[str, Any] = {"passed": done.returncode == 0, "seconds": round(time.monotonic() - start, 1)}
    with log.open("a") as file:
        file.write(f"$ {' '.join(words)}\n{done.stdout}\nexit status {done.returncode}\n")
    if not result["passed"]:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        failed_tests = [line for line in lines if line.startswith("FAILED ")]
        result["why"] = (failed_tests[:1] or lines[-1:] or [f"exit status {done.returncode}"])[0]
    return result


def _is_pass(entry: dict[str, Any]) -> bool:
    return "not run" not in entry and all(check["passed"] for check in entry["checks"].values())


def _cell(check: dict[str, Any] | None) -> str:
    if check is None:
        return "not run"
    return f"pass, {check['seconds']:.0f} s" if check["passed"] else f"**fail**: {textwrap.shorten(check['why'], 100)}"


def _write(out: Path, results: dict[str, dict[str, Any]]) -> None:
    """Write what is known; what has not been run, since this was stopped or was to run others, is a column too."""
    out.mkdir(parents=True, exist_ok=True)
    missing = {"checks": {}, "not run": "not run"}
    known = {"combinations": [results[c.name] for c in COMBINATIONS if c.name in results]}
    table = _table([results.get(c.name, {"name": c.name, **missing}) for c in COMBINATIONS])
    files = {"compat.json": json.dumps(known, indent=2) + "\n", "compat.md": table}
    write_all({out / name: content.encode() for name, content in files.items()})


def _table(entries: list[dict[str, Any]]) -> str:
    passed = sum(map(_is_pass, entries))
    names = list(dict.fromkeys(name for entry in entries for name in entry["checks"]))
    lines = [
        f"{passed} of {len(entries)} combinations passed every check. Written by `make compat`.",
        "",
        f"| | {' | '.join(entry['name'] for entry in entries)} |",
        f"|---|{'---|' * len(entries)}",
    ]
    for name, value in ABOUT.items():
        lines.append(f"| {name} | {' | '.join(value(entry) if 'date' in entry else '' for entry in entries)} |")
    versions = [entry.get("versions", {}) for entry in entries]
    for name in ("python", *SHOWN):
        lines.append(f"| {name} | {' | '.join(str(found.get(name) or 'none') for found in versions)} |")
    for name in names:
        cells = [entry.get("not run") or _cell(entry["checks"].get(name)) for entry in entries]
        lines.append(f"| {name} | {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    lines += [
        "",
        f"parameters: `yolov10n-dysample.yaml` has {PARAMETERS:,}. operator, registration, 0.1.0 checkpoint: "
        "that part of `tests/`. train, val, predict, retrain, onnx: the stock `yolo` commands, 32 images of 64 px, one "
        "epoch; the exported model is at opset 16 to 19 and predicts. onnx, opset 13: refused, with the reason.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
