"""Pushing tasks in twins, and the splits as a pure function of a seed.

A *pair* of objects makes two tasks that differ only in which of the two is the target: a task and
its *twin*. Nothing but a demonstration can tell them apart.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np

from meta_pusher_env import objects
from meta_pusher_env.objects import ObjectSpec

SPLITS = ("train", "val", "test")
DEFAULT_N_TASKS: Mapping[str, int] = {"train": 694, "val": 76, "test": 74}
DEFAULT_SPLIT_SEED = 0


@dataclasses.dataclass(frozen=True)
class PusherTask:
    """One pushing task: bring ``objects[target]`` to the goal, leave the other one alone.

    Attributes:
        pair_id: Name of the pair of objects, shared with the twin.
        objects: The two objects; their order says nothing about the roles.
        target: Which of the two is the target, 0 or 1.
    """

    pair_id: str
    objects: tuple[ObjectSpec, ObjectSpec]
    target: int

    def __post_init__(self) -> None:
        if not isinstance(self.pair_id, str):
            raise ValueError(f"pair_id is {self.pair_id!r}, expected a string.")
        if type(self.target) is not int or self.target not in (0, 1):
            raise ValueError(f"target is {self.target!r}, expected 0 or 1.")
        if len(self.objects) != 2 or not all(isinstance(o, ObjectSpec) for o in self.objects):
            raise ValueError(f"objects is {self.objects!r}, expected a tuple of two ObjectSpec.")

    @property
    def task_id(self) -> str:
        """Unique name: the pair's, and the letter of the target."""
        return f"{self.pair_id}{'ab'[self.target]}"

    @property
    def twin(self) -> PusherTask:
        """The same pair with the roles swapped."""
        return dataclasses.replace(self, target=1 - self.target)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form; `from_dict` gives the equal task back."""
        return {
            "pair_id": self.pair_id,
            "objects": [spec.to_dict() for spec in self.objects],
            "target": self.target,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> PusherTask:
        """Inverse of `to_dict`.

        Raises:
            ValueError: A field is missing or has a value out of range.
        """
        missing = {"pair_id", "objects", "target"} - set(record)
        if missing:
            raise ValueError(f"A task record lacks {sorted(missing)}; it has {sorted(record)}.")
        pair = record["objects"]
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError(f"objects is {pair!r}, expected a list of two object specs.")
        first, second = (ObjectSpec.from_dict(spec) for spec in pair)
        return cls(pair_id=record["pair_id"], objects=(first, second), target=record["target"])


def make_tasks(
    split: str, n_tasks: int | None = None, split_seed: int = DEFAULT_SPLIT_SEED
) -> tuple[PusherTask, ...]:
    """The tasks of a split, a pure function of its arguments.

    Twins stand side by side: ``tasks[2 * i].twin == tasks[2 * i + 1]``. More tasks of a seed
    extend the fewer ones; another ``split_seed`` is another universe of tasks. No pair is rejected
    because its objects look alike: look-alikes are part of the benchmark.

    Args:
        split: "train", "val" or "test". Shape and texture families of "test" occur in no other.
        n_tasks: How many tasks; even. Default: 694, 76 and 74, as in MIL's benchmark.
        split_seed: The universe to draw from.

    Raises:
        ValueError: Unknown split, or a number of tasks that is odd or not positive.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}: expected one of {', '.join(SPLITS)}.")
    if n_tasks is None:
        n_tasks = DEFAULT_N_TASKS[split]
    if not isinstance(n_tasks, int) or n_tasks < 2 or n_tasks % 2:
        raise ValueError(
            f"n_tasks is {n_tasks!r}, expected an even number of at least 2: tasks come in twins."
        )
    if not isinstance(split_seed, int) or split_seed < 0:
        raise ValueError(f"split_seed is {split_seed!r}, expected an integer of at least 0.")
    return tuple(
        task for pair in range(n_tasks // 2) for task in _make_twins(split, split_seed, pair)
    )


@lru_cache(maxsize=16_384)
def _make_twins(split: str, split_seed: int, pair: int) -> tuple[PusherTask, PusherTask]:
    rng = np.random.default_rng([split_seed, SPLITS.index(split), pair])
    held_out = split == "test"
    shapes = objects.TEST_SHAPES if held_out else objects.TRAIN_SHAPES
    textures = objects.TEST_TEXTURES if held_out else objects.TRAIN_TEXTURES
    first = objects.sample_object(rng, shapes, textures)
    second = objects.sample_object(rng, shapes, textures, like=first)
    universe = split if split_seed == DEFAULT_SPLIT_SEED else f"{split}@{split_seed}"
    task = PusherTask(pair_id=f"{universe}-{pair:04d}", objects=(first, second), target=0)
    return task, task.twin


def hash_tasks(tasks: tuple[PusherTask, ...]) -> str:
    """SHA-256 of the tasks' JSON form, the fingerprint that manifests carry."""
    text = json.dumps([task.to_dict() for task in tasks], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest() -> dict[str, Any]:
    """The frozen record of the default splits: version, generator parameters, hashes."""
    text = resources.files("meta_pusher_env").joinpath("manifest.json").read_text("utf-8")
    manifest: dict[str, Any] = json.loads(text)
    return manifest


def make_manifest() -> dict[str, Any]:
    """What `read_manifest` must equal; written once, by ``python -m meta_pusher_env.tasks``."""
    return {
        "version": 0,
        "split_seed": DEFAULT_SPLIT_SEED,
        "n_tasks": dict(DEFAULT_N_TASKS),
        "generator": {
            "look_alike_probability": objects.LOOK_ALIKE_PROBABILITY,
            "bounds": {name: list(bounds) for name, bounds in objects.BOUNDS.items()},
            "train_shapes": list(objects.TRAIN_SHAPES),
            "test_shapes": list(objects.TEST_SHAPES),
            "train_textures": list(objects.TRAIN_TEXTURES),
            "test_textures": list(objects.TEST_TEXTURES),
        },
        "sha256": {split: hash_tasks(make_tasks(split)) for split in SPLITS},
    }


if __name__ == "__main__":
    print(json.dumps(make_manifest(), indent=2))
