"""Demonstrations in, batches of tasks out: support and query demonstrations, twins side by side."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ent_bc.demonstrations import (
    UNKNOWN,
    DemonstrationLike,
    ReadsAhead,
    group_by_task,
    index_obs,
    observed_steps,
)


@dataclasses.dataclass(frozen=True)
class BatchConfig:
    """How a batch is drawn."""

    n_support: int = 1
    """Support demonstrations of a task: 1 for one-shot."""
    n_query: int = 1
    """Query demonstrations of a task."""
    n_steps: int | None = 4
    """Time steps of each demonstration that train control; None for all stored ones, in order."""
    early: float = 1.0
    """Early steps are drawn more often: step t of T with weight 1 + early * (1 - t / T)."""
    chunk: int | None = None
    """How many actions from each of these steps on to add as "chunks"; None for no such entry."""

    def __post_init__(self) -> None:
        for name in ("n_support", "n_query", "n_steps", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, expected at least 1.")


class TaskBatches:
    """Batches of tasks. The batch of a training step is a pure function of the seed and the step.

    So a run that was killed goes on with the very batches it would have had. An epoch is one pass
    over the tasks, in an order of its own. A batch is a mapping as imitation's data loaders give
    them, whose leaves have the batch's tasks first: "obs" with

    - "demo": first and last observations, each (B, K, 2, ...),
    - "obs": observations at the drawn steps, each (B, K, n_steps, ...),
    - "attention_target": (B, K, n_steps, 2) and "demo_target" (B, K, 2), NaN where unknown,
    - "twin_of": (B,) place of the twin in the batch, -1 where it is not there,
    - "noise": standard normal, of the actions' shape,
    - "chunks": (B, K, n_steps, chunk, A) actions from each drawn step on, the last one again beyond
      the end; only where the configuration asks for them,

    and "acts" (B, K, n_steps, A); of the K demonstrations the first n_support are support.
    """

    def __init__(
        self,
        demonstrations: Sequence[DemonstrationLike],
        batch_size: int,
        config: BatchConfig,
        seed: int,
    ) -> None:
        self.demonstrations = demonstrations
        self.config = config
        self.seed = seed
        self._of_task = group_by_task(demonstrations)
        self._steps_of: dict[int, _Steps] = {}
        n_needed = config.n_support + config.n_query
        for task_id, indices in self._of_task.items():
            if len(indices) < n_needed:
                raise ValueError(
                    f"Task {task_id!r} has {len(indices)} demonstrations, expected at least "
                    f"{n_needed}: {config.n_support} support and {config.n_query} query."
                )
        self._n_actions = np.asarray(demonstrations[0].acts).shape[-1]
        self._on_disk = demonstrations if isinstance(demonstrations, ReadsAhead) else None
        self._share = (0, 1)
        self._groups = self._group_twins()
        self._groups_per_batch = max(
            1, min(len(self._groups), round(batch_size * len(self._groups) / len(self._of_task)))
        )

    def __len__(self) -> int:
        """Batches in a pass over the tasks."""
        return len(self._groups) // self._groups_per_batch

    @property
    def groups_per_batch(self) -> int:
        """Pairs of twins, or tasks alone, in a batch."""
        return self._groups_per_batch

    def share(self, index: int, count: int) -> TaskBatches:
        """The same batches with one of ``count`` shares of each one's tasks and no others."""
        share = copy.copy(self)
        share._share = (index, count)
        return share

    def n_steps(self, accumulate: int) -> int:
        """Optimiser steps in an epoch, each on ``accumulate`` batches."""
        return max(1, len(self) // accumulate)

    def epoch(self, first: int, accumulate: int) -> Iterator[list[dict[str, Any]]]:
        """The batches of each optimiser step of an epoch that begins with step ``first``."""
        for step in range(first, first + self.n_steps(accumulate)):
            yield [self.batch(step * accumulate + part) for part in range(accumulate)]

    def batch(self, number: int) -> dict[str, Any]:
        """A batch, counted from 0 over all epochs."""
        epoch, place = divmod(number, len(self))
        order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self._groups))
        chosen = order[place * self._groups_per_batch : (place + 1) * self._groups_per_batch]
        tasks = [task for index in chosen for task in self._groups[index]]
        return self._make_batch(tasks, np.random.default_rng([self.seed, 1, number]))

    def _group_twins(self) -> list[list[str]]:
        """Tasks by pair; what has no pair of its own is a group of one."""
        pairs: dict[str, list[str]] = {}
        for task_id, indices in self._of_task.items():
            info = self.demonstrations[indices[0]].infos[0]
            pairs.setdefault(info.get("pair_id", task_id), []).append(task_id)
        self._twin_of = {
            task: other
            for tasks in pairs.values()
            for task in tasks
            for other in tasks
            if other != task
        }
        return list(pairs.values())

    def _make_batch(self, tasks: list[str], rng: np.random.Generator) -> dict[str, Any]:
        n_demos = self.config.n_support + self.config.n_query
        drawn = []  # for all tasks, so that a share is what it is in the whole batch
        for task in tasks:
            chosen = rng.choice(self._of_task[task], size=n_demos, replace=False)
            drawn.append([(int(index), self._draw(rng)) for index in chosen])
        n_steps = self.config.n_steps or len(self._rows(*drawn[0][0]))
        shape = (len(tasks), n_demos, n_steps, self._n_actions)
        noise = rng.standard_normal(shape, dtype=np.float32)
        place = {task: i for i, task in enumerate(tasks)}
        twin_of = np.array([place.get(self._twin_of.get(task, ""), -1) for task in tasks])
        index, count = self._share
        mine = slice(len(tasks) * index // count, len(tasks) * (index + 1) // count)
        rows = [
            [(index, self._rows(index, draws)) for index, draws in task] for task in drawn[mine]
        ]
        if self._on_disk is not None:
            wanted = itertools.chain.from_iterable(rows)
            self._on_disk.will_read((index, [0, *places, -1]) for index, places in wanted)
        flat = stack_records([self._read(*row) for task in rows for row in task])  # copied once
        batch = _map(lambda leaf: leaf.reshape(len(rows), n_demos, *leaf.shape[1:]), flat)
        acts = batch.pop("acts")
        return {"obs": {**batch, "twin_of": twin_of[mine], "noise": noise[mine]}, "acts": acts}

    def _draw(self, rng: np.random.Generator) -> np.ndarray | None:
        """What time steps are drawn with, or None where all are taken."""
        return None if self.config.n_steps is None else rng.random(self.config.n_steps)

    def _rows(self, index: int, draws: np.ndarray | None) -> np.ndarray:
        """The stored observations of a demonstration that some draws from [0, 1) mean, or all."""
        if index not in self._steps_of:
            self._steps_of[index] = _Steps.of(self.demonstrations[index], self.config.early)
        if draws is None:
            return np.arange(len(self._steps_of[index].steps))
        return np.searchsorted(self._steps_of[index].cumulative, draws, side="right")

    def _read(self, index: int, rows: np.ndarray) -> dict[str, Any]:
        """What a demonstration has at some of its stored observations."""
        demo, steps = self.demonstrations[index], self._steps_of[index]
        if self._on_disk is not None:
            obs = self._on_disk.read_obs(index, [0, -1, *rows])
        else:
            obs = index_obs(demo.obs, [0, -1, *rows])
        acts, drawn = np.asarray(demo.acts, dtype=np.float32), steps.steps[rows]
        parts = {
            "demo": _map(lambda leaf: leaf[:2], obs),
            "obs": _map(lambda leaf: leaf[2:], obs),
            "demo_target": steps.targets[0],
            "attention_target": steps.targets[rows],
            "acts": acts[drawn],
        }
        if self.config.chunk is not None:
            ahead = drawn[:, None] + np.arange(self.config.chunk)
            parts["chunks"] = acts[np.minimum(ahead, len(acts) - 1)]
        return parts


@dataclasses.dataclass(frozen=True)
class _Steps:
    """The time steps of a demonstration that can train control, ready to be drawn from.

    Attributes:
        steps: (S,) ascending; the rows of the stored observations that have an action.
        cumulative: (S,) cumulative probability of drawing them.
        targets: (S, 2) where in the image to look, NaN where unknown.
    """

    steps: np.ndarray
    cumulative: np.ndarray
    targets: np.ndarray

    @classmethod
    def of(cls, demo: DemonstrationLike, early: float) -> _Steps:
        n_acts = len(demo.acts)
        steps = observed_steps(demo)
        steps = steps[steps < n_acts]
        weights = 1 + early * (1 - steps / n_acts)
        infos = demo.infos
        targets = [infos[int(step)].get("attention_target", UNKNOWN) for step in steps]
        cumulative = np.cumsum(weights / weights.sum())
        cumulative[-1] = 1.0
        return cls(steps, cumulative, np.asarray(targets, dtype=np.float32))


def _map(function: Callable[[np.ndarray], np.ndarray], tree: Any) -> Any:
    """Applies a function to each leaf."""
    if isinstance(tree, Mapping):
        return {key: _map(function, leaf) for key, leaf in tree.items()}
    return function(tree)


def stack_records(records: Sequence[Any]) -> Any:
    """Stacks records of one structure leaf by leaf along a new first axis."""
    if isinstance(records[0], Mapping):
        return {key: stack_records([record[key] for record in records]) for key in records[0]}
    return np.stack(records)
