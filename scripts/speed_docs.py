"""Writes what the documents say of speed: ``python -m scripts.speed_docs`` writes docs/speed.md and the summary of
README.md from the records, and draws the plot. It measures nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolov10_dysample.files import write_whole
from yolov10_dysample.study.settings import OURS, STOCK
from yolov10_dysample.study.speed_plot import draw
from yolov10_dysample.study.speed_report import (
    PRINTED,
    cell,
    conditions,
    costs_table,
    growth_table,
    operator_sentences,
    operators_table,
    other_sampling,
    ratio_cell,
    runtimes_table,
)
from yolov10_dysample.study.tables import Table, between, markdown

RESULTS, DOCUMENT, README = Path("results"), Path("docs/speed.md"), Path("README.md")
SPEED, RUNS, REQUESTED, GPU = "speed.json", "bench.json", "requested.json", "gpu.json"
#: The runtimes that a summary names.
SUMMARISED = ("torch", "onnx", "openvino", "ncnn", "mnn")
#: The steps of ``make gpu``, and what to say of one that ended well.
GPU_STEPS = {
    "tests": "{passed} tests of the operator passed",
    "training": "an epoch on devices {devices} in {seconds} s",
    "benchmark": "below",
    "engines": "below; errors against eager float32",
}


def section(record: dict[str, Any], picture: str = "results/speed.png", file: str = "results/speed.json") -> str:
    """A full record as the section of a document, in Markdown, without the markers at its ends.

    Args:
        record (dict): A record in which nothing was skipped and the published code was measured.
        picture, file (str): The plot and the record, as the document is to link them.
    """
    settings = record["settings"]
    steps = f"batch {settings['train_batch']} at {settings['train_imgsz']} px"
    parts = [
        f"`{settings['model']}` at {settings['imgsz']} px, batch {settings['batch']}: medians. All candidates run in "
        f"turn in one process; each round gives one ratio, shown as the median [quartiles] of {settings['rounds']} "
        f"rounds. The milliseconds are each model's own medians: where the machine's speed changed between rounds, "
        f"their quotient is not that ratio, and the ratio is the one to read; compare within a row, not between "
        f"tables. Offsets have a standard deviation of {settings['offset_spread']} pixels.",
        markdown(runtimes_table(record)),
        *other_sampling(record),
        f"![DySample and the published code beside stock in every runtime; upsamplers by size]({picture})",
        *_growth_section(record),
        f"GMACs count the sampling as 4 for each output value, and attention's products too. Memory is that of a "
        f"whole process ({settings['memory_runs']} fresh ones each). The training step is forward, loss and backward, "
        f"{steps}.",
        markdown(costs_table(record)),
        "The operator beside its peers, in PyTorch, channels_last. Parameters and GMACs are those at the last shape, "
        "the paper's. CARAFE is in plain PyTorch, not its CUDA kernel.",
        markdown(operators_table(record, "channels_last")),
        " ".join(operator_sentences(record)),
        f"`{record['command']}` ([record]({file}), {record['seconds'] / 60:.0f} minutes): {conditions(record)}",
    ]
    return "\n\n".join(parts)


def _growth_section(record: dict[str, Any]) -> list[str]:
    if not record.get("growth"):
        return []
    return [
        "By size and number of images, stock → DySample in ms; DySample / stock. *Dynamic* is one file for all sizes. "
        "Calls that take long have fewer rounds, at least 5.",
        markdown(growth_table(record)),
    ]


def with_section(document: str, record: dict[str, Any]) -> str:
    """A document with the record's section between its markers."""
    return between(document, "speed", section(record, "../results/speed.png", "../results/speed.json"))


def with_requested(document: str, record: dict[str, Any]) -> str:
    """A document with the runtimes of a record that are measured on request only, between markers of their own."""
    settings = record["settings"]
    parts = [
        f"`{settings['model']}` at {settings['imgsz']} px, batch {settings['batch']}, in an environment of its own:",
        markdown(runtimes_table(record)),
        *other_sampling(record),
        f"`{record['command']}` ([record](../results/requested.json), {settings['rounds']} rounds): "
        f"{conditions(record)}",
    ]
    return between(document, "requested", "\n\n".join(parts))


