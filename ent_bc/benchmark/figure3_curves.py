"""All seeds of one variant of figure 3 as arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ent_bc.benchmark.estimates import Estimate, share


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
        return share([*values], [np.array(self.pair_ids)] * len(values))


def curves_of(records: Sequence[Any]) -> dict[str, Curves]:
    """The curves of each variant, in the order of the records."""
    names = dict.fromkeys(record["variant"] for record in records)
    return {name: Curves.of([r for r in records if r["variant"] == name]) for name in names}


def happened(trials: np.ndarray, letters: str) -> np.ndarray:
    """Which trials ended in one of some outcomes, 0 or 1; "ob" is: the other object was brought."""
    return np.isin(trials, list(letters)).astype(float)
