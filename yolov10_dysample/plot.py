"""Pictures of what DySample does in a trained model, written to files: where it samples, and what comes of it.

``offsets`` has the numbers and ``figures`` the drawing. Importing it loads neither Ultralytics nor matplotlib, and no
setting of them is changed.
"""

from __future__ import annotations

from pathlib import Path

from yolov10_dysample.files import write_all
from yolov10_dysample.offsets import (
    OffsetField,
    Result,
    Source,
    YOLOModel,
    checked_network,
    found_boxes,
    model_name,
    predict_by_copy,
    record_offsets,
    size_of_training,
)

__all__ = ["check_folder", "draw", "focus_of", "plot", "write"]


def plot(
    model: YOLOModel,
    source: Source,
    out: str | Path,
    imgsz: int | None = None,
    other: YOLOModel | None = None,
    conf: float = 0.25,
) -> list[Path]:
    """Draw what the DySample layers of a model do to an image, and what the model finds there.

    Args:
        model, source, imgsz: As in :func:`~yolov10_dysample.offsets.offset_fields`.
        out (str | Path): A folder, made if it is not there. Files of the same names in it are replaced.
        other (YOLO): A model to compare the predictions with; it need not have DySample.
        conf (float): Confidence from which predictions are drawn, 0 to 1.

    Returns:
        list[Path]: The files: ``offsets-layer11.png`` for each DySample layer, by its index, and ``predictions.png``.

    Raises:
        ValueError: As ``offset_fields``, or if ``out`` or ``conf`` does not fit; nothing is written then.
    """
    check_folder(out)
    return write(draw(model, source, imgsz, other, conf)[1], out)


def draw(
    model: YOLOModel,
    source: Source,
    imgsz: int | None = None,
    other: YOLOModel | None = None,
    conf: float = 0.25,
) -> tuple[list[OffsetField], dict[str, bytes]]:
    """What :func:`plot` draws, and the PNG files to be, by their names."""
    from yolov10_dysample import figures  # loads matplotlib

    if isinstance(conf, bool) or not isinstance(conf, (int, float)) or not 0 <= conf <= 1:
        raise ValueError(f"conf must be a number from 0 to 1, got {conf!r}")
    if other is not None:
        checked_network(other)
    fields, result = record_offsets(model, source, imgsz, conf)
    shown = [(model_name(model), result)]
    if other is not None:
        size = imgsz or size_of_training(model)  # both see the same
        shown.append((model_name(other), predict_by_copy(other, source, size, conf)))
    pictures = {f"offsets-layer{field.i}.png": figures.offsets(field, focus_of(result)) for field in fields}
    return fields, {**pictures, "predictions.png": figures.predictions(shown, conf)}


def write(pictures: dict[str, bytes], out: str | Path) -> list[Path]:
    """Write files into a folder, all of them or none."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_all({folder / name: content for name, content in pictures.items()})
    return [folder / name for name in pictures]


def check_folder(out: str | Path) -> None:
    """Refuse, before anything is drawn, a folder that cannot be made."""
    for path in (Path(out), *Path(out).parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"out must be a folder, but {path} is a file")


def focus_of(result: Result) -> tuple[float, float]:
    """The centre of the surest detection, else of the image, as fractions of its width and height.

    Fractions of the padded image too: the padding is less than a stride, and the stretching of RT-DETR is no matter.
    """
    if (boxes := found_boxes(result)) is None:
        return 0.5, 0.5
    left, top, right, bottom = boxes.xyxy[boxes.conf.argmax()].tolist()
    height, width = result.orig_shape
    return (left + right) / 2 / width, (top + bottom) / 2 / height
