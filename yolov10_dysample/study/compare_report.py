"""The report of a comparison: tables on the terminal and in report.md, and a picture.

It trains nothing and adds nothing: every number it shows follows from the records, and from them alone.
"""

from __future__ import annotations

import collections
import io
import itertools
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolov10_dysample.files import write_whole
from yolov10_dysample.study.arms import BILINEAR, NEAREST, STOCK
from yolov10_dysample.study.comparison import MAP, MAP50, RECORDS, is_scored, known_of
from yolov10_dysample.study.paired import (
    MARGIN,
    MIN_PAIRS,
    Records,
    gain,
    last,
    load,
    outcome,
    pooled,
    precision,
)
from yolov10_dysample.study.tables import Table, markdown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_report", "in_words", "interval", "pooled_report", "pooled_table", "report", "verdict", "write_report"]

#: What the verdicts go by.
RULE = (
    f"A difference is shown by a 95 % interval that leaves out 0, and equivalence by one within ±{MARGIN}, from at "
    f"least {MIN_PAIRS} pairs (with n pairs, p cannot be below 2 / 2^n)."
)
#: What is in the table of results, for who reads it alone.
LEGEND = (
    f"n seeds; {MAP} and {MAP50} after the last epoch, mean ± standard deviation over the seeds; differences in pairs "
    "of one seed, mean [Student's 95 % interval] and p of a two-sided sign-flip test; latency of one image of the "
    "training's size, as a multiple of the first arm's, median [quartiles]."
)
#: The splits that a run is scored on, as its record calls their scores.
SCORES = ("sizes", "test")
COLOURS = {NEAREST: "#78909c", BILINEAR: "#1e88e5", "dysample": "#2e7d32", "dysample+": "#8e24aa"}
MORE = ("#ef6c00", "#c2185b", "#00897b", "#5d4037", "#fdd835", "#3949ab")


