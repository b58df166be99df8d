"""Small make-believe demonstrations and spaces, for tests of `ent_bc` that need no simulator.

Records are of another make than MetaPusher's: `ent_bc` serves any multi-task environment.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from ent_bc import BatchConfig, EntBC

N_STEPS = 12
N_ACTIONS = 3
IMAGE_SIZE = 24
START, SLOT_DIM = 4, 5
SLOTS = {"start": START, "count": 2}
STATE_DIM = START + 2 * SLOT_DIM

ACTION_SPACE = spaces.Box(-2, 2, (N_ACTIONS,), np.float32)
STATE_SPACE = spaces.Box(-np.inf, np.inf, (STATE_DIM,), np.float32)
PIXELS_SPACE = spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
AGENT_SPACE = spaces.Box(-np.inf, np.inf, (START,), np.float32)
SENTENCE_SPACE = spaces.Box(-1, 1, (20,), np.float32)
DICT_SPACE = spaces.Dict({"pixels": PIXELS_SPACE, "agent_pos": AGENT_SPACE})
SPACES: dict[str, spaces.Space[Any]] = {
    "state": STATE_SPACE,
    "pixels": PIXELS_SPACE,
    "pixels_agent_pos": DICT_SPACE,
}


@dataclasses.dataclass(frozen=True)
class Demo:
    """A demonstration with the fields that `ent_bc` asks for, and no others."""

    obs: Any
    acts: np.ndarray
    infos: list[dict[str, Any]]
    terminal: bool = False


def make_demonstrations(
    obs_type: str = "state", *, n_pairs: int = 3, n_demos: int = 3, seed: int = 0
) -> list[Demo]:
    """Demonstrations of twins: task "0a" and "0b" are a pair, and so on."""
    rng = np.random.default_rng(seed)
    return [
        _make_demonstration(rng, obs_type, pair, target)
        for pair in range(n_pairs)
        for target in range(2)
        for _ in range(n_demos)
    ]


def _make_demonstration(rng: np.random.Generator, obs_type: str, pair: int, target: int) -> Demo:
    looks = np.random.default_rng([7, pair]).normal(size=(2, SLOT_DIM - 2))
    order = rng.permutation(2)
    start = rng.uniform(-1, 1, size=(2, 2))
    states = np.empty((N_STEPS + 1, STATE_DIM), np.float32)
    for step, state in enumerate(states):
        where = start.copy()
        where[target] *= 1 - step / N_STEPS
        state[:START] = rng.normal(size=START)
        state[START:] = np.hstack([where, looks])[order].ravel()
    acts = np.tanh(states[:-1, :N_ACTIONS]) + 0.1 * start[target].sum()
    common = {"task_id": f"{pair}{'ab'[target]}", "pair_id": str(pair)}
    place = rng.uniform(-1, 1, size=2).astype(np.float32)
    infos = [{**common, "step": step, "attention_target": place} for step in range(N_STEPS)]
    obs: Any = states
    if obs_type != "state":
        pixels = rng.integers(256, size=(N_STEPS + 1, *PIXELS_SPACE.shape), dtype=np.uint8)
        obs = pixels if obs_type == "pixels" else {"pixels": pixels, "agent_pos": states[:, :START]}
    return Demo(obs, acts.astype(np.float32), infos)


def make_model(obs_type: str = "state", **kwargs: Any) -> EntBC:
    """A small `EntBC` on make-believe demonstrations; keywords are `EntBC`'s."""
    policy_kwargs: dict[str, Any] = {"net_arch": [32], **kwargs.pop("policy_kwargs", {})}
    if obs_type == "state":
        policy_kwargs.setdefault("slots", SLOTS)
    arguments: dict[str, Any] = {
        "observation_space": SPACES[obs_type],
        "action_space": ACTION_SPACE,
        "policy_kwargs": policy_kwargs,
        "batch_size": 4,
        "batches": BatchConfig(n_steps=2),
        "seed": 0,
        **kwargs,
    }
    if "demonstrations" not in arguments:
        arguments["demonstrations"] = make_demonstrations(obs_type)
    return EntBC(**arguments)


def parameters_of(model: EntBC) -> dict[str, np.ndarray]:
    """Copies of all parameters and buffers of a model's policy."""
    return {key: value.numpy().copy() for key, value in model.policy.state_dict().items()}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    """Whether two results of `parameters_of` are equal bit for bit."""
    assert first.keys() == second.keys()
    return all(np.array_equal(first[key], second[key]) for key in first)


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of `TaskEnv`: which of a pair's two objects belongs to the goal."""

    pair: int
    target: int

    @property
    def task_id(self) -> str:
        return f"{self.pair}{'ab'[self.target]}"

    @property
    def pair_id(self) -> str:
        return str(self.pair)

    @property
    def twin(self) -> Task:
        return Task(self.pair, 1 - self.target)


