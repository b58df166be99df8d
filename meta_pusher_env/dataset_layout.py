"""What a data set of demonstrations looks like on disk, all of it plain .npy and JSON.

`meta_pusher_env.collection` writes it, `meta_pusher_env.datasets` reads it::

    config.json      what was asked for; written first, so that `collect` can go on after a stop
    shard-0000/      some pairs' tasks: one row a demonstration, a task's demonstrations together
        states.npy       (n, 101, 26) float64, MuJoCo states
        acts.npy         (n, 100, 7) float32, the expert's clean torques, N m
        agent_pos.npy    (n, 101, 20) float32
        steps.npy        (n, S) int16, ascending: the steps whose observations are stored
        pixels.npy       (n, S, H, W, 3) uint8, or state_obs.npy (n, S, D) float32
        meta.json        task ids, seeds and noise of the rows; all starts; SHA-256 of the arrays
    manifest.json    written last: versions, acceptance, and SHA-256 of all files in shards
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from meta_pusher_env.env import EPISODE_STEPS, OBS_TYPES
from meta_pusher_env.measures import AGENT_POS_DIM, SLOT_DIM
from meta_pusher_env.recording import STATE_DIM
from meta_pusher_env.scene import N_JOINTS
from meta_pusher_env.tasks import DEFAULT_SPLIT_SEED, PusherTask, make_tasks

FORMAT_VERSION = 1
MAX_SHARDS = 64  # an open map holds a file descriptor, and processes have about 1,000 of these


@dataclasses.dataclass(frozen=True)
class CollectConfig:
    """What a data set holds; equal configurations give equal bytes."""

    split: str = "train"
    """Whose tasks: train, val or test."""
    n_tasks: int | None = None
    """How many tasks, even; by default the split's own number."""
    split_seed: int = DEFAULT_SPLIT_SEED
    """The universe of tasks to draw from."""
    obs_type: str = "pixels_agent_pos"
    """state, pixels or pixels_agent_pos."""
    image_size: int = 96
    """Height and width of the frames, pixels."""
    demos_per_task: int = 8
    """Successful demonstrations of each task, each from another start."""
    frames_per_demo: int = 8
    """Sampled steps with stored frames, besides the first and last; "state" stores all steps."""
    noise: float = 0.6
    """Largest standard deviation of the noise in the shoulder's executed torques (DART), N m."""
    clean_demos: int = 2
    """How many of each task's demonstrations are without noise; they come first."""
    seed: int = 0
    """Fixes starts, noise and sampled steps."""

    def __post_init__(self) -> None:
        # Said or by default, the same number is the same configuration; the rest is checked too.
        object.__setattr__(self, "n_tasks", len(self.tasks()))
        if self.obs_type not in OBS_TYPES:
            raise ValueError(
                f"Unknown obs_type {self.obs_type!r}: expected one of {', '.join(OBS_TYPES)}."
            )
        for name, low, high in (
            ("image_size", 16, math.inf),
            ("demos_per_task", 1, math.inf),
            ("frames_per_demo", 0, EPISODE_STEPS - 1),
            ("noise", 0, math.inf),
            ("clean_demos", 0, self.demos_per_task),
            ("seed", 0, math.inf),
        ):
            if not low <= getattr(self, name) <= high or math.isinf(getattr(self, name)):
                limit = "" if math.isinf(high) else f" and at most {high}"
                raise ValueError(
                    f"{name} is {getattr(self, name)}, expected at least {low}{limit}."
                )

    def tasks(self) -> tuple[PusherTask, ...]:
        """The tasks, twins side by side."""
        return make_tasks(self.split, self.n_tasks, self.split_seed)

    def arrays(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Shape of one demonstration's row, and dtype, of each stored array."""
        times = EPISODE_STEPS + 1
        n_stored = times if self.obs_type == "state" else self.frames_per_demo + 2
        arrays: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "states": ((times, STATE_DIM), np.dtype("<f8")),
            "acts": ((EPISODE_STEPS, N_JOINTS), np.dtype("<f4")),
            "agent_pos": ((times, AGENT_POS_DIM), np.dtype("<f4")),
            "steps": ((n_stored,), np.dtype("<i2")),
        }
        if self.obs_type == "state":
            arrays["state_obs"] = (n_stored, AGENT_POS_DIM + 2 * SLOT_DIM), np.dtype("<f4")
        else:
            frame = (self.image_size, self.image_size, 3)
            arrays["pixels"] = (n_stored, *frame), np.dtype("u1")
        return arrays


def split_into_shards(tasks: tuple[PusherTask, ...]) -> list[tuple[PusherTask, ...]]:
    """Each shard's tasks: whole pairs, the same number in all shards but the last."""
    n = 2 * math.ceil(len(tasks) / 2 / MAX_SHARDS)
    return [tasks[first : first + n] for first in range(0, len(tasks), n)]


def shard_name(shard: int) -> str:
    """Name of a shard's directory."""
    return f"shard-{shard:04d}"


def file_record(path: Path) -> dict[str, Any]:
    """Size and SHA-256, as in meta.json and the manifest."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def read_json(path: Path) -> dict[str, Any]:
    """The record in a file.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    return record


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Writes the whole file or, if interrupted, none of it."""
    work = path.with_suffix(".tmp")
    work.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    os.replace(work, path)
