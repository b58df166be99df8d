"""Rows of the expert: demonstrations with states on one core, and with pictures on two."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

import mujoco
import numpy as np

from ent_bc.speed.history import code_at
from ent_bc.speed.rows import Row, in_turn, rate, use_one_core
from meta_pusher_env import make_tasks, rendering, scene
from meta_pusher_env.collection import collect
from meta_pusher_env.dataset_layout import CollectConfig
from meta_pusher_env.demonstrations import Order, record_demonstrations, successful_episodes
from meta_pusher_env.env import EPISODE_STEPS, FRAME_SKIP

FIRST_VERSION = "4cdd982581be9a10375897cd9fe4ed6b83d80d1a"
"""The commit whose expert is the peer."""
IMAGE_SIZE = 96
N_TASKS = 4  # with pictures
_FRAMES = EPISODE_STEPS + 1

# Records so many demonstrations of each task whenever it reads a seed, and says how many a second.
_FIRST_PROGRAM = """
import sys, time
from meta_pusher_env.demonstrations import successful_episodes
from meta_pusher_env.tasks import make_tasks
tasks, n = make_tasks("train", int(sys.argv[1])), int(sys.argv[2])
for line in sys.stdin:
    start = time.perf_counter()
    for task in tasks:
        kept, attempts = 0, successful_episodes(task, seed=int(line))
        while kept < n:
            kept += next(attempts)[0] is not None
    print(len(tasks) * n / (time.perf_counter() - start), flush=True)
"""


def measure(*, quick: bool) -> list[Row]:
    """Demonstrations a second, with their peer's and the limits."""
    rows = _with_pictures(n=1 if quick else 8, repetitions=1 if quick else 7)
    use_one_core()
    # In full, as many as a shard of the default data set has.
    n_tasks, n, repetitions = (2, 2, 1) if quick else (22, 8, 7)
    rows += _with_states(n_tasks, n, repetitions)
    return rows


def _with_states(n_tasks: int, n: int, repetitions: int) -> list[Row]:
    """Beside the first version, and beside the physics that it takes; models compiled before."""
    tasks = make_tasks("train", n_tasks)
    seeds = itertools.count(1000)
    name, unit = "demonstrations, states, one core", "demos/s"

    def record() -> None:
        successful_episodes([Order(task, n, next(seeds)) for task in tasks])

    ours = rate(record, n_tasks * n)
    physics = rate(_simulation(n_tasks), n_tasks)
    rows = []
    with _first_version(n_tasks, n) as first:
        if first is not None:
            mine, theirs = in_turn(repetitions, ours, first)
            peer = "the expert as first committed"
            rows.append(Row(name, peer, unit, mine, theirs, at_least=5))
    mine, theirs = in_turn(repetitions, ours, physics)
    return [*rows, Row(name, "mj_step of such episodes alone", unit, mine, theirs)]


def _simulation(n_tasks: int) -> Callable[[], None]:
    """Does nothing but the physics of an episode of each task."""
    orders = [Order(task, 1, 0) for task in make_tasks("train", n_tasks)]
    episodes = [start[-1][0] for start in successful_episodes(orders)]
    scenes = [(scene.build_model(it.task), it) for it in episodes if it is not None]
    lanes = [(model, mujoco.MjData(model), it.states[0], it.acts) for model, it in scenes]

    def simulate() -> None:
        for model, data, start, torques in lanes:
            mujoco.mj_resetData(model, data)
            data.qpos[:], data.qvel[:] = np.split(start, 2)
            for torque in torques:
                data.ctrl[:] = torque
                mujoco.mj_step(model, data, nstep=FRAME_SKIP)

    return simulate


@contextmanager
def _first_version(n_tasks: int, n: int) -> Iterator[Callable[[], float] | None]:
    """A side that records with the first version, in a process of its own; None without git."""
    with code_at(FIRST_VERSION, "meta_pusher_env") as folder:
        if folder is None:
            yield None
            return
        process = subprocess.Popen(
            [sys.executable, "-c", _FIRST_PROGRAM, str(n_tasks), str(n)],
            cwd=folder,  # where it is imported from
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        seeds = itertools.count(1000)

        def record() -> float:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"{next(seeds)}\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        with process:
            yield record
            process.stdin.close()  # type: ignore[union-attr]


def _with_pictures(n: int, repetitions: int) -> list[Row]:
    """Beside drawing as many pictures, by the same two processes."""
    limit = "mjv_updateScene + mjr_render + mjr_readPixels of their frames alone"
    size = f"{IMAGE_SIZE}x{IMAGE_SIZE}"
    rows = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for name, work, n_frames, bar in (
            (f"demonstrations, all 101 pictures {size}, two cores", _record, _FRAMES, 0.6),
            (f"demonstrations, collected with 10 pictures {size}, two cores", _collect, 10, None),
        ):
            sides = _on_two(pool, work, n), _on_two(pool, _draw, n, n_frames)
            ours, theirs = in_turn(repetitions, *sides)
            rows.append(Row(name, limit, "demos/s", ours, theirs, at_least=bar))
    return rows


def _on_two(
    pool: ProcessPoolExecutor, work: Callable[..., None], n: int, *args: int
) -> Callable[[], float]:
    """A side that has both processes make ``n`` demonstrations of each task, from new seeds."""
    seeds = itertools.count(1000)

    def work_both() -> None:
        for job in [pool.submit(work, next(seeds), n, *args) for _ in range(2)]:
            job.result()

    return rate(work_both, 2 * n * N_TASKS)


def _record(seed: int, n: int) -> None:
    for task in make_tasks("train", N_TASKS):
        record_demonstrations(task, n, seed=seed, obs_type="pixels", image_size=IMAGE_SIZE)


def _collect(seed: int, n: int) -> None:
    config = CollectConfig(n_tasks=N_TASKS, demos_per_task=n, clean_demos=n, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        collect(folder, config, n_workers=1)


def _draw(seed: int, n: int, n_frames: int) -> None:
    """Draws as many frames of such demonstrations, and does nothing else."""
    view = mujoco.MjvOption(), mujoco.MjvPerturb(), rendering.observation_camera(), 7
    rect = mujoco.MjrRect(0, 0, IMAGE_SIZE, IMAGE_SIZE)
    frame = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    for model, data, positions, drawn, context in _stages():
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        for step in np.linspace(0, EPISODE_STEPS, n_frames, dtype=int).repeat(n):
            data.qpos[:] = positions[step]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_camlight(model, data)
            mujoco.mjv_updateScene(model, data, *view, drawn)
            mujoco.mjr_render(rect, drawn, context)
            mujoco.mjr_readPixels(frame, None, rect, context)


@lru_cache(maxsize=1)
def _stages() -> list[tuple[Any, ...]]:
    """Each task's scene, the positions in one demonstration, and all that it takes to draw them."""
    rendering.ensure_gl()
    stages = []
    for task in make_tasks("train", N_TASKS):
        [demo] = record_demonstrations(task, 1, seed=0)
        model = copy.copy(scene.build_model(task))
        model.vis.global_.offwidth = model.vis.global_.offheight = IMAGE_SIZE
        drawn, context = mujoco.MjvScene(model, 100), mujoco.MjrContext(model, 50)
        drawn.flags[rendering._FLAGS_OFF] = 0  # as ours: nothing that is not seen
        stages.append((model, mujoco.MjData(model), demo.states[:, : model.nq], drawn, context))
    return stages
