"""Measures what the autoload adds to `import torch`: fresh processes, with and without the entry point, in turn.

Writes one JSON record. It must compare like with like: both sides let torch look for entry points, one finds ours.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from yolov10_dysample.study.statistics import quartiles

CHILD = """
import importlib.metadata, json, sys, time
if {hidden}:
    found = importlib.metadata.entry_points
    def entry_points(**wanted):
        return [point for point in found(**wanted) if "dysample" not in point.name]
    importlib.metadata.entry_points = entry_points
start = time.perf_counter()
import torch
took = 1000 * (time.perf_counter() - start)
print(json.dumps([took, torch.__version__, "_yolov10_dysample_autoload" in sys.modules]))
"""

DIRECT = """
import importlib.metadata, json, time
(point,) = importlib.metadata.entry_points(group="torch.backends", name="yolov10_dysample")
start = time.perf_counter()
point.load()()
print(json.dumps(1000 * (time.perf_counter() - start)))
"""


def child(code: str) -> Any:
    """What a fresh interpreter prints, parsed."""
    return json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def summary(values: list[float]) -> dict[str, float]:
    return {**quartiles(values), "n": len(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="pairs of fresh processes (default: 20)")
    parser.add_argument("--out", type=Path, default=Path("results/startup.json"))
    options = parser.parse_args()

    with_it: list[float] = []
    without: list[float] = []
    direct: list[float] = []
    for run in range(options.runs + 1):  # the first pair warms the disk cache and is not counted
        pair = [child(CHILD.format(hidden=hidden)) for hidden in (False, True)]
        if [loaded for *_, loaded in pair] != [True, False]:
            raise SystemExit("yolov10_dysample is not installed here with its entry point: `pip install .` first")
        print(f"\rpair {run} of {options.runs}", end="", file=sys.stderr, flush=True)
        if run:
            with_it.append(pair[0][0])
            without.append(pair[1][0])
            direct.append(child(DIRECT))
    print(file=sys.stderr)
    record = {
        "what": "milliseconds, fresh processes in turn",
        "import torch, with the autoload": summary(with_it),
        "import torch, without": summary(without),
        "difference of each pair": summary([a - b for a, b in zip(with_it, without, strict=True)]),
        "the entry point alone (load and call)": summary(direct),
        "torch": pair[0][1],
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {platform.system()}",
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
