"""Shows a record of `yolov10-dysample benchmark` again: draws the plot beside it, and writes docs/speed.md and the
README's summary, and what is known of GPUs. It measures nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolov10_dysample.files import write_whole
from yolov10_dysample.study.settings import OURS
from yolov10_dysample.study.speed_plot import draw
from yolov10_dysample.study.speed_report import (
    PRINTED,
    terminal,
    with_gpu_section,
    with_requested,
    with_section,
    with_summary,
)
from yolov10_dysample.study.tables import between, markdown


def ratios(record: dict[str, Any]) -> dict[str, float]:
    """The medians of a full record that tell most, by what they are of: in all but the last, DySample / stock."""
    settings, train, operator = record["settings"], record["train"], record["operator"]
    runtimes = {PRINTED.get(name, name): found["candidates"] for name, found in record["model"]["runtimes"].items()}
    small = {
        f"{PRINTED[name]}, {cell['imgsz']} px": cell["candidates"]
        for name in ("onnx", "onnx, dynamic")
        for cell in record["growth"][name]
        if cell["batch"] == 1 and cell["imgsz"] < settings["imgsz"]
    }
    training = {"training step": train["step"], "peak memory, training": train["memory"]}
    found = {
        label: candidates[OURS]["ratio"]["median"] for label, candidates in {**runtimes, **small, **training}.items()
    }
    return {**found, "the operator / published code, channels_last": operator["ours_over_published"]["channels_last"]}


def with_runs(document: str, record: dict[str, Any]) -> str:
    """A document with a table of several runs of the benchmark, from a record of ``scripts.timings bench``."""
    runs = [run["ratios"] for run in record["runs"]]
    table = [["DySample / stock", *(f"run {i}" for i in range(1, len(runs) + 1)), "median"]]
    for label in runs[0]:
        values = [run[label] for run in runs]
        table.append([label, *(f"{value:.2f}" for value in [*values, statistics.median(values)])])
    text = (
        f"The whole benchmark {len(runs)} times, one after the other; each number is the median of a run's rounds "
        f"([record](../results/bench.json), {record['date'][:10]}, revision {record['revision']})."
    )
    return between(document, "bench", f"{text}\n\n{markdown(table)}")


def _rewrite(document: Path, written: Callable[[str, Any], str], record: dict[str, Any] | None) -> None:
    write_whole(document, written(document.read_text(encoding="utf-8"), record).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path, nargs="?", default=Path("results/speed.json"), help="(%(default)s)")
    parser.add_argument("--docs", action="store_true", help="write docs/speed.md and the README's summary")
    options = parser.parse_args()
    record = json.loads(options.record.read_text())
    if options.docs:
        speed, gpu, runs = Path("docs/speed.md"), Path("results/gpu.json"), Path("results/bench.json")
        _rewrite(speed, with_section, record)
        _rewrite(Path("README.md"), with_summary, record)
        _rewrite(speed, with_gpu_section, json.loads(gpu.read_text()) if gpu.is_file() else None)
        if runs.is_file():
            _rewrite(speed, with_runs, json.loads(runs.read_text()))
        _rewrite(speed, with_requested, json.loads(Path("results/requested.json").read_text()))
    png = draw(record)
    if png:
        write_whole(options.record.with_suffix(".png"), png)
    print(terminal(record))


if __name__ == "__main__":
    main()
