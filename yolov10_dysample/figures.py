"""Draws the offsets of DySample layers and what models find, as PNG files to be.

It uses matplotlib's figures apart from pyplot, whose state belongs to the caller.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from yolov10_dysample.offsets import Boxes, OffsetField, Result, found_boxes, sampling_places

__all__ = [
    "PictureRow",
    "draw_detections",
    "draw_frame",
    "draw_places",
    "exaggeration",
    "label_places",
    "layout",
    "offsets",
    "png",
    "predictions",
    "short_names",
    "training",
    "window_of",
]

INK, GREY = "#263238", "#78909c"
#: Blue, vermilion, green and black: told apart with any kind of colour vision (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000")
SUB_PIXELS = ("top left", "top right", "bottom left", "bottom right")
WINDOW = 12  # output pixels a side of the magnified part: more would hide one another
ARROWS = 20  # a side, at most
WIDTH, GAP = 10.0, 0.15  # inches: 10 points are then 12 pixels in a README 900 wide
WIDE_ASPECT = 0.45  # height over width below which pictures are not set side by side
DPI = 150
LABEL_PT, LABEL_PAD_PT = 8.0, 1.5  # points: the size of a label's text, and the room round it
PADDING = 114  # the grey that Ultralytics pads images with
COVERED = 0.1  # the part of a detection that a label may cover


def offsets(field: OffsetField, focus: tuple[float, float]) -> bytes:
    """The PNG of one layer: places magnified around ``focus`` (fractions of width and height), arrows, and lengths."""
    height, width = field.image.shape[:2]
    window = window_of(field, focus)
    shape, part = height / width, (window[3] - window[2]) / (window[1] - window[0])
    tops = (
        [PictureRow([part], below=0.6), PictureRow([shape])]
        if shape < WIDE_ASPECT
        else [PictureRow([part, shape], below=0.6)]
    )
    columns = min(field.groups, 2 if shape < WIDE_ASPECT else 4)
    counts = [min(columns, field.groups - first) for first in range(0, field.groups, columns)]
    lengths = [PictureRow([shape] * count, columns, above=0.3, tallest=4.0) for count in counts]
    bar = PictureRow([0.015], above=0.0, below=0.5, tallest=0.14)  # room beside it for the outermost ticks
    figure, (places, arrows, *maps, colours) = layout([*tops, *lengths, bar], header=0.85)
    draw_places(places, field, window)
    _draw_arrows(arrows, field, window)
    _draw_lengths(maps, colours, field)
    _draw_title(figure, field)
    return png(figure)


def training(fields: Sequence[OffsetField], rows: Sequence[dict[str, float]]) -> bytes:
    """The PNG of a training: the offsets of its layers by epoch, and below, for each layer, where it samples at last.

    Args:
        fields (OffsetField[n]): Each layer's, for one image, after the last epoch.
        rows (dict[epochs]): ``epoch``, and for each layer ``dysample/layer<i>_mean``, ``..._p99`` and ``..._spread``,
            see :func:`~yolov10_dysample.offsets.offset_statistics`.
    """
    curves = PictureRow([0.6, 0.6], above=0.7, below=0.75 + 0.22 * max(len(fields), 2))
    layers = [PictureRow([1, f.image.shape[0] / f.image.shape[1]], above=0.6, below=0.5, tallest=4.2) for f in fields]
    figure, (lengths, spreads, *pictures) = layout([curves, *layers], header=0.4)
    first, last = (round(row["epoch"]) for row in (rows[0], rows[-1]))
    epochs = f"epoch {last}" if first == last else f"epochs {first} to {last}"
    title, top = f"What the DySample layers do to validation images, {epochs}", figure.get_figheight()
    figure.text(GAP / WIDTH, (top - 0.1) / top, title, va="top", weight="bold", size=12, color=INK)
    _draw_curves(lengths, fields, rows, {"p99": ", 99 %", "mean": ", mean"})
    lengths.set_title(
        "Length of the offsets, 99th percentile and mean,\nin pixels of each layer's input (cells)", size=11, pad=18
    )
    _draw_curves(spreads, fields, rows, {"spread": ""})
    spreads.set_title(
        "How much they depend on the place:\nstandard deviation over the image, in cells", size=11, pad=18
    )
    for field, places, arrows in zip(fields, pictures[::2], pictures[1::2], strict=True):
        _draw_layer(places, arrows, field)
    return png(figure)


def _draw_curves(
    axis: Axes, fields: Sequence[OffsetField], rows: Sequence[dict[str, float]], names: dict[str, str]
) -> None:
    epochs = [row["epoch"] for row in rows]
    for k, field in enumerate(fields):
        colour = COLOURS[k % len(COLOURS)]
        for style, (name, label) in zip(("-", "--"), names.items(), strict=False):
            values = [row[f"dysample/layer{field.i}_{name}"] for row in rows]
            axis.plot(epochs, values, style, color=colour, label=f"layer {field.i}{label}")
            axis.plot(epochs[-1], values[-1], "o", ms=4, color=colour)  # all there is to see of a single epoch
    left, bottom, width, height = axis.get_position().bounds
    axis.set_position((left + 0.055, bottom, width - 0.065, height))  # room for the numbers beside it
    axis.set_ylim(bottom=0)
    axis.ticklabel_format(axis="y", scilimits=(-2, 3), useMathText=True)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.set_xlabel("epoch", size=11)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(fields) if len(fields) < 4 else 2, frameon=False
    )


def _draw_layer(places: Axes, arrows: Axes, field: OffsetField) -> None:
    wrong = int((~field.offset.isfinite()).sum())
    if wrong:
        for axis in (places, arrows):
            _show_image(axis, field.image)
        places.set_title(f"Layer {field.i}: {wrong} of {field.offset.numel()} offsets\nare not finite numbers", size=11)
        arrows.set_title("The model has diverged", size=11)
        return
    window = window_of(field, _most_varied(field))
    draw_places(places, field, window)
    left, right, top, bottom = window
    rows, columns = field.size
    places.set_title(
        f"Layer {field.i}: where output pixels sample{', a dot for each group' * (field.groups > 1)}\n"
        f"{bottom - top} x {right - left} of {rows} x {columns} cells of {field.stride:g} px, where offsets vary most",
        size=11,
    )
    _draw_arrows(arrows, field, window)


def _most_varied(field: OffsetField) -> tuple[float, float]:
    """The centre of the window whose cells are moved least alike, as fractions of width and height."""
    cells = _block_means(field.offset.flatten(0, 1).double(), field.scale)
    side = min(max(WINDOW // field.scale, 1), *field.size)
    variance = (F.avg_pool2d(cells**2, side, 1) - F.avg_pool2d(cells, side, 1) ** 2).sum(dim=0)
    # Where the image is padded, the edge of the padding varies most, and shows nothing.
    padded = torch.from_numpy((field.image == PADDING).all(axis=2)).double()[None]
    share = F.avg_pool2d(F.adaptive_avg_pool2d(padded, field.size), side, 1)[0]
    variance = torch.where(share == share.min(), variance, -1)
    row, column = divmod(int(variance.argmax()), variance.shape[1])
    return (column + side / 2) / field.size[1], (row + side / 2) / field.size[0]


def _draw_title(figure: Figure, field: OffsetField) -> None:
    (rows, columns), scale = field.size, field.scale
    title = (
        f"Layer {field.i}: DySample from {rows} x {columns} to {rows * scale} x {columns * scale} pixels, "
        f"{field.groups} group{'s' * (field.groups > 1)} of channels, init {field.init}"
    )
    left, top, height = GAP / WIDTH, figure.get_figheight(), figure.get_figheight()
    figure.text(left, (top - 0.1) / height, title, va="top", weight="bold", size=12, color=INK)
    figure.text(left, (top - 0.38) / height, _in_words(field), va="top", size=11, color=INK)


def _in_words(field: OffsetField) -> str:
    start = "all sub-pixels of a cell start at its centre"
    if not field.offset.any():
        upsample = f"nn.Upsample(scale_factor={field.scale}, mode='{field.init}')"
        return f"All offsets are 0: the layer samples as {upsample}" + f";\n{start}" * (field.init == "nearest")
    return (
        "Offsets, in pixels of the layer's input (cells): mean {mean:.3g}, 99 % up to {p99:.3g}, largest "
        "{largest:.3g};\nstandard deviation over the image {spread:.3g} (0 if all cells are moved alike)"
    ).format(**field.statistics) + f"; {start}" * (field.init == "nearest")


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


def draw_places(axis: Axes, field: OffsetField, window: tuple[int, int, int, int]) -> None:
    """Draw where the output pixels of a window sample: dots, each with a line from where an offset of 0 samples."""
    left, right, top, bottom = window
    scale, stride = field.scale, field.stride
    part = (..., slice(top * scale, bottom * scale), slice(left * scale, right * scale))
    ends = sampling_places(field.offset, scale, field.init, stride)[part].numpy()
    starts = sampling_places(torch.zeros_like(field.offset), scale, field.init, stride)[part].numpy()
    _show_image(axis, field.image)
    axis.hlines(np.arange(top, bottom + 1) * stride, left * stride, right * stride, color="white", lw=1)
    axis.vlines(np.arange(left, right + 1) * stride, top * stride, bottom * stride, color="white", lw=1)
    shared_start = field.init == "nearest"
    for rows, columns, colour, label in _kinds_of_dots(field):
        pairs = np.stack([places[..., rows, columns].reshape(2, -1) for places in (starts, ends)])
        (x0, y0), (x1, y1) = pairs
        axis.add_collection(LineCollection(list(pairs.transpose(2, 0, 1)), color=colour, lw=0.8, alpha=0.5))
        axis.plot(x0, y0, "o", ms=7, mfc="none", mec=GREY if shared_start else colour, mew=0.9)
        axis.plot(x1, y1, "o", ms=4, mfc=colour, mec="white", mew=0.4, label=label)
    start = "start: centre" if shared_start else "start: offset 0"
    axis.plot([], [], "o", ms=7, mfc="none", mec=GREY, label=start)
    axis.set_xlim(left * stride, right * stride)
    axis.set_ylim(bottom * stride, top * stride)
    cells = field.size
    several = ", one dot for each group" if field.groups > 1 else ""
    axis.set_title(
        f"Where the output pixels sample{several}\n"
        f"{bottom - top} x {right - left} of {cells[0]} x {cells[1]} cells of {stride:g} px",
        size=11,
    )
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, frameon=False, handletextpad=0, columnspacing=1)


def _kinds_of_dots(field: OffsetField) -> list[tuple[slice, slice, str, str | None]]:
    """Rows and columns of the output pixels that are drawn alike, their colour, and what the legend says of them."""
    if field.init == "nearest" and not field.offset.any():
        return [(slice(None), slice(None), INK, "all sub-pixels of a cell, at its centre")]
    # With a scale of 2 these are the sub-pixels of a cell; with a larger one they tell neighbours apart.
    labels = [f"{name} of a cell" for name in SUB_PIXELS] if field.scale == 2 else ["colours tell neighbours apart"]
    return [
        (slice(k // 2, None, 2), slice(k % 2, None, 2), colour, labels[k] if k < len(labels) else None)
        for k, colour in enumerate(COLOURS)
    ]


def _draw_arrows(axis: Axes, field: OffsetField, window: tuple[int, int, int, int]) -> None:
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
    draw_frame(axis, field, window)
    length = f"drawn {factor:g} times as long" if factor > 1 else "at their true length"
    axis.set_title(f"Mean offset of cells and groups, {length}\nFrame: the magnified part", size=11)


def draw_frame(axis: Axes, field: OffsetField, window: tuple[int, int, int, int], colour: str = COLOURS[0]) -> None:
    """Draw a frame round a window over the image that the network saw."""
    left, right, top, bottom = (edge * field.stride for edge in window)
    axis.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color=colour, lw=2)


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


def _draw_lengths(axes: list[Axes], bar: Axes, field: OffsetField) -> None:
    lengths = _block_means(torch.hypot(*field.offset), field.scale).numpy()
    height, width = field.image.shape[:2]
    high = max(lengths.max(), 0.001)  # from 0, so that what is moved alike looks alike
    for k, (axis, length) in enumerate(zip(axes, lengths, strict=True)):
        drawn = axis.imshow(length, cmap="cividis", vmin=0, vmax=high, extent=(0, width, height, 0), aspect="auto")
        axis.set_axis_off()
        axis.set_title(f"group {k}: mean {length.mean():.3g} px", size=11)
    colours = bar.figure.colorbar(drawn, cax=bar, orientation="horizontal")
    colours.set_label("length of the offsets, mean of each cell, in pixels of the layer's input", size=11)
    colours.outline.set_visible(False)


def _show_image(axis: Axes, image: np.ndarray) -> None:
    pale = 255 - (255 - image) * 0.5  # so that marks stand out
    extent = (0, image.shape[1], image.shape[0], 0)
    axis.imshow(pale.astype(np.uint8), extent=extent, interpolation="bilinear", aspect="auto")
    axis.set_axis_off()


def predictions(shown: list[tuple[str, Result]], conf: float) -> bytes:
    """The PNG of what models find in one image, from pairs of a model's name and its result."""
    height, width = shown[0][1].orig_shape
    rows = [[0], [1]] if len(shown) > 1 and height / width < WIDE_ASPECT else [list(range(len(shown)))]
    figure, axes = layout([PictureRow([height / width] * len(row), tallest=8.0) for row in rows])
    names = short_names([name for name, _ in shown])
    for axis, name, (_, result) in zip(axes, names, shown, strict=True):
        labelled = draw_detections(axis, result)
        found = f"{len(result)} detection{'s' * (len(result) != 1)} of confidence {conf:g} or more"
        some = f", {labelled} labelled" if labelled < len(found_boxes(result) or ()) else ""
        axis.set_title(f"{name}\n{found}{some}", size=11, parse_math=False)
    return png(figure)


