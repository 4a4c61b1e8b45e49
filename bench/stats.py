"""Medians with their range, and ratios pair by pair. Pure: numbers in, numbers out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, their lowest and highest value, and how many they are."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Sequence[float | None]) -> Spread | None:
    """The spread of the rounds that gave a value; None where none did."""
    good = [value for value in values if value is not None and math.isfinite(value)]
    if not good:
        return None
    return Spread(statistics.median(good), min(good), max(good), len(good))


def paired_ratios(
    ours: Sequence[float | None], theirs: Sequence[float | None]
) -> list[float | None]:
    """Ours divided by theirs, round by round: what disturbs a round disturbs both of its halves.

    None for a round that lacks either value, or where theirs is 0.
    """
    return [_ratio(our, their) for our, their in zip(ours, theirs, strict=False)]


def _ratio(our: float | None, their: float | None) -> float | None:
    if our is None or their is None or their == 0:
        return None
    return our / their


def percentile_of(rows: Sequence[tuple[float, float]], percent: float) -> float:
    """The value of the first row (percentage, value) at or above `percent`; rows ascend.

    Raises ValueError where no row reaches it.
    """
    for reached, value in rows:
        if reached >= percent:
            return value
    raise ValueError(f"no row reaches {percent} %")
