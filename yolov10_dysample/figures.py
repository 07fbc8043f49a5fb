"""Draws the offsets of DySample layers and what models find, as PNG files to be.

It uses matplotlib's figures apart from pyplot, whose state belongs to the caller.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from yolov10_dysample.offsets import OffsetField, sampling_places

INK, GREY = "#263238", "#78909c"
#: Blue, vermilion, green and black: told apart with any kind of colour vision (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000")
SUB_PIXELS = ("top left", "top right", "bottom left", "bottom right")
WINDOW = 12  # output pixels a side of the magnified part: more would hide one another
ARROWS = 20  # a side, at most
WIDTH, GAP = 10.0, 0.15  # inches: 10 points are then 12 pixels in a README 900 wide
WIDE_ASPECT = 0.45  # height over width below which pictures are not set side by side
SMALL_IMAGE_PX = 320  # pixels: on smaller images the labels would hide what they label


def offsets(field: OffsetField, focus: tuple[float, float]) -> bytes:
    """The PNG of one layer: places magnified around ``focus`` (fractions of width and height), arrows, and lengths."""
    height, width = field.image.shape[:2]
    window = window_of(field, focus)
    shape, part = height / width, (window[3] - window[2]) / (window[1] - window[0])
    tops = (
        [_PictureRow([part], below=0.6), _PictureRow([shape])]
        if shape < WIDE_ASPECT
        else [_PictureRow([part, shape], below=0.6)]
    )
    columns = min(field.groups, 2 if shape < WIDE_ASPECT else 4)
    counts = [min(columns, field.groups - first) for first in range(0, field.groups, columns)]
    lengths = [_PictureRow([shape] * count, columns, above=0.3, tallest=4.0) for count in counts]
    bar = _PictureRow([0.015], above=0.0, below=0.5, tallest=0.14)  # room beside it for the outermost ticks
    figure, (places, arrows, *maps, colours) = _layout([*tops, *lengths, bar], header=0.85)
    _draw_places(places, field, window)
    _draw_arrows(arrows, field, window)
    _draw_lengths(maps, colours, field)
    _draw_title(figure, field)
    return _png(figure)


def _draw_title(figure: Figure, field: OffsetField) -> None:
    (rows, columns), scale = field.size, field.scale
    title = (
        f"Layer {field.i}: DySample from {rows} x {columns} to {rows * scale} x {columns * scale} pixels, "
        f"{field.groups} group{'s' * (field.groups > 1)} of channels, init {field.init}"
    )
    said = (
        "Offsets, in pixels of the layer's input (cells): mean {mean:.3g}, 99 % below {p99:.3g}, largest "
        "{largest:.3g};\nstandard deviation over the image {spread:.3g} (0 if all cells are moved alike)"
    ).format(**field.statistics)
    left, top, height = GAP / WIDTH, figure.get_figheight(), figure.get_figheight()
    figure.text(left, (top - 0.1) / height, title, va="top", weight="bold", size=12, color=INK)
    figure.text(left, (top - 0.38) / height, said, va="top", size=11, color=INK)


def window_of(field: OffsetField, focus: tuple[float, float]) -> tuple[int, int, int, int]:
    """Left, right, top and bottom of the part to magnify, in pixels of the layer's input.

    Example:
        >>> field = OffsetField(11, torch.zeros(2, 4, 40, 30), 2, "bilinear", np.zeros((640, 480, 3), np.uint8))
        >>> window_of(field, (0.5, 0.5)), window_of(field, (1.0, 0.0))
        ((4, 10, 7, 13), (9, 15, 0, 6))
    """
    edges = []
    for centre, side in zip(focus, reversed(field.size), strict=True):
        length = min(max(WINDOW // field.scale, 1), side)
        first = min(max(round(centre * side - length / 2), 0), side - length)
        edges += [first, first + length]
    left, right, top, bottom = edges
    return left, right, top, bottom


def _draw_places(axis: Any, field: OffsetField, window: tuple[int, int, int, int]) -> None:
    left, right, top, bottom = window
    scale, stride = field.scale, field.stride
    part = (..., slice(top * scale, bottom * scale), slice(left * scale, right * scale))
    ends = sampling_places(field.offset, scale, field.init, stride)[part].numpy()
    starts = sampling_places(torch.zeros_like(field.offset), scale, field.init, stride)[part].numpy()
    _show_image(axis, field.image)
    axis.hlines(np.arange(top, bottom + 1) * stride, left * stride, right * stride, color="white", lw=1)
    axis.vlines(np.arange(left, right + 1) * stride, top * stride, bottom * stride, color="white", lw=1)
    for k, colour in enumerate(COLOURS):
        # With a scale of 2 these are the sub-pixels of a cell; with a larger one they tell neighbours apart.
        (x0, y0), (x1, y1) = (places[..., k // 2 :: 2, k % 2 :: 2].reshape(2, -1) for places in (starts, ends))
        axis.plot([x0, x1], [y0, y1], color=colour, lw=0.8, alpha=0.5)
        axis.plot(x0, y0, "o", ms=7, mfc="none", mec=colour, mew=0.9)
        label = f"{SUB_PIXELS[k]} of a cell" if scale == 2 else "colours tell neighbours apart" if k == 0 else None
        axis.plot(x1, y1, "o", ms=4, mfc=colour, mec="white", mew=0.4, label=label)
    axis.plot([], [], "o", ms=7, mfc="none", mec=GREY, label="start: offset 0")
    axis.set_xlim(left * stride, right * stride)
    axis.set_ylim(bottom * stride, top * stride)
    rows, columns = field.size
    several = ", one dot for each group" if field.groups > 1 else ""
    axis.set_title(
        f"Where the output pixels sample{several}\n"
        f"{bottom - top} x {right - left} of {rows} x {columns} cells of {stride:g} px",
        size=11,
    )
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, frameon=False, handletextpad=0, columnspacing=1)


def _draw_arrows(axis: Any, field: OffsetField, window: tuple[int, int, int, int]) -> None:
    # Whole cells, so that what tells sub-pixels apart, the same in every cell, makes no pattern of its own.
    cells = -(-max(field.size) // ARROWS)
    means = _block_means(field.offset.mean(dim=1), cells * field.scale) * field.stride
    centres = sampling_places(torch.zeros_like(field.offset), field.scale, "nearest", field.stride)[:, 0]
    x, y = _block_means(centres, cells * field.scale).numpy()
    factor = exaggeration(np.percentile(means.norm(dim=0).numpy(), 95), cells * field.stride)
    _show_image(axis, field.image)
    axis.quiver(
        x,
        y,
        *(means * factor).numpy(),
        angles="xy",
        scale_units="xy",
        scale=1,
        color=COLOURS[1],
        edgecolor="white",
        linewidth=0.4,
        units="inches",
        width=0.028,
        headwidth=3.5,
        headlength=4,
        headaxislength=3.6,
    )
    left, right, top, bottom = (edge * field.stride for edge in window)
    axis.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color=COLOURS[0], lw=2)
    length = f"drawn {factor:g} times as long" if factor > 1 else "at their true length"
    axis.set_title(f"Mean offset of cells and groups, {length}\nFrame: the magnified part", size=11)


def _block_means(values: Tensor, block: int) -> Tensor:
    return F.avg_pool2d(values, block, ceil_mode=True, count_include_pad=False)


def exaggeration(length: float, room: float) -> float:
    """The largest of 1, 2, 5, 10, 20, ... that keeps arrows of a length within their room.

    Example:
        >>> exaggeration(0.3, room=32), exaggeration(50, room=32)
        (100.0, 1)
    """
    steps = [step * 10.0**power for power in range(7) for step in (1, 2, 5)]
    return max([step for step in steps if 0 < step * length <= room], default=1)


def _draw_lengths(axes: list[Any], bar: Any, field: OffsetField) -> None:
    lengths = _block_means(torch.hypot(*field.offset), field.scale).numpy()
    height, width = field.image.shape[:2]
    low, high = lengths.min(), max(lengths.max(), lengths.min() + 0.001)  # less is no difference to look at
    for k, (axis, length) in enumerate(zip(axes, lengths, strict=True)):
        drawn = axis.imshow(length, cmap="cividis", vmin=low, vmax=high, extent=(0, width, height, 0), aspect="auto")
        axis.set_axis_off()
        axis.set_title(f"group {k}: mean {length.mean():.3g} px", size=11)
    colours = bar.figure.colorbar(drawn, cax=bar, orientation="horizontal")
    colours.set_label("length of the offsets, mean of each cell, in pixels of the layer's input", size=11)
    colours.outline.set_visible(False)


def _show_image(axis: Any, image: np.ndarray) -> None:
    pale = 255 - (255 - image) * 0.5  # so that marks stand out
    extent = (0, image.shape[1], image.shape[0], 0)
    axis.imshow(pale.astype(np.uint8), extent=extent, interpolation="bilinear", aspect="auto")
    axis.set_axis_off()


def predictions(shown: list[tuple[str, Any]], conf: float) -> bytes:
    """The PNG of what models find in one image, from pairs of a model's name and its result."""
    height, width = shown[0][1].orig_shape
    small: dict[str, Any] = (
        {"labels": False, "conf": False, "line_width": 1} if min(height, width) < SMALL_IMAGE_PX else {}
    )
    rows = [[0], [1]] if len(shown) > 1 and height / width < WIDE_ASPECT else [list(range(len(shown)))]
    figure, axes = _layout([_PictureRow([height / width] * len(row), tallest=8.0) for row in rows])
    names = short_names([name for name, _ in shown])
    for axis, name, (_, result) in zip(axes, names, shown, strict=True):
        axis.imshow(result.plot(**small)[..., ::-1], aspect="auto")
        axis.set_axis_off()
        found = f"{len(result)} detection{'s' * (len(result) != 1)} of confidence {conf:g} or more"
        axis.set_title(f"{name}\n{found}", size=11, parse_math=False)
    return _png(figure)


