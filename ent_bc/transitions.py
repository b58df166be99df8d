"""Single transitions, where imitation's trainers have them: batches of steps, and back to episodes.

Loaders of transition batches, DAgger's shuffled one included, have lost the episodes, and with them
the demonstrations that sentences are made from. The observation's own sentence serves instead, or
demonstrations of the tasks that are given beside.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import spaces
from imitation.data import types
from torch.nn import functional as F

from ent_bc.demonstrations import DemonstrationLike, end_observations, group_by_task, index_obs
from ent_bc.losses import LossConfig, control_error, gaussian_entropy, l2_penalty

if TYPE_CHECKING:
    from ent_bc.policies import TaskConditionedPolicy

NO_SENTENCES = (
    "Batches of transitions have lost their episodes, which sentences are made from. Train on "
    "trajectories or ordered Transitions; or put the sentence into the observation "
    "(SentenceObservation); or give demonstrations of the tasks, "
    "EntBC(support_demonstrations=...)."
)


def split_episodes(transitions: types.TransitionsMinimal) -> list[types.Trajectory]:
    """Ordered transitions as the trajectories they were.

    An episode ends where ``dones`` says so, and where the next transition does not begin with the
    observation that this one ended with.

    Args:
        transitions: In the order in which they happened, as `rollout.flatten_trajectories` gives.

    Raises:
        ValueError: They lack ``next_obs``, or are shuffled.
    """
    if not isinstance(transitions, types.Transitions):
        raise ValueError(
            f"The demonstrations are {type(transitions).__name__} without next_obs, expected "
            "Transitions, in order, or trajectories."
        )
    n_transitions = len(transitions)
    if n_transitions == 0:
        raise ValueError("The list of demonstrations is empty, expected at least one.")
    goes_on = ~np.asarray(transitions.dones, dtype=bool)[:-1]
    n_unfinished = int(goes_on.sum())
    obs, next_obs = transitions.obs, transitions.next_obs
    for index in np.flatnonzero(goes_on):
        goes_on[index] = _equal(index_obs(next_obs, index), index_obs(obs, index + 1))
    ends = [*(np.flatnonzero(~goes_on) + 1), n_transitions]
    if goes_on.sum() < n_unfinished / 2:  # a few follow each other by chance
        raise ValueError(
            f"Only {goes_on.sum()} of {n_unfinished} transitions begin where the one before ended: "
            "they are shuffled, or too few. Pass them in order, or the trajectories."
        )
    return [
        _to_trajectory(transitions, slice(int(begin), int(end)))
        for begin, end in itertools.pairwise([0, *ends])
    ]


class TransitionBatches:
    """Batches of transitions from a loader, each with what its sentences are made from.

    Args:
        loader: Iterable of mappings with "obs", "acts" and, where sentences come from
            ``support``, "infos"; imitation's and torch's data loaders.
        support: Demonstrations of the tasks, or None if the observation has its sentence.
        observation_space: What these are checked against.

    Raises:
        ValueError: A batch has no infos, tasks of which there is no demonstration, or not as many
            actions as observations.
    """

    def __init__(
        self,
        loader: Iterable[types.TransitionMapping],
        support: Sequence[DemonstrationLike] | None,
        observation_space: spaces.Space[Any],
    ) -> None:
        self._loader = loader
        self._space = observation_space
        self._support = support
        self._of_task = None if support is None else group_by_task(support)

    def n_steps(self, accumulate: int) -> int | None:
        """Optimiser steps in an epoch, where the loader knows."""
        try:
            return -(-len(self._loader) // accumulate)  # type: ignore[arg-type]
        except TypeError:
            return None

    def epoch(self, _first: int, accumulate: int) -> Iterator[list[dict[str, Any]]]:
        """One pass over the loader, in its own order; see `TaskBatches.epoch`."""
        batches = map(self._to_batch, self._loader)
        while group := list(itertools.islice(batches, accumulate)):
            yield group

    def _to_batch(self, batch: types.TransitionMapping) -> dict[str, Any]:
        """The steps (B, ...); with support also M demonstrations, and whose tasks they are of."""
        obs, acts = types.maybe_unwrap_dictobs(batch["obs"]), batch["acts"]
        n_obs = {len(leaf) for leaf in (obs.values() if isinstance(obs, Mapping) else [obs])}
        if n_obs != {len(acts)}:
            raise ValueError(
                f"A batch has {len(acts)} actions and {', '.join(map(str, sorted(n_obs)))} "
                "observations, expected as many of each."
            )
        shown = {} if self._of_task is None else self._show(batch, self._of_task)
        return {"obs": {"obs": obs, **shown}, "acts": acts}

    def _show(self, batch: Mapping[str, Any], of_task: Mapping[str, list[int]]) -> dict[str, Any]:
        infos = batch.get("infos")
        if infos is None or len(infos) != len(batch["acts"]) or "task_id" not in infos[0]:
            raise ValueError("A batch of transitions does not tell its tasks: expected its infos.")
        task_ids, task = np.unique([str(info["task_id"]) for info in infos], return_inverse=True)
        unknown = set(task_ids) - set(of_task)
        if unknown:
            raise ValueError(
                f"There is no support demonstration of {len(unknown)} tasks, among them "
                f"{str(min(unknown))!r}: add them to support_demonstrations."
            )
        shown = [(place, i) for place, task_id in enumerate(task_ids) for i in of_task[task_id]]
        assert self._support is not None
        first, last = end_observations([self._support[i] for _, i in shown], self._space)
        return {
            "first": first,
            "last": last,
            "task_of_demo": np.array([place for place, _ in shown]),
            "task": task.ravel(),
        }


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Mapping):
        return all(np.array_equal(first[key], second[key]) for key in first)
    return np.array_equal(first, second)


def _to_trajectory(transitions: types.Transitions, part: slice) -> types.Trajectory:
    obs = index_obs(transitions.obs, part)
    last = index_obs(transitions.next_obs, slice(part.stop - 1, part.stop))
    return types.Trajectory(
        obs=types.maybe_wrap_in_dictobs(
            {key: np.concatenate([obs[key], last[key]]) for key in obs}
            if isinstance(obs, dict)
            else np.concatenate([obs, last])
        ),
        acts=np.asarray(transitions.acts[part]),
        infos=np.asarray(transitions.infos[part]),
        terminal=bool(transitions.dones[part.stop - 1]),
    )


@dataclasses.dataclass(frozen=True)
class ControlMetrics:
    """What one evaluation of the loss on single transitions says; scalars."""

    loss: th.Tensor
    control_loss: th.Tensor
    entropy: th.Tensor
    mean_sigma: th.Tensor
    l2_loss: th.Tensor


@dataclasses.dataclass(frozen=True)
class TransitionLoss:
    """L = L_ctr - ent_weight H on single transitions: they train control, not the embedding."""

    config: LossConfig
    ent_weight: float
    l2_weight: float

    def __call__(
        self, policy: TaskConditionedPolicy, obs: Mapping[str, Any], acts: th.Tensor
    ) -> ControlMetrics:
        """Evaluates the loss on a batch of `TransitionBatches`, as tensors."""
        sentence = None
        if "task" in obs:  # told by demonstrations, else by the observation itself
            each = policy.embed(obs["first"], obs["last"]).sentences
            sums = each.new_zeros(int(obs["task"].max()) + 1, each.shape[-1])
            sums = sums.index_add(0, obs["task_of_demo"], each)
            sentence = F.normalize(sums, dim=-1)[obs["task"]]
        control = policy.control(obs["obs"], sentence)
        acts = acts.to(control.mean)
        noise = th.randn_like(control.mean)
        error = control_error(
            self.config.control_loss, control.mean, control.log_std, acts, noise
        ).mean()
        entropy = gaussian_entropy(control.log_std).mean()
        l2_loss = l2_penalty(policy, self.l2_weight)
        return ControlMetrics(
            loss=error - self.ent_weight * entropy + l2_loss,
            control_loss=error,
            entropy=entropy,
            mean_sigma=control.log_std.exp().mean(),
            l2_loss=l2_loss,
        )
