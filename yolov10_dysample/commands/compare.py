"""``yolov10-dysample compare``: trains a model with stock upsampling and with DySample, in pairs, and reports.

It checks all that it needs before the first training, and must never train what is recorded.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolov10_dysample.commands.keys import Command, Key, UsageError, home, nearest, path, several, whole
from yolov10_dysample.errors import described
from yolov10_dysample.study.packages import require_packages
from yolov10_dysample.study.settings import known_device, usable_cores

if TYPE_CHECKING:
    from yolov10_dysample.study.comparison import Comparison, Run
    from yolov10_dysample.study.progress import Reporter
    from yolov10_dysample.study.schedule import Workers

__all__ = ["COMMAND"]

MODULES = ("faster_coco_eval", "filelock", "matplotlib", "rich", "scipy")
DEFAULT_MODEL = "yolov10n.yaml"
MAX_SEED, MAX_SEEDS = 2**32 - 1, 10_000  # NumPy's, and more than anybody can train


def _arm_name(text: str) -> str:
    from yolov10_dysample.study.arms import parse_arm

    return parse_arm(text).name


def _seeds(text: str) -> list[int]:
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not first.isdecimal() or not last.isdecimal() or int(last) < int(first):
            raise ValueError(f"must be whole numbers or ranges, such as 0-4 or 0,3,7, got {text!r}")
        if int(last) > MAX_SEED or len(seeds) + int(last) - int(first) >= MAX_SEEDS:
            raise ValueError(f"must be at most {MAX_SEED}, and {MAX_SEEDS} of them at most, got {text!r}")
        seeds += range(int(first), int(last) + 1)
    return list(dict.fromkeys(seeds))


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not part.isdecimal() or not parts.isdecimal() or not 1 <= int(part) <= int(parts):
        raise ValueError(f"must be a part and how many there are, such as 1/4 to 4/4, got {text!r}")
    return int(part), int(parts)


KEYS = (
    Key("data", "data set YAML, as for yolo train", home),
    Key("model", f"stock model YAML (default: {DEFAULT_MODEL}, or the one that warm_start was made of)", home),
    Key(
        "arms",
        "ways to upsample (default: nearest,bilinear,dysample); also dysample+, dysample-s, dysample-s+; a kind of "
        "DySample may have :init=nearest, :groups=8, :rows=11+14, :frozen (its offsets stay as they start), "
        ":rate=0.1 (they learn at a tenth of the rate) and :guided (they see the map that is joined next) after its "
        "name",
        several(_arm_name),
        ["nearest", "bilinear", "dysample"],
    ),
    Key("seeds", "such as 0-4 or 0,3,7 (default: 0-4)", _seeds, list(range(5))),
    Key("warm_start", "weights of the stock model to start from, such as yolov10n.pt (default: from scratch)", home),
    Key("device", "cpu, or GPUs that runs take turns on, such as 0,1 (default: the first GPU)", several(known_device)),
    Key("parallel", "runs at a time (default: one a GPU, or one a core)", whole(1)),
    Key("out", "folder of the records (default: runs/compare/, named after data, model and start)", path),
    Key(
        "ray",
        "address of a Ray cluster whose machines take the runs, or auto on one of them; each needs the package, and "
        "the data set where data= finds it (default: this machine alone)",
    ),
    Key("shard", "carry out every n-th run alone, as part i of n: 2/4, in a folder of its own (default: all)", _shard),
    Key(
        "report",
        "folders of comparisons, or of their shards, whose reports are to be written, without training",
        several(path),
    ),
)


def _training_setting(name: str, text: str) -> Any:
    from yolov10_dysample.study.checks import setting_names, training_setting

    known = setting_names()
    if name not in known:
        ours = [key.name for key in KEYS]
        raise UsageError(
            f"there is no key or training setting {name!r}"
            f"{nearest(name, [*ours, *difflib.get_close_matches(name, known, n=1)])}"
        )
    try:
        return training_setting(name, text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _run(values: dict[str, Any]) -> int:
    try:
        require_packages(MODULES, "compare")
        if values["report"]:
            return _report(values)
        if values["ray"]:
            require_packages(("ray",), "ray")
        comparison, runs, parallel = _prepared(values)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from None
    if not runs:
        print(f"nothing is left to do: other parts have all runs of shard {comparison.shard} on record")
        return 0
    from yolov10_dysample.study.compare_report import write_report
    from yolov10_dysample.study.progress import Reporter
    from yolov10_dysample.study.schedule import carry_out_all

    out = Path(runs[0].out)
    try:
        with Reporter() as report:
            workers, where = _workers(values, runs[0].device, parallel)
            report(f"{out}: {parallel} at a time on {where}; stop it at any time, the same command goes on")
            failed = carry_out_all(runs, workers, report)
            if failed:
                report(f"{len(failed)} runs failed; the same command tries what is missing again")
                return 1
            if not values["shard"]:
                try:
                    measure_latency(out, runs, comparison, report)
                except Exception as error:  # the report shows what was trained, with or without it
                    report(f"latency is not measured: {described(error)}")
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    try:
        text = write_report(out)
    except OSError as error:
        again = f"yolov10-dysample compare report={out}"
        print(f"all runs are on record, but not their report: {described(error)}; {again} writes it", file=sys.stderr)
        return 1
    print(text)
    print(f"written to {out / 'report.md'} and {out / 'report.png'}")
    return 0


def _workers(values: dict[str, Any], device: str, parallel: int) -> tuple[Workers, str]:
    """What carries out the runs, and where that is."""
    if values["ray"]:
        from yolov10_dysample.study.ray_workers import RayWorkers

        return RayWorkers(parallel), f"the Ray cluster, each on {'cores' if device == 'cpu' else 'a GPU'}"
    from yolov10_dysample.study.schedule import LocalWorkers

    devices = values["device"] or [device]
    return LocalWorkers(devices, parallel), ", ".join(devices)


def _report(values: dict[str, Any]) -> int:
    from yolov10_dysample.study.compare_report import pooled_report, report, write_report
    from yolov10_dysample.study.comparison import by_comparison

    others = [key.name for key in KEYS if key.name != "report" and values[key.name] != key.default]
    if others or values["settings"]:
        raise ValueError(f"report writes from records alone, got {', '.join([*others, *values['settings']])} as well")
    try:
        comparisons = by_comparison(values["report"])
    except ValueError as error:
        raise ValueError(f"report {error}") from None
    for folders in comparisons:  # what cannot be reported stops it before anything is written
        report(*folders)
    for folders in comparisons:
        try:
            print(write_report(*folders))
        except OSError as error:
            raise ValueError(f"report cannot be written: {described(error)}") from None
    if len(comparisons) > 1:
        print(pooled_report(comparisons))
    return 0


def _prepared(values: dict[str, Any]) -> tuple[Comparison, list[Run], int]:
    """What is to be done, after all checks; the last of them notes in the folder what it is about."""
    from yolov10_dysample.study import checks
    from yolov10_dysample.study.arms import parse_arm
    from yolov10_dysample.study.comparison import (
        Comparison,
        Run,
        default_folder,
        device_kind,
        is_scored,
        on_record_elsewhere,
        require_same_settings,
    )

    if not values["data"]:
        raise ValueError("data is missing; write data=coco8.yaml")
    start = checks.checked_start(values["model"], values["warm_start"], DEFAULT_MODEL)
    checks.check_arms(start.network, [parse_arm(name) for name in values["arms"]])

    pairs = [(name, seed) for seed in values["seeds"] for name in values["arms"]]
    out = values["out"] or default_folder(values["data"], start.model, start.weights)
    shard = None
    if values["shard"]:
        part, parts = values["shard"]
        pairs = pairs[part - 1 :: parts]
        shard, out = f"{part}/{parts}", out / f"shard-{part}-of-{parts}"
        if not pairs:
            raise ValueError(f"shard must be one of as many parts as there are runs at most, got {shard}")
    device, parallel, threads = _places(values, len(pairs))
    common: dict[str, Any] = {
        "model": start.weights or start.model,
        "warm_start": bool(start.weights),
        "data": values["data"],
        "settings": {**checks.DEFAULTS, **({"workers": 0} if device == "cpu" else {}), **values["settings"]},
        "device": device,
        "threads": threads,
        "out": str(out),
    }
    comparison = Comparison(start.model, values["data"], common["settings"], start.digest, shard, device_kind(device))
    elsewhere = on_record_elsewhere(out, comparison) if shard else set()
    runs = [Run(arm=name, seed=seed, **common) for name, seed in pairs if (name, seed) not in elsewhere]
    to_do = sum(not is_scored(run.record()) for run in runs)
    checks.check_out(out, sum(p.numel() for p in start.network.parameters()), to_do, parallel)
    checks.check_data(values["data"])
    require_same_settings(out, comparison)
    return comparison, runs, parallel


def _places(values: dict[str, Any], runs: int) -> tuple[str, int, int]:
    """The device of the runs, how many of them at a time, and the threads of each."""
    import torch

    if values["ray"]:
        from yolov10_dysample.study.ray_workers import connect

        if values["device"] not in (None, ["cpu"]):
            raise ValueError(f"device must be cpu or left to Ray, got {','.join(values['device'])}")
        cluster = connect(values["ray"])
        on_gpu = bool(cluster.gpus) and not values["device"]
        parallel = min(values["parallel"] or (cluster.gpus if on_gpu else sum(cluster.cores)), runs)
        threads = max(1, min(sum(cluster.cores) // parallel, *cluster.cores))
        return ("0" if on_gpu else "cpu"), parallel, (1 if on_gpu else threads)
    devices = values["device"] or ["0" if torch.cuda.is_available() else "cpu"]
    if "cpu" in devices and len(devices) > 1:
        raise ValueError(f"device must be cpu or GPUs, so that all runs are alike, got {','.join(devices)}")
    cores = usable_cores()
    parallel = min(values["parallel"] or (cores if devices == ["cpu"] else len(devices)), runs)
    return devices[0], parallel, max(1, cores // parallel)


def measure_latency(out: Path, runs: list[Run], comparison: Comparison, report: Reporter) -> None:
    """Measure the latency of the arms, and with them of those of earlier calls, unless that of all is on record."""
    import torch

    from yolov10_dysample.study.arms import NEAREST
    from yolov10_dysample.study.comparison import known_of
    from yolov10_dysample.study.json_files import append_line
    from yolov10_dysample.study.scoring import measure_latency

    known = known_of(out)
    named = {run.arm for run in runs}
    if known.latency and named <= set(known.latency["arms"]):
        return
    trained = (runs[0]._replace(arm=arm, seed=seed) for arm, seed in known.runs)
    weights = {run.arm: run.weights for run in trained if run.weights.is_file()}
    arms = sorted({*named, *weights}, key=lambda name: (name != NEAREST, name))  # ratios are to the first
    device = runs[0].device
    if device != "cpu" and int(device) >= torch.cuda.device_count():
        report("latency is not measured: the runs had a GPU, and this machine has none")
        return
    missing = [name for name in arms if name not in weights]
    if missing:
        report(f"latency is not measured: {out / 'weights'} has no weights of {', '.join(missing)}")
        return
    found = measure_latency(
        {name: weights[name] for name in arms},
        comparison.settings["imgsz"],
        device,
        lambda done, rounds: report("rounds of timing", done, rounds),
    )
    append_line(runs[0].records, {"latency": found})


COMMAND = Command(
    name="compare",
    summary="train a model with each upsampling, in pairs over several seeds, and report the differences",
    description=(
        "Train a detection model with stock upsampling and with DySample, in pairs: runs of one seed start from the "
        "same weights and see the same images in the same order. Any other key is a training setting, as for yolo "
        "train. Stop it at any time: the same command goes on where it was. A run is scored after its last epoch, and "
        "none ends early."
    ),
    keys=KEYS,
    examples="""
        yolov10-dysample compare data=VisDrone.yaml epochs=100 imgsz=640
        yolov10-dysample compare data=VisDrone.yaml arms=nearest,bilinear,dysample-s device=0,1 out=runs/visdrone
        yolov10-dysample compare data=coco.yaml warm_start=yolov10n.pt arms=nearest,bilinear,dysample:init=nearest
        yolov10-dysample compare report=runs/visdrone
    """,
    run=_run,
    other=_training_setting,
    status="The exit status is 0; 1 if runs failed, which the same command tries again; or 2 if nothing was written: "
    "the reason is then one line on stderr.",
)
