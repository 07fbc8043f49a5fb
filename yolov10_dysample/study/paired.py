"""Differences in pairs, and the rule by which one of them is a gain. It must never print or draw.

The rule was registered before the runs on record: the 95 % interval lies above 0, from at least 5 pairs, against
nearest *and* against bilinear upsampling.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["MIN_PAIRS", "interval_above_zero", "is_gain", "paired"]

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
