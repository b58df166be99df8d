"""Meta-World's ML10 as a multi-task environment, registered as ``MetaWorldML10-v0``.

It follows `ent_bc.protocol`. Meta-World (Yu et al. 2019, arXiv:1910.10897; its version 3) must be
installed: ``pip install 'metapusher[ent-bc-latest,meta-world]'``.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from imitation.data.types import Trajectory

try:
    import metaworld
    from metaworld.env_dict import ML10_V3
    from metaworld.policies import ENV_POLICY_MAP
except ImportError as error:
    raise ImportError(
        "ent_bc.meta_world needs Meta-World, and metaworld 3.1.1 cannot be imported here: install "
        "'metapusher[ent-bc-latest,meta-world]', which brings gymnasium >= 1.1 and mujoco 3.3.0."
    ) from error

EPISODE_STEPS = 150  # Meta-World's own 500 are more than its scripted policies ever need
GOALS = 30  # of each environment: of Meta-World's 50, its scripted policies fail at some
HAND_OFFSET = 0.03  # m, of the hand's start from Meta-World's, at most, in x, y and z
GOAL = slice(36, 39)  # where an observation says the goal, or hides it
_DEMONSTRATION_SEEDS = 2**31  # demonstrations start from seeds below, evaluation trials from above
_MAX_FAILED = 50


@dataclasses.dataclass(frozen=True)
class MetaWorldTask:
    """One of Meta-World's environments, with one of its goals and placements."""

    env_name: str
    """Such as "push-v3"."""
    seed: int
    """Meta-World draws the goals of an environment with a seed."""
    goal: int
    """Which of them, from 0 to 29."""

    @property
    def task_id(self) -> str:
        """Such as "push-v3/0-17"."""
        return f"{self.env_name}/{self.seed}-{self.goal}"


class MetaWorldEnv(gym.Env[np.ndarray, np.ndarray]):
    """The robot of Meta-World's ML10 does one of hundreds of tasks; a demonstration says which.

    A task is one of the 15 environments with one goal: where the object lies and where it, or the
    hand, has to go. All of that is the same in each episode of a task, and Meta-World starts all
    of them alike. Here the hand starts up to 3 cm beside (`HAND_OFFSET`), drawn for each episode,
    so that no demonstration has the start of a trial.

    - Actions, `Box(-1, 1, (4,), float32)`: where the hand moves, and the gripper's effort.
    - Observations, `Box(-Inf, Inf, (39,), float32)`: Meta-World's; hand, gripper and up to two
      objects, now and a step before, and the goal, which is 0: ML10 hides it, and the same objects
      can be there for different tasks. Only the scripted expert is told.
    - Rewards: Meta-World's.
    - Episodes have 150 steps. ``info["is_success"]`` is whether Meta-World's own success has been
      there at any time so far.

    Splits: "train" and "val" are ML10's ten training environments with goals of different draws,
    "test" its five test environments. Tasks take turns: the first goal of each environment, the
    second of each, and so on. Goals that the scripted policy fails at, from Meta-World's own start,
    are left out: nothing could demonstrate them.

    Args:
        split: "train", "val" or "test".
        n_tasks: How many, from the first; default all 300, 300 and 150.
        split_seed: Of Meta-World's draws of goals.

    Raises:
        ValueError: Unknown split, or not so many tasks.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(
        self, *, split: str = "train", n_tasks: int | None = None, split_seed: int = 0
    ) -> None:
        if split not in ("train", "val", "test"):
            raise ValueError(f"split is {split!r}, expected 'train', 'val' or 'test'.")
        names = list(ML10_V3["test" if split == "test" else "train"])
        seed = 2 * split_seed + int(split == "val")
        tasks = [MetaWorldTask(name, seed, goal) for goal in range(GOALS) for name in names]
        if n_tasks is not None and not 1 <= n_tasks <= len(tasks):
            raise ValueError(f"n_tasks is {n_tasks}, expected 1 to {len(tasks)} for {split!r}.")
        self.action_space = spaces.Box(-1, 1, (4,), np.float32)
        self.observation_space = spaces.Box(-np.inf, np.inf, (39,), np.float32)
        self.tasks: Sequence[MetaWorldTask] = tasks[:n_tasks]
        self._pinned: MetaWorldTask | None = None
        self._simulations: dict[str, Any] = {}
        self._recorder: MetaWorldEnv | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode; see `MetaPusherEnv.reset` for which task it is of.

        Args:
            seed: Fixes where the hand starts and, where no task is pinned, the task.
            options: ``{"task": ...}`` pins one of `tasks`, by index, id or itself; None unpins.

        Raises:
            ValueError: No such task.
        """
        super().reset(seed=seed)
        if options is not None and "task" in options:
            task = options["task"]
            self._pinned = None if task is None else self._resolve(task)
        offset = self.np_random.uniform(-HAND_OFFSET, HAND_OFFSET, size=3)
        self.task = self._pinned or self.tasks[self.np_random.integers(len(self.tasks))]
        if self.task.env_name not in self._simulations:
            self._simulations[self.task.env_name] = _make_simulation(self.task.env_name)
        self._simulation, hand = self._simulations[self.task.env_name]
        self._simulation.set_task(_goal(self.task))
        self._simulation.hand_init_pos = hand + offset
        self._privileged, _ = self._simulation.reset()
        self._steps, self._success = 0, False
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Moves the hand; see the class."""
        clipped = np.clip(action, -1, 1)
        self._privileged, reward, _, _, info = self._simulation.step(clipped)
        self._success = self._success or bool(info["success"])
        self._steps += 1
        truncated = self._steps >= EPISODE_STEPS
        return self._observation(), float(reward), False, truncated, self._info()

    def get_demonstrations(
        self, task: int | str | MetaWorldTask, n: int, *, seed: int, noise: float = 0.0
    ) -> list[Trajectory]:
        """Successful demonstrations of Meta-World's scripted policy; the present episode goes on.

        Args:
            task: Index, id or itself.
            n: How many, at least 1; each from another start.
            seed: Fixes them.
            noise: Each is disturbed by noise of a standard deviation between 0 and this on the
                executed actions; the recorded ones stay the expert's (DART, Laskey et al. 2017).

        Raises:
            ValueError: n is less than 1, or no such task.
            RuntimeError: The scripted policy failed 50 times in a row.
        """
        if n < 1:
            raise ValueError(f"n is {n}, expected at least 1 demonstration.")
        task = self._resolve(task)
        if self._recorder is None:
            self._recorder = MetaWorldEnv()
        rng = np.random.default_rng([seed, *task.task_id.encode()])
        demonstrations: list[Trajectory] = []
        n_failed = 0
        while len(demonstrations) < n:
            demonstration = _record(self._recorder, task, rng, noise)
            n_failed = n_failed + 1 if demonstration is None else 0
            if n_failed == _MAX_FAILED:
                raise RuntimeError(f"The scripted policy failed {n_failed} times at {task}.")
            if demonstration is not None:
                demonstrations.append(demonstration)
        return demonstrations

    def expert_action(self) -> np.ndarray:
        """What Meta-World's scripted policy does now (4,); it is told the goal."""
        return _scripted_action(self.task.env_name, self._privileged)

    def close(self) -> None:
        """Frees the simulations; calling it again is fine."""
        for simulation, _ in self._simulations.values():
            simulation.close()
        self._simulations = {}
        if self._recorder is not None:
            self._recorder.close()

    def _resolve(self, task: int | str | MetaWorldTask) -> MetaWorldTask:
        if isinstance(task, MetaWorldTask):
            return task
        if isinstance(task, (int, np.integer)) and 0 <= task < len(self.tasks):
            return self.tasks[task]
        for known in self.tasks:
            if known.task_id == task:
                return known
        raise ValueError(
            f"There is no task {task!r}: expected a MetaWorldTask, an index below "
            f"{len(self.tasks)}, or an id such as {self.tasks[0].task_id!r}."
        )

    def _observation(self) -> np.ndarray:
        obs = self._privileged.astype(np.float32)
        obs[GOAL] = 0
        return obs

    def _info(self) -> dict[str, Any]:
        return {"task_id": self.task.task_id, "is_success": self._success}


