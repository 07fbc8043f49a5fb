"""``yolov10-dysample benchmark``: what DySample costs in the user's model, in the runtimes that are installed.

It must check everything that it was given before it measures anything, and write nothing unless it measured.
"""

from __future__ import annotations

import contextlib
import shlex
import tempfile
import time
from pathlib import Path
from typing import Any

from yolov10_dysample.commands.keys import PROGRAM, Command, Key, UsageError, flag, home, one_of, path, several, whole
from yolov10_dysample.files import next_free, write_whole
from yolov10_dysample.study.packages import require_packages
from yolov10_dysample.study.settings import (
    GROWING,
    OFFSET_SPREAD,
    ON_REQUEST,
    PARTS,
    RUNTIMES,
    Settings,
    known_device,
    usable_cores,
)

__all__ = ["COMMAND"]

CORES = usable_cores()
#: Where a clone of the repository has the published code.
REFERENCE = "tests/reference/published_dysample.py"
#: Ultralytics' own heads whose loss a batch of boxes is enough for.
HEADS = ("Detect", "v10Detect")
#: The runtimes that are tried without being named.
BY_DEFAULT = [name for name in RUNTIMES if name not in ON_REQUEST]


def _record_file(text: str) -> Path:
    if not text.endswith(".json"):
        raise ValueError(f"must end in .json, got {text!r}; the plot gets the same name with .png")
    return path(text)


def _reference(text: str) -> str:
    from yolov10_dysample.study.operators import load_published

    load_published(str(path(text).resolve()))
    return home(text)


def _run(values: dict[str, Any]) -> int:
    try:
        require_packages(("matplotlib", "rich"), "benchmark")
    except ValueError as error:
        raise UsageError(str(error)) from None
    if set(values["skip"]) >= set(PARTS):
        raise UsageError(f"skip must leave one of {', '.join(PARTS)} to measure, got all of them")
    from yolov10_dysample.study.candidates import make_twins
    from yolov10_dysample.study.progress import Reporter

    with contextlib.ExitStack() as kept:
        try:
            folder = kept.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-twin-"))
            twins = make_twins(values["model"], Path(folder))
        except ValueError as error:
            raise UsageError(f"model {error}") from None
        except OSError as error:
            raise UsageError(f"model cannot be read, or its twin not written: {error}") from None
        if "train" not in values["skip"] and twins.head not in HEADS:
            raise UsageError(
                f"a training step is measured for models that end in {' or '.join(HEADS)}, and {values['model']} ends "
                f"in {twins.head}; add skip=train"
            )
        default = Path("runs/benchmark", f"{twins.name}.json")
        _check_out(values["out"] or default)
        with Reporter() as report:
            record = _measured(values, twins, report)
    from yolov10_dysample.study.speed_report import terminal

    out = values["out"] or next_free(default)  # not before: another benchmark may have ended meanwhile
    try:
        files = _write(record, out)  # before it is shown: a closed pipe loses nothing
    except OSError as error:
        with contextlib.suppress(BrokenPipeError):
            print(terminal(record), flush=True)
        raise UsageError(f"what is shown above could not be written: {error}") from None
    print(terminal(record))
    print(f"\n{', '.join(map(str, files))}")
    return 0


