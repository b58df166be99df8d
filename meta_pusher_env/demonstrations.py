"""The expert's demonstrations: one record, how it is recorded, and how it is drawn again.

`meta_pusher_env.datasets` keeps many of them on disk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import mujoco
import numpy as np

from meta_pusher_env import rendering, scene
from meta_pusher_env.env import (
    AGENT_POS_DIM,
    EPISODE_STEPS,
    OBS_TYPES,
    TORQUE_LIMIT,
    MetaPusherEnv,
)
from meta_pusher_env.expert import Expert
from meta_pusher_env.tasks import PusherTask

STATE_DIM = 26
DEMONSTRATION_SEEDS = 2**31  # demonstrations start from seeds below, evaluation trials from above
NOISE_MEMORY = 0.8  # AR(1) coefficient of the injected torque noise, per control step
# The wrist is light: noise that moves the shoulder a little would throw it about.
NOISE_SCALE = np.array([1.0, 1.0, 0.3, 0.5, 0.15, 0.15, 0.15])
DOWN_HEIGHT = 0.105  # m above the table: a tip below it has come down beside an object
OBJECT_MIDDLE = 0.03  # m above the table: where on an object the attention target lies
_MAX_DROPPED = 50


@dataclasses.dataclass(frozen=True)
class Episode:
    """One recorded episode: everything that is needed to show or train on it.

    Attributes:
        task: The task that was demonstrated.
        seed: The reset's seed.
        noise: Standard deviation of the noise injected into the shoulder's executed torques, N m.
        states: (101, 26) float64, MuJoCo's qpos and qvel before each step and at the end.
        acts: (100, 7) float32, the expert's own torques (clean labels), N m.
        agent_pos: (101, 20) float32.
        state_obs: (101, D) float32, the environment's state observations.
        start_distance: Of the target from the goal, m.
        success: MIL's criterion.
    """

    task: PusherTask
    seed: int
    noise: float
    states: np.ndarray
    acts: np.ndarray
    agent_pos: np.ndarray
    state_obs: np.ndarray
    start_distance: float
    success: bool

    @property
    def demo_id(self) -> str:
        """Unique name: the task's, and the start's seed."""
        return f"{self.task.task_id}/{self.seed}"


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """A demonstration with the field names of imitation's ``Trajectory``, in numpy alone.

    Attributes:
        obs: Observations at `steps`: (len(steps), ...) or a dict of such.
        acts: (T, 7) float32 torques, N m.
        infos: T dicts with task_id, pair_id, demo_id, step and attention_target.
        terminal: False: episodes are cut off after a fixed number of steps.
        steps: Ascending time steps of `obs`; all of 0 ... T, or a sample with the first and last.
        states: (T + 1, 26) float64 MuJoCo states: what `render_states` needs.
    """

    obs: np.ndarray | dict[str, np.ndarray]
    acts: np.ndarray
    infos: Sequence[dict[str, Any]]
    terminal: bool
    steps: np.ndarray
    states: np.ndarray

    def __len__(self) -> int:
        return len(self.acts)

    @property
    def task_id(self) -> str:
        """The demonstrated task's name."""
        return str(self.infos[0]["task_id"])


class StepInfos(Sequence[dict[str, Any]]):
    """The infos of a demonstration, made when they are asked for."""

    def __init__(self, task: PusherTask, demo_id: str, agent_pos: np.ndarray) -> None:
        self._common = {"task_id": task.task_id, "pair_id": task.pair_id, "demo_id": demo_id}
        self._agent_pos = agent_pos

    @cached_property
    def _targets(self) -> np.ndarray:
        return attention_targets(self._agent_pos)

    def __len__(self) -> int:
        return len(self._agent_pos) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        step = range(len(self))[index]
        return {**self._common, "step": step, "attention_target": self._targets[step]}


def record_episode(
    env: MetaPusherEnv, task: PusherTask, *, seed: int, noise: float = 0.0
) -> Episode:
    """Lets the expert do a task once.

    Args:
        env: A state environment; of any split, for the task says all.
        task: What to do.
        seed: Fixes start and noise.
        noise: Standard deviation of AR(1) noise on the executed torques, N m, at the shoulder
            (`NOISE_SCALE` elsewhere); the recorded labels stay the expert's own (DART, Laskey et
            al. 2017).
    """
    rng = np.random.default_rng([seed, 1])
    obs, info = env.reset(seed=seed, options={"task": task})
    expert = Expert(env.model, task.target)
    start_distance = info["target_distance"]
    all_obs, states, acts = [obs], [_physics_state(env.data)], []
    disturbance = np.zeros(scene.N_JOINTS)
    innovation = noise * np.sqrt(1 - NOISE_MEMORY**2) * NOISE_SCALE
    for _ in range(EPISODE_STEPS):
        label = expert.act(env.data)
        disturbance = NOISE_MEMORY * disturbance + innovation * rng.standard_normal(scene.N_JOINTS)
        executed = np.clip(label + disturbance, -TORQUE_LIMIT, TORQUE_LIMIT)
        obs, _, _, _, info = env.step(executed)
        all_obs.append(obs)
        states.append(_physics_state(env.data))
        acts.append(label)
    state_obs = np.stack(all_obs)
    return Episode(
        task=task,
        seed=seed,
        noise=noise,
        states=np.stack(states),
        acts=np.stack(acts).astype(np.float32),
        agent_pos=state_obs[:, :AGENT_POS_DIM],
        state_obs=state_obs,
        start_distance=start_distance,
        success=info["is_success"],
    )


