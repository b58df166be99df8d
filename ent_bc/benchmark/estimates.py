"""Shares of trials over seeds: interquartile means with bootstrap intervals, and differences.

The estimator is rliable's (Agarwal et al. 2021, "Deep reinforcement learning at the edge of the
statistical precipice", section 4.3): the mean of what is left without the lowest and the highest
quarter of the seeds. The bootstrap draws seeds, as rliable's, and pairs of objects with all that
was measured of them: the same pairs in every seed, for a pair that is hard is so for all, where
rliable takes scores as independent. Of two or three seeds an interval tells little of how seeds
differ, of one nothing; `Estimate.seed_values` stands beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from ent_bc.benchmark.results import Condition
from ent_bc.statistics import bootstrap_means, interval

_BOOTSTRAP_SEED = 1  # fixed, and not the one that draws pairs


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A share of trials or tasks, or a difference of two.

    Attributes:
        value: Interquartile mean over seeds.
        low: Lower end of the 95% interval.
        high: Upper end.
        seed_values: Of each seed.
        n_trials: Trials, or tasks, of each seed.
    """

    value: float
    low: float
    high: float
    seed_values: tuple[float, ...]
    n_trials: int

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    @property
    def n_seeds(self) -> int:
        """Of how many seeds."""
        return len(self.seed_values)


def estimate(seeds: Sequence[Condition], measure: str) -> Estimate:
    """The share of trials in which something happened.

    Args:
        seeds: One condition, of each seed.
        measure: One of `results.MEASURES`.

    Raises:
        ValueError: There are none, or not of the same pairs.
    """
    return share([seed.hits(measure) for seed in seeds], [seed.groups for seed in seeds])


def difference(seeds: Sequence[Condition], others: Sequence[Condition], measure: str) -> Estimate:
    """Seeds' share minus others', drawn for both at once; same seeds in the same order.

    Raises:
        ValueError: There are none, not as many of both, or not of the same pairs.
    """
    if len(seeds) != len(others) or set(seeds[0].pair_ids) != set(others[0].pair_ids):
        raise ValueError(
            f"{len(seeds)} and {len(others)} seeds cannot be compared: expected as many of both, "
            "evaluated on the same pairs."
        )
    (first, first_drawn), (second, second_drawn) = (
        _draw_pairs([seed.hits(measure) for seed in some], [seed.groups for seed in some])
        for some in (seeds, others)
    )
    return _draw_seeds(first - second, first_drawn - second_drawn, len(seeds[0].outcomes))


def share(values: Sequence[np.ndarray], groups: Sequence[np.ndarray]) -> Estimate:
    """The mean of what was measured, for instance of hits.

    Args:
        values: Of each seed (N,).
        groups: Of each seed (N,) the pair of each value.

    Raises:
        ValueError: There are none, or not of the same pairs.
    """
    return _draw_seeds(*_draw_pairs(values, groups), len(values[0]))


def _draw_pairs(
    values: Sequence[np.ndarray], groups: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(S,) the mean in each seed, and (S, R) the same in each draw of pairs."""
    pairs = set(groups[0]) if groups else set()
    if not pairs or any(set(some) != pairs for some in groups):
        raise ValueError(f"Expected seeds of the same pairs, got {len(groups)} of others.")
    drawn = [bootstrap_means(some, group) for some, group in zip(values, groups, strict=True)]
    return np.array([some.mean() for some in values]), np.array(drawn)


def _draw_seeds(of_seeds: np.ndarray, drawn: np.ndarray, n_trials: int) -> Estimate:
    """From the mean in each seed (S,) and in each draw of pairs (S, R)."""
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    seeds = rng.integers(len(of_seeds), size=drawn.shape)
    drawn = np.take_along_axis(drawn, seeds, axis=0)
    low, high = interval(_interquartile_mean(drawn))
    value = float(_interquartile_mean(of_seeds))
    return Estimate(value, low, high, tuple(of_seeds.tolist()), n_trials)


def _interquartile_mean(of_seeds: np.ndarray) -> np.ndarray:
    """As rliable's ``aggregate_iqm``; of three seeds or fewer it is the mean."""
    return np.asarray(stats.trim_mean(of_seeds, 0.25, axis=0))