def _record(
    env: MetaWorldEnv, task: MetaWorldTask, rng: np.random.Generator, noise: float
) -> Trajectory | None:
    """One demonstration, or None where the scripted policy fails."""
    obs, info = env.reset(seed=int(rng.integers(_DEMONSTRATION_SEEDS)), options={"task": task})
    all_obs, acts, truncated = [obs], [], False
    level = rng.uniform(0, noise)
    while not truncated:
        acts.append(env.expert_action())
        obs, _, _, truncated, info = env.step(acts[-1] + level * rng.standard_normal(4))
        all_obs.append(obs)
    infos = np.array([{"task_id": task.task_id}] * len(acts))
    if not info["is_success"]:
        return None
    return Trajectory(np.stack(all_obs), np.stack(acts), infos, terminal=False)


def _make_simulation(env_name: str) -> tuple[Any, np.ndarray]:
    """One of Meta-World's environments, and where its hand starts by default, m."""
    simulation = {**ML10_V3["train"], **ML10_V3["test"]}[env_name]()
    return simulation, np.array(simulation.hand_init_pos)


def _scripted_action(env_name: str, obs: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Constant(s) may be too high", at every step
        action = ENV_POLICY_MAP[env_name]().get_action(obs)
    return np.clip(action, -1, 1).astype(np.float32)


def _goal(task: MetaWorldTask) -> Any:
    """A task's goal, as Meta-World's environments take it."""
    found, more = _goals(task.env_name, task.seed)
    while len(found) <= task.goal:
        found.append(next(more))
    return found[task.goal]


@functools.cache
def _goals(env_name: str, seed: int) -> tuple[list[Any], Iterator[Any]]:
    """The goals of an environment that were needed in this process so far, and the others."""
    return [], _manageable_goals(env_name, seed)


def _manageable_goals(env_name: str, seed: int) -> Iterator[Any]:
    """Those of Meta-World's draw at which its scripted policy succeeds."""
    simulation, _ = _make_simulation(env_name)
    for goal in metaworld.MT1(env_name, seed=seed).train_tasks:  # ML1's are these, but hidden
        simulation.set_task(goal)
        obs, _ = simulation.reset()
        for _ in range(EPISODE_STEPS):
            obs, _, _, _, info = simulation.step(_scripted_action(env_name, obs))
            if info["success"]:
                yield goal
                break
    raise RuntimeError(f"The scripted policy manages fewer than {GOALS} goals of {env_name!r}.")


gym.register("MetaWorldML10-v0", entry_point="ent_bc.meta_world:MetaWorldEnv")
