"""A data set of any size, of noise but in `collect`'s format, to measure how fast one is read."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np

from meta_pusher_env.dataset_layout import (
    FORMAT_VERSION,
    CollectConfig,
    shard_name,
    split_into_shards,
    write_json,
)
from meta_pusher_env.env import EPISODE_STEPS
from meta_pusher_env.tasks import hash_tasks


def write(directory: Path, config: CollectConfig) -> None:
    """Writes it, as large as a real one of this configuration, onto the disk itself.

    Raises:
        OSError: The disk has too little room.
    """
    tasks = config.tasks()
    n_bytes = len(tasks) * config.demos_per_task * _bytes_of_demonstration(config)
    free = shutil.disk_usage(directory).free
    if free < 1.1 * n_bytes:
        raise OSError(
            f"{directory} has {free / 2**30:.1f} GiB of room and {1.1 * n_bytes / 2**30:.1f} GiB "
            "are needed to measure the loading of a large data set: set TMPDIR to a folder with "
            "more."
        )
    identity = {"format_version": FORMAT_VERSION, "tasks_sha256": hash_tasks(tasks)}
    write_json(directory / "config.json", {**identity, **dataclasses.asdict(config)})
    shards = {}
    for number, of_shard in enumerate(split_into_shards(tasks)):
        n_demos = len(of_shard) * config.demos_per_task
        shard = directory / shard_name(number)
        shard.mkdir()
        _write_arrays(shard, config, n_demos)
        write_json(shard / "meta.json", {"seeds": list(range(n_demos)), "noise": [0.0] * n_demos})
        shards[shard.name] = {
            file.name: {"bytes": file.stat().st_size} for file in sorted(shard.iterdir())
        }
    manifest = {**identity, "package_version": None, "config": dataclasses.asdict(config)}
    write_json(directory / "manifest.json", {**manifest, "acceptance": [], "shards": shards})


def drop_pages(directory: Path) -> None:
    """Makes the system forget what it has read or written of the files; they must not be mapped."""
    for path in directory.rglob("*.npy"):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def _write_arrays(shard: Path, config: CollectConfig, n_demos: int) -> None:
    rng = np.random.default_rng(0)
    for name, (shape, dtype) in config.arrays().items():
        if name == "steps":
            row = np.linspace(0, EPISODE_STEPS, shape[0]).astype(dtype)
        elif dtype.kind == "u":
            row = rng.integers(0, 256, shape, dtype=np.uint8)
        else:
            row = rng.normal(0, 0.3, shape).astype(dtype)
        np.save(shard / f"{name}.npy", np.repeat(row[None], n_demos, axis=0))


def _bytes_of_demonstration(config: CollectConfig) -> int:
    return sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in config.arrays().values())
