"""The few statistics that every record and report uses, each defined once. It must never print or draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["compared", "quartiles", "ratio", "rounded"]


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles, interpolated between the values (numpy's default), to four digits.

    Example:
        >>> quartiles([1, 2, 3, 4, 10])
        {'median': 3.0, 'q1': 2.0, 'q3': 4.0}
    """
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return {"median": rounded(median), "q1": rounded(low), "q3": rounded(high)}


def rounded(value: float) -> float:
    """The value to four digits."""
    return float(f"{value:.4g}")


def ratio(values: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    """Quartiles of the ratios of values that were measured in the same round.

    Example:
        >>> ratio([2, 6, 4], base=[1, 2, 4])["median"]
        2.0
    """
    return quartiles([value / other for value, other in zip(values, base, strict=True)])


def compared(values: dict[str, list[float]], unit: str, base: str) -> dict[str, dict[str, Any]]:
    """Quartiles of every candidate's values, and of its round-by-round ratios to the candidate ``base``."""
    return {
        name: {unit: quartiles(own), **({"ratio": ratio(own, values[base])} if base in values else {})}
        for name, own in values.items()
    }
