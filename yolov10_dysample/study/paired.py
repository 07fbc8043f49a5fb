"""Differences of a comparison's runs in pairs, and the rule by which one is a gain. It must never print or draw.

The rule was registered before the runs on record: the 95 % interval lies above 0, from at least 5 pairs, against
nearest *and* against bilinear upsampling.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from yolov10_dysample.study.arms import KINDS
from yolov10_dysample.study.comparison import MAP, RECORDS, is_scored, known_of

__all__ = ["MIN_PAIRS", "Records", "gain", "interval_above_zero", "is_gain", "last", "load", "paired", "size"]

#: The records of runs by arm and seed.
Records = dict[str, dict[int, dict[str, Any]]]
Value = Callable[[dict[str, Any]], "float | None"]

#: Fewer pairs are reported and cannot win.
MIN_PAIRS = 5
#: Of more pairs, p is estimated from as many of the sign flips as this many pairs have.
MOST_PAIRS = 16


def paired(values: Mapping[int, float | None], base: Mapping[int, float | None]) -> dict[str, Any] | None:
    """The differences of two arms over the seeds that both have a value for; None if there is none.

    Returns:
        dict | None: ``n``, ``seeds``, ``differences`` and their ``mean``. From two pairs on also ``interval``,
        Student's 95 % confidence interval of the mean difference, and ``p`` of the exact two-sided sign-flip test: how
        often the mean would be as far from 0 if each difference's sign were a coin's. With n pairs it cannot be below
        2 / 2**n.

    Example:
        >>> found = paired({0: 1.25, 1: 1.5, 2: 1.75}, base={0: 1.0, 1: 1.0, 2: 1.0})
        >>> found["mean"], found["p"]
        (0.5, 0.25)
    """
    seeds = [seed for seed in sorted(values) if values[seed] is not None and base.get(seed) is not None]
    if not seeds:
        return None
    differences = [values[seed] - base[seed] for seed in seeds]  # type: ignore[operator]
    found = {"n": len(seeds), "seeds": seeds, "differences": differences, "mean": statistics.fmean(differences)}
    if len(seeds) > 1:
        interval = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
        flips = stats.permutation_test(
            (differences,),
            lambda x, axis: np.mean(x, axis=axis),
            permutation_type="samples",
            n_resamples=2**MOST_PAIRS,
            random_state=0,
        )
        found |= {"interval": [float(interval.low), float(interval.high)], "p": float(flips.pvalue)}
    return found


def interval_above_zero(found: Mapping[str, Any] | None) -> bool:
    """Whether the whole interval of a difference lies above 0."""
    return bool(found and "interval" in found and found["interval"][0] > 0)


def is_gain(found: Mapping[str, Any] | None) -> bool:
    """Whether a difference is a gain by the registered rule.

    Example:
        >>> is_gain({"n": 5, "interval": [0.01, 0.03]}), is_gain({"n": 3, "interval": [0.01, 0.03]})
        (True, False)
    """
    return bool(found and found["n"] >= MIN_PAIRS and interval_above_zero(found))


def load(folder: Path) -> Records:
    """The records of a comparison's scored runs, stock arms first.

    Raises:
        ValueError: If there are none, or runs of one seed are no pairs.
    """
    records: Records = {}
    for (arm, seed), record in sorted(known_of(folder).runs.items()):
        if is_scored(record):
            records.setdefault(arm, {})[seed] = record
    if not records:
        raise ValueError(f"{folder / RECORDS} must have a scored run, got none; name the out= of a comparison")
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
