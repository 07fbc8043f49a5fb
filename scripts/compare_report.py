"""Shows the records of scripts/compare.py: tables on the terminal and in report.md, plots, the README's section.

It trains nothing and adds nothing: every number it prints follows from the records, and from them alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from scripts.speed_report import Table, between, markdown

NEAREST, BILINEAR = "nearest", "bilinear"
MAP, MAP50 = "mAP50-95", "mAP50"
SIZES = ("small", "medium", "large")
BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"
TITLES = {"scratch": "Trained from scratch", "warm": "Fine-tuned from a trained stock model"}
Records = dict[str, dict[int, dict[str, Any]]]


def load(folder: Path) -> Records:
    """The records of a comparison by arm and seed, stock arms first."""
    found: Records = {}
    for file in sorted((folder / "records").glob("*.json")):
        record = json.loads(file.read_text())
        found.setdefault(record["arm"], {})[record["seed"]] = record
    if not found:
        raise SystemExit(f"there is no record in {folder / 'records'}: run scripts/compare.py --out {folder} first")
    for seed in {seed for runs in found.values() for seed in runs}:
        pair = {arm: runs[seed] for arm, runs in found.items() if seed in runs}
        if len({(run["start"], run["data"]) for run in pair.values()}) > 1:
            raise SystemExit(
                f"seed {seed} in {folder}: {', '.join(pair)} did not start alike or saw other data: no pairs"
            )
    order = [NEAREST, BILINEAR, "dysample", "dysample+", "dysample-s", "dysample-s+"]
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0].partition(":")[0]), item[0])))


def last(record: dict[str, Any], name: str = MAP) -> float:
    """After the last epoch, whatever came before: the best epoch would be chosen by the data it is measured on."""
    return record["epochs"][-1][name]


def size(name: str) -> Callable[[dict[str, Any]], float]:
    return lambda record: record["sizes"][name]


def paired(
    records: Records, arm: str, base: str, value: Callable[[dict[str, Any]], float] = last
) -> dict[str, Any] | None:
    """The differences of two arms over the seeds that both have.

    ``interval`` is Student's 95 % confidence interval of the mean difference. ``p`` is that of the exact two-sided
    sign-flip test: how often the mean would be as far from 0 if each difference's sign were a coin's. With n pairs it
    cannot be below 2 / 2**n.
    """
    seeds = sorted(set(records[arm]) & set(records.get(base, ())))
    if arm == base or not seeds:
        return None
    differences = [value(records[arm][seed]) - value(records[base][seed]) for seed in seeds]
    found = {"n": len(seeds), "seeds": seeds, "differences": differences, "mean": statistics.fmean(differences)}
    if len(seeds) > 1:
        interval = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
        flips = stats.permutation_test(
            (differences,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", n_resamples=np.inf
        )
        found |= {"interval": [float(interval.low), float(interval.high)], "p": float(flips.pvalue)}
    return found


def clear(found: dict[str, Any] | None) -> bool:
    """Whether a difference is a gain by the rule of this report: the interval lies above 0."""
    return bool(found and "interval" in found and found["interval"][0] > 0)


def spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    mean = f"{found['mean']:+.3f}"
    if "interval" not in found:
        return f"{mean} (n = 1)"
    low, high = found["interval"]
    bold = "**" if low > 0 or high < 0 else ""
    return f"{bold}{mean} [{low:+.3f}, {high:+.3f}]{bold}, p = {found['p']:.3f}"


def results_table(records: Records, cost: dict[str, Any] | None) -> Table:
    bases = [base for base in (NEAREST, BILINEAR) if base in records]
    table = [["upsampling", "n", MAP, *(f"{MAP} less {base}'s" for base in bases), MAP50, "parameters", "latency"]]
    for arm, runs in records.items():
        found = cost["arms"].get(arm) if cost else None
        time = (
            f"{found['ratio']['median']:.2f} [{found['ratio']['q1']:.2f}, {found['ratio']['q3']:.2f}]" if found else ""
        )
        table.append(
            [
                arm,
                str(len(runs)),
                spread([last(run) for run in runs.values()]),
                *(difference(paired(records, arm, base)) for base in bases),
                spread([last(run, MAP50) for run in runs.values()]),
                f"{next(iter(runs.values()))['parameters']:,}",
                time,
            ]
        )
    return table


def sizes_table(records: Records) -> Table:
    low, high = next(iter(next(iter(records.values())).values()))["sizes"]["limits_px"]
    names = [f"small, below {low:.0f} px", f"medium, to {high:.0f} px", "large"]
    base = NEAREST if NEAREST in records else next(iter(records))
    table = [["upsampling", *itertools.chain(*((f"AP {name}", f"less {base}'s") for name in names))]]
    for arm, runs in records.items():
        cells = [
            (spread([run["sizes"][name] for run in runs.values()]), difference(paired(records, arm, base, size(name))))
            for name in SIZES
        ]
        table.append([arm, *itertools.chain(*cells)])
    return table


def offsets_table(records: Records) -> Table:
    rows = list(dict.fromkeys(row for runs in records.values() for run in runs.values() for row in run["offsets"]))
    table = [["mean / 99th percentile / spread over the image, px", *(f"row {row}" for row in rows)]]
    for arm, runs in records.items():
        cells = []
        for row in rows:
            found = [run["offsets"][row] for run in runs.values() if row in run["offsets"]]
            keys = ("mean", "p99", "spread") if found else ()
            cells.append(" / ".join(f"{statistics.fmean(one[key] for one in found):.3f}" for key in keys))
        if any(cells):
            table.append([arm, *cells])
    return table


def before_table(records: Records) -> Table:
    """What a warm start gives before any training."""
    table = [["upsampling", f"{MAP} before training", f"less {NEAREST}'s", f"{MAP50} before training"]]
    for arm, runs in records.items():
        before = next(iter(runs.values())).get("before")
        if before:
            base = next(iter(records[NEAREST].values()))["before"][MAP] if NEAREST in records else math.nan
            table.append([arm, f"{before[MAP]:.4f}", f"{before[MAP] - base:+.4f}", f"{before[MAP50]:.4f}"])
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
    """What this says of every DySample arm, in words that its interval allows."""
    said = []
    for arm in records:
        if arm in (NEAREST, BILINEAR):
            continue
        gains = {base: clear(paired(records, arm, base)) for base in (NEAREST, BILINEAR) if base in records}
        better = [base for base, gain in gains.items() if gain]
        if len(better) == len(gains) and gains:
            said.append(f"{arm} is better than {' and '.join(better)}")
        elif better:
            others = [base for base in gains if base not in better]
            said.append(f"{arm} is better than {' and '.join(better)}, and not shown to be better than {others[0]}")
        else:
            said.append(f"{arm} is not shown to be better than {' or '.join(gains)}")
    return f"By 95 % intervals of the paired difference: {'; '.join(said)}." if said else ""


def conditions(folder: Path, records: Records) -> str:
    about = json.loads((folder / "comparison.json").read_text())
    runs = [run for seeds in records.values() for run in seeds.values()]
    settings = " ".join(f"{key}={value}" for key, value in about["settings"].items())
    start = f"from a trained stock model (SHA-256 {about['warm_start']}...)" if about["warm_start"] else "from scratch"
    on = f"{Path(about['model']).stem} on `{about['data']}`"
    minutes = statistics.median(run["seconds"] for run in runs) / 60
    versions = {json.dumps({k: run["versions"][k] for k in ("python", "torch", "ultralytics")}) for run in runs}
    stated = "; ".join(", ".join(f"{k} {v}" for k, v in json.loads(text).items()) for text in sorted(versions))
    revisions = ", ".join(sorted({run["revision"] for run in runs}))
    return (
        f"{on}, {start}, `{settings}`: {len(runs)} runs of {minutes:.1f} minutes (median), "
        f"{min(run['date'] for run in runs)[:10]}, {runs[0]['machine']['cpu']}; {stated}; revision {revisions}."
    )


def report(folder: Path, whole: bool = True) -> str:
    """Everything, or what belongs into a README, as Markdown."""
    records = load(folder)
    cost_file = folder / "cost.json"
    cost = json.loads(cost_file.read_text()) if cost_file.is_file() else None
    parts = [conditions(folder, records), markdown(results_table(records, cost)), noise(records), verdict(records)]
    if len(before_table(records)) > 1:
        parts.append(markdown(before_table(records)))
    if whole:
        parts += ["By size of the object (a third of the boxes each):", markdown(sizes_table(records))]
    if len(offsets_table(records)) > 1:
        parts += ["Learnt offsets, in pixels of the layer's input:", markdown(offsets_table(records))]
    return "\n\n".join(part for part in parts if part) + "\n"


def section(folders: list[Path]) -> str:
    """The README's part on these comparisons."""
    parts = []
    for folder in folders:
        title, place = TITLES.get(folder.name, folder.name), folder.as_posix()
        parts += [
            f"### {title}\n\n{report(folder, whole=False)}",
            f"![Learning curves and paired differences: {title}]({place}/report.png)\n\n"
            f"[With precision by object size]({place}/report.md), [records]({place}/records).\n",
        ]
    return "\n".join([BEGIN, *parts, END])


