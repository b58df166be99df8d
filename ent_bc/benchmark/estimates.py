"""Shares of trials over seeds: interquartile means with bootstrap intervals, and differences.

The estimator is rliable's (Agarwal et al. 2021, "Deep reinforcement learning at the edge of the
statistical precipice", section 4.3): the mean of what is left without the lowest and the highest
quarter of the seeds. The bootstrap is not rliable's, which takes scores as independent: here a draw
takes pairs of objects with all of their trials, the same pairs in every seed, for a pair that is
hard is so for all seeds. Seeds are strata: each is in every draw, so an interval does not tell how
seeds differ; `Estimate.seed_values` does.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from scipy import stats

from ent_bc.benchmark.results import Condition
from ent_bc.statistics import CONFIDENCE, N_RESAMPLES

_BOOTSTRAP_SEED = 0  # fixed, and the one of `statistics.rate`: for one seed both agree


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A share of trials, or a difference of two.

    Attributes:
        value: Interquartile mean over seeds.
        low: Lower end of the 95% interval.
        high: Upper end.
        seed_values: Of each seed.
        n_trials: Of all seeds.
    """

    value: float
    low: float
    high: float
    seed_values: tuple[float, ...]
    n_trials: int

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def estimate(seeds: Sequence[Condition], measure: str) -> Estimate:
    """The share of trials in which something happened.

    Args:
        seeds: One condition, of each seed.
        measure: One of `results.MEASURES`.

    Raises:
        ValueError: There are none, or not of the same pairs.
    """
    of_seeds, drawn = _bootstrap(seeds, measure)
    return _estimate(of_seeds, drawn, sum(len(seed.outcomes) for seed in seeds))


def difference(seeds: Sequence[Condition], others: Sequence[Condition], measure: str) -> Estimate:
    """Seeds' share minus others', pairs drawn for both at once; same seeds in the same order.

    Raises:
        ValueError: There are none, not as many of both, or not of the same pairs.
    """
    if len(seeds) != len(others) or set(seeds[0].pair_ids) != set(others[0].pair_ids):
        raise ValueError(
            f"{len(seeds)} and {len(others)} seeds cannot be compared: expected as many of both, "
            "evaluated on the same pairs."
        )
    (first, first_drawn), (second, second_drawn) = (
        _bootstrap(some, measure) for some in (seeds, others)
    )
    n_trials = sum(len(seed.outcomes) for seed in seeds)
    return _estimate(first - second, first_drawn - second_drawn, n_trials)


def _bootstrap(seeds: Sequence[Condition], measure: str) -> tuple[np.ndarray, np.ndarray]:
    """(S,) the share in each seed, and (S, R) the same in each draw of pairs."""
    pairs = np.unique(seeds[0].pair_ids) if seeds else np.array([])
    if not len(pairs) or any(set(seed.pair_ids) != set(pairs) for seed in seeds):
        raise ValueError(f"Expected seeds evaluated on the same pairs, got {len(seeds)} of others.")
    drawn = _draws(len(pairs))
    shares, shares_drawn = [], []
    for seed in seeds:
        pair_of, hits = np.searchsorted(pairs, seed.groups), seed.hits(measure)
        counts = [np.bincount(pair_of), np.bincount(pair_of, weights=hits)]
        n_drawn, hits_drawn = (drawn @ np.stack(counts, axis=1)).T
        shares.append(hits.mean())
        shares_drawn.append(hits_drawn / n_drawn)
    return np.array(shares), np.array(shares_drawn)


def _estimate(of_seeds: np.ndarray, drawn: np.ndarray, n_trials: int) -> Estimate:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(_interquartile_mean(drawn), [tail, 100 - tail])
    value = float(_interquartile_mean(of_seeds))
    return Estimate(value, float(low), float(high), tuple(of_seeds.tolist()), n_trials)


def _interquartile_mean(of_seeds: np.ndarray) -> np.ndarray:
    """As rliable's ``aggregate_iqm``; of three seeds or fewer it is the mean."""
    return np.asarray(stats.trim_mean(of_seeds, 0.25, axis=0))


@functools.lru_cache(maxsize=8)
def _draws(n_pairs: int) -> np.ndarray:
    """(R, P) int: how often each draw takes each pair."""
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    return rng.multinomial(n_pairs, np.full(n_pairs, 1 / n_pairs), size=N_RESAMPLES)
