"""``yolov10-dysample plot``: what the DySample layers of a trained model do to an image, as pictures and figures.

It opens the models and names the folder; the drawing is in ``plot``. It must write nothing before all is drawn.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yolov10_dysample.commands.keys import Command, Key, UsageError, home, number, path, whole
from yolov10_dysample.files import next_free

__all__ = ["COMMAND"]

#: Where it writes by default, with a number if that is there already.
FOLDER = Path("runs/dysample/plot")


def _run(values: dict[str, Any]) -> int:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # for what Ultralytics says when it is imported
            fields, files = _plotted(**values)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from None
    for file in files:
        print(file)
    for field in fields:
        figures = ", ".join(f"{name} {value:.3g}" for name, value in field.statistics.items())
        print(f"layer {field.i}: offsets in pixels of its input: {figures}")
    return 0


def _plotted(
    weights: Path, source: str, other: Path | None, imgsz: int | None, conf: float, out: Path | None
) -> tuple[list[Any], list[Path]]:
    models = {"weights": weights, "other": other}
    files = {key: file for key, file in models.items() if file}
    for key, file in files.items():
        _check_weights(key, file)
    from yolov10_dysample import plot

    plot.check_folder(out or FOLDER)
    with _quiet_ultralytics(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = {key: _opened(key, file) for key, file in files.items()}
        fields, pictures = plot.draw(opened["weights"], source, imgsz, opened.get("other"), conf)
    return fields, plot.write(pictures, out or next_free(FOLDER))


def _check_weights(key: str, file: Path) -> None:
    if file.suffix != ".pt":
        raise ValueError(f"{key} must be a .pt file: an export no longer has the layers to look at; got {file}")
    if not file.is_file():
        raise ValueError(f"{key} must be a .pt file, but {file} is {'a folder' if file.exists() else 'not there'}")


def _opened(key: str, file: Path) -> Any:
    from yolov10_dysample.study.candidates import as_yolo_opens

    try:
        return as_yolo_opens(str(file))
    except Exception as error:  # unpickling a file that is no checkpoint may raise anything
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        raise ValueError(f"{key} must be a checkpoint of Ultralytics, and {file} cannot be opened: {reason}") from None


@contextlib.contextmanager
def _quiet_ultralytics() -> Iterator[None]:
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel("CRITICAL")
    try:
        yield
    finally:
        LOGGER.setLevel(level)


COMMAND = Command(
    name="plot",
    summary="draw what DySample does in a trained model",
    description="""
        Draw what the DySample layers of a trained model do to an image. For each of them offsets-layer11.png, by its
        index: where the sub-pixels of each cell sample, how far and in which direction they are moved over the image,
        and how far in each group of channels. predictions.png has what the model finds, beside what another one does.
        It prints the files, and for each layer, in pixels of its input: the mean length of the offsets, their 99th
        percentile, the largest, and their spread (standard deviation over the image: 0 if all cells are moved alike).
    """,
    keys=(
        Key("weights", "the model: a .pt file with DySample layers", path, required=True, example="best.pt"),
        Key("source", "one image of any size", home, required=True, example="image.jpg"),
        Key("other", "a model to compare the predictions with (.pt), with or without DySample", path),
        Key("imgsz", "size the image is fitted into; default: that of the training, as for yolo predict", whole(32)),
        Key("conf", "confidence from which predictions are drawn; default: 0.25", number(0, 1), 0.25),
        Key(
            "out",
            f"the folder to write to, where files of the same names are replaced; default: the next free one of "
            f"{FOLDER.as_posix()}, {FOLDER.as_posix()}2, ...",
            path,
        ),
    ),
    examples="""
        yolov10-dysample plot weights=runs/detect/train/weights/best.pt source=image.jpg
        yolov10-dysample plot weights=best.pt source=image.jpg other=yolov10n.pt conf=0.5 out=pictures
    """,
    run=_run,
)
