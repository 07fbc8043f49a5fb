"""Tries every format that `yolo export` offers, for stock yolov10n and yolov10n-dysample, and writes a table.

Every format is tried in a process and an environment of its own (hard links to this one's packages), in which
Ultralytics may install what the format needs: nothing is ever installed into the environment this is run from.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from yolov10_dysample.files import write_whole
from yolov10_dysample.study.operators import spread_offsets

MODELS = ("yolov10n", "yolov10n-dysample")
IMGSZ = 64
AGREES = 1e-3
#: The folder of a second attempt.
AGAIN = "again"

#: Formats that cannot be tried on a CPU machine with what PyPI has, and why.
NOT_TRIED = {
    "engine": "needs an NVIDIA GPU and TensorRT",
    "rknn": "Ultralytics runs it with torch 2.4",
    "imx": "only for yolov8n and yolo11n, by the host's own check",
    "deepx": "Ultralytics runs it with torch < 2.12",
    "axelera": "its compiler is in an index of its maker's, not reached from here",
}

#: Formats whose runtime is part of macOS.
MACOS_ONLY = ("coreml", "coreai")

#: What a table cell cannot say.
REMARKS = {
    "openvino": "in bfloat16 where the CPU has it, by OpenVINO's own choice; with INFERENCE_PRECISION_HINT=f32 both "
    "agree (tests/test_export.py)",
    "coreml": "its runtime is macOS only",
    "coreai": "its runtime is macOS only",
    "xilinx": "int8, calibrated with random images",
    "qnn": "int8 weights, calibrated with random images",
    "edgetpu": "its compiler is downloaded from a site not reached from here",
    "hailo": "the host takes YOLOv8, YOLO11 and YOLO26 only",
    "ascend": "needs Huawei's CANN toolkit",
}


#: Packages that the host does not ask for, or not in the release it needs, though the format does.
FORGOTTEN = {"paddle": ["six"], "saved_model": ["onnx<1.19"], "pb": ["onnx<1.19"], "edgetpu": ["onnx<1.19"]}


def neck_dependent(name: str | Path, seed: int = 0, pixels: float = 1.0) -> Any:
    """A YOLO whose detections depend on its neck, which those of a fresh one do not: they move by 1e-7.

    BatchNorm gets the statistics of a random batch, the last convolutions of the head new weights, and DySample layers
    weights that spread their offsets by so many ``pixels`` of their input. Shifted activations keep a network of random
    weights from amplifying rounding, which reaches a hundredth of its outputs otherwise.
    """
    from ultralytics import YOLO

    torch.manual_seed(seed)
    yolo = YOLO(Path(name).with_suffix(".yaml"), verbose=False)
    model: Any = yolo.model
    images = torch.rand(4, 3, 128, 128)

    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: _draw_offsets(layer, inputs[0], pixels))
        for layer in model.modules()
        if type(layer).__name__ == "DySample"
    ]
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        nn.init.ones_(norm.bias)
        norm.momentum = None  # the plain average of all batches: here, of one
    with torch.no_grad():
        model.train()(images)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    for hook in hooks:
        hook.remove()

    head = model.model[-1]
    for branches in (head.cv2, head.cv3, head.one2one_cv2, head.one2one_cv3):
        for branch in branches:
            nn.init.normal_(branch[-1].weight, std=2 * branch[-1].in_channels ** -0.5)
            nn.init.zeros_(branch[-1].bias)
    model.eval()
    return yolo


def _draw_offsets(layer: Any, x: Tensor, pixels: float) -> None:
    nn.init.normal_(layer.offset.weight)
    if layer.dyscope:
        nn.init.normal_(layer.scope.weight, std=layer.scope.in_channels**-0.5)
    spread_offsets(layer, x, pixels)


@torch.no_grad()
def eager_output(model: Any, images: Tensor) -> Tensor:
    """What the model's export computes, [B, 4 + classes, anchors]: boxes in pixels, then class scores."""
    model = copy.deepcopy(model).eval()
    model.end2end = False  # the exporter's default: without the selection of the best
    return model(images)[0]