COLOURS = {NEAREST: "#78909c", BILINEAR: "#1e88e5", "dysample": "#2e7d32", "dysample+": "#8e24aa"}
MORE = ("#ef6c00", "#c2185b", "#00897b", "#5d4037", "#fdd835", "#3949ab")


def plot(folder: Path) -> Path:
    """Learning curves with their spread over seeds, and every paired difference to the stock model."""
    from matplotlib.figure import Figure

    records = load(folder)
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
    draw_gains(records, colours, gains)
    for axis in (curves, gains):
        axis.grid(color="#eceff1")
        axis.set_axisbelow(True)
    out = folder / "report.png"
    figure.savefig(out)
    return out


def draw_gains(records: Records, colours: dict[str, str], axis: Any) -> None:
    arms = [arm for arm in records if paired(records, arm, NEAREST)]
    axis.set_visible(bool(arms))
    for place, arm in enumerate(reversed(arms)):
        found = paired(records, arm, NEAREST)
        assert found
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="what scripts/compare.py --out named")
    parser.add_argument("--readme", type=Path, help="write the section of these folders into this README")
    options = parser.parse_args()
    if options.readme:
        options.readme.write_text(between(options.readme.read_text(), BEGIN, END, section(options.folders)))
    for folder in options.folders:
        text = report(folder)
        (folder / "report.md").write_text(text)
        picture = plot(folder)
        print(text)
        print(f"{folder / 'report.md'}, {picture}")


if __name__ == "__main__":
    main()
