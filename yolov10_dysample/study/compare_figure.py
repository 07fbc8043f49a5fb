"""The picture of a comparison's report: learning curves and paired differences. It must never read or write files."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from yolov10_dysample.study.arms import BILINEAR, NEAREST
from yolov10_dysample.study.comparison import MAP
from yolov10_dysample.study.paired import paired

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_report"]

COLOURS = {NEAREST: "#78909c", BILINEAR: "#1e88e5", "dysample": "#2e7d32", "dysample+": "#8e24aa"}
MORE = ("#ef6c00", "#c2185b", "#00897b", "#5d4037", "#fdd835", "#3949ab")


def draw_report(records: dict[str, dict[int, dict[str, Any]]]) -> bytes:
    """A PNG of the learning curves with their spread over seeds, and of every paired difference to the stock model."""
    from matplotlib.figure import Figure

    more = iter(itertools.cycle(MORE))
    colours = {arm: COLOURS.get(arm) or next(more) for arm in records}
    figure = Figure(figsize=(11, 4.6), layout="constrained", dpi=130)
    curves, gains = figure.subplots(1, 2, width_ratios=(1.15, 1))
    for arm, runs in records.items():
        values = np.array([[epoch[MAP] for epoch in run["epochs"]] for run in runs.values()])
        epochs = np.arange(1, values.shape[1] + 1)
        mean, deviation = values.mean(0), values.std(0, ddof=1) if len(values) > 1 else 0 * values[0]
        curves.plot(epochs, mean, color=colours[arm], lw=2, label=f"{arm} (n = {len(values)})")
        curves.fill_between(epochs, mean - deviation, mean + deviation, color=colours[arm], alpha=0.12, lw=0)
    curves.set(title=f"{MAP} on the val split: mean and standard deviation", xlabel="epoch", ylabel=MAP)
    curves.legend(frameon=False, fontsize=8)
    _draw_gains({arm: _last_values(runs) for arm, runs in records.items()}, colours, gains)
    for axis in (curves, gains):
        axis.grid(color="#eceff1")
        axis.set_axisbelow(True)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _last_values(runs: dict[int, dict[str, Any]]) -> dict[int, float]:
    return {seed: run["epochs"][-1][MAP] for seed, run in runs.items()}


def _draw_gains(values: dict[str, dict[int, float]], colours: dict[str, str], axis: Axes) -> None:
    pairs = {arm: paired(own, values.get(NEAREST, {})) for arm, own in values.items() if arm != NEAREST}
    gains = {arm: found for arm, found in pairs.items() if found}
    arms = list(gains)
    axis.set_visible(bool(arms))
    for place, arm in enumerate(reversed(arms)):
        found = gains[arm]
        axis.scatter(found["differences"], [place] * found["n"], s=22, color=colours[arm], alpha=0.45, lw=0)
        low, high = found["interval"] if found["n"] > 2 else [found["mean"]] * 2  # of 2, it would dwarf the others
        axis.plot([low, high], [place - 0.22] * 2, color=colours[arm], lw=2.5)
        axis.plot(found["mean"], place - 0.22, "D", color=colours[arm], ms=6)
    axis.axvline(0, color="#37474f", lw=1)
    axis.set_yticks(range(len(arms)), reversed(arms))
    axis.set_ylim(-0.7, len(arms) - 0.4)
    axis.locator_params(axis="x", nbins=6)
    axis.set(
        title=f"Same seed: {MAP} less {NEAREST}'s",
        xlabel="dot: a seed; diamond and line: mean, 95 % interval",
    )
