"""Timing of candidates in turn in one process, so that whatever slows the machine down slows all of them.

It must never time anything before it has been warmed up, nor leave out in silence what could not be run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

__all__ = ["SEED", "WARMUP", "merged", "prepare_candidates", "time_interleaved"]

SEED = 0
WARMUP = 3
#: Milliseconds of calls that one figure is the mean of, and as many before it; a LONG call counts alone.
TURN, LONG = 10, 120
#: Milliseconds that the clock may not tell from 0.
TICK = 0.001


def time_interleaved(
    runs: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device, tell: Callable[[int, int], None]
) -> dict[str, list[float]]:
    """Milliseconds a call of every candidate in every round; each round runs all of them, in an order of its own.

    Args:
        runs (Mapping[str, Callable]): What each candidate runs.
        rounds (int): How many figures each candidate gets.
        device (torch.device): A CUDA device is waited for before the clock is read.
        tell (Callable[[int, int], None]): Told the rounds done and all rounds, after each.
    """

    def milliseconds(name: str, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            runs[name]()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return 1000 * (time.perf_counter() - start) / calls

    order = random.Random(SEED)
    guess = {name: max(TICK, min(milliseconds(name, 1) for _ in range(WARMUP))) for name in runs}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for done in range(rounds):
        for name in order.sample(list(runs), len(runs)):
            calls = max(1, round(TURN / guess[name]))
            if guess[name] < LONG:  # not timed: the threads of the one before still spin for a while
                milliseconds(name, calls)
            times[name].append(milliseconds(name, calls))
        tell(done + 1, rounds)
    return times


def prepare_candidates(
    candidates: Iterable[str], prepare: Callable[[str], tuple[Callable[[], Any], dict[str, Any]]]
) -> tuple[dict[str, Callable[[], Any]], dict[str, dict[str, Any]]]:
    """What each candidate runs and what is known of it; for one that cannot be run, why."""
    runs, facts = {}, {}
    for name in candidates:
        try:
            run, facts[name] = prepare(name)
            run()
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            facts[name] = {"failed": f"{type(error).__name__}: {lines[0]}"}
        else:
            runs[name] = run
    return runs, facts


def merged(facts: dict[str, dict[str, Any]], figures: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The facts of every candidate with its figures, where it has any."""
    return {name: {**fact, **figures.get(name, {})} for name, fact in facts.items()}
