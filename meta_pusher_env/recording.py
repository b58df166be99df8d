"""Records the expert's episodes, many at once and in lockstep.

`meta_pusher_env.demonstrations` makes demonstrations of those that succeed. An episode does not
depend, to the last bit, on which others it is recorded with.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import mujoco
import numpy as np

from meta_pusher_env import scene
from meta_pusher_env.arm import Arms
from meta_pusher_env.env import EPISODE_STEPS, FRAME_SKIP, TORQUE_LIMIT, MetaPusherEnv
from meta_pusher_env.expert import Expert, Experts
from meta_pusher_env.measures import (
    AGENT_POS_DIM,
    GOAL_RADIUS_SQUARED,
    GOAL_STEPS,
    SLOT_DIM,
    blank_observation,
)
from meta_pusher_env.tasks import PusherTask
from meta_pusher_env.untimed import untimed

STATE_DIM = 26
NOISE_MEMORY = 0.8  # AR(1) coefficient of the injected torque noise, per control step
# The wrist is light: noise that moves the shoulder a little would throw it about.
NOISE_SCALE = np.array([1.0, 1.0, 0.3, 0.5, 0.15, 0.15, 0.15])
_AT_ONCE = 48  # fewer: more calls of NumPy for each; more: out of the core's cache
_JOINTS = scene.N_JOINTS


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What an episode depends on.

    Attributes:
        task: What to do.
        seed: Fixes start and noise.
        noise: Standard deviation of AR(1) noise on the executed torques, N m, at the shoulder
            (`NOISE_SCALE` elsewhere); the recorded labels stay the expert's own (DART, Laskey et
            al. 2017).
    """

    task: PusherTask
    seed: int
    noise: float = 0.0

    def innovations(self) -> np.ndarray:
        """What each step adds to the disturbance of the torques: (100, 7), N m."""
        if not self.noise:
            return np.zeros((EPISODE_STEPS, _JOINTS))
        rng = np.random.default_rng([self.seed, 1])
        scale = self.noise * np.sqrt(1 - NOISE_MEMORY**2) * NOISE_SCALE
        innovations: np.ndarray = scale * rng.standard_normal((EPISODE_STEPS, _JOINTS))
        return innovations


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


def record_episode(
    env: MetaPusherEnv, task: PusherTask, *, seed: int, noise: float = 0.0
) -> Episode:
    """Lets the expert do a task once, in an environment: what `record_episodes` equals bit for bit.

    Args:
        env: A state environment; of any split, for the task says all.
        task: See `Attempt`, as for seed and noise.
        seed: Fixes start and noise.
        noise: Of the executed torques, N m.
    """
    obs, info = env.reset(seed=seed, options={"task": task})
    expert = Expert(env.model, task.target)
    start_distance = info["target_distance"]
    all_obs, states, acts = [obs], [np.concatenate([env.data.qpos, env.data.qvel])], []
    disturbance = np.zeros(_JOINTS)
    for innovation in Attempt(task, seed, noise).innovations():
        acts.append(expert.act(env.data))
        disturbance = NOISE_MEMORY * disturbance + innovation
        executed = np.clip(acts[-1] + disturbance, -TORQUE_LIMIT, TORQUE_LIMIT)
        obs, _, _, _, info = env.step(executed)
        all_obs.append(obs)
        states.append(np.concatenate([env.data.qpos, env.data.qvel]))
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


