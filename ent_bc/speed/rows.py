"""A row of the speed table: ours beside a peer or a limit, timed in turn, told as a ratio."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """What was compared, and how it came out.

    Attributes:
        name: What we do.
        against: What it is compared with.
        unit: Of the figures, as "steps/s".
        ours: Our figure in each repetition.
        theirs: Their figure in the same repetitions.
        at_least: The smallest ratio ours / theirs that is good enough, or None.
        at_most: The largest one, or None.
    """

    name: str
    against: str
    unit: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if not self.ours or len(self.ours) != len(self.theirs):
            raise ValueError(
                f"Row {self.name!r} has {len(self.ours)} and {len(self.theirs)} figures, expected "
                "equally many, one of each side for every repetition."
            )

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, in each repetition."""
        return [mine / other for mine, other in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)

    @property
    def is_met(self) -> bool | None:
        """Whether the median is good enough; None where nothing was asked."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or self.ratio >= self.at_least) and (
            self.at_most is None or self.ratio <= self.at_most
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, with the medians, for ``speed.json``."""
        return {
            **dataclasses.asdict(self),
            "median_ours": statistics.median(self.ours),
            "median_theirs": statistics.median(self.theirs),
            "ratio": self.ratio,
            "ratio_range": (min(self.ratios), max(self.ratios)),
            "n": len(self.ours),
            "is_met": self.is_met,
        }


def rate(work: Callable[[], object], amount: float) -> Callable[[], float]:
    """A side of `in_turn`: does ``work`` and returns ``amount`` per second of it."""

    def timed() -> float:
        start = time.perf_counter()
        work()
        return amount / (time.perf_counter() - start)

    return timed


def in_turn(repetitions: int, *sides: Callable[[], float]) -> list[tuple[float, ...]]:
    """Runs the sides one after the other, once to warm up and then so many times.

    Whatever else the machine does then slows all of them alike.

    Args:
        repetitions: How many figures of each side.
        *sides: Each does a piece of work and returns its figure, a rate or a duration.

    Returns:
        The figures of each side.
    """
    for side in sides:
        side()
    rounds = [[side() for side in sides] for _ in range(repetitions)]
    return list(zip(*rounds, strict=True))


def use_one_core() -> None:
    """Keeps this process, and what it starts, on one core; where the system lets it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
