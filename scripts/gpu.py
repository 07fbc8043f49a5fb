"""Tries and measures on NVIDIA GPUs what this repository has no GPU for: the operator's tests, an epoch on all of them,
the benchmark, and TensorRT engines. ``make gpu`` is all of it.

Writes results/gpu.json and its table in docs/speed.md. A step that fails is recorded, named, and no reason to leave out
the next; without a GPU nothing starts. TensorRT is Ultralytics' to install, as in every export to ``format=engine``.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import math
import subprocess
import sys
import sysconfig
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.formats import MODELS, eager_output, errors, neck_dependent
from scripts.make_digits import make_digits
from scripts.speed_docs import with_gpu_section
from yolov10_dysample.commands.main import main as run_command
from yolov10_dysample.files import write_whole
from yolov10_dysample.study.json_files import write_json
from yolov10_dysample.study.records import environment_record
from yolov10_dysample.study.settings import OURS, STOCK, torch_device
from yolov10_dysample.study.statistics import compared, rounded
from yolov10_dysample.study.timing import prepare_candidates, time_interleaved

ROOT = Path(__file__).resolve().parents[1]
#: By their names in records; the keys are what Ultralytics takes as ``quantize``.
PRECISIONS = {None: "float32", 16: "float16", 8: "int8"}
ROUNDS = 30
BENCHMARK = ("formats=torch,compile", "amp=True", "train_batch=16", "train_imgsz=640")


def run_tests(folder: Path, *select: str) -> dict[str, Any]:
    """How many tests there are and which of them did not pass.

    Raises:
        RuntimeError: If none was run, or one did not pass.
    """
    report = folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *select]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    cases = xml.etree.ElementTree.parse(report).findall(".//testcase") if report.is_file() else []
    bad = [case.get("name", "") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    if done.returncode or bad or skipped or not cases:
        what = f"{len(bad)} of {len(cases)} tests failed and {skipped} were skipped: {', '.join(bad[:5])}"
        raise RuntimeError(f"{what}\n{done.stdout[-2000:]}")
    return {"passed": len(cases)}


def train_an_epoch(folder: Path, device: str) -> dict[str, Any]:
    """One epoch of the stock command on digits, on every device that is named; mixed precision where that is one.

    Raises:
        RuntimeError: If it does not end well, or not with finite losses.
    """
    make_digits(folder / "digits", train=64, val=16, imgsz=64)
    images = 8 * (device.count(",") + 1)
    words = f"model=yolov10n-dysample.yaml data=digits/data.yaml imgsz=64 epochs=1 plots=False batch={images}"
    start = time.monotonic()
    _run(folder, Path(sysconfig.get_path("scripts"), "yolo"), "detect", "train", *words.split(), f"device={device}",
         f"project={folder}", "name=train")  # fmt: skip
    with Path(folder, "train", "results.csv").open() as file:
        row = {key.strip(): float(value) for key, value in list(csv.DictReader(file))[-1].items()}
    losses = {key: rounded(value) for key, value in row.items() if "loss" in key}
    if not losses or not all(map(math.isfinite, losses.values())):
        raise RuntimeError(f"the losses of an epoch must be finite, got {losses}")
    return {"devices": device, "seconds": round(time.monotonic() - start), "losses": losses}


def run_benchmark(folder: Path, device: str, *words: str) -> dict[str, Any]:
    """The record of ``yolov10-dysample benchmark``.

    Raises:
        RuntimeError: If it does not end well.
    """
    file = folder / "speed.json"
    if run_command(["benchmark", f"device={device}", f"out={file}", *words]):
        raise RuntimeError("yolov10-dysample benchmark did not end well; what it said stands above")
    return json.loads(file.read_text())


def measure_engines(folder: Path, device: str, export_format: str, imgsz: int) -> dict[str, Any]:
    """Both models exported in each precision: how far from eager float32, and milliseconds, in turn.

    The models are those of results/formats.md, whose detections depend on the neck; 8 bits are calibrated with what is
    measured. Errors are root mean squares over the standard deviation, of the boxes and of the scores. What cannot be
    exported or run is named in its place.
    """
    torch.manual_seed(0)
    images = torch.rand(1, 3, imgsz, imgsz)
    found = {}
    for quantize, name in PRECISIONS.items():
        prepare = functools.partial(_prepare_engine, folder / name, quantize, export_format, device, images)
        runs, facts = prepare_candidates((STOCK, OURS), prepare)
        with torch.inference_mode():
            times = time_interleaved(runs, ROUNDS, torch_device(device), lambda done, total: None)
        figures = compared(times, "ms", STOCK)
        found[name] = {candidate: {**fact, **figures.get(candidate, {})} for candidate, fact in facts.items()}
    return {"imgsz": imgsz, "format": export_format, "rounds": ROUNDS, "precisions": found}


def _prepare_engine(
    folder: Path, quantize: int | None, export_format: str, device: str, images: Tensor, arm: str
) -> tuple[Callable[[], Any], dict[str, Any]]:
    """A call of an exported model, and its errors."""
    from PIL import Image
    from ultralytics import YOLO
    from ultralytics.nn.autobackend import AutoBackend

    here = folder / arm
    (here / "images").mkdir(parents=True)
    neck_dependent(MODELS[(STOCK, OURS).index(arm)]).save(here / "model.pt")  # exports are written beside the weights
    yolo = YOLO(here / "model.pt")  # which a checkpoint has rounded
    expected = eager_output(yolo.model, images)
    options: dict[str, Any] = {} if quantize is None else {"quantize": quantize}
    if quantize == 8:
        pixels = (images[0].permute(1, 2, 0) * 255).round().byte().numpy()
        for number in range(8):
            Image.fromarray(pixels).save(here / "images" / f"{number}.png")
        options["data"] = str(here / "data.yaml")
        names = [str(number) for number in range(80)]
        Path(options["data"]).write_text(f"path: {here}\ntrain: images\nval: images\nnames: {names}\n")
    file = yolo.export(format=export_format, imgsz=images.shape[-1], device=device, **options)
    backend, batch = AutoBackend(file, device=torch_device(device)), images.to(torch_device(device))

    def run() -> Tensor:
        output = backend(batch)
        return output[0] if isinstance(output, (list, tuple)) else output

    error = errors(torch.as_tensor(run()).float().cpu(), expected, norm=2)
    return run, {"errors": {kind: rounded(value) for kind, value in error.items()}}


def _run(folder: Path, *command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}:\n{done.stdout[-2000:]}")


def take_steps(steps: dict[str, Callable[[Path], dict[str, Any]]]) -> dict[str, Any]:
    """What each step gave, each in a folder of its own, or why it failed."""
    record: dict[str, Any] = {}
    for name, step in steps.items():
        print(f"== {name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
            try:
                record[name] = step(Path(folder))
            except Exception as error:  # whatever a driver or a runtime raises: the next step may still do
                record[name] = {"failed": f"{type(error).__name__}: {error}"}
                print(f"{name}: {record[name]['failed']}", file=sys.stderr, flush=True)
    return record


def failures(record: dict[str, Any]) -> list[str]:
    """The steps and the engines that failed."""
    steps = [name for name, step in record.items() if isinstance(step, dict) and "failed" in step]
    engines = record["engines"].get("precisions", {}).items()
    return steps + [f"{name} of {arm}" for name, arms in engines for arm, fact in arms.items() if "failed" in fact]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/gpu.json"), help="(%(default)s)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("make gpu needs an NVIDIA GPU that torch can use, got none; make test and make bench do without one",
              file=sys.stderr)  # fmt: skip
        return 2
    devices = torch.cuda.device_count()
    start = time.monotonic()
    steps = {
        "tests": lambda folder: run_tests(folder, "-m", "gpu", "tests/test_device.py"),
        "training": lambda folder: train_an_epoch(folder, ",".join(map(str, range(devices)))),
        "benchmark": lambda folder: run_benchmark(folder, "0", *BENCHMARK),
        "engines": lambda folder: measure_engines(folder, "0", "engine", 640),
    }
    record = {"command": "make gpu", **environment_record(), "gpus": devices, "cuda": torch.version.cuda}
    record |= take_steps(steps)
    record["seconds"] = round(time.monotonic() - start)
    write_json(options.out, record)
    document = ROOT / "docs/speed.md"
    write_whole(document, with_gpu_section(document.read_text(encoding="utf-8"), record).encode())
    failed = failures(record)
    print(f"{options.out}: " + (f"{', '.join(failed)} failed" if failed else "every step ended well"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