def record_episodes(attempts: Sequence[Attempt]) -> list[Episode]:
    """Lets the expert act once for each attempt."""
    n_batches = -(-len(attempts) // _AT_ONCE)
    scenes: dict[tuple[int, int], mujoco.MjData] = {}
    episodes: dict[int, Episode] = {}
    for batch in range(n_batches):
        # Every so manyth: each batch has all scenes, and goes on with the former's data.
        numbers = range(batch, len(attempts), n_batches)
        some = [attempts[number] for number in numbers]
        scenes = _make_scenes(some, scenes)
        with untimed():
            recorded = _record(some, list(scenes.values()))
        episodes.update(zip(numbers, recorded, strict=True))
    return [episodes[number] for number in range(len(attempts))]


def _make_scenes(
    attempts: Sequence[Attempt], former: Mapping[tuple[int, int], mujoco.MjData]
) -> dict[tuple[int, int], mujoco.MjData]:
    """One for each attempt, in order; a former one where possible: to make one takes ten steps."""
    uses: Counter[int] = Counter()
    scenes = {}
    for attempt in attempts:
        model = scene.build_model(attempt.task)
        key = id(model), uses[id(model)]
        uses[id(model)] += 1
        scenes[key] = former[key] if key in former else mujoco.MjData(model)
    return scenes


def _record(attempts: Sequence[Attempt], scenes: Sequence[mujoco.MjData]) -> list[Episode]:
    """Records one batch, in lockstep."""
    placements = [_place(data, each.seed) for data, each in zip(scenes, attempts, strict=True)]
    n, arms = len(attempts), Arms(scenes)
    experts = Experts(arms, [it.model for it in scenes], [each.task.target for each in attempts])
    innovations = np.stack([each.innovations() for each in attempts], axis=1)
    disturbance = np.zeros((n, _JOINTS))
    states = np.empty((n, EPISODE_STEPS + 1, STATE_DIM))
    tips = np.empty((n, EPISODE_STEPS + 1, 3))
    acts = np.empty((n, EPISODE_STEPS, _JOINTS), np.float32)
    # A control step is bit for bit `scene.advance`, cut where the expert can read what the first
    # substep works out of the state.
    lanes = [(i, it.model, it, it.ctrl, it.qacc_warmstart) for i, it in enumerate(scenes)]
    for lane, model, data, _, _ in lanes:
        mujoco.mj_step1(model, data)
        arms.look(lane)
    for step, innovation in enumerate(innovations):
        torques = experts.act()
        disturbance = NOISE_MEMORY * disturbance + innovation
        acts[:, step] = torques
        states[:, step], tips[:, step] = arms.states, arms.tips
        executed = np.clip(torques + disturbance, -TORQUE_LIMIT, TORQUE_LIMIT)
        for lane, model, data, control, warm_start in lanes:
            control[...] = executed[lane]
            warm_start.fill(0)
            mujoco.mj_step2(model, data)
            mujoco.mj_step(model, data, FRAME_SKIP - 1)
            mujoco.mj_step1(model, data)
            arms.look(lane)
        lanes.reverse()  # what the cache still has comes first
    states[:, -1], tips[:, -1] = arms.states, arms.tips
    return [
        _make_episode(attempt, placement, *arrays)
        for attempt, placement, *arrays in zip(
            attempts, placements, states, tips, acts, strict=True
        )
    ]


def _place(data: mujoco.MjData, seed: int) -> scene.Placement:
    """Puts a scene to where the environment's reset with this seed does."""
    placement = scene.draw_placement(np.random.default_rng(seed))
    mujoco.mj_resetData(data.model, data)
    scene.place(data.model, data, placement)
    return placement


def _make_episode(
    attempt: Attempt,
    placement: scene.Placement,
    states: np.ndarray,
    tips: np.ndarray,
    acts: np.ndarray,
) -> Episode:
    """Adds what the environment tells of the states."""
    objects = states[:, _JOINTS : _JOINTS + 6].reshape(-1, 2, 3)
    offsets = objects[:, attempt.task.target, :2] - scene.GOAL
    squared = offsets[:, 0] * offsets[:, 0] + offsets[:, 1] * offsets[:, 1]
    state_obs = _observe(attempt.task, placement.slots, states, tips)
    return Episode(
        **vars(attempt),
        states=states.copy(),  # not a view of all the batch's
        acts=acts.copy(),
        agent_pos=state_obs[:, :AGENT_POS_DIM],
        state_obs=state_obs,
        start_distance=math.sqrt(squared[0]),
        success=bool((squared[1:] < GOAL_RADIUS_SQUARED).sum() >= GOAL_STEPS),
    )


def _observe(
    task: PusherTask, slots: np.ndarray, states: np.ndarray, tips: np.ndarray
) -> np.ndarray:
    """The environment's observations (T, 136) of states (T, 26)."""
    obs = np.repeat(blank_observation(task, slots)[None], len(states), axis=0)
    qpos, qvel = np.split(states, 2, axis=1)
    obs[:, :_JOINTS], obs[:, _JOINTS : 2 * _JOINTS] = qpos[:, :_JOINTS], qvel[:, :_JOINTS]
    obs[:, 2 * _JOINTS : 2 * _JOINTS + 3] = tips
    for slot, index in enumerate(slots):
        start, place = AGENT_POS_DIM + slot * SLOT_DIM, _JOINTS + 3 * index
        obs[:, start : start + 2] = qpos[:, place : place + 2]
        obs[:, start + 2] = (qpos[:, place + 2] + np.pi) % (2 * np.pi) - np.pi
        obs[:, start + 3 : start + 5] = qvel[:, place : place + 2]
    return obs