class TaskEnv(gym.Env[Any, np.ndarray]):
    """A point takes one of two things to the goal, and only a demonstration tells which one.

    A small multi-task environment with the protocol that `ent_bc` asks for: the point moves by
    0.1 of its action; a thing that it touches sticks to it; the goal is the origin. A task may be
    pinned, drawn, or "cycle" from reset to reset.
    """

    metadata: dict[str, Any] = {"render_modes": []}
    n_steps = 24
    touch = 0.25

    def __init__(self, obs_type: str = "state", task: Any = None, n_pairs: int = 4) -> None:
        self.obs_type = obs_type
        self.observation_space = SPACES[obs_type]
        self.action_space = ACTION_SPACE
        self.tasks = [Task(pair, target) for pair in range(n_pairs) for target in range(2)]
        self.slot_layout = {**SLOTS, "pose": 2} if obs_type == "state" else None
        self._pinned = task
        self._n_resets = -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._n_resets += 1
        if "task" in (options or {}):
            self._pinned = options["task"]
        angle = self.np_random.uniform(0, 2 * np.pi)
        turn = angle + np.array([0, self.np_random.uniform(1.5, 4.5)])
        radius = self.np_random.uniform(0.5, 0.9, size=(2, 1))
        self._things = radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        self._slots = self.np_random.permutation(2)
        drawn = self.tasks[self.np_random.integers(len(self.tasks))]
        if self._pinned == "cycle":
            drawn = self.tasks[self._n_resets % len(self.tasks)]
        elif self._pinned is not None:
            drawn = self._resolve(self._pinned)
        self.task = drawn
        self._point, self._left = np.array([0.0, -1.0]), self.n_steps
        self._stuck = np.zeros(2, dtype=bool)
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        move = 0.1 * np.clip(action[:2], -2, 2)
        self._point = self._point + move
        self._things = self._things + self._stuck[:, None] * move
        self._stuck |= np.linalg.norm(self._things - self._point, axis=1) < self.touch
        self._left -= 1
        info = self._info()
        distance = np.linalg.norm(self._things[self.task.target])
        return self._observe(), -float(distance), False, self._left == 0, info

    def expert_action(self) -> np.ndarray:
        target = self.task.target
        away = -self._things[target] if self._stuck[target] else self._things[target] - self._point
        return np.append(np.clip(10 * away, -2, 2), 0.0).astype(np.float32)

    def get_demonstrations(self, task: Any, n: int, *, seed: int | None = None) -> list[Demo]:
        env = TaskEnv(self.obs_type, self._resolve(task), len(self.tasks) // 2)
        seeds = np.random.default_rng(seed).integers(2**31, size=n)
        return [env._demonstrate(int(seed)) for seed in seeds]

    def current_task_id(self) -> str:
        return self.task.task_id

    def _demonstrate(self, seed: int) -> Demo:
        obs, acts, infos = [self.reset(seed=seed)[0]], [], []
        place = self._things[self.task.target] * (1, -1)
        for step in range(self.n_steps):
            acts.append(self.expert_action())
            infos.append({"step": step, "attention_target": place, **self._names()})
            obs.append(self.step(acts[-1])[0])
        stacked: Any = np.stack(obs) if self.obs_type != "pixels_agent_pos" else None
        if stacked is None:
            stacked = {key: np.stack([o[key] for o in obs]) for key in obs[0]}
        return Demo(stacked, np.stack(acts), infos)

    def _resolve(self, task: Any) -> Task:
        if isinstance(task, Task):
            return task
        if isinstance(task, str):
            return next(t for t in self.tasks if t.task_id == task)
        return self.tasks[task]

    def _names(self) -> dict[str, str]:
        return {"task_id": self.task.task_id, "pair_id": self.task.pair_id}

    def _info(self) -> dict[str, Any]:
        at_goal = np.linalg.norm(self._things, axis=1) < self.touch
        target = self.task.target
        return {
            **self._names(),
            "is_success": bool(at_goal[target]),
            "is_success_other": bool(at_goal[1 - target]),
            "is_success_strict": bool(at_goal[target] and not at_goal[1 - target]),
        }

    def _looks(self) -> np.ndarray:
        return np.random.default_rng([8, self.task.pair]).uniform(-1, 1, size=(2, SLOT_DIM - 2))

    def _observe(self) -> Any:
        agent = np.concatenate([self._point, [0.0, 0.0]]).astype(np.float32)
        if self.obs_type == "state":
            things = np.hstack([self._things, self._looks()])[self._slots]
            return np.concatenate([agent, things.ravel()]).astype(np.float32)
        pixels = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        colours = (128 + 127 * self._looks()).astype(np.uint8)
        for place, colour in zip([*self._things, self._point], [*colours, 255], strict=True):
            x, y = np.clip((place * (1, -1) + 1) * IMAGE_SIZE / 2, 2, IMAGE_SIZE - 2).astype(int)
            pixels[y - 2 : y + 2, x - 2 : x + 2] = colour
        return pixels if self.obs_type == "pixels" else {"pixels": pixels, "agent_pos": agent}