def errors(actual: Tensor, expected: Tensor, norm: float = float("inf")) -> dict[str, float]:
    """The largest difference (the root mean square for ``norm`` 2) over the standard deviation of what is expected.

    For boxes and for scores apart, each over its own standard deviation.
    """
    if actual.shape != expected.shape:
        raise ValueError(f"the output must have the shape {list(expected.shape)}, got {list(actual.shape)}")
    kinds = {"boxes": slice(0, 4), "scores": slice(4, None)}
    values = {}
    for kind, rows in kinds.items():
        difference, scale = actual[:, rows] - expected[:, rows], expected[:, rows].std()
        mean_of = difference.numel() ** (1 / norm)
        values[kind] = float(torch.linalg.vector_norm(difference, norm) / mean_of / scale)
    return values


def attempt(name: str, export_format: str) -> dict[str, Any]:
    """Export a model, run it in its runtime and compare; says how far that went."""
    from ultralytics.engine.exporter import FP32_UNSUPPORTED_FORMATS
    from ultralytics.nn.autobackend import AutoBackend

    options = {"data": calibration_data()} if export_format in FP32_UNSUPPORTED_FORMATS - {"ascend"} else {}
    yolo = neck_dependent(name)
    images = torch.rand(1, 3, IMGSZ, IMGSZ)
    expected = eager_output(yolo.model, images)
    stage = "export"
    try:
        file = yolo.export(format=export_format, imgsz=IMGSZ, **options)
        if export_format in MACOS_ONLY and sys.platform != "darwin":
            return {"stage": "exported"}
        stage = "run"
        output = AutoBackend(file, device=torch.device("cpu"))(images)
        output = torch.as_tensor(output[0] if isinstance(output, (list, tuple)) else output)
        error = max(errors(output.float().cpu(), expected).values())
    except (Exception, SystemExit) as problem:
        return {"stage": stage, "reason": f"{type(problem).__name__}: {problem}"}
    return {"stage": "compared", "error": error}


def calibration_data() -> Path:
    """The data.yaml of a few random images in the current folder, for formats that have no float32."""
    images = Path("calibration/images")
    images.mkdir(parents=True, exist_ok=True)
    for i in range(8):
        pixels = torch.randint(256, (IMGSZ, IMGSZ, 3), dtype=torch.uint8).numpy()
        Image.fromarray(pixels).save(images / f"{i}.png")
    data = images.parent.resolve() / "data.yaml"
    data.write_text(f"path: {data.parent}\ntrain: images\nval: images\nnames: {[str(i) for i in range(80)]}\n")
    return data


def child(name: str, export_format: str, report: Path) -> None:
    """Try one model, in a process of its own: some converters can be loaded only once, and some crash."""
    from ultralytics.utils import checks

    # The host would download this one, whatever the format's precision.
    np.save("calibration_image_sample_data_20x128x128x3_float32.npy", np.zeros((20, 128, 128, 3), np.float32))
    checks.ONLINE = True  # the host looks for two well-known hosts; a machine may reach a package index without them
    report.write_text(json.dumps(attempt(name, export_format)))


