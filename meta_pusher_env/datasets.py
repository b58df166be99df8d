"""Reads data sets of demonstrations from disk: `DemonstrationSet`.

`meta_pusher_env.collection` makes them, `meta_pusher_env.dataset_layout` says what the files are.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from meta_pusher_env.dataset_layout import (
    FORMAT_VERSION,
    CollectConfig,
    read_json,
    shard_name,
    split_into_shards,
)
from meta_pusher_env.demonstrations import Demonstration, StepInfos, render_states
from meta_pusher_env.tasks import PusherTask, hash_tasks

# Read whole, for each page of a map is waited for with Python's lock held: 11 kB a demonstration.
_SMALL = ("steps", "acts", "agent_pos")


class AcceptanceRow(NamedTuple):
    """Starts with the target [low, high) metres from the goal, and how many of them were kept."""

    low: float
    high: float
    starts: int
    kept: int


@dataclasses.dataclass(frozen=True)
class Acceptance:
    """The filter's effect on starts, by start distance."""

    rows: tuple[AcceptanceRow, ...]

    @property
    def dropped(self) -> float:
        """The fraction of all starts at which the undisturbed expert failed."""
        return 1 - sum(row.kept for row in self.rows) / sum(row.starts for row in self.rows)


class DemonstrationSet(Sequence[Demonstration]):
    """A collected data set: nothing is read until it is asked for, images and states are mapped.

    Demonstration ``i`` shows ``tasks[i // config.demos_per_task]``; a task's clean demonstrations
    come first. Maps are opened when first used and stay open; a pickled set is opened again where
    it arrives.

    Args:
        directory: Where `collect` wrote it.

    Raises:
        ValueError: No data set, an unfinished one, one of another version, or with files that
            are missing or truncated.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).resolve()
        self.manifest = _read_manifest(self.directory)
        self.config = CollectConfig(**self.manifest["config"])
        self.tasks = self.config.tasks()
        if hash_tasks(self.tasks) != self.manifest["tasks_sha256"]:
            raise ValueError(
                f"The tasks of {self.directory} were drawn by another version of meta_pusher_env "
                f"({self.manifest['package_version']}): install that one, or collect again."
            )
        self._check_files()
        self._rows_per_shard = len(split_into_shards(self.tasks)[0]) * self.config.demos_per_task
        self._stored = "state_obs" if self.config.obs_type == "state" else "pixels"
        self._maps: dict[tuple[int, str], np.ndarray] = {}
        self._files: dict[int, io.FileIO] = {}
        self._metas: dict[int, dict[str, Any]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return DemonstrationSet, (self.directory,)

    def __len__(self) -> int:
        return len(self.tasks) * self.config.demos_per_task

    @overload
    def __getitem__(self, index: int) -> Demonstration: ...
    @overload
    def __getitem__(self, index: slice) -> list[Demonstration]: ...
    def __getitem__(self, index: int | slice) -> Demonstration | list[Demonstration]:
        """A demonstration, or a list; "agent_pos" in obs is a copy, the rest read-only views."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        task, shard, row = self._locate(index)
        steps = self._array(shard, "steps")[row]
        agent_pos = self._array(shard, "agent_pos")[row]
        stored = self._array(shard, self._stored)
        obs: np.ndarray | dict[str, np.ndarray] = stored[row]
        if self.config.obs_type == "pixels_agent_pos":
            obs = {"pixels": stored[row], "agent_pos": agent_pos[steps]}
        demo_id = f"{task.task_id}/{self._meta(shard)['seeds'][row]}"
        return Demonstration(
            obs=obs,
            acts=self._array(shard, "acts")[row],
            infos=StepInfos(task, demo_id, agent_pos),
            terminal=False,
            steps=steps,
            states=self._array(shard, "states")[row],
        )

    def full(self, index: int, image_size: int | None = None) -> Demonstration:
        """A demonstration with observations at every step, its frames drawn again from the states.

        Args:
            index: Which one.
            image_size: Of the frames, pixels; the data set's own by default, and then the frames
                at the stored steps are bit for bit the stored ones. State data sets have none.
        """
        demo = self[index]
        if self.config.obs_type == "state":
            return demo
        task, shard, row = self._locate(index)
        pixels = render_states(task, demo.states, image_size or self.config.image_size)
        obs = {"pixels": pixels, "agent_pos": self._array(shard, "agent_pos")[row]}
        return dataclasses.replace(
            demo,
            obs=pixels if self.config.obs_type == "pixels" else obs,
            steps=np.arange(len(demo.states)),
        )

    def close(self) -> None:
        """Closes the files; what is used again is opened again."""
        self._maps.clear()
        for file in self._files.values():
            file.close()
        self._files.clear()

    def will_read(self, wanted: Iterable[tuple[int, Iterable[int]]]) -> None:
        """Lets the system fetch stored observations from the disk, all at once and no others.

        Read without that, each is waited for on its own, and much that lies beside it is read too.

        Args:
            wanted: Pairs of a demonstration's index and the places in its `obs`.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        for index, places in wanted:
            file, spans = self._spans(index, places)
            for start, n_bytes in spans:
                os.posix_fadvise(file, start, n_bytes, os.POSIX_FADV_WILLNEED)

    def read_obs(self, index: int, places: Sequence[int]) -> np.ndarray | dict[str, np.ndarray]:
        """Observations of a demonstration at some places in its `obs`: copies, read from the file.

        A map would be read page by page, with Python's lock held.
        """
        _, shard, row = self._locate(index)
        array = self._array(shard, self._stored)
        stored = np.empty((len(places), *array.shape[2:]), array.dtype)
        file, spans = self._spans(index, places)
        for target, (start, _) in zip(stored, spans, strict=True):
            os.preadv(file, [target], start)
        if self.config.obs_type != "pixels_agent_pos":
            return stored
        steps = self._array(shard, "steps")[row][list(places)]
        return {"pixels": stored, "agent_pos": self._array(shard, "agent_pos")[row][steps]}

    def _spans(self, index: int, places: Iterable[int]) -> tuple[int, list[tuple[int, int]]]:
        """File descriptor of stored observations, and where in it some of them are, in bytes."""
        _, shard, row = self._locate(index)
        array = self._array(shard, self._stored)
        if shard not in self._files:
            self._files[shard] = open(self._path(shard, self._stored), "rb", buffering=0)
        file = self._files[shard].fileno()
        start = os.fstat(file).st_size - array.nbytes + row * array.strides[0]
        n_bytes = array.strides[1]
        return file, [(start + place % array.shape[1] * n_bytes, n_bytes) for place in places]

    def noise_levels(self) -> np.ndarray:
        """(len,) standard deviation of the noise in each demonstration, as `Episode.noise`, N m."""
        shards = range(len(self.manifest["shards"]))
        return np.concatenate([self._meta(shard)["noise"] for shard in shards])

    def acceptance(self) -> Acceptance:
        """How many of the starts that the expert was put at were kept."""
        return Acceptance(tuple(AcceptanceRow(*row) for row in self.manifest["acceptance"]))

    def _check_files(self) -> None:
        for shard, files in self.manifest["shards"].items():
            for name, record in files.items():
                file = self.directory / shard / name
                size = file.stat().st_size if file.is_file() else "no"
                if size != record["bytes"]:
                    raise ValueError(
                        f"{file} has {size} bytes, expected {record['bytes']}: the data set is "
                        "damaged. Run collect() with the same configuration again to mend it."
                    )

    def _locate(self, index: int) -> tuple[PusherTask, int, int]:
        """(task, shard, row in it) of a demonstration."""
        try:
            index = range(len(self))[index]
        except IndexError:
            raise IndexError(f"Index {index} is out of range: {len(self)} demos.") from None
        return self.tasks[index // self.config.demos_per_task], *divmod(index, self._rows_per_shard)

    def _array(self, shard: int, name: str) -> np.ndarray:
        array = self._maps.get((shard, name))
        if array is None:
            file = self._path(shard, name)
            # A plain array over the map: rows of an np.memmap are slow to make.
            array = np.asarray(np.load(file, mmap_mode=None if name in _SMALL else "r"))
            array.setflags(write=False)
            self._maps[shard, name] = array
        return array

    def _path(self, shard: int, name: str) -> Path:
        return self.directory / shard_name(shard) / f"{name}.npy"

    def _meta(self, shard: int) -> dict[str, Any]:
        if shard not in self._metas:
            self._metas[shard] = read_json(self.directory / shard_name(shard) / "meta.json")
        return self._metas[shard]


def _read_manifest(directory: Path) -> dict[str, Any]:
    if not (directory / "config.json").is_file():
        raise ValueError(
            f"{directory} is no data set: it has no config.json. Make one with "
            "meta_pusher_env.collection.collect() or `ent-bc collect`."
        )
    version = read_json(directory / "config.json").get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{directory} has format version {version!r}, expected {FORMAT_VERSION}: collect it "
            "again, or install the version of meta_pusher_env that wrote it."
        )
    if not (directory / "manifest.json").is_file():
        raise ValueError(
            f"{directory} is unfinished: it has no manifest.json. Run collect() (or `ent-bc "
            "collect`) with the same configuration again; it goes on where it stopped."
        )
    return read_json(directory / "manifest.json")