def _check_out(out: Path) -> None:
    """See whether a record can be written, before half an hour of measuring."""
    try:
        if out.is_dir():
            raise UsageError(f"out must be a file, got {str(out)!r}, which is a folder")
        if out.with_suffix(".png").is_dir():
            raise UsageError(f"out must leave room for its plot, and {str(out.with_suffix('.png'))!r} is a folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise UsageError(f"out must be in a folder that can be made and written, got {str(out)!r}: {error}") from None


def _measured(values: dict[str, Any], twins: Any, report: Any) -> dict[str, Any]:
    """The record, as it is written."""
    from yolov10_dysample.study.benchmark import measure
    from yolov10_dysample.study.records import environment_record
    from yolov10_dysample.study.timing import SEED, WARMUP

    reference = values["reference"] or (REFERENCE if Path(REFERENCE).is_file() else None)
    given = {**values, "reference": str(Path(reference).resolve()) if reference else None}
    models = {"stock": twins.stock, "dysample": twins.dysample, "trained": twins.trained}
    settings = Settings(**{key: value for key, value in {**given, **models}.items() if key in Settings._fields})
    report(f"{twins.name} and its DySample twin, {settings.device}, {settings.threads} threads")
    if not reference:
        report(f"the published code is left out: it is in a clone, reference={REFERENCE}")
    start = time.monotonic()
    kept = {key: value for key, value in values.items() if key != "out"}
    spread = None if twins.trained else OFFSET_SPREAD
    return {
        "command": _command_line(values),
        **environment_record(settings.torch_device),
        "settings": {
            **kept,
            **{"model": twins.name, "reference": reference},
            **{"seed": SEED, "warmup": WARMUP, "offset_spread": spread},
        },
        **measure(settings, report),
        "seconds": round(time.monotonic() - start),
    }


def _command_line(values: dict[str, Any]) -> str:
    """The command that has these values, as a user would write it."""
    given = {key.name: values[key.name] for key in KEYS if values[key.name] != key.default}
    words = [f"{key}={','.join(map(str, v)) if isinstance(v, list) else v}" for key, v in given.items()]
    return shlex.join([PROGRAM, COMMAND.name, *words])


def _write(record: dict[str, Any], out: Path) -> list[Path]:
    from yolov10_dysample.study.json_files import write_json
    from yolov10_dysample.study.speed_plot import draw

    write_json(out, record)  # before anything else can fail
    files, png = [out], draw(record)
    if png:
        files.append(out.with_suffix(".png"))
        write_whole(files[-1], png)
    return files


KEYS = (
    Key("model", "stock name, model YAML or .pt file; default yolov10n.yaml", home, default="yolov10n.yaml"),
    Key("imgsz", "size of the images; default 640", whole(32, multiple=32), 640),
    Key("batch", "images at a time; default 1", whole(1), 1),
    Key("device", "cpu, or the index of a GPU; default cpu", known_device, "cpu"),
    Key("threads", f"of every runtime; default {min(2, CORES)} here", whole(1, most=CORES), min(2, CORES)),
    Key(
        "formats",
        f"runtimes, those that are not installed are named; default {','.join(BY_DEFAULT)}; on request "
        f"{','.join(ON_REQUEST)}",
        several(one_of(tuple(RUNTIMES))),
        BY_DEFAULT,
    ),
    Key(
        "grow",
        f"sizes at which {' and '.join(GROWING)} are measured as well; default 160,320,640,1280",
        several(whole(32, multiple=32)),
        [160, 320, 640, 1280],
    ),
    Key("grow_batch", "numbers of images at each of them; default 1,8", several(whole(1)), [1, 8]),
    Key("rounds", "timed rounds, half as many for training, fewer where growth takes long; default 30", whole(2), 30),
    Key(
        "sizes",
        "heights and widths of the maps in the operators' sweep; default 10,20,40,80,160",
        several(whole(2)),
        [10, 20, 40, 80, 160],
    ),
    Key("skip", f"parts to leave out, of {','.join(PARTS)}; default none", several(one_of(PARTS)), []),
    Key("train_batch", "images of a training step; default 4", whole(1), 4),
    Key("train_imgsz", "their size; default 320", whole(32, multiple=32), 320),
    Key("amp", "train in mixed precision; default False", flag, False),
    Key("memory_runs", "processes for each peak of memory; default 3", whole(1), 3),
    Key(
        "reference",
        f"Python file with the published DySample, to measure it too; default {REFERENCE} where that is",
        _reference,
    ),
    Key(
        "out",
        "record to write, with a plot beside it; default: runs/benchmark/<model>.json, or where that is taken "
        "<model>2.json and so on",
        _record_file,
    ),
)

COMMAND = Command(
    name="benchmark",
    summary="measure what DySample costs in a model",
    description="""
    Time a model beside its DySample twin in the runtimes that are installed, and the operator beside its peers: speed,
    memory, size and a training step. All candidates are run in turn in one process, and each round gives one ratio. If
    the model is stock, its twin has DySample with offsets of half a pixel; if it is a checkpoint with DySample, its
    twin has nearest upsampling. Up to half an hour on two cores; formats, skip and rounds make it shorter.
    """,
    keys=KEYS,
    examples=f"""
    {PROGRAM} benchmark model=yolov10n.yaml imgsz=640
    {PROGRAM} benchmark model=best.pt formats=torch,onnx,openvino skip=growth,operator,train
    {PROGRAM} benchmark model=mine.yaml formats=onnx rounds=10 out=mine-speed.json
    """,
    run=_run,
)