def short_names(names: list[str]) -> list[str]:
    """File names, with as many folders as tell them apart: two models are often both best.pt.

    Example:
        >>> short_names(["runs/detect/train/weights/best.pt", "runs/detect/train2/weights/best.pt"])
        ['train/weights/best.pt', 'train2/weights/best.pt']
    """
    parts = [Path(name).parts for name in names]
    length = next((n for n in range(1, 9) if len({p[-n:] for p in parts}) == len(parts)), 1)
    return ["/".join(p[-length:]) for p in parts]


@dataclass(frozen=True)
class _PictureRow:
    """Pictures side by side, in inches: room above for titles and below, and the height that no picture exceeds."""

    shapes: list[float]  # height over width
    columns: int = 0  # 0: as many as pictures
    above: float = 0.5
    below: float = 0.15
    tallest: float = 6.0

    @property
    def cell(self) -> float:
        return (WIDTH - GAP) / (self.columns or len(self.shapes))

    @property
    def heights(self) -> list[float]:
        return [min((self.cell - GAP) * shape, self.tallest) for shape in self.shapes]


def _layout(rows: list[_PictureRow], header: float = 0.1) -> tuple[Figure, list[Any]]:
    """A figure with axes of known shapes, without waste."""
    total = header + sum(row.above + max(row.heights) + row.below for row in rows)
    figure, top, axes = Figure(figsize=(WIDTH, total)), total - header, []
    for row in rows:
        top -= row.above
        for k, (shape, height) in enumerate(zip(row.shapes, row.heights, strict=True)):
            width = height / shape
            left = GAP + k * row.cell + (row.cell - GAP - width) / 2
            axes.append(figure.add_axes((left / WIDTH, (top - height) / total, width / WIDTH, height / total)))
        top -= max(row.heights) + row.below
    return figure, axes


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()
