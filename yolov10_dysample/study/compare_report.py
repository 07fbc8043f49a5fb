"""The report of a comparison: tables on the terminal and in report.md, plots, and a section for a document.

It trains nothing and adds nothing: every number it prints follows from the records, and from them alone. Without the
command, ``python -m yolov10_dysample.study.compare_report FOLDER... [--into DOCUMENT]``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from yolov10_dysample.files import write_whole
from yolov10_dysample.study.arms import BILINEAR, KINDS, NEAREST, STOCK
from yolov10_dysample.study.compare_figure import draw_report
from yolov10_dysample.study.comparison import MAP, MAP50, SIZES, is_scored, run_records
from yolov10_dysample.study.paired import MIN_PAIRS, is_gain, paired
from yolov10_dysample.study.tables import Table, between, markdown

__all__ = [
    "BEGIN",
    "END",
    "TITLES",
    "Records",
    "gain",
    "last",
    "load",
    "report",
    "section",
    "summary",
    "verdict",
    "write_report",
]

BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"
SUMMARY_BEGIN, SUMMARY_END = "<!-- accuracy-summary:begin -->", "<!-- accuracy-summary:end -->"
TITLES = {"scratch": "Trained from scratch", "warm": "Fine-tuned from a trained stock model"}
#: The records of runs by arm and seed.
Records = dict[str, dict[int, dict[str, Any]]]
Value = Callable[[dict[str, Any]], "float | None"]


def load(folder: Path) -> Records:
    """The records of a comparison's scored runs, stock arms first.

    Raises:
        ValueError: If there are none, or runs of one seed are no pairs.
    """
    records: Records = {}
    for (arm, seed), record in sorted(run_records(folder).items()):
        if is_scored(record):
            records.setdefault(arm, {})[seed] = record
    if not records:
        raise ValueError(f"{folder / 'records.jsonl'} must have a scored run, got none; name the out= of a comparison")
    for seed in {seed for runs in records.values() for seed in runs}:
        pair = {arm: runs[seed] for arm, runs in records.items() if seed in runs}
        if len({(run["start"], run["data"]) for run in pair.values()}) > 1:
            raise ValueError(f"seed {seed} in {folder}: {', '.join(pair)} must start alike and see the same data")
    return dict(sorted(records.items(), key=lambda item: KINDS.index(item[0].partition(":")[0])))


def last(record: dict[str, Any], name: str = MAP) -> float:
    """After the last epoch, whatever came before: the best epoch would be chosen by the data it is measured on."""
    return record["epochs"][-1][name]


def size(name: str) -> Value:
    """Precision for objects of a size; None where the val split has none."""
    return lambda record: record["sizes"][name]


def gain(records: Records, arm: str, base: str, value: Value = last) -> dict[str, Any] | None:
    """The paired difference of an arm to another one; None for an arm to itself, or without pairs."""
    if arm == base or base not in records:
        return None
    ours, theirs = ({seed: value(run) for seed, run in records[name].items()} for name in (arm, base))
    return paired(ours, theirs)


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
    names = [f"small, below {low:.0f} px", f"medium, to {high:.0f} px", "large"]
    base = NEAREST if NEAREST in records else next(iter(records))
    table = [["upsampling", *itertools.chain(*((f"AP {name}", f"less {base}'s") for name in names))]]
    for arm, runs in records.items():
        cells = [
            (
                mean_and_deviation([run["sizes"][name] for run in runs.values()]),
                difference_cell(gain(records, arm, base, size(name))),
            )
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
            finite = [layer for layer in found if layer["mean"] is not None]  # those of a diverged run are not
            keys = ("mean", "p99", "spread") if finite else ()
            means = " / ".join(f"{statistics.fmean(layer[key] for layer in finite):.3f}" for key in keys)
            lost = len(found) - len(finite)
            cells.append(f"{means} (diverged: {lost})".strip() if lost else means)
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
    """What the registered rule says of every DySample arm, with the pairs and the p that it says it from."""
    ours = [arm for arm in records if arm not in STOCK]
    bases = [base for base in STOCK if base in records]
    if not ours or not bases:
        return ""
    return (
        f"A gain is a 95 % interval of the paired difference above 0, from at least {MIN_PAIRS} pairs (with n pairs, p "
        f"cannot be below 2 / 2^n). By that, {'; '.join(_said_of(records, arm, bases) for arm in ours)}."
    )


def _said_of(records: Records, arm: str, bases: list[str]) -> str:
    found = {base: gain(records, arm, base) for base in bases}
    better = [base for base in bases if is_gain(found[base])]
    others = [base for base in bases if base not in better]
    parts = [f"is better than {_listed(found, better, 'and')}"] if better else []
    if others:
        parts.append(f"is not shown to be better than {_listed(found, others, 'or')}")
    return f"{arm} {', and '.join(parts)}"


def _listed(found: dict[str, dict[str, Any] | None], bases: list[str], word: str) -> str:
    return f" {word} ".join(f"{base} ({_evidence(found[base])})" for base in bases)


def _evidence(found: dict[str, Any] | None) -> str:
    if found is None:
        return "no pairs"
    few = ": too few" if found["n"] < MIN_PAIRS else ""
    p = f", p = {found['p']:.3f}" if "p" in found else ""
    return f"{found['n']} {'pair' if found['n'] == 1 else 'pairs'}{p}{few}"


def conditions(folder: Path, records: Records) -> str:
    about = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
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


def unscored(folder: Path) -> str:
    """Which runs the report leaves out because they have no scores yet."""
    left_out = [f"{arm}, seed {seed}" for (arm, seed), record in run_records(folder).items() if not is_scored(record)]
    return f"Left out, trained but not scored yet: {'; '.join(left_out)}." if left_out else ""


def report(folder: Path, whole: bool = True) -> str:
    """Everything, or what belongs into a README, as Markdown."""
    records = load(folder)
    cost_file = folder / "cost.json"
    cost = json.loads(cost_file.read_text(encoding="utf-8")) if cost_file.is_file() else None
    parts = [
        conditions(folder, records),
        unscored(folder),
        markdown(results_table(records, cost)),
        noise(records),
        verdict(records),
    ]
    if len(before_table(records)) > 1:
        parts.append(markdown(before_table(records)))
    if whole:
        parts += [
            "By size of the object; the limits are such that each size has a third of the val split's boxes:",
            markdown(sizes_table(records)),
        ]
    if len(offsets_table(records)) > 1:
        parts += ["Learnt offsets, in pixels of the layer's input:", markdown(offsets_table(records))]
    return "\n\n".join(part for part in parts if part) + "\n"


def section(folders: Sequence[Path], target: Path) -> str:
    """The part of a document on some comparisons, with links that hold from where the document is."""
    parts = []
    for folder in folders:
        title = TITLES.get(folder.name, folder.name)
        place = Path(os.path.relpath(folder, target.parent)).as_posix()
        parts += [
            f"### {title}\n\n{report(folder, whole=False)}",
            f"![Learning curves and paired differences: {title}]({place}/report.png)\n\n"
            f"[With precision by object size]({place}/report.md), [records]({place}/records.jsonl).\n",
        ]
    return "\n".join([BEGIN, *parts, END])


def summary(folders: Sequence[Path]) -> str:
    """What some comparisons say of the paper's DySample, in one sentence each."""
    said = []
    for folder in folders:
        records = load(folder)
        found = {base: gain(records, "dysample", base) for base in STOCK if base in records}
        better = bool(found) and all(map(is_gain, found.values()))
        differences = " and ".join(f"{difference_cell(one)} over {base}" for base, one in found.items())
        pairs = min(one["n"] if one else 0 for one in found.values())
        title = TITLES.get(folder.name, folder.name)
        said.append(
            f"{title}, DySample is {'' if better else 'not '}shown to help: {differences} ({pairs} paired seeds)."
        )
    return f"{MAP} on small images of digits, mean difference [95 % interval]. " + " ".join(said)


def write_report(folder: Path) -> str:
    """Write report.md and report.png of a comparison into its folder; returns the former's text."""
    text, picture = report(folder), draw_report(load(folder))
    write_whole(folder / "report.md", text.encode())
    write_whole(folder / "report.png", picture)
    return text


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of comparisons")
    parser.add_argument(
        "--into", type=Path, help="write the section on these folders between the marks of this document"
    )
    parser.add_argument("--summary-into", type=Path, help="write the summary between its marks in this document")
    options = parser.parse_args()
    for folder in options.folders:
        print(write_report(folder))
    if options.into:
        text = section(options.folders, options.into)
        document = options.into.read_text(encoding="utf-8")
        write_whole(options.into, between(document, BEGIN, END, text.removeprefix(BEGIN).removesuffix(END)).encode())
    if options.summary_into:
        document = options.summary_into.read_text(encoding="utf-8")
        text = f"\n{summary(options.folders)}\n"
        write_whole(options.summary_into, between(document, SUMMARY_BEGIN, SUMMARY_END, text).encode())


if __name__ == "__main__":
    main()
