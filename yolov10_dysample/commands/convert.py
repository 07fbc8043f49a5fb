"""``yolov10-dysample convert``: a model YAML with DySample in place of ``nn.Upsample``, in a file or on the screen.

It must never write half a file, or over one that it was not told to replace.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path
from typing import Any

from yolov10_dysample.commands.keys import PROGRAM, Command, Key, UsageError, flag, home, path, several, whole
from yolov10_dysample.errors import described
from yolov10_dysample.files import write_whole
from yolov10_dysample.model_files import find_stock, means_dysample

__all__ = ["COMMAND"]


def _run(values: dict[str, Any]) -> int:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # for what Ultralytics says when it is imported
            text, notes = _converted_text(values)
        if values["out"] is None:
            if sys.stdout is None:  # it was closed
                raise ValueError("out is missing, and there is no screen to write to; write out=model.yaml")
            sys.stdout.buffer.write(text.encode())
            sys.stdout.flush()
        else:
            _write(values["out"], text, values["force"])
    except BrokenPipeError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # the last of links in a circle
        raise UsageError(str(error)) from None
    for note in notes:
        print(f"{PROGRAM} convert: note: {note}", file=sys.stderr)
    return 0


def _converted_text(values: dict[str, Any]) -> tuple[str, list[str]]:
    """The new YAML, and what its reader should know about it."""
    from yolov10_dysample.convert import convert_yaml

    file = _source(values["model"])
    layer = {name: values[name] for name in ("rows", "style", "groups", "dyscope", "init")}
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            text = convert_yaml(file.read_bytes().decode(), **layer)
    except UnicodeDecodeError as error:
        raise ValueError(f"model must be a YAML file, and {file} is not UTF-8 text: {error}") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    notes = [str(w.message) for w in caught if w.category is UserWarning]
    return text, [*notes, *_size_notes(values["model"], values["out"], file), *_build_notes(text, str(file))]


def _source(name: str) -> Path:
    file = Path(name)
    if file.suffix == ".pt":
        raise ValueError(
            f"model must be a YAML file, got {name}: weights are swapped in Python, by use_dysample(YOLO({name!r})), "
            "or loaded into a *-dysample.yaml model with pretrained="
        )
    if file.is_file():
        return file
    if file.exists():
        raise ValueError(
            f"model must be a YAML file, and {name} is a {'folder' if file.is_dir() else 'device or pipe'}"
        )
    stock = find_stock(name)
    if stock is None:
        hint = "; a name that ends so means the converted model already, and needs no file"
        raise ValueError(
            "model must be a YAML file, or the name of a stock Ultralytics model such as yolo11n.yaml, got "
            f"{name}{hint if means_dysample(name) else ''}"
        )
    return stock


def _size_notes(model: str, out: Path | None, file: Path) -> list[str]:
    asked = Path(model).stem
    if out is None or file.stem == asked or out.stem.startswith(asked):
        return []
    return [
        f"{out} has every size of {file.name}, and Ultralytics picks one by the file's name: name it "
        f"{asked}-dysample.yaml for the size of {model}"
    ]


def _build_notes(text: str, file: str) -> list[str]:
    """Try the layers at every size of the model: a row that cannot be built is better refused now than by `yolo`."""
    import yaml

    from yolov10_dysample.registration import build_on_meta
    from yolov10_dysample.rows import RowError

    model = {**yaml.safe_load(text), "yaml_file": file}
    try:
        for size in model.get("scales") or [""]:
            build_on_meta({**model, "scale": size})
    except RowError:
        raise
    except Exception as error:  # the rest of the model is its author's and Ultralytics'
        return [f"not tried out, since the model cannot be built here ({described(error)})"]
    return []


def _write(out: Path, text: str, force: bool) -> None:
    """All of the text or nothing: a reader never sees half a file, and a failure leaves what was there."""
    if out.is_dir():
        raise ValueError(f"{out} is a folder")
    if not out.name.endswith((".yaml", ".yml")):
        raise ValueError(f"{out} must end in .yaml: Ultralytics reads a model only from such a file")
    if out.exists() and not force:
        raise ValueError(f"{out} exists; write it again with force=True")
    target = out.resolve()  # through a link, not in its place
    if not target.parent.is_dir():
        raise ValueError(f"{out} cannot be written: there is no folder {target.parent}")
    write_whole(target, text.encode())


COMMAND = Command(
    name="convert",
    summary="put DySample into a model YAML",
    description="""
        Replace the nn.Upsample rows of an Ultralytics model YAML by DySample rows. Comments, layout and the index of
        every row stay, so pretrained weights still fit all other layers.
    """,
    keys=(
        Key("model", "a file, or the bare name of a stock Ultralytics model", home, required=True, example="mine.yaml"),
        Key("out", "the file to write; default: the screen", path),
        Key("force", "True: write the file even if it exists; default: False", flag, False),
        Key("rows", "indices of the rows to replace, such as 11,14; default: all nn.Upsample", several(whole(0))),
        Key("style", "lp: offsets predicted at the input's resolution (default); pl: at the output's", default="lp"),
        Key("groups", "groups of channels with offsets of their own; default: 4", whole(1), 4),
        Key("dyscope", "True: predict the range of the offsets too; default: False", flag, False),
        Key("init", "bilinear: start as published (default); nearest: start as nn.Upsample", default="bilinear"),
    ),
    examples="""
        yolov10-dysample convert model=mine.yaml out=mine-dysample.yaml
        yolov10-dysample convert model=yolo11.yaml out=yolo11-dysample.yaml   a stock model; yolo11n- to
                                                          yolo11x-dysample.yaml now mean this file, in its folder
        yolov10-dysample convert model=mine.yaml rows=14             one of two layers
        yolov10-dysample convert model=mine.yaml style=pl groups=8   the paper's DySample-S
        yolov10-dysample convert model=mine.yaml init=nearest        start as nn.Upsample, for weights trained with that
    """,
    run=_run,
)
