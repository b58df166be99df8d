"""A multi-task environment that is learned in seconds, and the view of it that is told its task."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from imitation.data import rollout, types
from imitation.util import logger as imit_logger
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch.utils.data import DataLoader
from toys import Demo

from ent_bc import EntBC, ScheduleConfig, TaskConditionedPolicy, as_trajectories
from ent_bc.expert_policy import ExpertPolicy
from ent_bc.wrappers import SentenceObservation

PLACES = {"east": (1, 0), "north": (0, 1), "west": (-1, 0), "south": (0, -1)}
N_STEPS = 6


class ReachEnv(gym.Env[np.ndarray, np.ndarray]):
    """Go to one of four places, from about the middle; which one, only a demonstration tells."""

    observation_space = spaces.Box(-3, 3, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)
    tasks = tuple(SimpleNamespace(task_id=place) for place in PLACES)

    def __init__(self) -> None:
        self._pinned: str | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if options is not None:
            self._pinned = getattr(options["task"], "task_id", options["task"])
        drawn = list(PLACES)[self.np_random.integers(len(PLACES))]
        self._task_id = self._pinned or drawn
        self._at = self.np_random.uniform(-0.3, 0.3, size=2).astype(np.float32)
        self._left = N_STEPS
        return self._at.copy(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._at = (self._at + 0.3 * np.clip(action, -1, 1)).astype(np.float32)
        self._left -= 1
        reward = -float(np.linalg.norm(self._way()))
        return self._at.copy(), reward, False, self._left == 0, self._info()

    def expert_action(self) -> np.ndarray:
        return np.clip(self._way() / 0.3, -1, 1)

    def get_demonstrations(self, task: Any, n: int, *, seed: int) -> list[Demo]:
        env = ReachEnv()
        env.reset(seed=seed, options={"task": task})
        return [env._demonstrate() for _ in range(n)]

    def _demonstrate(self) -> Demo:
        obs, acts, infos = [self.reset()[0]], [], []
        for _ in range(N_STEPS):
            acts.append(self.expert_action())
            place, _, _, _, info = self.step(acts[-1])
            obs.append(place)
            infos.append(info)
        return Demo(np.stack(obs), np.stack(acts), infos, terminal=True)

    def _way(self) -> np.ndarray:
        return np.array(PLACES[self._task_id], np.float32) - self._at

    def _info(self) -> dict[str, Any]:
        is_success = bool(np.linalg.norm(self._way()) < 0.2)
        return {"task_id": self._task_id, "is_success": is_success}


def demonstrations(n: int = 4, seed: int = 0) -> list[types.Trajectory]:
    """Trajectories to each place."""
    demos = [ReachEnv().get_demonstrations(place, n, seed=seed) for place in PLACES]
    return as_trajectories([demo for of_place in demos for demo in of_place])


class Compass:
    """Makes sentences without learning: the direction in which the demonstrations went."""

    policy = SimpleNamespace(sentence_dim=2)

    def embed(self, demonstrations: Any) -> np.ndarray:
        way = np.mean([demo.obs[-1] - demo.obs[0] for demo in demonstrations], axis=0)
        return (way / np.linalg.norm(way)).astype(np.float32)


def told_env(*, flat: bool = False) -> gym.Env[Any, np.ndarray]:
    """The sentence is in the observation; ``flat`` for trainers that take arrays only."""
    env: gym.Env[Any, np.ndarray] = SentenceObservation(ReachEnv(), Compass())
    return Monitor(FlattenObservation(env) if flat else env)


def told_venv(n_envs: int = 2, *, flat: bool = False, seed: int = 0) -> DummyVecEnv:
    """Several of them, seeded."""
    venv = DummyVecEnv([lambda: told_env(flat=flat)] * n_envs)
    venv.seed(seed)
    return venv


TOLD_KWARGS: dict[str, Any] = {"sentence_dim": 2, "net_arch": [32]}
FLAT_KWARGS: dict[str, Any] = {**TOLD_KWARGS, "dict_space": told_env().observation_space}

DEMONSTRATIONS = demonstrations()
TRANSITIONS = rollout.flatten_trajectories(DEMONSTRATIONS)


# --- models of it, and what they learn from ---


def reacher(**kwargs: Any) -> EntBC:
    """A small model for `ReachEnv`; keywords are `EntBC`'s."""
    arguments: dict[str, Any] = {
        "policy_kwargs": TOLD_KWARGS,
        "schedule": ScheduleConfig(warmup=5),
        "optimizer_kwargs": {"lr": 5e-3},
        "seed": 0,
        "observation_space": ReachEnv.observation_space,
        "action_space": ReachEnv.action_space,
        **kwargs,
    }
    return EntBC(**arguments)


def told_model(**kwargs: Any) -> EntBC:
    """The same for the flattened view that has its sentence."""
    venv = told_venv(flat=True)
    of_view = {"observation_space": venv.observation_space, "policy_kwargs": FLAT_KWARGS}
    return reacher(**{**of_view, **kwargs})


def told_policy(seed: int = 0) -> TaskConditionedPolicy:
    th.manual_seed(seed)
    space = told_venv(flat=True).observation_space
    return TaskConditionedPolicy(space, ReachEnv.action_space, lambda _: 1e-3, **FLAT_KWARGS)


def told_transitions(n_episodes: int = 12) -> types.Transitions:
    """What the expert does in the flattened view that has its sentence."""
    venv = told_venv(flat=True)
    until = rollout.make_min_episodes(n_episodes)
    rng = np.random.default_rng(0)
    trajectories = rollout.generate_trajectories(ExpertPolicy(venv), venv, until, rng)
    return rollout.flatten_trajectories(trajectories)


def loader(transitions: types.Transitions, batch_size: int, **kwargs: Any) -> DataLoader[Any]:
    return DataLoader(
        transitions,  # type: ignore[arg-type]
        batch_size=batch_size,
        collate_fn=types.transitions_collate_fn,
        **kwargs,
    )


class Batches:
    """Any iterable of mappings to tensors will do; it can be gone over again."""

    def __init__(self, transitions: types.Transitions, batch_size: int, *, n_passes: int = 99):
        self.transitions, self.batch_size, self.passes_left = transitions, batch_size, n_passes

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.passes_left == 0:
            return
        for begin in range(0, len(self.transitions), self.batch_size):
            part = self.transitions[begin : begin + self.batch_size]
            yield {
                "obs": th.tensor(part.obs),
                "acts": th.tensor(part.acts),
                "infos": part.infos,
            }
        self.passes_left -= 1


class Lines(KVWriter):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, Any]]] = []

    def write(self, key_values: Any, key_excluded: Any, step: int = 0) -> None:
        self.lines.append((step, dict(key_values)))

    def logger(self) -> imit_logger.HierarchicalLogger:
        return imit_logger.HierarchicalLogger(Logger(None, [self]), [])


def returns(model: EntBC, n_episodes: int = 5) -> np.ndarray:
    """Of episodes of each place, each after one demonstration that was not trained on."""
    env, scores = ReachEnv(), []
    for place in PLACES:
        sentence = model.embed(env.get_demonstrations(place, 1, seed=99))
        for seed in range(n_episodes):
            obs, _ = env.reset(seed=seed, options={"task": place})
            rewards, is_over = [], False
            while not is_over:
                action, _ = model.predict(obs, state=sentence, deterministic=True)
                obs, reward, _, is_over, _ = env.step(action)
                rewards.append(reward)
            scores.append(sum(rewards))
    return np.array(scores)
