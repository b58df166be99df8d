"""Rows of the simulation: the native vector environment, and a single one."""

from __future__ import annotations

import os
from collections.abc import Callable

import gymnasium as gym
import mujoco
import numpy as np
from mujoco.rollout import Rollout

from ent_bc.speed.rows import Row, in_turn, rate, use_one_core
from ent_bc.vec_env import VectorEnvAdapter
from meta_pusher_env import MetaPusherEnv, make_vec, scene
from meta_pusher_env.env import EPISODE_STEPS, FRAME_SKIP, TORQUE_LIMIT
from meta_pusher_env.episodes import CHUNKS_PER_THREAD
from meta_pusher_env.vector import MetaPusherVectorEnv

N_ENVS = 64
PUSHER = "Pusher-v4" if gym.__version__.startswith("0.") else "Pusher-v5"


def measure(*, quick: bool) -> list[Row]:
    """Closed-loop steps a second of 64 different tasks on all cores, and of one on one core."""
    repetitions, n_steps = (1, 5) if quick else (9, 2 * EPISODE_STEPS)
    envs, adapted = _ready(make_vec(N_ENVS)), _ready(make_vec(N_ENVS))
    sync = gym.make_vec(PUSHER, N_ENVS, vectorization_mode="sync")
    sync.reset(seed=0)
    torques = np.random.default_rng(0).uniform(
        -TORQUE_LIMIT, TORQUE_LIMIT, (n_steps, N_ENVS, scene.N_JOINTS)
    )
    actions = torques.astype(np.float32)
    venv = VectorEnvAdapter(adapted)
    raw = _raw_rollout(envs, torques)
    n = N_ENVS * n_steps
    ours, as_sb3, theirs, limit = in_turn(
        repetitions,
        rate(lambda: [envs.step(a) for a in actions], n),
        rate(lambda: [venv.step(a) for a in actions], n),
        rate(lambda: [sync.step(a) for a in actions], n),
        rate(raw, n),
    )
    for each in (envs, adapted, sync):
        each.close()
    what, peer = f"state steps, {N_ENVS} tasks, all cores", f"Gymnasium's SyncVectorEnv, {PUSHER}"
    return [
        Row(f"{what}: make_vec", peer, "steps/s", ours, theirs, at_least=3.5),
        Row(f"{what}: as SB3 VecEnv", peer, "steps/s", as_sb3, theirs, at_least=3.0),
        Row(f"{what}: make_vec", "mujoco.rollout alone", "steps/s", ours, limit, at_least=0.8),
        Row(f"{what}: mujoco.rollout alone", peer, "steps/s", limit, theirs),
        _single(repetitions, n_steps),
    ]


def _ready(envs: MetaPusherVectorEnv) -> MetaPusherVectorEnv:
    """With a pair of objects of its own in each scene."""
    envs.reset(seed=0, options={"task": list(range(0, 2 * N_ENVS, 2))})
    return envs


def _raw_rollout(envs: MetaPusherVectorEnv, torques: np.ndarray) -> Callable[[], None]:
    """The limit: MuJoCo's own threaded steps of the same scenes, each from the state before."""
    models = [scene.build_model(task) for task in envs.call("task")]
    start = np.zeros((N_ENVS, mujoco.mj_stateSize(models[0], mujoco.mjtState.mjSTATE_FULLPHYSICS)))
    for state, model, seed in zip(start, models, range(N_ENVS), strict=True):
        data = mujoco.MjData(model)
        scene.place(model, data, scene.draw_placement(np.random.default_rng(seed)))
        mujoco.mj_getState(model, data, state, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    n_threads = len(os.sched_getaffinity(0))
    pool = Rollout(nthread=n_threads if n_threads > 1 else 0)
    largest = max(models, key=lambda model: model.nbvh)
    data_of_threads = [mujoco.MjData(largest) for _ in range(n_threads)]
    states = np.zeros((N_ENVS, FRAME_SKIP, start.shape[1]))
    sensors = np.zeros((N_ENVS, FRAME_SKIP, models[0].nsensordata))
    controls = np.repeat(torques[:, :, None], FRAME_SKIP, axis=2)
    warm_start = np.zeros((N_ENVS, models[0].nv))
    present = start.copy()

    def run() -> None:
        for step, control in enumerate(controls):
            if step % EPISODE_STEPS == 0:
                present[:] = start
            pool.rollout(
                models,
                data_of_threads,
                present,
                control,
                skip_checks=True,
                nstep=FRAME_SKIP,
                initial_warmstart=warm_start,
                state=states,
                sensordata=sensors,
                chunk_size=max(1, N_ENVS // (CHUNKS_PER_THREAD * n_threads)),
            )
            present[:] = states[:, -1]

    return run


def _single(repetitions: int, n_steps: int) -> Row:
    """A single environment's step beside Gymnasium's Pusher's, both without wrappers."""
    use_one_core()
    ours, theirs = MetaPusherEnv(n_tasks=2), gym.make(PUSHER).unwrapped
    actions = np.random.default_rng(0).uniform(-TORQUE_LIMIT, TORQUE_LIMIT, (n_steps, 7))

    def steps_of(env: gym.Env) -> Callable[[], None]:
        def run() -> None:
            env.reset(seed=0)
            for action in actions:
                env.step(action)

        return run

    figures = in_turn(repetitions, rate(steps_of(ours), n_steps), rate(steps_of(theirs), n_steps))
    name, peer = "step of a single env, state", f"{PUSHER}'s step"
    return Row(name, peer, "steps/s", figures[0], figures[1], at_least=1.0)
