"""What many trials say: rates with intervals, outcomes, failures, look-alikes, and retrieval.

The two trials of twins, and all trials of one pair of objects, share looks and are not independent.
So intervals come from a bootstrap over pairs; Wilson's, which takes trials as independent, stands
beside each.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from scipy import stats

from ent_bc.evaluation import Model, Trial
from ent_bc.protocol import as_multi_task, demonstrations_of, pair_of

N_RESAMPLES = 5_000
CONFIDENCE = 0.95
FAILURES = ("never reached", "wrong object", "last centimetres")
_BOOTSTRAP_SEED = 0  # fixed: the same trials give the same interval


@dataclasses.dataclass(frozen=True)
class Rate:
    """A share of trials with its 95% intervals.

    Attributes:
        value: The share, in [0, 1].
        n: Of how many trials.
        low: Lower end, bootstrap over pairs.
        high: Upper end.
        wilson_low: Lower end, Wilson, trials taken as independent.
        wilson_high: Upper end.
    """

    value: float
    n: int
    low: float
    high: float
    wilson_low: float
    wilson_high: float

    def to_dict(self) -> dict[str, float | int]:
        """JSON-ready form; ``Rate(**record)`` gives the equal rate back."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return f"{self.percent} {self.interval} (n={self.n})"

    @property
    def percent(self) -> str:
        """The share, as "91.2%"."""
        return f"{100 * self.value:.1f}%"

    @property
    def interval(self) -> str:
        """The bootstrap interval, as "[88.0, 94.1]"."""
        return f"[{100 * self.low:.1f}, {100 * self.high:.1f}]"


def rate(hits: Sequence[bool] | np.ndarray, groups: Sequence[str]) -> Rate:
    """The share of hits, with intervals.

    Args:
        hits: One for each trial.
        groups: The trial's pair; pairs are drawn anew with all of their trials.

    Raises:
        ValueError: There are no trials, or not as many groups as hits.
    """
    values = np.asarray(hits, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or len(values) != len(groups):
        raise ValueError(
            f"Got {values.shape} hits and {len(groups)} groups, expected as many, at least one."
        )
    low, high = interval(bootstrap_means(values, groups))
    wilson = stats.binomtest(int(values.sum()), len(values)).proportion_ci(CONFIDENCE, "wilson")
    return Rate(
        float(values.mean()),
        len(values),
        low,
        high,
        float(wilson.low),
        float(wilson.high),
    )


def bootstrap_means(values: np.ndarray, groups: Sequence[str] | np.ndarray) -> np.ndarray:
    """The mean in each draw of groups, each group taken with all of its values.

    Args:
        values: (N,).
        groups: (N,), the group of each; the same groups are drawn alike, whatever the values.

    Returns:
        (R,), one mean for each draw.
    """
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.stack([np.bincount(group_of), np.bincount(group_of, weights=values)], axis=1)
    n_drawn, sum_drawn = (_group_counts(len(names)) @ sums).T
    means: np.ndarray = sum_drawn / n_drawn
    return means


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """Ends of the 95% interval of what was drawn (R,): its percentiles."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)


@functools.lru_cache(maxsize=8)
def _group_counts(n_groups: int) -> np.ndarray:
    """(R, G) int: how often each draw takes each group."""
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=N_RESAMPLES)


def summarise(trials: Sequence[Trial]) -> dict[str, Any]:
    """What one condition's trials say; JSON-ready.

    Outcomes are named by the environment's task, whichever demonstration was shown. So for the
    twin's demonstration "other" is the rate at which the twin control holds.

    Returns:
        n_trials, n_tasks, n_pairs; rates (`Rate.to_dict`) of the exclusive outcomes shown_only,
        other_only, both, neither, of shown (shown only or both), other (other only or both),
        wrong_object (other only) and strict; and "failures", a rate for each of `FAILURES`.

    Raises:
        ValueError: There are no trials.
    """
    groups = [trial.pair_id for trial in trials]

    def share(hits: Sequence[bool]) -> dict[str, float | int]:
        return rate(hits, groups).to_dict()

    return {
        "n_trials": len(trials),
        "n_tasks": len({trial.task_id for trial in trials}),
        "n_pairs": len(set(groups)),
        "shown": share([t.success for t in trials]),
        "shown_only": share([t.outcome == "shown only" for t in trials]),
        "other_only": share([t.outcome == "other only" for t in trials]),
        "both": share([t.outcome == "both" for t in trials]),
        "neither": share([t.outcome == "neither" for t in trials]),
        "other": share([t.success_other for t in trials]),
        "wrong_object": share([t.failure == "wrong object" for t in trials]),
        "strict": share([t.strict for t in trials]),
        "failures": {name: share([t.failure == name for t in trials]) for name in FAILURES},
    }


def by_quartile(
    trials: Sequence[Trial], pair_distance: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Summaries from the most alike quarter of the pairs to the least alike.

    Args:
        trials: Of one condition.
        pair_distance: How far the looks of a pair's objects are apart; see `pair_distances`.

    Returns:
        Four summaries (fewer where there are fewer pairs), each with "distance", [least, greatest].

    Raises:
        ValueError: There are no trials, or a pair has no distance.
    """
    pairs = sorted({trial.pair_id for trial in trials})
    unknown = [pair for pair in pairs if pair not in pair_distance]
    if unknown or not pairs:
        raise ValueError(f"Expected trials, with a distance for each pair; none for {unknown[:5]}.")
    pairs.sort(key=lambda pair: pair_distance[pair])
    summaries = []
    for quarter in np.array_split(np.array(pairs), min(4, len(pairs))):
        chosen = set(quarter.tolist())
        ends = [float(pair_distance[str(quarter[place])]) for place in (0, -1)]
        summary = summarise([trial for trial in trials if trial.pair_id in chosen])
        summaries.append({"distance": ends, **summary})
    return summaries


def pair_distances(env_id: str, env_kwargs: Mapping[str, Any]) -> dict[str, float]:
    """How far the looks of each pair's two objects are apart, in [0, 1], by pair id.

    The mean absolute difference of two pictures, each of one object alone, from one side, in one
    place. Needs an environment with ``object_crops(task)``, as `MetaPusherEnv` has.
    """
    env = gym.make(env_id, **env_kwargs)
    base: Any = env.unwrapped
    distances: dict[str, float] = {}
    for task in base.tasks:
        if task.pair_id not in distances:
            first, second = base.object_crops(task).astype(np.float64) / 255
            distances[task.pair_id] = float(np.abs(first - second).mean())
    env.close()
    return distances


@dataclasses.dataclass(frozen=True)
class Sentences:
    """The sentences of some single demonstrations.

    Attributes:
        vectors: (N, D) float32, unit norm.
        task_ids: N names of the demonstrated tasks; as many demonstrations of each.
        pair_ids: N names of their pairs.
    """

    vectors: np.ndarray
    task_ids: tuple[str, ...]
    pair_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.vectors) == len(self.task_ids) == len(self.pair_ids) > 0:
            raise ValueError(
                f"Got {len(self.vectors)} sentences, {len(self.task_ids)} task ids and "
                f"{len(self.pair_ids)} pair ids, expected as many of each, at least one."
            )


