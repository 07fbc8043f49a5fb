"""Asks the profilers of ONNX Runtime and OpenVINO what the upsampling layers' time goes to: ``python -m
scripts.profile_layers`` writes results/profile.json and its section of docs/speed.md.

A profiled run is slower than others: its times are of operators within a model, and must never be compared as models'.
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from yolov10_dysample.commands.benchmark import COMMAND
from yolov10_dysample.dysample import DySample
from yolov10_dysample.files import write_whole
from yolov10_dysample.study.candidates import load, make_images
from yolov10_dysample.study.exports import export
from yolov10_dysample.study.records import environment_record
from yolov10_dysample.study.settings import OURS, STOCK, Settings
from yolov10_dysample.study.speed_report import PRINTED
from yolov10_dysample.study.statistics import rounded
from yolov10_dysample.study.tables import between, markdown

RECORD, DOCUMENT = Path("results/profile.json"), Path("docs/speed.md")
RUNS, WARMUP = 60, 10
#: Operators with less of their layers' time are left out of the table.
LEAST_SHARE = 0.05

#: Microseconds of one call of an operator: the node's name, the operator, the time.
Call = tuple[str, str, float]


def profile_onnx(file: Path, batch: torch.Tensor, settings: Settings, _: None) -> Iterator[list[Call]]:
    """The calls of each run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.enable_profiling = True
    options.profile_file_prefix = str(file.with_name("profile"))
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    for _run in range(RUNS):
        session.run(None, {session.get_inputs()[0].name: batch.numpy()})
    calls: list[Call] = []
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event["name"] == "model_run":  # which ends a run: it is listed after what it is made of
            yield calls
            calls = []
        elif event["name"].endswith("_kernel_time"):
            calls.append((event["name"].removesuffix("_kernel_time"), event["args"]["op_name"], event["dur"]))


def profile_openvino(
    folder: Path, batch: torch.Tensor, settings: Settings, precision: str | None
) -> Iterator[list[Call]]:
    """The calls of each run."""
    import openvino

    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": settings.threads}
    if precision:
        config["INFERENCE_PRECISION_HINT"] = precision
    model = openvino.Core().compile_model(next(folder.glob("*.xml")), "CPU", {**config, "PERF_COUNT": True})
    request = model.create_infer_request()
    for _run in range(RUNS):
        request.infer(batch.numpy())
        yield [
            (node.node_name, node.node_type, node.real_time.total_seconds() * 1e6)
            for node in request.profiling_info
            if node.status == node.Status.EXECUTED
        ]


#: By the name that results/speed.json has for it: the format, its profiler and its precision.
RUNTIMES: dict[str, tuple[str, Any, str | None]] = {
    "onnx": ("onnx", profile_onnx, None),
    "openvino, f32": ("openvino", profile_openvino, "f32"),
    "openvino": ("openvino", profile_openvino, None),
}


def summary(runs: list[list[Call]], rows: list[int]) -> dict[str, Any]:
    """Milliseconds of a run: of the whole model, and by operator of some of its rows; medians after the warm-up."""
    ours = re.compile(rf"\bmodel\.({'|'.join(map(str, rows))})[/.]")
    by_operator = collections.defaultdict(list)
    for calls in runs[WARMUP:]:
        spent: dict[str, float] = collections.defaultdict(float)
        for name, operator, microseconds in calls:
            if ours.search(name):
                spent[operator] += microseconds
        for operator, microseconds in spent.items():
            by_operator[operator].append(microseconds / 1000)
    operators = {operator: rounded(statistics.median(times)) for operator, times in by_operator.items()}
    return {
        "whole model": rounded(statistics.median(sum(call[2] for call in calls) / 1000 for calls in runs[WARMUP:])),
        "upsampling": rounded(sum(operators.values())),
        "operators": dict(sorted(operators.items(), key=lambda item: -item[1])),
    }


def measure(settings: Settings) -> dict[str, Any]:
    """Every runtime, both models."""
    found: dict[str, dict[str, Any]] = {}
    batch = make_images(settings)
    rows = [i for i, layer in enumerate(load(OURS, settings).model.model) if isinstance(layer, DySample)]
    for name, (export_format, profiled, precision) in RUNTIMES.items():
        for candidate in (STOCK, OURS):
            with tempfile.TemporaryDirectory() as folder:
                file = export(load(candidate, settings), export_format, Path(folder), settings)
                runs = list(profiled(file, batch, settings, precision))
            found.setdefault(name, {})[candidate] = summary(runs, rows)
            print(name, candidate, found[name][candidate], flush=True)
    return found


def section(record: dict[str, Any]) -> str:
    """The table, and what must be known to read it."""
    settings, versions = record["settings"], record["versions"]
    rows = [["both upsampling layers, ms", "stock", "DySample", "what it goes to"]]
    for name, found in record["runtimes"].items():
        ours = found[OURS]
        parts = [
            f"`{operator}` {spent:.2f}"
            for operator, spent in ours["operators"].items()
            if spent >= LEAST_SHARE * ours["upsampling"]
        ]
        rows.append([PRINTED[name], f"{found[STOCK]['upsampling']:.2f}", f"{ours['upsampling']:.2f}", ", ".join(parts)])
    return "\n\n".join(
        [
            f"What the layers' time goes to, by the runtimes' own profilers: `yolov10n` at {settings['imgsz']} px, "
            f"medians of {settings['runs']} runs, {settings['threads']} threads. A profiled run is slower than others.",
            markdown(rows),
            f"`python -m scripts.profile_layers` ([record](../results/profile.json)): {record['date'][:10]}, revision "
            f"{record['revision']}, {record['machine']['cpu']}; onnxruntime {versions['onnxruntime']}, openvino "
            f"{versions['openvino']}.",
        ]
    )


def with_section(document: str, record: dict[str, Any]) -> str:
    return between(document, "profile", section(record))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--docs", action="store_true", help=f"write {DOCUMENT} from the record there is; measure nothing"
    )
    if not parser.parse_args().docs:
        values = COMMAND.values([])
        models = {"stock": "yolov10n.yaml", "dysample": "yolov10n-dysample.yaml", "trained": False, "reference": None}
        settings = Settings(**{key: value for key, value in {**values, **models}.items() if key in Settings._fields})
        environment = environment_record()
        facts = {"imgsz": settings.imgsz, "threads": settings.threads, "runs": RUNS - WARMUP}
        record = {"what": "milliseconds", **environment, "settings": facts, "runtimes": measure(settings)}
        write_whole(RECORD, (json.dumps(record, indent=2) + "\n").encode())
    record = json.loads(RECORD.read_text())
    write_whole(DOCUMENT, with_section(DOCUMENT.read_text(encoding="utf-8"), record).encode())


if __name__ == "__main__":
    main()
