"""Differences of a comparison's runs in pairs, and the rule by which one is a gain. It must never print or draw.

The rule was registered before the runs on record: the 95 % interval lies above 0, from at least 5 pairs, against
nearest *and* against bilinear upsampling. By the same interval, two arms are equivalent if all of it is within
:data:`MARGIN`: more strictly than two one-sided tests at 5 %, which look at the 90 % interval.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from yolov10_dysample.study.arms import KINDS
from yolov10_dysample.study.comparison import MAP, RECORDS, is_scored, known_of

__all__ = [
    "MARGIN",
    "MIN_PAIRS",
    "Records",
    "gain",
    "last",
    "load",
    "outcome",
    "paired",
    "pooled",
    "precision",
]

#: The records of runs by arm and seed.
Records = dict[str, dict[int, dict[str, Any]]]
Value = Callable[[dict[str, Any]], "float | None"]

#: Fewer pairs are reported and cannot win.
MIN_PAIRS = 5
#: Differences of mAP50-95 that make no difference: where the 95 % interval lies within it, arms are equivalent.
MARGIN = 0.004
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
    return {"seeds": seeds, **_described([values[seed] - base[seed] for seed in seeds])}  # type: ignore[operator]


def pooled(found: Iterable[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """What the pairs of several comparisons say together, each pair of its own comparison; None if there is no pair.

    Example:
        >>> found = pooled([paired({0: 3.0}, base={0: 1.0}), None, paired({0: 5.0}, base={0: 1.0})])
        >>> found["n"], found["mean"]
        (2, 3.0)
    """
    differences = [difference for one in found if one for difference in one["differences"]]
    return _described(differences) if differences else None


def _described(differences: list[float]) -> dict[str, Any]:
    found: dict[str, Any] = {"n": len(differences), "differences": differences, "mean": statistics.fmean(differences)}
    if len(differences) > 1:
        low, high, p = _tested(tuple(differences))
        found |= {"interval": [low, high], "p": p}
    return found


@functools.lru_cache(maxsize=1024)  # a report says the same difference in tables, in words and in its plot
def _tested(differences: tuple[float, ...]) -> tuple[float, float, float]:
    """The bounds of the interval, and p."""
    interval = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    flips = stats.permutation_test(
        (differences,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        n_resamples=2**MOST_PAIRS,
        random_state=0,
    )
    return float(interval.low), float(interval.high), float(flips.pvalue)


def outcome(found: Mapping[str, Any] | None) -> str:
    """What a difference of mAP50-95 says of an arm: better, worse or equivalent; or that it is not settled.

    Example:
        >>> [outcome({"n": 20, "interval": interval}) for interval in ([0.001, 0.003], [-0.003, 0.003], [-0.01, 0.003])]
        ['better', 'equivalent', 'not settled']
        >>> outcome({"n": 3, "interval": [-0.003, -0.001]})
        'not settled'
    """
    if not found or found["n"] < MIN_PAIRS or "interval" not in found:
        return "not settled"
    low, high = found["interval"]
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "equivalent" if low > -MARGIN and high < MARGIN else "not settled"


def load(*folders: Path) -> Records:
    """The records of a comparison's scored runs, stock arms first.

    Args:
        folders (Path): The folder of a comparison, or those of its shards.

    Raises:
        ValueError: If there are none, or runs of one seed are no pairs.
    """
    records: Records = {}
    for (arm, seed), record in sorted(known_of(*folders).runs.items()):
        if is_scored(record):
            records.setdefault(arm, {})[seed] = record
    where = ", ".join(map(str, folders))
    if not records:
        raise ValueError(f"{where} must have a scored run in {RECORDS}, got none; name the out= of a comparison")
    for seed in {seed for runs in records.values() for seed in runs}:
        pair = {arm: runs[seed] for arm, runs in records.items() if seed in runs}
        if len({(run["start"], run["data"]) for run in pair.values()}) > 1:
            raise ValueError(f"seed {seed} in {where}: {', '.join(pair)} must start alike and see the same data")
    return dict(sorted(records.items(), key=lambda item: KINDS.index(item[0].partition(":")[0])))


def last(record: dict[str, Any], name: str = MAP) -> float:
    """After the last epoch, whatever came before: the best epoch would be chosen by the data it is measured on."""
    return record["epochs"][-1][name]


def precision(name: str, scores: str = "sizes") -> Value:
    """A precision among the ``scores`` of a run; None where its record has none, or the split no such objects."""
    return lambda record: record.get(scores, {}).get(name)


def gain(records: Records, arm: str, base: str, value: Value = last) -> dict[str, Any] | None:
    """The paired difference of an arm to another one; None for an arm to itself, or without pairs."""
    if arm == base or base not in records:
        return None
    ours, theirs = ({seed: value(run) for seed, run in records[name].items()} for name in (arm, base))
    return paired(ours, theirs)