def environment(path: Path) -> Path:
    """The interpreter of a virtual environment that shares this one's packages as hard links."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(path)], check=True)
    site = next((path / "lib").glob("python*")) / "site-packages"
    shutil.copytree(sysconfig.get_path("purelib"), site, copy_function=_link, dirs_exist_ok=True)
    return path / "bin" / "python"


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def try_format(export_format: str, work: Path, limit: float) -> list[dict[str, Any]]:
    """What came of each model; the environment made for it is removed."""
    folder = work / export_format
    folder.mkdir(parents=True)
    python = environment(folder / "venv")
    if export_format in FORGOTTEN:
        command = [str(python), "-m", "pip", "install", "--quiet", *FORGOTTEN[export_format]]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, cwd=folder, timeout=limit)
    results = [try_model(name, export_format, python, folder / name, limit) for name in MODELS]
    shutil.rmtree(folder / "venv")
    return results


def try_model(name: str, export_format: str, python: Path, folder: Path, limit: float) -> dict[str, Any]:
    """What came of one model, in an empty folder, with all installed before that the export asks for."""
    folder.mkdir()
    log, report = folder / "log.txt", folder / "report.json"
    result = _run_child(name, export_format, python, report, log, limit)
    # What was installed is only seen whole by a new process.
    if "AutoUpdate success" in log.read_text() and folder.name != AGAIN:
        return try_model(name, export_format, python, folder / AGAIN, limit)
    return result


def _run_child(name: str, export_format: str, python: Path, report: Path, log: Path, limit: float) -> dict[str, Any]:
    environ = {
        **os.environ,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(python.parent.parent),
        "YOLO_CONFIG_DIR": str(report.parent),
        "PIP_RETRIES": "1",
        "PIP_DEFAULT_TIMEOUT": "15",
    }
    command = [str(python), str(Path(__file__).resolve()), "--child", name, "--formats", export_format]
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, "--report", str(report)],
            cwd=report.parent,
            env=environ,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # its pip, too
            process.wait()
            return {"stage": "limit", "reason": f"stopped after {limit:.0f} s"}
    if report.is_file():
        return json.loads(report.read_text())
    return {"stage": "crash", "reason": f"the process ended with {code}"}


def verdict(result: dict[str, Any]) -> str:
    """A table cell."""
    match result["stage"]:
        case "compared" if result["error"] <= AGREES:
            return f"agrees, {result['error']:.0e}"
        case "compared":
            return f"runs, differs by {result['error']:.1g}"
        case "exported":
            return "exports; not run"
        case "run":
            return f"exports; fails to run: {_short(result['reason'])}"
        case "limit":
            return result["reason"]
        case "not tried":
            return f"not tried: {result['reason']}"
        case _:
            return f"fails: {_short(result['reason'])}"


def _short(reason: str) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(reason.split())).replace("|", "\\|")
    return text if len(text) <= 100 else f"{text[:97]}..."


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """The table, in Markdown."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("ultralytics", "torch"))
    lines = [
        f"{versions}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, no GPU. Written by "
        f"`python -m scripts.formats`.",
        "",
        f"Every format of `yolo export` at its defaults, imgsz={IMGSZ}, on models whose detections depend on the neck. "
        f"*agrees*: run in its own runtime through Ultralytics, boxes and scores are within {AGREES:g} of eager "
        f"torch's; the number is the largest difference over the standard deviation of the boxes, or of the scores.",
        "",
        f"| format | {' | '.join(MODELS)} | remark |",
        f"|---|{'---|' * len(MODELS)}---|",
    ]
    for export_format, row in results.items():
        cells = [export_format, *map(verdict, row), REMARKS.get(export_format, "")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def with_rows_of(new: str, old: str) -> str:
    """The old table with the rows of the new one in the place of its own.

    Raises:
        ValueError: If what stands above the tables differs: rows of other versions or another machine are no one table.
    """
    text, rows = _rows(old)
    new_text, new_rows = _rows(new)
    if new_text != text:
        raise ValueError(f"--update needs a table made with the same versions, got\n{text}\nfor\n{new_text}")
    return text + "\n".join((rows | new_rows).values()) + "\n"


def _rows(table: str) -> tuple[str, dict[str, str]]:
    """What stands above the first row, and the rows by format."""
    text, ruler, rows = table.rpartition("|---|\n")
    return text + ruler, {row.split("|")[1].strip(): row for row in rows.splitlines()}


def main() -> None:
    from ultralytics.engine.exporter import export_formats

    offered = export_formats()["Argument"][1:]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", nargs="+", choices=offered, default=offered, metavar="FORMAT")
    parser.add_argument("--limit", type=float, default=180, help="seconds for each model and format (default: 180)")
    parser.add_argument("--work", type=Path, help="new folder for the logs (default: one that is removed)")
    parser.add_argument("--out", type=Path, default=Path("results/formats.md"))
    parser.add_argument("--update", action="store_true", help="keep the other rows that --out has")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.formats[0], options.report)
        return
    before = ""
    try:
        if options.update:
            before = options.out.read_text(encoding="utf-8")
            with_rows_of(table({}), before)
        if options.work:
            options.work.mkdir(parents=True)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    with tempfile.TemporaryDirectory(prefix="formats-") as temporary:
        work = (options.work or Path(temporary)).resolve()
        results = {}
        for export_format in options.formats:
            print(f"{export_format} ... ", end="", file=sys.stderr, flush=True)
            start = time.monotonic()
            if export_format in NOT_TRIED:
                results[export_format] = [{"stage": "not tried", "reason": NOT_TRIED[export_format]}] * len(MODELS)
            else:
                results[export_format] = try_format(export_format, work, options.limit)
            cells = " | ".join(verdict(result) for result in results[export_format])
            print(f"{cells} ({time.monotonic() - start:.0f} s)", file=sys.stderr)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = table(results)
    write_whole(options.out, (with_rows_of(text, before) if options.update else text).encode())


if __name__ == "__main__":
    main()
