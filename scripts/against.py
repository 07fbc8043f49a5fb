"""Tells whether this checkout gives the numbers of another revision, and in the same time:
``python -m scripts.against 9a7aa90`` writes ``results/against.json``.

Each side runs in processes of its own, in turn with the other's, with the versions of torch and Ultralytics that are
installed here. It must compare nothing but the two trees: weights, images and offsets are made the same way for both.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from yolov10_dysample.files import write_whole
from yolov10_dysample.study.records import environment_record
from yolov10_dysample.study.statistics import quartiles, ratio

ROOT = Path(__file__).resolve().parent.parent
#: What either tree has for a user, and the checkpoint of 0.1.0, which both must open.
PARTS, CHECKPOINT = ("yolov10_dysample", "configs"), Path("tests/fixtures/yolov10n-dysample-0.1.0.pt")

CHILD = """
import json, statistics, sys, time
import torch
import yolov10_dysample
from ultralytics import YOLO
from yolov10_dysample.dysample import DySample

checkpoint, imgsz, calls, saved = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
generator = torch.Generator().manual_seed(0)

def layers_of(model):
    return [layer for layer in model.modules() if type(layer) is DySample]

def built(name):
    torch.manual_seed(0)
    return YOLO(name, verbose=False).model

def milliseconds(runs):
    found = {name: [] for name in runs}
    for _ in range(calls + 2):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            found[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values[2:]) for name, values in found.items()}

def step(model, images):
    model.zero_grad()
    sum(y.square().mean() for y in model(images)["one2many"]["feats"]).backward()

images = torch.rand(1, 3, imgsz, imgsz, generator=generator).to(memory_format=torch.channels_last)
ours, stock = built("yolov10n-dysample.yaml"), built("yolov10n.yaml")
weights = {name: value.clone() for name, value in ours.state_dict().items()}
for layer in layers_of(ours):
    layer.offset.weight.data = 0.05 * torch.randn(layer.offset.weight.shape, generator=generator)
opened = YOLO(checkpoint, verbose=False).model.float()
outputs = {}
with torch.no_grad():
    outputs["layers, their offsets spread"] = torch.cat(
        [
            layer(torch.randn(1, layer.offset.in_channels, 20, 20, generator=generator)).flatten()
            for layer in layers_of(ours)
        ]
    )
    maps = []  # not the detections: a checkpoint of one epoch has the same, whatever its neck does
    for layer in layers_of(opened):
        layer.register_forward_hook(lambda layer, inputs, output: maps.append(output.flatten()))
    opened.eval()(images)
    outputs["layers of the checkpoint of 0.1.0"] = torch.cat(maps)
    ours.eval()(images)
    stock.eval()(images)
    times = milliseconds({"predict": lambda: ours(images), "stock": lambda: stock(images)})
ours.train(), stock.train()
small = torch.rand(2, 3, imgsz // 2, imgsz // 2, generator=generator)
step(ours, small)
outputs["gradients of the offsets"] = torch.cat([layer.offset.weight.grad.flatten() for layer in layers_of(ours)])
times |= milliseconds({"training step": lambda: step(ours, small), "stock's step": lambda: step(stock, small)})
torch.save({"weights": weights, "outputs": outputs}, saved)
print(json.dumps({"from": yolov10_dysample.__file__, "times": times}))
"""


def tree(source: str, folder: Path) -> Path:
    """Put the package of a git revision, or of the checkout in a folder, into a folder, as an install has it."""
    if Path(source, PARTS[0]).is_dir():
        for part in PARTS:
            shutil.copytree(Path(source, part), folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        done = subprocess.run(["git", "-C", str(ROOT), "archive", source, "--", *PARTS], capture_output=True)
        if done.returncode:
            reason = " ".join(done.stderr.decode().split())
            raise ValueError(f"before must be a git revision or the folder of a checkout, got {source!r}: {reason}")
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder)
    shutil.copy(folder / "yolov10_dysample/autoload.py", folder / "_yolov10_dysample_autoload.py")
    return folder


def measure(side: Path, imgsz: int, calls: int) -> tuple[dict[str, float], Path]:
    """Milliseconds of one process of a side, and the file with what it computed."""
    saved = side / "computed.pt"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(ROOT / CHECKPOINT), str(imgsz), str(calls), str(saved)],
        cwd=side,
        env={**os.environ, "PYTHONPATH": str(side), "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    if not Path(found["from"]).is_relative_to(side):
        raise RuntimeError(f"the process must take the package from {side}, took {found['from']}")
    return found["times"], saved


def differences(files: list[Path]) -> dict[str, Any]:
    """How far apart the two sides' numbers are: of weights whether they are the same, else the largest difference."""
    import torch

    before, after = (torch.load(file, weights_only=True) for file in files)
    weights = [side["weights"] for side in (before, after)]
    same = weights[0].keys() == weights[1].keys() and all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    apart = {
        name: float((value - after["outputs"][name]).abs().max() / value.abs().max())
        for name, value in before["outputs"].items()
    }
    return {"the same initial weights": same, "largest difference, of the largest value": apart}


def compare(before: str, after: str, rounds: int, imgsz: int, calls: int) -> dict[str, Any]:
    """Both sides' times in turn, the side that begins changing from round to round, and what they computed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        sides = [tree(source, folder / name) for name, source in (("before", before), ("after", after))]
        times: list[list[dict[str, float]]] = [[], []]
        files = [side / "computed.pt" for side in sides]
        for done in range(-1, rounds):  # the first round compiles byte code
            for k in (0, 1) if done % 2 else (1, 0):
                found, files[k] = measure(sides[k], imgsz, calls)
                if done >= 0:
                    times[k].append(found)
            print(f"\rround {done + 1} of {rounds}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return {"computed": differences(files), "times": figures(*times)}


def figures(before: list[dict[str, float]], after: list[dict[str, float]]) -> dict[str, Any]:
    """Quartiles of the ratio to stock on each side, and of the ratio of the two, round by round."""
    found: dict[str, Any] = {}
    for name, base in (("predict", "stock"), ("training step", "stock's step")):
        to_stock = [[row[name] / row[base] for row in side] for side in (before, after)]
        found[name] = {
            "to stock, before": quartiles(to_stock[0]),
            "to stock, after": quartiles(to_stock[1]),
            "after to before": ratio(to_stock[1], to_stock[0]),
        }
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a git revision, or the folder of a checkout")
    parser.add_argument("--rounds", type=int, default=12, help="processes of each side (%(default)s)")
    parser.add_argument("--imgsz", type=int, default=640, help="pixels of the image (%(default)s)")
    parser.add_argument("--calls", type=int, default=9, help="of each model in a process (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/against.json"), help="(%(default)s)")
    options = parser.parse_args(argv)
    if min(options.rounds, options.calls, options.imgsz // 64) < 1:
        parser.error(
            "--rounds and --calls must be at least 1 and --imgsz at least 64, got "
            f"{options.rounds}, {options.calls} and {options.imgsz}"
        )
    record = {"what": "ratios of milliseconds, fresh processes in turn", **environment_record()}
    record |= {"before": options.before, "rounds": options.rounds, "imgsz": options.imgsz}
    try:
        record |= compare(options.before, str(ROOT), options.rounds, options.imgsz, options.calls)
    except ValueError as error:
        parser.error(str(error))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.out, (json.dumps(record, indent=1) + "\n").encode())
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