def successful_episodes(
    task: PusherTask, *, seed: int, noise: float = 0.0
) -> Iterator[tuple[Episode | None, Episode]]:
    """Endless starts of a task: pairs of (the episode if the start is kept, the first episode).

    Each start has a noise level of its own, between 0 and ``noise`` N m. Where noise made the
    expert fail, the same start is tried again with half of it, at last with none: a start is
    dropped only if the expert fails undisturbed.

    Raises:
        RuntimeError: 50 starts in a row were dropped.
    """
    rng = np.random.default_rng([seed, int(noise > 0), *task.task_id.encode()])
    env = MetaPusherEnv(n_tasks=2)
    n_dropped = 0
    while n_dropped < _MAX_DROPPED:
        start = int(rng.integers(DEMONSTRATION_SEEDS))
        level = float(rng.uniform(0, noise)) if noise else 0.0
        first = episode = record_episode(env, task, seed=start, noise=level)
        for factor in (0.5, 0.0):
            if not episode.success and level:
                episode = record_episode(env, task, seed=start, noise=factor * level)
        n_dropped = 0 if episode.success else n_dropped + 1
        yield (episode if episode.success else None), first
    raise RuntimeError(
        f"The expert failed at {_MAX_DROPPED} starts in a row of task {task.task_id!r}: the task "
        "cannot be demonstrated; take another."
    )


def record_demonstrations(
    task: PusherTask,
    n: int,
    *,
    seed: int,
    obs_type: str = "state",
    image_size: int = 64,
    noise: float = 0.0,
) -> list[Demonstration]:
    """Records n successful demonstrations of a task, with observations at every step.

    Args:
        task: What to demonstrate.
        n: How many, at least 1; each from another start.
        seed: Fixes them.
        obs_type: As the environment's.
        image_size: As the environment's.
        noise: See `record_episode`; each demonstration's is drawn between 0 and this.

    Raises:
        ValueError: n is less than 1, or the obs_type is unknown.
    """
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1 demonstration.")
    if obs_type not in OBS_TYPES:
        raise ValueError(f"Unknown obs_type {obs_type!r}: expected one of {', '.join(OBS_TYPES)}.")
    demonstrations: list[Demonstration] = []
    for success, _ in successful_episodes(task, seed=seed, noise=noise):
        if success is not None:
            demonstrations.append(_full_demonstration(success, obs_type, image_size))
        if len(demonstrations) == n:
            return demonstrations
    raise AssertionError("unreachable: attempts end in an error, not in silence")


def render_states(task: PusherTask, states: np.ndarray, image_size: int) -> np.ndarray:
    """Draws recorded states, bit for bit as the environment drew them.

    Args:
        task: The task, for its objects.
        states: (N, 26) MuJoCo states.
        image_size: Height and width, pixels.

    Returns:
        (N, image_size, image_size, 3) uint8.
    """
    model = scene.build_model(task)
    data = mujoco.MjData(model)
    renderer = rendering.Renderer(image_size, image_size)
    frames = np.empty((len(states), image_size, image_size, 3), dtype=np.uint8)
    for frame, state in zip(frames, states, strict=True):
        data.qpos[:] = state[: model.nq]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        frame[:] = renderer.render(model, data)
    return frames


def attention_targets(agent_pos: np.ndarray) -> np.ndarray:
    """Where in the image the target lies, in hindsight from the arm's own path.

    Until the tip comes down: where it will come down. No object's pose is needed. After that it
    is not known: the object lies somewhere in the scoop, up to 4 cm from the tip, and looking at
    the tip instead would teach a policy nothing that its joint angles do not tell.

    Args:
        agent_pos: (T + 1, 20).

    Returns:
        (T + 1, 2) float32 as (x right, y down) in [-1, 1]; NaN where it is not known.
    """
    tip = agent_pos[:, 14:17].astype(np.float64)
    low = np.flatnonzero(tip[:, 2] < scene.TABLE_HEIGHT + DOWN_HEIGHT)
    down = int(low[0]) if len(low) else len(tip) - 1
    place = [*tip[down, :2], scene.TABLE_HEIGHT + OBJECT_MIDDLE]
    targets = np.full((len(tip), 2), np.nan, dtype=np.float32)
    targets[: down + 1] = rendering.project(place, 2, 2) - 1.0
    return targets


def _full_demonstration(episode: Episode, obs_type: str, image_size: int) -> Demonstration:
    obs: np.ndarray | dict[str, np.ndarray] = episode.state_obs
    if obs_type != "state":
        pixels = render_states(episode.task, episode.states, image_size)
        obs = pixels if obs_type == "pixels" else {"pixels": pixels, "agent_pos": episode.agent_pos}
    return Demonstration(
        obs=obs,
        acts=episode.acts,
        infos=StepInfos(episode.task, episode.demo_id, episode.agent_pos),
        terminal=False,
        steps=np.arange(len(episode.states)),
        states=episode.states,
    )


def _physics_state(data: mujoco.MjData) -> np.ndarray:
    return np.concatenate([data.qpos, data.qvel])
