"""Interleaved timing: bare, task, bare, task, ... so that drift of the machine hits both alike."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter

import torch

WARM_UPS = 3
SLOW = 0.3
"""Seconds. A pass longer than this needs no more warm-up than the check of its numbers gave it."""
COLLECT_EVERY = 1.0
"""Seconds between two garbage collections; they happen outside the timed calls."""
BARE_PASSES = 3
"""Bare passes before and after each task of many passes."""
LONG = 20.0
"""Seconds. A task of many passes that takes longer is timed once."""
NOISY = 0.15
"""Distance between the quartiles of the rounds' ratios, relative to their median."""


@dataclass(frozen=True)
class Budget:
    """How long to go on: until ``seconds`` are spent, but between ``least`` and ``most`` rounds.

    While the rounds disagree by more than ``NOISY`` they go on, up to three times as long.
    """

    seconds: float
    least: int = 3
    most: int = 3000


@dataclass(frozen=True)
class Work:
    """A call to time, and whether autograd is on while it runs."""

    call: Callable[[], object]
    gradients: bool = False

    def timed(self) -> float:
        """Seconds that one call took."""
        with torch.set_grad_enabled(self.gradients):
            start = perf_counter()
            result = self.call()
            elapsed = perf_counter() - start
        del result
        return elapsed


def interleave(bare: Work, task: Work, budget: Budget) -> list[tuple[float, float]]:
    """Seconds of (bare, task) per round; within a round the order alternates. Garbage collection is off."""
    warm_ups = WARM_UPS if bare.timed() < SLOW else 0
    for _ in range(warm_ups):
        bare.timed(), task.timed()
    rounds: list[tuple[float, float]] = []
    gc.collect()
    gc.disable()
    try:
        start = collected = perf_counter()
        while len(rounds) < budget.most:
            rounds.append(_round(bare, task, task_first=len(rounds) % 2 == 1))
            now = perf_counter()
            if len(rounds) >= budget.least and _enough(rounds, now - start, budget.seconds):
                break
            if now - collected > COLLECT_EVERY:
                gc.collect()
                collected = perf_counter()
    finally:
        gc.enable()
    return rounds


def _round(bare: Work, task: Work, *, task_first: bool) -> tuple[float, float]:
    if task_first:
        task_seconds = task.timed()
        return bare.timed(), task_seconds
    return bare.timed(), task.timed()


def _enough(rounds: list[tuple[float, float]], spent: float, seconds: float) -> bool:
    if spent < seconds:
        return False
    low, middle, high = _quartiles(rounds)
    return high - low < NOISY * middle or spent > 3 * seconds


def _quartiles(rounds: list[tuple[float, float]]) -> list[float]:
    return quantiles([task / bare for bare, task in rounds], n=4)


def summary(rounds: list[tuple[float, float]]) -> dict[str, float | int]:
    """Median times, and quartiles of the ratio.

    ``ratio`` is the median over rounds of (task / bare), which a spell of a busy machine hardly moves,
    because it slows both halves of a round; ``ratio_of_medians`` is there for comparison.
    """
    bare, task = median(b for b, _ in rounds), median(t for _, t in rounds)
    low, middle, high = _quartiles(rounds)
    return {
        "bare_ms": round(bare * 1e3, 4),
        "ms": round(task * 1e3, 4),
        "ratio": round(middle, 4),
        "ratio_low": round(low, 4),
        "ratio_high": round(high, 4),
        "ratio_of_medians": round(task / bare, 4),
        "rounds": len(rounds),
    }


def in_turns(bare: Work, task: Work, budget: Budget) -> list[tuple[float, float]]:
    """As `interleave` for tasks of many forward passes: a task, then as many bare passes as take some of its time, and so on.

    Seconds of (bare, task) per round, where bare is the fastest of its passes. The first round warms up, and counts only if it
    is long.
    """
    bare.timed()
    rounds: list[tuple[float, float]] = []
    warm, start = False, perf_counter()
    while len(rounds) < budget.most:
        gc.collect()
        gc.disable()
        try:
            before = [bare.timed() for _ in range(BARE_PASSES)]
            seconds = task.timed()
            after = [bare.timed() for _ in range(BARE_PASSES)]
        finally:
            gc.enable()
        if warm or seconds > LONG:
            rounds.append((min(before + after), seconds))
        warm = True
        spent = perf_counter() - start
        if rounds and spent > budget.seconds and (len(rounds) >= budget.least or spent > LONG):
            break
    return rounds


def low_summary(rounds: list[tuple[float, float]], scale: float) -> dict[str, float | int]:
    """The low end of both times and their ratio: what the work costs when nobody is in the way.

    A task that did a part of its work is scaled to the whole. `ratio_low` and `ratio_high` are the extremes over rounds.
    """
    bare, task = (_low([pair[i] for pair in rounds]) for i in (0, 1))
    ratios = [scale * t / b for b, t in rounds]
    return {
        "bare_ms": round(bare * 1e3, 4),
        "ms": round(task * scale * 1e3, 4),
        "ratio": round(scale * task / bare, 4),
        "ratio_low": round(min(ratios), 4),
        "ratio_high": round(max(ratios), 4),
        "rounds": len(rounds),
    }


def _low(values: list[float]) -> float:
    """The value at the lowest tenth."""
    return sorted(values)[len(values) // 10]