def embed_tasks(
    model: Model,
    env_id: str,
    env_kwargs: Mapping[str, Any],
    *,
    n_demonstrations: int = 2,
    seed: int = 0,
) -> Sentences:
    """Embeds a few demonstrations of each of an environment's tasks, one by one."""
    env = gym.make(env_id, **env_kwargs)
    tasks = as_multi_task(env).tasks
    demonstrations = demonstrations_of(
        as_multi_task(env),
        tasks,
        n_demonstrations,
        seeds=[seed] * len(tasks),
        n_obs=getattr(model, "n_demonstrated_obs", None),
    )
    vectors, task_ids, pair_ids = [], [], []
    for task, some in zip(tasks, demonstrations, strict=True):
        for demonstration in some:
            vectors.append(model.embed(demonstration))
            task_ids.append(task.task_id)
            pair_ids.append(pair_of(task))
    env.close()
    return Sentences(np.stack(vectors), tuple(task_ids), tuple(pair_ids))


def embedding_metrics(sentences: Sentences) -> dict[str, Any]:
    """How well sentences tell tasks apart; JSON-ready.

    Each demonstration is the query once. A task's support sentence is the normalised mean over its
    other demonstrations: one with two of each task, as in one-shot imitation.

    Returns:
        embedding_accuracy, the rate at which a query is nearest to its own task's sentence;
        embedding_chance, 1 / n_tasks; twin_accuracy, the rate at which it is nearer to its own
        task's than to its twin's (None without twins; chance is 1/2); n_tasks, n_support.

    Raises:
        ValueError: Not the same number of demonstrations of each task, or fewer than two.
    """
    tasks, task_of = np.unique(np.asarray(sentences.task_ids), return_inverse=True)
    counts = np.bincount(task_of)
    if counts.min() < 2 or counts.min() != counts.max():
        raise ValueError(
            f"There are {counts.min()} to {counts.max()} sentences of a task, expected as many of "
            "each, at least 2: one to ask with, the others to find."
        )
    order = np.argsort(task_of, kind="stable")
    vectors = np.asarray(sentences.vectors, np.float64)[order].reshape(len(tasks), counts[0], -1)
    pairs = [sentences.pair_ids[i] for i in order[:: counts[0]]]
    own, twin = np.arange(len(tasks)), _twins(pairs)
    found, told_apart = [], []
    for query in range(counts[0]):
        support = np.delete(vectors, query, axis=1).sum(axis=1)
        support /= np.linalg.norm(support, axis=1, keepdims=True)
        likeness = vectors[:, query] @ support.T
        found.append(likeness.argmax(axis=1) == own)
        told_apart.append((likeness[own, own] > likeness[own, twin])[twin != own])
    has_twin = [pair for pair, t, o in zip(pairs, twin, own, strict=True) if t != o]
    n = int(counts[0])
    return {
        "n_tasks": len(tasks),
        "n_support": n - 1,
        "embedding_accuracy": rate(np.concatenate(found), pairs * n).to_dict(),
        "embedding_chance": 1 / len(tasks),
        "twin_accuracy": (
            rate(np.concatenate(told_apart), has_twin * n).to_dict() if has_twin else None
        ),
    }


def _twins(pairs: Sequence[str]) -> np.ndarray:
    """For each task the place of the other task of its pair; its own where there is none."""
    n_of_pair = Counter(pairs)
    return np.array(
        [
            next((j for j, p in enumerate(pairs) if p == pair and j != i), i)
            if n_of_pair[pair] == 2
            else i
            for i, pair in enumerate(pairs)
        ]
    )