def mean_and_deviation(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    return f"{statistics.fmean(known):.3f}" + (f" ± {statistics.stdev(known):.3f}" if len(known) > 1 else "")


def difference_cell(found: dict[str, Any] | None) -> str:
    """A difference with its interval and p, in bold if the interval leaves out 0 and the pairs are enough to say so."""
    if found is None:
        return ""
    mean = f"{found['mean']:+.3f}"
    if "interval" not in found:
        return f"{mean} (n = 1)"
    low, high = found["interval"]
    bold = "**" if found["n"] >= MIN_PAIRS and (low > 0 or high < 0) else ""
    return f"{bold}{mean} {interval(found)}{bold}, {chance(found)}"


def interval(found: dict[str, Any]) -> str:
    """With more digits than three where those would hide on which side of 0 or of the margin a bound lies."""
    low, high = map(_bound, found["interval"])
    return f"[{low}, {high}]"


def _bound(value: float) -> str:
    texts = [f"{value:+.{digits}f}" for digits in range(3, 7)]
    return next((text for text in texts if abs(float(text)) not in (0, MARGIN)), texts[0])


def chance(found: dict[str, Any]) -> str:
    return f"p = {found['p']:.3f}" if found["p"] >= 0.0005 else "p < 0.001"


def results_table(records: Records, latency: dict[str, Any] | None) -> Table:
    bases = [base for base in (NEAREST, BILINEAR) if base in records]
    table = [["upsampling", "n", MAP, *(f"{MAP} less {base}'s" for base in bases), MAP50, "parameters", "latency"]]
    for arm, runs in records.items():
        found = latency["arms"].get(arm) if latency else None
        time = (
            f"{found['ratio']['median']:.2f} [{found['ratio']['q1']:.2f}, {found['ratio']['q3']:.2f}]" if found else ""
        )
        table.append(
            [
                arm,
                str(len(runs)),
                mean_and_deviation([last(run) for run in runs.values()]),
                *(difference_cell(gain(records, arm, base)) for base in bases),
                mean_and_deviation([last(run, MAP50) for run in runs.values()]),
                f"{next(iter(runs.values()))['parameters']:,}",
                time,
            ]
        )
    return table


def sizes_table(records: Records) -> Table:
    low, high = next(iter(next(iter(records.values())).values()))["sizes"]["limits_px"]
    columns = {"AP75": "AP75", "small": f"AP small, below {low:.0f} px"}
    columns |= {"medium": f"AP medium, to {high:.0f} px", "large": "AP large"}
    if not any("AP75" in run["sizes"] for runs in records.values() for run in runs.values()):
        del columns["AP75"]
    base = NEAREST if NEAREST in records else next(iter(records))
    table = [["upsampling", *itertools.chain(*((title, f"less {base}'s") for title in columns.values()))]]
    for arm, runs in records.items():
        cells = [
            (
                mean_and_deviation([precision(name)(run) for run in runs.values()]),
                difference_cell(gain(records, arm, base, precision(name))),
            )
            for name in columns
        ]
        table.append([arm, *itertools.chain(*cells)])
    return table


def unseen_table(records: Records) -> Table:
    """Precision on the test split, which no training saw and no setting was chosen by."""
    bases = [base for base in STOCK if base in records]
    value = precision("all", "test")
    table = [["upsampling", f"{MAP} on the test split", *(f"less {base}'s" for base in bases)]]
    for arm, runs in records.items():
        own = mean_and_deviation([value(run) for run in runs.values()])
        if own:
            table.append([arm, own, *(difference_cell(gain(records, arm, base, value)) for base in bases)])
    return table


def place(records: Records) -> str:
    """By how much precision differs between the test split and val, beside what upsampling changes."""
    means = {
        arm: [[v for run in runs.values() if (v := precision("all", scores)(run)) is not None] for scores in SCORES]
        for arm, runs in records.items()
    }
    known = [[statistics.fmean(values) for values in pair] for pair in means.values() if all(pair)]
    if len(known) < 2:
        return ""
    shifts = [test - val for val, test in known]
    apart = [max(values) - min(values) for values in zip(*known, strict=True)]
    return (
        f"{MAP} on the test split less that on val: {min(shifts):+.3f} to {max(shifts):+.3f}. Between "
        f"upsamplings the means differ by at most {apart[1]:.3f} there, and {apart[0]:.3f} on val."
    )


def offsets_table(records: Records) -> Table:
    rows = list(dict.fromkeys(row for runs in records.values() for run in runs.values() for row in run["offsets"]))
    table = [["mean / 99th percentile / spread over the image, px", *(f"row {row}" for row in rows)]]
    for arm, runs in records.items():
        cells = []
        for row in rows:
            found = [run["offsets"][row] for run in runs.values() if row in run["offsets"]]
            finite = [layer for layer in found if layer["mean"] is not None]  # those of a diverged run are not
            keys = ("mean", "p99", "spread") if finite else ()
            means = " / ".join(f"{statistics.fmean(layer[key] for layer in finite):.3f}" for key in keys)
            lost = len(found) - len(finite)
            cells.append(f"{means} (diverged: {lost})".strip() if lost else means)
        if any(cells):
            table.append([arm, *cells])
    return table


def before_table(records: Records) -> Table:
    """What a warm start gives before any training: it depends on the seed where a part of the head starts anew."""
    table = [["upsampling", f"{MAP} before training", f"less {NEAREST}'s", f"{MAP50} before training"]]
    before = {
        arm: {seed: run["before"] for seed, run in runs.items() if run.get("before")} for arm, runs in records.items()
    }
    base = before.get(NEAREST, {})
    for arm, runs in before.items():
        apart = [run[MAP] - base[seed][MAP] for seed, run in runs.items() if seed in base]
        if runs:
            own, own50 = (mean_and_deviation([run[name] for run in runs.values()]) for name in (MAP, MAP50))
            table.append([arm, own, f"{statistics.fmean(apart):+.4f}" if apart else "", own50])
    return table


def noise(records: Records) -> str:
    """How far two runs of stock are apart that differ in nothing but the seed."""
    values = [last(run) for run in records.get(NEAREST, {}).values()]
    if len(values) < 2:
        return ""
    apart = statistics.fmean(abs(a - b) for a, b in itertools.combinations(values, 2))
    return (
        f"Seed noise: two runs of stock ({NEAREST}) that differ in the seed alone are {apart:.3f} {MAP} apart on "
        f"average (standard deviation {statistics.stdev(values):.3f}, {len(values)} seeds)."
    )


def verdict(records: Records) -> str:
    """What the registered rule says of every DySample arm, with the pairs and the p that it says it from.

    An arm with settings is also held against its kind without any: what that one change is worth.
    """
    said = []
    for arm in [arm for arm in records if arm not in STOCK]:
        others = [base for base in (*STOCK, arm.partition(":")[0]) if base in records and base != arm]
        if others:
            said.append(f"- {arm}: {'; '.join(in_words(gain(records, arm, base), base) for base in others)}.")
    return "\n".join([RULE, "", *said]) if said else ""


def in_words(found: dict[str, Any] | None, base: str) -> str:
    """What a difference to another arm says, and from what."""
    if found is None:
        return f"no pairs with {base}"
    few = ": too few" if found["n"] < MIN_PAIRS else ""
    pairs = f"{found['n']} {'pair' if found['n'] == 1 else 'pairs'}"
    p = f", {chance(found)}" if "p" in found else ""
    difference = f"{found['mean']:+.3f}"
    if "interval" in found:
        difference += f" {interval(found)}"
    return {
        "better": f"better than {base} by {difference} ({pairs}{p})",
        "worse": f"worse than {base} by {difference} ({pairs}{p})",
        "equivalent": f"within ±{MARGIN} of {base}, {difference} (equivalence, {pairs}{p})",
        "not settled": f"not settled against {base}, {difference} ({pairs}{p}{few})",
    }[outcome(found)]


def pooled_report(comparisons: Sequence[Sequence[Path]]) -> str:
    """The paired differences of several comparisons taken together, as Markdown: of both directions of a split, say.

    Args:
        comparisons (Sequence[Sequence[Path]]): The folders of each.
    """
    abouts = [known_of(*folders).comparison or {} for folders in comparisons]
    kept = [{key: about.get(key) for key in ("model", "settings", "warm_start")} for about in abouts]
    if len({json.dumps(about, sort_keys=True) for about in kept}) > 1:
        return "Not pooled: the comparisons differ in more than their data.\n"
    loaded = [load(*folders) for folders in comparisons]
    if twice := _counted_twice(loaded, [about["data"] for about in abouts]):
        return f"Not pooled: {twice} is the same run in two of the comparisons.\n"
    table = pooled_table(loaded, dict.fromkeys(arm for records in loaded for arm in records))
    named = ", ".join(f"`{about['data']}`" for about in abouts)
    return f"Pooled over {named}, each pair within its own comparison. {RULE}\n\n{markdown(table)}\n"


def _counted_twice(loaded: Sequence[Records], data: Sequence[str]) -> str:
    """A run that more than one comparison has: of a folder that was copied, or trained again as it was."""
    seen: set[tuple[Any, ...]] = set()
    for records, named in zip(loaded, data, strict=True):
        runs = set()
        for arm, seed, run in ((arm, seed, run) for arm, kept in records.items() for seed, run in kept.items()):
            # The digests are of the images: with other labels it is another run, unless it came to the same.
            alike = arm, seed, run["start"], run["data"]
            runs |= {(*alike, named), (*alike, str(run["epochs"]))}
        for arm, seed, *_ in sorted(seen & runs):
            return f"{arm}, seed {seed},"
        seen |= runs
    return ""


def pooled_table(loaded: Sequence[Records], arms: Iterable[str]) -> Table:
    table = [["upsampling", "n", f"{MAP}, paired difference", "which says"]]
    for arm in arms:
        for base in STOCK:
            found = pooled(gain(records, arm, base) for records in loaded if arm in records)
            if found:
                table.append([f"{arm} less {base}", str(found["n"]), difference_cell(found), outcome(found)])
    return table


def conditions(folders: Sequence[Path], records: Records) -> str:
    about = known_of(*folders).comparison
    if about is None:
        raise ValueError(f"{folders[0] / RECORDS} must begin with what the comparison is about")
    runs = [run for seeds in records.values() for run in seeds.values()]
    settings = " ".join(f"{key}={value}" for key, value in about["settings"].items())
    start = f"from a trained stock model (SHA-256 {about['warm_start']}...)" if about["warm_start"] else "from scratch"
    on = f"{Path(about['model']).stem} on `{about['data']}`"
    minutes = statistics.median(run["seconds"] for run in runs) / 60
    versions = {json.dumps({k: run["versions"][k] for k in ("python", "torch", "ultralytics")}) for run in runs}
    stated = "; ".join(", ".join(f"{k} {v}" for k, v in json.loads(text).items()) for text in sorted(versions))
    revisions = ", ".join(sorted({run["revision"] for run in runs}))
    machines = ", ".join(sorted({run["machine"].get("gpu") or run["machine"]["cpu"] for run in runs}))
    first, last = (one(run["date"] for run in runs)[:10] for one in (min, max))
    days = first if first == last else f"{first} to {last}"
    rounded = collections.Counter(run.get("products_of_musgd") for run in runs)  # scripts/musgd_on_cpu.py
    multiplied = [f" MuSGD's products {how}: {count} of them." for how, count in rounded.items() if how]
    return (
        f"{on}, {start}, `{settings}`: {len(runs)} runs of {minutes:.1f} minutes (median), "
        f"{days}, {machines}; {stated}; revision {revisions}.{''.join(multiplied)}"
    )


def unscored(folders: Sequence[Path]) -> str:
    """Which runs the report leaves out: those of other shards, and those that have no scores yet."""
    runs = known_of(*folders).runs.items()
    left_out = [f"{arm}, seed {seed}" for (arm, seed), record in runs if not is_scored(record)]
    shards = [shard for folder in folders if (shard := (known_of(folder).comparison or {}).get("shard"))]
    totals = {int(shard.partition("/")[2]) for shard in shards}
    parts = [f"{part}/{total}" for total in sorted(totals) for part in range(1, total + 1)]
    missing = [part for part in parts if part not in shards]
    return " ".join(
        [
            *(
                [f"Folders that were not given: parts {', '.join(missing)}; left out is what only they have."]
                if missing
                else []
            ),
            *([f"Left out, trained but not scored yet: {'; '.join(left_out)}."] if left_out else []),
        ]
    )


def report(*folders: Path, whole: bool = True) -> str:
    """Everything, or what belongs into docs/accuracy.md, as Markdown.

    Args:
        folders (Path): The folder of a comparison, or those of its shards.
        whole (bool): With AP75 and the sizes of objects.
    """
    records = load(*folders)
    parts = [
        conditions(folders, records),
        unscored(folders),
        markdown(results_table(records, known_of(*folders).latency)),
        LEGEND,
        noise(records),
        verdict(records),
    ]
    if len(unseen_table(records)) > 1:
        parts += [markdown(unseen_table(records)), place(records)]
    if len(before_table(records)) > 1:
        parts.append(markdown(before_table(records)))
    if whole:
        parts += [
            "By size of the object; the limits are such that each size has a third of the val split's boxes:",
            markdown(sizes_table(records)),
        ]
    if len(offsets_table(records)) > 1:
        parts += ["Offsets after the training, in pixels of the layer's input:", markdown(offsets_table(records))]
    return "\n\n".join(part for part in parts if part) + "\n"


def draw_report(records: Records) -> bytes:
    """A PNG of the learning curves with their spread over seeds, and of every paired difference to the stock models."""
    from matplotlib.figure import Figure

    more = iter(itertools.cycle(MORE))
    colours = {arm: COLOURS.get(arm) or next(more) for arm in records}
    gains = {base: found for base in STOCK if (found := _gains(records, base))}
    rows = [len(found) + 1 for found in gains.values()] or [1]
    figure = Figure(figsize=(11, max(4.6, 1.2 + 0.55 * sum(rows))), layout="constrained", dpi=130)
    grid = figure.add_gridspec(len(rows), 2, width_ratios=(1.15, 1), height_ratios=rows)
    curves = figure.add_subplot(grid[:, 0])
    for arm, runs in records.items():
        values = np.array([[epoch[MAP] for epoch in run["epochs"]] for run in runs.values()])
        epochs = np.arange(1, values.shape[1] + 1)
        mean, deviation = values.mean(0), values.std(0, ddof=1) if len(values) > 1 else 0 * values[0]
        curves.plot(epochs, mean, color=colours[arm], lw=2, label=f"{arm} (n = {len(values)})")
        low, high = (mean - deviation).clip(0), mean + deviation
        curves.fill_between(epochs, low, high, color=colours[arm], alpha=0.12, lw=0)
    curves.locator_params(axis="x", integer=True)
    curves.set(title=f"{MAP} on the val split: mean and standard deviation", xlabel="epoch", ylabel=MAP)
    curves.legend(frameon=False, fontsize=8)
    shared = None  # so that the same difference is as wide in both
    for place, (base, found) in enumerate(gains.items()):
        axis = figure.add_subplot(grid[place, 1], sharex=shared)
        shared = shared or axis
        _draw_gains(found, base, colours, axis)
    for axis in figure.axes:
        axis.grid(color="#eceff1")
        axis.set_axisbelow(True)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _gains(records: Records, base: str) -> dict[str, dict[str, Any]]:
    return {arm: found for arm in records if arm not in (NEAREST, base) and (found := gain(records, arm, base))}


def _draw_gains(gains: dict[str, dict[str, Any]], base: str, colours: dict[str, str], axis: Axes) -> None:
    arms = list(gains)
    for place, arm in enumerate(reversed(arms)):
        found = gains[arm]
        axis.scatter(found["differences"], [place] * found["n"], s=22, color=colours[arm], alpha=0.45, lw=0)
        low, high = found["interval"] if found["n"] > 2 else [found["mean"]] * 2  # of 2, it would dwarf the others
        enough = found["n"] >= MIN_PAIRS
        axis.plot([low, high], [place - 0.22] * 2, color=colours[arm], lw=2.5, ls="-" if enough else (0, (1, 1)))
        axis.plot(found["mean"], place - 0.22, "D", color=colours[arm], ms=6, mfc=None if enough else "white")
    axis.axvline(0, color="#37474f", lw=1)
    few = {arm: f" (n = {found['n']})" for arm, found in gains.items() if found["n"] < MIN_PAIRS}
    axis.set_yticks(range(len(arms)), [f"{arm}{few.get(arm, '')}" for arm in reversed(arms)])
    axis.set_ylim(-0.7, len(arms) - 0.4)
    axis.locator_params(axis="x", nbins=6)
    axis.set(
        title=f"Same seed: {MAP} less {base}'s",
        xlabel="dot: a seed; diamond and line: mean, 95 % interval"
        + ("\nhollow, dotted: too few seeds" if few else ""),
    )


def write_report(*folders: Path) -> str:
    """Write report.md and report.png of a comparison into its folder, or that of its shards; returns the text."""
    text, picture = report(*folders), draw_report(load(*folders))
    folder = folders[0] if len(folders) == 1 else folders[0].parent
    write_whole(folder / "report.md", text.encode())
    write_whole(folder / "report.png", picture)
    return text