def summary(record: dict[str, Any], runs: dict[str, Any]) -> str:
    """A full record in a few lines, with the ratios of every run of the benchmark, for who has a minute."""
    settings, ratios_of = record["settings"], [run["ratios"] for run in runs["runs"]]
    table = [["runtime", "stock, ms", f"DySample / stock, in {len(ratios_of)} runs"]]
    for name, runtime in record["model"]["runtimes"].items():
        if name not in SUMMARISED or "candidates" not in runtime:
            continue
        stock, label = runtime["candidates"][STOCK], PRINTED.get(name, name)
        table.append([label, cell(stock, "ms"), ", ".join(f"{found[label]:.2f}" for found in ratios_of)])
    return "\n\n".join(
        [
            markdown(table),
            f"`{settings['model']}` at {settings['imgsz']} px, batch {settings['batch']}, on a CPU with "
            f"{settings['threads']} threads. A ratio is the median of {settings['rounds']} interleaved rounds; "
            "milliseconds are of one run.",
        ]
    )


def with_summary(document: str, record: dict[str, Any], runs: dict[str, Any]) -> str:
    """A document with the summary between its markers."""
    return between(document, "speed-summary", summary(record, runs))


def gpu_section(record: dict[str, Any] | None) -> str:
    """A record of ``make gpu`` in Markdown, or that there is none."""
    if record is None:
        return (
            "**None of this was run on a GPU by us: we have none.** On a machine with one, `make gpu` writes a table."
        )
    parts = [
        f"`{record['command']}` ([record](../results/gpu.json)): {record['date'][:10]}, revision {record['revision']}, "
        f"{record['gpus']} x {record['machine']['gpu']}, CUDA {record['cuda']}, torch {record['versions']['torch']}, "
        f"ultralytics {record['versions']['ultralytics']}.",
        markdown([["step", "result"], *([name, _step_cell(record[name], done)] for name, done in GPU_STEPS.items())]),
    ]
    measured = record["benchmark"]
    if "failed" not in measured:
        parts += [markdown(runtimes_table(measured)), markdown(growth_table(measured)), markdown(costs_table(measured))]
    if "failed" not in record["engines"]:
        parts.append(markdown(_engines_table(record["engines"])))
    return "\n\n".join(parts)


def with_gpu_section(document: str, record: dict[str, Any] | None) -> str:
    """A document with a record of ``make gpu``, or that there is none, between its markers."""
    return between(document, "gpu", gpu_section(record))


def _step_cell(step: dict[str, Any], done: str) -> str:
    return f"fails: {step['failed'].splitlines()[0]}" if "failed" in step else done.format(**step)


def _engines_table(engines: dict[str, Any]) -> Table:
    title = f"{engines['format']}, {engines['imgsz']} px"
    table = [[title, "stock, ms", "DySample, ms", "DySample / stock", "stock, error", "DySample, error"]]
    for precision, arms in engines["precisions"].items():
        stock, ours = arms[STOCK], arms[OURS]
        speed = [cell(stock, "ms"), cell(ours, "ms"), ratio_cell(ours)]
        table.append([precision, *speed, *(_error_cell(arm) for arm in (stock, ours))])
    return table


def _error_cell(candidate: dict[str, Any]) -> str:
    return "fails" if "failed" in candidate else f"{max(candidate['errors'].values()):.1g}"


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
        f"The whole benchmark {len(runs)} times, one after the other, where the tables above have one run; each number "
        f"is the median of a run's rounds "
        f"([record](../results/bench.json), {record['date'][:10]}, revision {record['revision']})."
    )
    return between(document, "bench", f"{text}\n\n{markdown(table)}")


def _rewrite(document: Path, written: Callable[..., str], *records: dict[str, Any] | None) -> None:
    write_whole(document, written(document.read_text(encoding="utf-8"), *records).encode())


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    record, runs, requested = (json.loads((RESULTS / name).read_text()) for name in (SPEED, RUNS, REQUESTED))
    gpu = RESULTS / GPU
    _rewrite(DOCUMENT, with_section, record)
    _rewrite(DOCUMENT, with_runs, runs)
    _rewrite(DOCUMENT, with_requested, requested)
    _rewrite(DOCUMENT, with_gpu_section, json.loads(gpu.read_text()) if gpu.is_file() else None)
    _rewrite(README, with_summary, record, runs)
    png = draw(record)
    if png:
        write_whole((RESULTS / SPEED).with_suffix(".png"), png)


if __name__ == "__main__":
    main()