def draw_detections(axis: Axes, result: Result, labels: bool = True) -> int:
    """Draw what was found over its image: lines as wide on any image, and labels where they hide nothing.

    Returns:
        int: The detections that have a label.
    """
    height, width = result.orig_shape
    axis.imshow(_drawn_by_ultralytics(axis, result)[..., ::-1], extent=(0, width, height, 0), aspect="auto")
    axis.set_axis_off()
    boxes = found_boxes(result)
    return _draw_labels(axis, result, boxes) if labels and boxes is not None else 0


def _drawn_by_ultralytics(axis: Axes, result: Result) -> np.ndarray:
    """The image (BGR) with boxes, masks and keypoints, in the size that it is shown in: Ultralytics draws in pixels."""
    if (boxes := found_boxes(result)) is None:
        return result.plot()
    shown = axis.get_window_extent()
    size = max(round(shown.height), 1), max(round(shown.width), 1)
    factors = torch.tensor([size[1] / result.orig_shape[1], size[0] / result.orig_shape[0]])  # of x and y
    resized = copy.copy(result)
    resized.orig_img, resized.orig_shape = _resized(result.orig_img, size), size
    for name, lengths in (("boxes", 4), ("obb", 4), ("keypoints", 2)):
        if (part := getattr(result, name, None)) is not None:
            data = part.data.clone()
            data[..., :lengths] *= factors.to(data.device).repeat(lengths // 2)
            setattr(resized, name, type(part)(data, size))
    side = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]).amin(dim=1).median().item() * factors.min().item()
    return resized.plot(labels=False, conf=False, line_width=min(max(round(side / 25), 1), 3))


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    channels = torch.tensor(image).permute(2, 0, 1)[None].float()
    resized = F.interpolate(channels, size, mode="bicubic", antialias=True)[0]
    return np.ascontiguousarray(resized.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def _draw_labels(axis: Axes, result: Result, boxes: Boxes) -> int:
    from ultralytics.utils.plotting import colors  # of the boxes, too

    surest = boxes.conf.argsort(descending=True)
    texts = [
        axis.text(
            0,
            0,
            f"{result.names[int(kind)]} {conf:.2f}",
            size=LABEL_PT,
            color="white",
            va="bottom",
            parse_math=False,
            bbox={"facecolor": np.divide(colors(int(kind)), 255), "edgecolor": "none", "pad": LABEL_PAD_PT},
        )
        for kind, conf in zip(boxes.cls[surest].tolist(), boxes.conf[surest].tolist(), strict=True)
    ]
    height, width = result.orig_shape
    unit = width / axis.get_window_extent().width
    pad = LABEL_PAD_PT * DPI / 72 * unit
    figure: Any = axis.get_figure()
    renderer = FigureCanvasAgg(figure).get_renderer()  # each text would make one of its own
    extents = [text.get_window_extent(renderer) for text in texts]
    sizes = [(extent.width * unit + 2 * pad, extent.height * unit + 2 * pad) for extent in extents]
    places = label_places(boxes.xyxy[surest].tolist(), sizes, (height, width))
    for text, place in zip(texts, places, strict=True):
        if place is None:
            text.remove()
        else:
            text.set_position((place[0] + pad, place[3] - pad))
    return sum(place is not None for place in places)


Corners = tuple[float, float, float, float]


def label_places(
    boxes: Sequence[Sequence[float]], sizes: Sequence[tuple[float, float]], shape: tuple[int, int]
) -> list[Corners | None]:
    """Where labels go: at a corner of their boxes, within the image, over no other label and next to nothing found.

    Args:
        boxes (float[n][4]): Left, top, right and bottom, in pixels of the image; the first have the first choice.
        sizes (float[n][2]): Width and height of the labels, in pixels of the image.
        shape (tuple[int, int]): Height and width of the image.

    Returns:
        list: For each box left, top, right and bottom of its label, or None where there is no room.

    Example:
        >>> label_places([(10, 20, 40, 60), (12, 22, 42, 62)], [(25, 8), (25, 8)], (100, 100))
        [(10, 12, 35, 20), (12, 62, 37, 70)]
        >>> label_places([(0, 0, 20, 20)], [(30, 12)], (20, 20))
        [None]
    """
    placed: list[Corners | None] = []
    for box, size in zip(boxes, sizes, strict=True):
        taken = [label for label in placed if label is not None]
        placed.append(next((spot for spot in _spots(box, size) if _is_free(spot, boxes, taken, shape)), None))
    return placed


def _spots(box: Sequence[float], size: tuple[float, float]) -> list[Corners]:
    """Above, below and inside a box, at its left, then at its right."""
    (left, top, right, bottom), (width, height) = box, size
    return [(x, y, x + width, y + height) for y in (top - height, bottom, top) for x in (left, right - width)]


def _is_free(spot: Corners, boxes: Sequence[Sequence[float]], taken: list[Corners], shape: tuple[int, int]) -> bool:
    left, top, right, bottom = spot
    within = left >= 0 and top >= 0 and right <= shape[1] and bottom <= shape[0]
    return (
        within
        and not any(_overlap(spot, label) for label in taken)
        and all(_overlap(spot, box) <= COVERED * (box[2] - box[0]) * (box[3] - box[1]) for box in boxes)
    )


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    width, height = (min(one[k + 2], other[k + 2]) - max(one[k], other[k]) for k in (0, 1))
    return max(width, 0) * max(height, 0)


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
class PictureRow:
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


def layout(rows: list[PictureRow], header: float = 0.1) -> tuple[Figure, list[Axes]]:
    """A figure with axes of known shapes, without waste."""
    total = header + sum(row.above + max(row.heights) + row.below for row in rows)
    figure, top, axes = Figure(figsize=(WIDTH, total), dpi=DPI), total - header, []
    for row in rows:
        top -= row.above
        for k, (shape, height) in enumerate(zip(row.shapes, row.heights, strict=True)):
            width = height / shape
            left = GAP + k * row.cell + (row.cell - GAP - width) / 2
            axes.append(figure.add_axes((left / WIDTH, (top - height) / total, width / WIDTH, height / total)))
        top -= max(row.heights) + row.below
    return figure, axes


def png(figure: Figure) -> bytes:
    """The figure as a PNG file of 150 pixels to an inch."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()
