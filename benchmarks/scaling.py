"""How time and memory grow with tasks, environments, image size and cores: `docs/scaling.md`.

python benchmarks/scaling.py
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch as th
import tyro

from ent_bc import EntBC
from ent_bc.presets import PRESETS
from meta_pusher_env import make_tasks, make_vec, scene
from meta_pusher_env.dataset_layout import CollectConfig
from meta_pusher_env.env import EPISODE_STEPS, MetaPusherEnv
from meta_pusher_env.vector import MetaPusherVectorEnv

N_CORES = len(os.sched_getaffinity(0))


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Four sizes of each, one process for each measurement."""

    tasks: tuple[int, ...] = (64, 256, 1024, 4096)
    """Tasks in a split."""
    envs: tuple[int, ...] = (8, 64, 256, 1024)
    """Environments that step together."""
    image_sizes: tuple[int, ...] = (32, 64, 125, 250)
    """Height and width of images, pixels."""
    cores: tuple[int, ...] = tuple(range(1, min(4, N_CORES) + 1))
    """Threads of the physics."""
    repetitions: int = 5
    """The median of so many is told."""


def main() -> None:
    """Entry point."""
    asked = tyro.cli(Scaling, description=__doc__)
    for title, measure, sizes in (
        ("tasks | drawn [s] | all compiled [s] | memory [MiB]", of_tasks, asked.tasks),
        ("environments | steps/s | memory [MiB]", of_envs, asked.envs),
        (
            "image size | frames/s, one core | a demonstration's frames [MiB] | "
            "training images/s, one core",
            of_images,
            asked.image_sizes,
        ),
        ("threads | steps/s, 64 environments", of_cores, asked.cores),
    ):
        print(f"\n| {title} |\n|{'---|' * (title.count('|') + 1)}", flush=True)
        for size in sizes:
            spawn = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                figures = pool.submit(measure, size, asked.repetitions).result()
            print(f"| {size:,} | " + " | ".join(f"{x:,.3g}" for x in figures) + " |", flush=True)


def of_tasks(n: int, repetitions: int) -> list[float]:
    """Seconds to draw and to compile all scenes, and the memory that these take."""
    before = resident()
    start = time.perf_counter()
    tasks = make_tasks("train", n)
    drawn = time.perf_counter()
    models = [scene.build_model(task) for task in tasks[::2]]
    compiled = time.perf_counter()
    memory = resident() - before
    del models  # kept until here: the cache holds 512
    return [drawn - start, compiled - drawn, memory]


def of_envs(n: int, repetitions: int) -> list[float]:
    """Steps a second on all cores, and the memory of the environments."""
    before = resident()
    envs = make_ready(n, N_CORES)
    rate = steps_per_second(envs, repetitions)
    return [rate, resident() - before]


def of_cores(n: int, repetitions: int) -> list[float]:
    """Steps a second of 64 environments by so many threads."""
    return [steps_per_second(make_ready(64, n), repetitions)]


def of_images(size: int, repetitions: int) -> list[float]:
    """Frames a second, a stored demonstration's size, and images a second in training."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    env = MetaPusherEnv(obs_type="pixels", image_size=size, n_tasks=2)
    env.reset(seed=0)
    draw = median(lambda: [env._observation() for _ in range(200)], repetitions) / 200
    shape, _ = CollectConfig(image_size=size).arrays()["pixels"]
    return [1 / draw, float(np.prod(shape)) / 2**20, training_rate(size, repetitions)]


def training_rate(size: int, repetitions: int) -> float:
    """Images a second of preset "pixels", with a batch of four tasks."""
    th.set_num_threads(1)
    preset = PRESETS["pixels"]
    env = MetaPusherEnv(obs_type=preset.obs_type, image_size=size, n_tasks=4)
    demos = [demo for task in env.tasks for demo in env.get_demonstrations(task, 2, seed=0)]
    model = EntBC(env=env, demonstrations=demos, device="cpu", **preset.arguments(100))
    each = preset.batches.n_support + preset.batches.n_query
    n_images = len(env.tasks) * each * (preset.batches.n_steps + 2)  # first and last too
    step = median(lambda: model.train(n_batches=5, progress_bar=False), repetitions) / 5
    return n_images / step


def make_ready(n: int, n_threads: int) -> MetaPusherVectorEnv:
    """Environments with up to 64 pairs of objects."""
    envs = make_vec(n, n_threads=n_threads)
    envs.reset(seed=0, options={"task": [2 * (index % 64) for index in range(n)]})
    return envs


def steps_per_second(envs: MetaPusherVectorEnv, repetitions: int) -> float:
    """Closed-loop state steps."""
    torques = np.random.default_rng(0).uniform(-2, 2, (EPISODE_STEPS, envs.num_envs, 7))
    taken = median(lambda: [envs.step(each) for each in torques], repetitions)
    return envs.num_envs * EPISODE_STEPS / taken


def median(work: Callable[[], object], repetitions: int) -> float:
    """Seconds, after once to warm up where it is repeated."""
    times = []
    for _ in range(repetitions + (repetitions > 1)):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[repetitions > 1 :])


def resident() -> float:
    """Anonymous memory of this process, MiB."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
