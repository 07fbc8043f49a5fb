"""Draw the picture of the README: what a model with DySample finds in a photograph, and where its layer 11 samples
around the surest detection. It must never draw otherwise than ``yolov10-dysample plot`` does.

docs/trees.png: ``python -m scripts.readme_picture runs/detect/train/weights/best.pt 541000 docs/trees.png``, of weights
made by ``python -m scripts.make_trees``, ``python -m scripts.coco_weights`` and ``yolo detect train
model=yolov10n-dysample.yaml pretrained=<coco weights> data=datasets/trees/data.yaml imgsz=320 batch=16 nbs=16 epochs=30
seed=0 workers=0``. The photograph is of the plot that they are validated on: no tree in it was trained on.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image, ImageFilter

from scripts.make_trees import PLOTS, read_plot
from yolov10_dysample.figures import (
    COLOURS,
    GREY,
    INK,
    PictureRow,
    draw_detections,
    draw_frame,
    draw_places,
    layout,
    png,
    window_of,
)
from yolov10_dysample.files import write_whole
from yolov10_dysample.offsets import YOLOModel, record_offsets
from yolov10_dysample.plot import focus_of

CROP = 640  # pixels a side, and imgsz: the network sees the photograph as it is, without padding
LAYER = 11
FRAME = COLOURS[1]  # the blue of `plot` is too near to that of the boxes
PHOTOGRAPH_COLOURS = 32  # 250 KB is what the file may have, and the least noise in a photograph is most of it


def read_photograph(image: str) -> np.ndarray:
    """A plot of make_trees, by its name, or an image file (uint8[h, w, 3], RGB)."""
    if image in PLOTS:
        return read_plot(image).image
    if not Path(image).is_file():
        raise ValueError(f"image must be one of {', '.join(PLOTS)} or an image file, got {image}")
    with Image.open(image) as opened:
        return np.asarray(opened.convert("RGB"))


def crop(photograph: np.ndarray, left: int, top: int) -> np.ndarray:
    """The part of a photograph that is shown (uint8[640, 640, 3]).

    Raises:
        ValueError: it would not lie within the photograph.
    """
    height, width = photograph.shape[:2]
    if not (0 <= left <= width - CROP and 0 <= top <= height - CROP):
        raise ValueError(
            f"the part shown, {CROP} x {CROP} px, must lie within the photograph of {width} x {height} px, got "
            f"left={left} top={top}; write other --left and --top, or another image"
        )
    return photograph[top : top + CROP, left : left + CROP]


def readme_picture(model: YOLOModel, photograph: np.ndarray) -> bytes:
    """The PNG: detections to the left, and to the right, magnified, what is in their frame.

    Args:
        model (YOLO): with a DySample layer of index 11.
        photograph (uint8[640, 640, 3]): RGB.
    """
    fields, result = record_offsets(model, np.ascontiguousarray(photograph[..., ::-1]), imgsz=CROP)
    field = next((field for field in fields if field.i == LAYER), None)
    if field is None:
        raise ValueError(f"the model must have DySample as layer {LAYER}, got layers {[field.i for field in fields]}")
    window = window_of(field, focus_of(result))
    result.orig_img = np.asarray(Image.fromarray(result.orig_img).filter(ImageFilter.MedianFilter(3)))
    figure, (detections, places) = layout([PictureRow([1, 1], below=0.6)])
    draw_detections(detections, result, labels=False)
    draw_frame(detections, field, window, FRAME)
    detections.set_title(f"{len(result)} detections of YOLOv10n with DySample\nFrame: the magnified part", size=11)
    draw_places(places, field, window)
    return with_palette(png(figure))


def with_palette(content: bytes) -> bytes:
    """A PNG in few colours, among them those of the marks as they are."""
    from ultralytics.utils.plotting import colors

    with Image.open(io.BytesIO(content)) as opened:
        full = opened.convert("RGB")
    marks = [[round(255 * value) for value in to_rgb(colour)] for colour in (*COLOURS, INK, GREY, "white")]
    few = full.quantize(PHOTOGRAPH_COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=3).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*few[: 3 * PHOTOGRAPH_COLOURS], *(value for mark in [*marks, colors(0)] for value in mark)])
    file = io.BytesIO()
    full.quantize(palette=palette, dither=Image.Dither.NONE).save(file, format="png", optimize=True)
    return file.getvalue()


def main(argv: list[str] | None = None) -> None:
    """Command line of :func:`readme_picture`."""
    parser = argparse.ArgumentParser(prog="python -m scripts.readme_picture", description="Draw the README's picture.")
    parser.add_argument("weights", help="best.pt of a training with DySample, see the head of this file")
    parser.add_argument("image", help=f"a plot of scripts.make_trees ({', '.join(PLOTS)}), or an image file")
    parser.add_argument("out", type=Path, help="the PNG file")
    parser.add_argument("--left", type=int, default=300, help="where the part that is shown begins, in pixels")
    parser.add_argument("--top", type=int, default=300, help="the same, from the top")
    options = parser.parse_args(argv)
    from ultralytics import YOLO

    try:
        photograph = crop(read_photograph(options.image), options.left, options.top)
        write_whole(options.out, readme_picture(YOLO(options.weights), photograph))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{options.out}: {options.out.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    main()
