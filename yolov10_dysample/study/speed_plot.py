"""Draws a record of a benchmark: ratios to stock by runtime, and the upsamplers by size.

It must not touch pyplot's state, and draws only what the record has.
"""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from yolov10_dysample.study.settings import ADAPTED, OURS, PUBLISHED
from yolov10_dysample.study.speed_report import PRINTED

__all__ = ["draw"]

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
}
INK, GREEN, ORANGE, GREY, GRID = "#263238", "#00897b", "#ef6c00", "#90a4ae", "#eceff1"
#: Candidate: colour, marker, how far from the middle of its row, and label.
RUNTIME_MARKS = {
    OURS: (GREEN, "o", -0.16, "this package"),
    PUBLISHED: (ORANGE, "D", 0.16, "published code"),
}
RATIO_TICKS = (0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 6)
#: Candidate: colour, line style and label.
SWEEP_LINES = {
    "nearest": (GREY, "-", "nearest"),
    "bilinear": (GREY, "--", "bilinear"),
    "deconvolution": ("#8e24aa", "-", "deconvolution"),
    "pixel shuffle": ("#c2185b", "-", "pixel shuffle"),
    "carafe": ("#1e88e5", "-", "CARAFE"),
    ADAPTED: (ORANGE, "-", "published DySample"),
    OURS: (GREEN, "-", "DySample"),
}


def draw(record: dict[str, Any]) -> bytes | None:
    """A PNG of what was measured of the model and of the operators; None if neither was."""
    panels = [
        panel
        for part, panel in (("model", _draw_runtimes), ("operator", _draw_sweep))
        if part in record and "failed" not in record[part]
    ]
    if not panels:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.2 * len(panels), 5))
        for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
            panel(record, axes)
        figure.tight_layout(w_pad=3)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=150)
    return png.getvalue()


def _draw_runtimes(record: dict[str, Any], axes: Axes) -> None:
    measured = {k: v["candidates"] for k, v in record["model"]["runtimes"].items() if "candidates" in v}
    for row, candidates in enumerate(measured.values()):
        for name in RUNTIME_MARKS:
            _draw_ratio(axes, row, name, candidates)
    shown = [name for name in RUNTIME_MARKS if any(name in candidates for candidates in measured.values())]
    for colour, marker, _, label in (RUNTIME_MARKS[name] for name in shown):
        axes.plot([], [], marker, color=colour, label=label)
    axes.axvline(1, color=INK, lw=1, ls=(0, (4, 3)), zorder=0)
    axes.set_yticks(range(len(measured)), [PRINTED.get(name, name).replace("`", "") for name in measured])
    axes.set_ylim(len(measured) + 0.2, -0.5)  # with room for the legend
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    low, high = axes.set_xlim(min(low, 0.95), max(high, 1.1) * 1.25)
    ticks = [tick for tick in RATIO_TICKS if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    if shown:
        axes.legend(loc="lower center", ncols=2, frameon=False)
    settings = record["settings"]
    where = "CPU" if settings["device"] == "cpu" else "GPU"
    axes.set_title(f"{settings['model']}, {settings['imgsz']} px, {where}: time over stock", fontweight="bold")
    axes.set_xlabel("ratio to nn.Upsample's model, median and quartiles (log)")


def _draw_ratio(axes: Axes, row: int, name: str, candidates: dict[str, Any]) -> None:
    colour, marker, shift, _ = RUNTIME_MARKS[name]
    found, note = candidates.get(name, {}), ""
    if name == PUBLISHED and "failed" in found and "ratio" in candidates.get(ADAPTED, {}):
        found, note = candidates[ADAPTED], " made to run; as it is, it fails"
    if "ratio" not in found:
        return
    low, middle, high = (found["ratio"][key] for key in ("q1", "median", "q3"))
    mark: dict[str, Any] = {"fmt": marker, "color": colour, "mfc": "white" if note else colour, "capsize": 3, "ms": 7}
    axes.errorbar(middle, row + shift, xerr=[[middle - low], [high - middle]], **mark)
    _label(axes, f"{middle:.2f}{note}", (high, row + shift), 8.5, colour)


def _draw_sweep(record: dict[str, Any], axes: Axes) -> None:
    entries = record["operator"]["sweep"]
    sizes = [entry["shape"][-1] for entry in entries]
    ends = []
    for name, (colour, dash, label) in SWEEP_LINES.items():
        found = [entry["candidates"].get(name, {}).get("ms") for entry in entries]
        if not all(found):
            continue
        low, middle, high = ([quartiles[key] for quartiles in found] for key in ("q1", "median", "q3"))
        axes.plot(sizes, middle, dash, color=colour, marker="o", ms=4, lw=2.6 if name == OURS else 1.6)
        axes.fill_between(sizes, low, high, color=colour, alpha=0.15, lw=0)
        ends.append((middle[-1], label, colour))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    bottom, top = axes.get_ylim()
    places = _spaced([value for value, *_ in sorted(ends)], (top / bottom) ** 0.052, top)
    for place, (_, label, colour) in zip(places, sorted(ends), strict=True):
        _label(axes, label, (sizes[-1], place), 9, colour, fontweight="bold" if colour == GREEN else "normal")
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.set_title(f"One x2 upsampling of {entries[0]['shape'][1]} channels", fontweight="bold")
    axes.set_xlabel("height and width of the input, channels_last (log)")
    axes.set_ylabel("ms (log)")


def _label(axes: Axes, text: str, place: tuple[float, float], size: float, colour: str, **font: Any) -> None:
    axes.annotate(
        text,
        place,
        xytext=(8, 0),
        textcoords="offset points",
        va="center",
        fontsize=size,
        color=colour,
        annotation_clip=False,
        **font,
    )


def _spaced(values: list[float], factor: float, limit: float) -> list[float]:
    """Where labels of ascending values stand, each a factor above the one before and none above a limit."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] * factor) if places else value)
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] / factor
    return places
