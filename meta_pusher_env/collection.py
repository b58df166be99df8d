"""Makes data sets of demonstrations: `collect`, on all cores, going on where it was stopped.

`meta_pusher_env.dataset_layout` says what is written, `meta_pusher_env.datasets` reads it.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import multiprocessing
import os
import shutil
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from meta_pusher_env.dataset_layout import (
    FORMAT_VERSION,
    CollectConfig,
    file_record,
    read_json,
    shard_name,
    split_into_shards,
    write_json,
)
from meta_pusher_env.datasets import DemonstrationSet
from meta_pusher_env.demonstrations import Order, render_states, successful_episodes
from meta_pusher_env.env import EPISODE_STEPS
from meta_pusher_env.recording import Episode
from meta_pusher_env.tasks import PusherTask, hash_tasks

__all__ = ["CollectConfig", "collect"]

PATIENCE = 900.0  # s without a shard: many EGL renderers at once were reported to hang on a GPU
ACCEPTANCE_BINS = (0.17, 0.20, 0.24, 0.28, 0.32, 0.37)  # m, start distances of target and goal


def collect(
    directory: str | os.PathLike[str],
    config: CollectConfig,
    *,
    n_workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> DemonstrationSet:
    """Lets the expert demonstrate tasks, and keeps the successful demonstrations.

    Called again after an interruption, or on a damaged data set, it makes only what is missing.
    The bytes depend on `config` alone. Scripts that use several workers need the usual
    ``if __name__ == "__main__":`` guard, for workers are spawned.

    Args:
        directory: Where to; made if it is not there. One process at a time may write into it.
        config: What to record.
        n_workers: Processes; by default one for each available core. With 1, all is done here.
        on_progress: Called with (demonstrations done, demonstrations in all) after each shard.

    Raises:
        ValueError: The directory holds a data set of another configuration.
        RuntimeError: The expert cannot do a task, there is no OpenGL, or a worker process died.
    """
    if n_workers is None:
        n_workers = len(os.sched_getaffinity(0))
    if n_workers < 1:
        raise ValueError(f"n_workers is {n_workers}, expected at least 1, or None for all cores.")
    root = Path(directory).resolve()
    _write_or_check_config(root, config)
    n_demos = [len(tasks) * config.demos_per_task for tasks in split_into_shards(config.tasks())]
    missing = _missing_shards(root, len(n_demos))
    done = sum(n_demos) - sum(n_demos[shard] for shard in missing)
    report = on_progress or (lambda done, total: None)
    report(done, sum(n_demos))
    with closing(_make_shards(root, config, missing, n_workers)) as made:
        for shard in made:
            done += n_demos[shard]
            report(done, sum(n_demos))
    if not (root / "manifest.json").exists():
        write_json(root / "manifest.json", _manifest(root, config, len(n_demos)))
    return DemonstrationSet(root)


def _write_or_check_config(root: Path, config: CollectConfig) -> None:
    asked = {"format_version": FORMAT_VERSION, "tasks_sha256": hash_tasks(config.tasks())}
    asked |= dataclasses.asdict(config)
    file = root / "config.json"
    if not file.exists():
        root.mkdir(parents=True, exist_ok=True)
        write_json(file, asked)
    there = read_json(file)
    differing = [
        f"{name} is {there.get(name)!r} there and {asked.get(name)!r} here"
        for name in {**asked, **there}
        if there.get(name) != asked.get(name)
    ]
    if differing:
        raise ValueError(
            f"{root} holds a data set of another configuration: {'; '.join(differing)}. Ask for "
            "the same one to go on with it, choose another directory, or delete this one."
        )


def _missing_shards(root: Path, n_shards: int) -> list[int]:
    """The shards that are absent or damaged; if there are any, the manifest goes."""
    recorded: dict[str, Any] = {}
    try:
        recorded = read_json(root / "manifest.json")["shards"]
    except (OSError, ValueError, KeyError):
        (root / "manifest.json").unlink(missing_ok=True)  # absent or damaged: to be written anew
    names = [shard_name(shard) for shard in range(n_shards)]
    missing = [i for i, name in enumerate(names) if not _is_intact(root / name, recorded.get(name))]
    if missing:
        (root / "manifest.json").unlink(missing_ok=True)
    return missing


def _is_intact(shard: Path, recorded: dict[str, Any] | None) -> bool:
    """Whether the files are as the manifest, or else the shard's own meta.json, says."""
    try:
        files = recorded or read_json(shard / "meta.json")["files"]
        return all(file_record(shard / name) == record for name, record in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _make_shards(
    root: Path, config: CollectConfig, shards: Sequence[int], n_workers: int
) -> Generator[int, None, None]:
    """Yields each shard's number when it is there."""
    n_workers = min(n_workers, len(shards))
    if n_workers <= 1:
        for shard in shards:
            yield _make_shard(root, config, shard)
        return
    # Not forked: the parent may have OpenGL contexts and threads.
    pool = ProcessPoolExecutor(n_workers, multiprocessing.get_context("spawn"))
    try:
        pending = {pool.submit(_make_shard, root, config, shard) for shard in shards}
        while pending:
            done, pending = wait(pending, PATIENCE, FIRST_COMPLETED)
            if not done:
                for process in list(pool._processes.values()):
                    process.kill()  # else shutdown would wait for it
                raise RuntimeError(
                    f"No worker has finished a shard for {PATIENCE:g} s; they may hang in OpenGL. "
                    "Call collect() again to go on; n_workers=1 draws in this process alone."
                )
            for job in done:
                yield job.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            "A worker process died: out of memory, killed, or the main script lacks its "
            "`if __name__ == '__main__':` guard. Call collect() again to go on; n_workers=1 needs "
            "no processes."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _make_shard(root: Path, config: CollectConfig, shard: int) -> int:
    """Records and writes one shard; it appears under its name only when it is complete."""
    arrays, meta = _record_tasks(split_into_shards(config.tasks())[shard], config)
    place = root / shard_name(shard)
    work = place.with_suffix(".tmp")
    for leftover in (work, place):
        shutil.rmtree(leftover, ignore_errors=True)
    work.mkdir()
    for name, array in arrays.items():
        np.save(work / f"{name}.npy", array)
    meta["files"] = {f"{name}.npy": file_record(work / f"{name}.npy") for name in arrays}
    write_json(work / "meta.json", meta)
    os.replace(work, place)
    return shard


def _record_tasks(
    tasks: Sequence[PusherTask], config: CollectConfig
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """A shard's arrays, and what its meta.json says of them."""
    n_demos = len(tasks) * config.demos_per_task
    shapes = config.arrays().items()
    arrays = {name: np.empty((n_demos, *shape), dtype) for name, (shape, dtype) in shapes}
    starts: dict[str, list[Any]] = {"start_distance": [], "kept": []}
    seeds: list[int] = []
    noise: list[float] = []
    for kept, first in itertools.chain(*successful_episodes(_orders(tasks, config))):
        starts["start_distance"].append(first.start_distance)
        starts["kept"].append(kept is not None)
        if kept is not None:
            for name, row in _rows(kept, config).items():
                arrays[name][len(seeds)] = row
            seeds.append(kept.seed)
            noise.append(kept.noise)
    task_ids = [task.task_id for task in tasks]
    return arrays, {"task_ids": task_ids, "seeds": seeds, "noise": noise, "starts": starts}


def _orders(tasks: Sequence[PusherTask], config: CollectConfig) -> list[Order]:
    """What is to be recorded: for each task, clean demonstrations first."""
    n_noisy = config.demos_per_task - config.clean_demos
    # Seeds of their own: from one stream, a noisy episode could start just as a clean one did.
    return [
        order
        for task in tasks
        for order in (
            Order(task, config.clean_demos, 2 * config.seed),
            Order(task, n_noisy, 2 * config.seed + 1, config.noise),
        )
    ]


def _rows(episode: Episode, config: CollectConfig) -> dict[str, np.ndarray]:
    rows = {name: getattr(episode, name) for name in ("states", "acts", "agent_pos")}
    if config.obs_type == "state":
        return rows | {"steps": np.arange(EPISODE_STEPS + 1), "state_obs": episode.state_obs}
    steps = _sample_steps(episode.seed, config.frames_per_demo)
    # It makes a Renderer each time, which is cheap: the OpenGL context is the process's.
    frames = render_states(episode.task, episode.states[steps], config.image_size)
    return rows | {"steps": steps, "pixels": frames}


def _sample_steps(seed: int, n_inner: int) -> np.ndarray:
    """First, last and n_inner steps between, one from each of as many equal stretches."""
    inner = np.empty(0, np.int64)
    if n_inner:
        edges = np.linspace(1, EPISODE_STEPS, n_inner + 1).astype(np.int64)
        inner = np.random.default_rng([seed, 2]).integers(edges[:-1], edges[1:])
    return np.concatenate([[0], inner, [EPISODE_STEPS]])


def _manifest(root: Path, config: CollectConfig, n_shards: int) -> dict[str, Any]:
    shards, distances, kept = {}, [], []
    for name in map(shard_name, range(n_shards)):
        meta = read_json(root / name / "meta.json")
        shards[name] = meta["files"] | {"meta.json": file_record(root / name / "meta.json")}
        distances += meta["starts"]["start_distance"]
        kept += meta["starts"]["kept"]
    return {
        "format_version": FORMAT_VERSION,
        "package_version": _package_version(),
        "config": dataclasses.asdict(config),
        "tasks_sha256": hash_tasks(config.tasks()),
        "n_demos": sum(kept),
        "acceptance": _acceptance(np.array(distances), np.array(kept)),
        "shards": shards,
    }


def _acceptance(distances: np.ndarray, kept: np.ndarray) -> list[list[float]]:
    """Rows of (low, high, starts, kept) by start distance; what lies outside counts at the ends."""
    inside = np.clip(distances, ACCEPTANCE_BINS[0], ACCEPTANCE_BINS[-1])
    n_starts, n_kept = (np.histogram(d, ACCEPTANCE_BINS)[0] for d in (inside, inside[kept]))
    edges = zip(ACCEPTANCE_BINS[:-1], ACCEPTANCE_BINS[1:], strict=True)
    return [[*edge, int(n), int(k)] for edge, n, k in zip(edges, n_starts, n_kept, strict=True)]


def _package_version() -> str | None:
    try:
        return importlib.metadata.version("metapusher")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return None
