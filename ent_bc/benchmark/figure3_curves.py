"""All seeds of one variant of figure 3 as arrays, and means of them with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ent_bc.statistics import CONFIDENCE, N_RESAMPLES

_BOOTSTRAP_SEED = 0  # fixed: the same runs give the same interval


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds and tasks with its 95% interval.

    A draw of the bootstrap takes seeds, and pairs of objects with all that was measured of them;
    the same pairs in every seed, for a pair that is hard is so for all. Of three seeds an interval
    tells little of how seeds differ: where there is one seed, nothing.

    Attributes:
        value: The mean.
        low: Lower end.
        high: Upper end.
        n_seeds: Of how many seeds.
        n_tasks: Of how many tasks in each.
    """

    value: float
    low: float
    high: float
    n_seeds: int
    n_tasks: int

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    @classmethod
    def of(cls, values: np.ndarray, pair_ids: Sequence[str]) -> Estimate:
        """From what was measured of each task, (S, T), and the tasks' pairs."""
        pairs, pair_of = np.unique(pair_ids, return_inverse=True)
        n_seeds, n_pairs = len(values), len(pairs)
        by_pair = np.stack([values[:, pair_of == p].mean(axis=1) for p in range(n_pairs)], axis=1)
        rng = np.random.default_rng(_BOOTSTRAP_SEED)
        seeds = rng.integers(n_seeds, size=(N_RESAMPLES, n_seeds, 1))
        drawn = rng.integers(n_pairs, size=(N_RESAMPLES, 1, n_pairs))
        means = by_pair[seeds, drawn].mean(axis=(1, 2))
        tail = 100 * (1 - CONFIDENCE) / 2
        low, high = np.percentile(means, [tail, 100 - tail])
        return cls(float(by_pair.mean()), float(low), float(high), n_seeds, len(pair_ids))


@dataclasses.dataclass(frozen=True)
class Curves:
    """Runs of one variant: S seeds, P points, R of them with trials, T held-out tasks.

    Attributes:
        seeds: The seeds.
        pair_ids: T names of the tasks' pairs.
        n_actions: Dimensions that the entropy is a sum over.
        steps: (P,) optimiser steps.
        entropy: (S, P) nats.
        batch_accuracy: (S, P) embedding accuracy in training batches.
        embedding_accuracy: (S, P, T) share of a task's held-out demonstrations.
        twin_accuracy: (S, P, T) the same.
        trial_steps: (R,) optimiser steps.
        trials: For "own" and "twin", (S, R, T) one letter each, see `results.LETTERS`.
        sampled: For the same, (S, 1, T) after training, with sampled actions.
    """

    seeds: tuple[int, ...]
    pair_ids: tuple[str, ...]
    n_actions: int
    steps: np.ndarray
    entropy: np.ndarray
    batch_accuracy: np.ndarray
    embedding_accuracy: np.ndarray
    twin_accuracy: np.ndarray
    trial_steps: np.ndarray
    trials: dict[str, np.ndarray]
    sampled: dict[str, np.ndarray]

    @classmethod
    def of(cls, records: Sequence[Any]) -> Curves:
        """From the records of one variant and one configuration, see `figure3_runs.run`."""
        points = [record["points"] for record in records]
        tried = [[point for point in some if "rollouts" in point] for some in points]
        last = [[some[-1]] for some in points]

        def hits(key: str) -> np.ndarray:
            return np.array([[[int(c) for c in p[key]] for p in some] for some in points]) / 2

        def letters(some: Any, key: str) -> dict[str, np.ndarray]:
            return {
                shown: np.array([[list(p[key][shown]) for p in run] for run in some])
                for shown in ("own", "twin")
            }

        return cls(
            seeds=tuple(record["seed"] for record in records),
            pair_ids=tuple(records[0]["pair_ids"]),
            n_actions=records[0]["n_actions"],
            steps=np.array([point["step"] for point in points[0]]),
            entropy=np.array([[p["entropy"] for p in some] for some in points]),
            batch_accuracy=np.array(
                [[p["batch"]["embedding_accuracy"] for p in some] for some in points]
            ),
            embedding_accuracy=hits("found"),
            twin_accuracy=hits("told_apart"),
            trial_steps=np.array([point["step"] for point in tried[0]]),
            trials=letters(tried, "rollouts"),
            sampled=letters(last, "sampled"),
        )

    @property
    def sigma(self) -> np.ndarray:
        """(S, P) geometric mean of sigma over dimensions and frames, N m."""
        scaled: np.ndarray = np.exp(self.entropy / self.n_actions) / np.sqrt(2 * np.pi * np.e)
        return scaled

    def of_seeds(self, seeds: Sequence[int]) -> Curves:
        """Some of the seeds alone, in this order."""
        rows = [self.seeds.index(seed) for seed in seeds]
        changed: dict[str, Any] = {"seeds": tuple(seeds)}
        for name in ("entropy", "batch_accuracy", "embedding_accuracy", "twin_accuracy"):
            changed[name] = getattr(self, name)[rows]
        for name in ("trials", "sampled"):
            changed[name] = {shown: some[rows] for shown, some in getattr(self, name).items()}
        return dataclasses.replace(self, **changed)

    def estimate(self, values: np.ndarray) -> Estimate:
        """The mean of what was measured of each task, (S, T)."""
        return Estimate.of(values, self.pair_ids)


def curves_of(records: Sequence[Any]) -> dict[str, Curves]:
    """The curves of each variant, in the order of the records."""
    names = dict.fromkeys(record["variant"] for record in records)
    return {name: Curves.of([r for r in records if r["variant"] == name]) for name in names}


def happened(trials: np.ndarray, letters: str) -> np.ndarray:
    """Which trials ended in one of some outcomes, 0 or 1; "ob" is: the other object was brought."""
    return np.isin(trials, list(letters)).astype(float)
