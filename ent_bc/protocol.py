"""What `EntBC` and its evaluation ask of a multi-task environment: very little.

A multi-task environment is a Gymnasium environment that, below all wrappers, has

- ``tasks``, each with a ``task_id`` of its own;
- ``reset(options={"task": task})``, which starts an episode of that task, and ``reset(seed=...)``,
  which fixes it;
- ``get_demonstrations(task, n, seed=...)``, n successful demonstrations: records with ``obs``,
  ``acts`` and ``infos``, as imitation's ``Trajectory``, of which each info has the ``task_id``;
- in every step's info ``task_id`` and ``is_success``, whether the episode has succeeded so far.

Its episodes all have one length. That is enough to train and to evaluate. The rest is optional,
and each thing brings what it says:

====================================  ===========================================================
a task's ``pair_id`` and ``twin``     the twin control; twins share a batch and an interval's draw
``expert_action()``                   the condition "expert"
``info["is_success_other"]``          outcomes "other only" and "both"; default False
``info["is_success_strict"]``         a stricter criterion; default ``is_success``
``info["target_moved"]`` and others   failure modes; default NaN
``get_sparse_demonstrations(tasks,    demonstrations of several tasks at once, with so many evenly
n, seeds=seeds, n_obs=n_obs)``        spaced observations, for models that read no others: faster
====================================  ===========================================================

`meta_pusher_env`'s ``MetaPusher-v0`` has it all, `ent_bc.meta_world` what is required and
``expert_action``. No class is to be inherited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from ent_bc.demonstrations import DemonstrationLike


@runtime_checkable
class Task(Protocol):
    """One thing to do; what it consists of is the environment's affair."""

    @property
    def task_id(self) -> str:
        """Unique name."""


@runtime_checkable
class TwinTask(Task, Protocol):
    """A task that has a twin: the same scene, from which the other thing is to be done."""

    @property
    def pair_id(self) -> str:
        """Name of the two tasks' scene; the twin's is the same."""

    @property
    def twin(self) -> TwinTask:
        """The other task."""


@runtime_checkable
class MultiTaskEnv(Protocol):
    """The part of a Gymnasium environment that is about tasks."""

    @property
    def tasks(self) -> Sequence[Task]:
        """All tasks, of this split."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode: ``options={"task": task}`` says of which task."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As Gymnasium's; the info has at least ``task_id`` and ``is_success``."""

    def get_demonstrations(self, task: Any, n: int, *, seed: int) -> Sequence[DemonstrationLike]:
        """Returns n successful demonstrations; the seed fixes them."""


@runtime_checkable
class ExpertEnv(MultiTaskEnv, Protocol):
    """A multi-task environment that knows what to do."""

    def expert_action(self) -> np.ndarray:
        """What the expert does next, in the episode's present state."""


def as_multi_task(env: gym.Env[Any, Any]) -> MultiTaskEnv:
    """The multi-task environment below the wrappers.

    Raises:
        TypeError: It lacks a part of the protocol; the message says which.
    """
    base = env.unwrapped
    missing = [name for name in ("tasks", "get_demonstrations") if not hasattr(base, name)]
    if missing:
        raise TypeError(
            f"{type(base).__name__} has no {' and no '.join(missing)}, expected a multi-task "
            "environment: ent_bc.protocol says what one has."
        )
    assert isinstance(base, MultiTaskEnv)
    return base


def demonstrations_of(
    env: MultiTaskEnv, tasks: Sequence[Task], n: int, *, seeds: Sequence[int], n_obs: int | None
) -> list[Sequence[DemonstrationLike]]:
    """Demonstrations of several tasks, n of each.

    Args:
        env: Demonstrates them.
        tasks: The tasks.
        n: How many of each.
        seeds: One for each task.
        n_obs: Observations that are needed of each, evenly spaced with the ends; None for all.
    """
    at_once = getattr(env, "get_sparse_demonstrations", None)
    if at_once is not None and n_obs is not None:
        return list(at_once(tasks, n, seeds=seeds, n_obs=n_obs))
    pairs = zip(tasks, seeds, strict=True)
    return [env.get_demonstrations(task, n, seed=seed) for task, seed in pairs]


def as_expert(env: gym.Env[Any, Any]) -> ExpertEnv:
    """The environment with an expert below the wrappers.

    Raises:
        TypeError: It has none.
    """
    base = env.unwrapped
    if not isinstance(base, ExpertEnv):
        raise TypeError(
            f"{type(base).__name__} has no expert_action, expected a condition other than 'expert'."
        )
    return base


def pair_of(task: Task) -> str:
    """The ``pair_id`` of a task; its own id where it has none."""
    return str(getattr(task, "pair_id", task.task_id))


def outcome_of(info: Mapping[str, Any]) -> dict[str, Any]:
    """What an episode's last info says of its outcome, with the defaults for what it lacks."""
    distances = ("target_moved", "distractor_moved", "target_distance", "distractor_distance")
    return {
        "success": bool(info["is_success"]),
        "success_other": bool(info.get("is_success_other", False)),
        "strict": bool(info.get("is_success_strict", info["is_success"])),
        **{name: info.get(name, np.nan) for name in distances},
    }
