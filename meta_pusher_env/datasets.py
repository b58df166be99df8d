"""Many demonstrations on disk: `collect` records them, `DemonstrationSet` reads them.

Layout of a data set, all of it plain .npy and JSON::

    config.json      what was asked for; written first, so that `collect` can go on after a stop
    shard-0000/      some pairs' tasks: one row a demonstration, a task's demonstrations together
        states.npy       (n, 101, 26) float64, MuJoCo states
        acts.npy         (n, 100, 7) float32, the expert's clean torques, N m
        agent_pos.npy    (n, 101, 20) float32
        steps.npy        (n, S) int16, ascending: the steps whose observations are stored
        pixels.npy       (n, S, H, W, 3) uint8, or state_obs.npy (n, S, D) float32
        meta.json        tasks, seeds, noise, all attempts, SHA-256 of the arrays
    manifest.json    written last: versions and SHA-256 of everything
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import multiprocessing
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any, NamedTuple, overload

import numpy as np

from meta_pusher_env.demonstrations import (
    STATE_DIM,
    Demonstration,
    Episode,
    StepInfos,
    render_states,
    successful_episodes,
)
from meta_pusher_env.env import AGENT_POS_DIM, EPISODE_STEPS, OBS_TYPES, SLOT_DIM
from meta_pusher_env.rendering import Renderer
from meta_pusher_env.scene import N_JOINTS
from meta_pusher_env.tasks import DEFAULT_SPLIT_SEED, PusherTask, hash_tasks, make_tasks

FORMAT_VERSION = 1
MAX_SHARDS = 64  # an open map holds a file descriptor, and processes have about 1,000 of these
ACCEPTANCE_BINS = (0.17, 0.20, 0.24, 0.28, 0.32, 0.37)  # m, start distances of target and goal


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
    noise: float = 0.8
    """Largest standard deviation of the noise injected into executed torques (DART), N m."""
    clean_demos: int = 2
    """How many of each task's demonstrations are without noise; they come first."""
    seed: int = 0
    """Fixes starts, noise and sampled steps."""

    def __post_init__(self) -> None:
        make_tasks(self.split, 2 if self.n_tasks is None else self.n_tasks, self.split_seed)
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


class AcceptanceRow(NamedTuple):
    """How many attempts with a start distance in [low, high) metres were kept."""

    low: float
    high: float
    attempts: int
    accepted: int


class Acceptance(NamedTuple):
    """The filter's effect: rows by start distance, and the fraction of all starts it dropped."""

    rows: tuple[AcceptanceRow, ...]
    dropped: float


class DemonstrationSet(Sequence[Demonstration]):
    """A collected data set, memory-mapped: nothing is read until it is asked for.

    Demonstration ``i`` shows ``tasks[i // config.demos_per_task]``. Maps are opened when first
    used and stay open; a pickled set is opened again where it arrives.

    Args:
        directory: Where `collect` wrote it.

    Raises:
        ValueError: No data set, an unfinished one, one of another version, or with files that
            are missing or truncated.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).resolve()
        manifest = _read_manifest(self.directory)
        self.manifest: dict[str, Any] = manifest
        self.config = CollectConfig(**manifest["config"])
        self.tasks = self.config.tasks()
        if hash_tasks(self.tasks) != manifest["tasks_sha256"]:
            raise ValueError(
                f"The tasks of {self.directory} were drawn by another version of meta_pusher_env "
                f"({manifest['package_version']}): install that one, or collect again."
            )
        self.task_ids = np.repeat([t.task_id for t in self.tasks], self.config.demos_per_task)
        self._rows_per_shard = _tasks_per_shard(len(self.tasks)) * self.config.demos_per_task
        self._index_of = {task.task_id: index for index, task in enumerate(self.tasks)}
        self._maps: dict[tuple[int, str], np.ndarray] = {}
        self._metas: dict[int, dict[str, Any]] = {}
        for file, record in self._files():
            if not file.is_file() or file.stat().st_size != record["bytes"]:
                size = file.stat().st_size if file.is_file() else "no"
                raise ValueError(
                    f"{file} has {size} bytes, expected {record['bytes']}: the data set is damaged."
                    " Run collect() with the same configuration again to mend it."
                )

    def __reduce__(self) -> tuple[Any, ...]:
        return DemonstrationSet, (self.directory,)

    def __len__(self) -> int:
        return len(self.task_ids)

    @overload
    def __getitem__(self, index: int) -> Demonstration: ...
    @overload
    def __getitem__(self, index: slice) -> list[Demonstration]: ...
    def __getitem__(self, index: int | slice) -> Demonstration | list[Demonstration]:
        """A demonstration, or a list; "agent_pos" in obs is a copy, all else views of the maps."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index, shard, row = self._locate(index)
        steps = self._array(shard, "steps")[row]
        agent_pos = self._array(shard, "agent_pos")[row]
        stored = self._array(shard, "state_obs" if self.config.obs_type == "state" else "pixels")
        obs: np.ndarray | dict[str, np.ndarray] = stored[row]
        if self.config.obs_type == "pixels_agent_pos":
            obs = {"pixels": stored[row], "agent_pos": agent_pos[steps]}
        task = self.tasks[index // self.config.demos_per_task]
        demo_id = f"{task.task_id}/{self._meta(shard)['seeds'][row]}"
        return Demonstration(
            obs=obs,
            acts=self._array(shard, "acts")[row],
            infos=StepInfos(task, demo_id, agent_pos),
            terminal=False,
            steps=steps,
            states=self._array(shard, "states")[row],
        )

    def of_task(self, task: PusherTask | str) -> list[Demonstration]:
        """The demonstrations of a task, or of a task id; clean ones first.

        Raises:
            ValueError: The task is not in the data set.
        """
        task_id = task.task_id if isinstance(task, PusherTask) else task
        if task_id not in self._index_of:
            raise ValueError(
                f"No task {task_id!r} in {self.directory}: its ids run from "
                f"{self.tasks[0].task_id!r} to {self.tasks[-1].task_id!r}."
            )
        first = self._index_of[task_id] * self.config.demos_per_task
        return self[first : first + self.config.demos_per_task]

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
        index, shard, row = self._locate(index)
        task = self.tasks[index // self.config.demos_per_task]
        pixels = render_states(task, demo.states, image_size or self.config.image_size)
        obs = {"pixels": pixels, "agent_pos": self._array(shard, "agent_pos")[row]}
        return dataclasses.replace(
            demo,
            obs=pixels if self.config.obs_type == "pixels" else obs,
            steps=np.arange(len(demo.states)),
        )

    def noise_levels(self) -> np.ndarray:
        """(len,) standard deviation of the noise in each demonstration's executed torques, N m."""
        shards = range(len(self.manifest["shards"]))
        return np.concatenate([self._meta(shard)["noise"] for shard in shards])

    def acceptance(self) -> Acceptance:
        """How many of the expert's attempts were successful, and so kept."""
        rows = tuple(AcceptanceRow(*row) for row in self.manifest["acceptance"])
        accepted, attempts = sum(r.accepted for r in rows), sum(r.attempts for r in rows)
        return Acceptance(rows, dropped=1 - accepted / attempts)

    def verify(self) -> None:
        """Reads everything and compares it with the manifest's hashes.

        Raises:
            ValueError: Some files differ; it names them.
        """
        bad = [str(file) for file, record in self._files() if _file_record(file) != record]
        if bad:
            raise ValueError(
                f"Damaged files: {', '.join(bad)}. Run collect() with the same configuration "
                "again to mend the data set."
            )

    def _locate(self, index: int) -> tuple[int, int, int]:
        """(index from the start, shard, row in it)."""
        try:
            index = range(len(self))[index]
        except IndexError:
            raise IndexError(f"Index {index} is out of range: {len(self)} demos.") from None
        return index, *divmod(index, self._rows_per_shard)

    def _array(self, shard: int, name: str) -> np.ndarray:
        array = self._maps.get((shard, name))
        if array is None:
            file = self.directory / _shard_name(shard) / f"{name}.npy"
            # A plain array over the map: rows of an np.memmap are slow to make. Steps are few.
            array = np.asarray(np.load(file, mmap_mode=None if name == "steps" else "r"))
            self._maps[shard, name] = array
        return array

    def _meta(self, shard: int) -> dict[str, Any]:
        if shard not in self._metas:
            self._metas[shard] = _read_json(self.directory / _shard_name(shard) / "meta.json")
        return self._metas[shard]

    def _files(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for shard, files in self.manifest["shards"].items():
            for name, record in files.items():
                yield self.directory / shard / name, record


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
    tasks = config.tasks()
    _write_or_check_config(root, config, tasks)
    n_shards = -(-len(tasks) // _tasks_per_shard(len(tasks)))
    missing = _missing_shards(root, n_shards, n_workers)
    total = len(tasks) * config.demos_per_task
    done = total - sum(len(_tasks_of_shard(tasks, i)) for i in missing) * config.demos_per_task
    report = on_progress or (lambda done, total: None)
    report(done, total)
    with closing(_make_shards(root, config, missing, n_workers)) as made:
        for shard in made:
            done += len(_tasks_of_shard(tasks, shard)) * config.demos_per_task
            report(done, total)
    if not (root / "manifest.json").exists():
        _write_json(root / "manifest.json", _make_manifest(root, config, tasks, n_shards))
    return DemonstrationSet(root)


def _missing_shards(root: Path, n_shards: int, n_threads: int) -> list[int]:
    """The shards that are absent or damaged; if there are any, the manifest goes."""
    recorded: dict[str, Any] = {}
    try:
        recorded = _read_json(root / "manifest.json")["shards"]
    except (OSError, ValueError, KeyError):
        (root / "manifest.json").unlink(missing_ok=True)  # absent or damaged: to be written anew
    names = [_shard_name(shard) for shard in range(n_shards)]
    with ThreadPoolExecutor(n_threads) as threads:  # hashing lets other threads run
        intact = list(threads.map(lambda name: _is_intact(root / name, recorded.get(name)), names))
    missing = [shard for shard in range(n_shards) if not intact[shard]]
    if missing:
        (root / "manifest.json").unlink(missing_ok=True)
    return missing


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
        jobs = [pool.submit(_make_shard, root, config, shard) for shard in shards]
        for job in as_completed(jobs):
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
    tasks = _tasks_of_shard(config.tasks(), shard)
    place = root / _shard_name(shard)
    work = place.with_suffix(".tmp")
    for leftover in (work, place):
        shutil.rmtree(leftover, ignore_errors=True)
    work.mkdir()
    renderer = Renderer(config.image_size, config.image_size)
    meta: dict[str, Any] = {
        "task_ids": [task.task_id for task in tasks],
        "seeds": [],
        "noise": [],
        "attempts": {"start_distance": [], "noise": [], "success": []},
    }
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(_create_npy(work / f"{name}.npy", (n, *shape), dtype))
            for n in [len(tasks) * config.demos_per_task]
            for name, (shape, dtype) in config.arrays().items()
        }
        for task in tasks:  # twins come one after the other and share their compiled scene
            for episode in _kept_episodes(task, config, meta["attempts"]):
                meta["seeds"].append(episode.seed)
                meta["noise"].append(episode.noise)
                rows = _rows(episode, config, renderer)
                for name, (shape, dtype) in config.arrays().items():
                    row = np.ascontiguousarray(rows[name], dtype=dtype)
                    assert row.shape == shape, (name, row.shape, shape)
                    files[name].write(row.tobytes())
    renderer.close()
    meta["files"] = {f"{name}.npy": _file_record(work / f"{name}.npy") for name in files}
    _write_json(work / "meta.json", meta)
    os.replace(work, place)
    return shard


def _kept_episodes(
    task: PusherTask, config: CollectConfig, attempts: dict[str, list[Any]]
) -> Iterator[Episode]:
    """The task's successful episodes, clean ones first; notes all attempts."""
    n_noisy = config.demos_per_task - config.clean_demos
    # Seeds of their own: from one stream, a noisy episode could start just as a clean one did.
    for n, seed, noise in (
        (config.clean_demos, 2 * config.seed, 0.0),
        (n_noisy, 2 * config.seed + 1, config.noise),
    ):
        if n == 0:
            continue
        kept = 0
        for success, attempt in successful_episodes(task, seed=seed, noise=noise):
            for name, values in attempts.items():
                values.append(getattr(attempt, name))
            if success is not None:
                kept += 1
                yield success
            if kept == n:
                break


def _rows(episode: Episode, config: CollectConfig, renderer: Renderer) -> dict[str, np.ndarray]:
    rows = {name: getattr(episode, name) for name in ("states", "acts", "agent_pos")}
    if config.obs_type == "state":
        return rows | {"steps": np.arange(EPISODE_STEPS + 1), "state_obs": episode.state_obs}
    steps = _sample_steps(episode.seed, config.frames_per_demo)
    frames = render_states(episode.task, episode.states[steps], config.image_size, renderer)
    return rows | {"steps": steps, "pixels": frames}


def _sample_steps(seed: int, n_inner: int) -> np.ndarray:
    """First, last and n_inner steps between, one from each of as many equal stretches."""
    inner = np.empty(0, np.int64)
    if n_inner:
        edges = np.linspace(1, EPISODE_STEPS, n_inner + 1).astype(np.int64)
        inner = np.random.default_rng([seed, 2]).integers(edges[:-1], edges[1:])
    return np.concatenate([[0], inner, [EPISODE_STEPS]])


def _write_or_check_config(
    root: Path, config: CollectConfig, tasks: tuple[PusherTask, ...]
) -> None:
    asked = {"format_version": FORMAT_VERSION, "tasks_sha256": hash_tasks(tasks)}
    asked |= dataclasses.asdict(config)
    file = root / "config.json"
    if not file.exists():
        root.mkdir(parents=True, exist_ok=True)
        _write_json(file, asked)
    there = _read_json(file)
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


def _make_manifest(
    root: Path, config: CollectConfig, tasks: tuple[PusherTask, ...], n_shards: int
) -> dict[str, Any]:
    shards, distances, successes = {}, [], []
    for name in map(_shard_name, range(n_shards)):
        meta = _read_json(root / name / "meta.json")
        shards[name] = meta["files"] | {"meta.json": _file_record(root / name / "meta.json")}
        distances += meta["attempts"]["start_distance"]
        successes += meta["attempts"]["success"]
    kept = np.array(successes, dtype=bool)
    attempts, accepted = (
        np.histogram(np.clip(d, ACCEPTANCE_BINS[0], ACCEPTANCE_BINS[-1]), ACCEPTANCE_BINS)[0]
        for d in (np.array(distances), np.array(distances)[kept])
    )
    bins = zip(ACCEPTANCE_BINS[:-1], ACCEPTANCE_BINS[1:], attempts, accepted, strict=True)
    return {
        "format_version": FORMAT_VERSION,
        "package_version": _package_version(),
        "config": dataclasses.asdict(config),
        "tasks_sha256": hash_tasks(tasks),
        "n_demos": len(tasks) * config.demos_per_task,
        "acceptance": [[low, high, int(n), int(ok)] for low, high, n, ok in bins],
        "shards": shards,
    }


def _read_manifest(root: Path) -> dict[str, Any]:
    if not (root / "config.json").is_file():
        raise ValueError(
            f"{root} is no data set: it has no config.json. Make one with "
            "meta_pusher_env.datasets.collect() or `ent-bc collect`."
        )
    version = _read_json(root / "config.json").get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{root} has format version {version!r}, expected {FORMAT_VERSION}: collect it again, "
            "or install the version of meta_pusher_env that wrote it."
        )
    if not (root / "manifest.json").is_file():
        raise ValueError(
            f"{root} is unfinished: it has no manifest.json. Run collect() (or `ent-bc collect`) "
            "with the same configuration and directory again; it goes on where it stopped."
        )
    return _read_json(root / "manifest.json")


def _package_version() -> str | None:
    try:
        return importlib.metadata.version("metapusher")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return None


def _tasks_per_shard(n_tasks: int) -> int:
    return 2 * math.ceil(n_tasks / 2 / MAX_SHARDS)  # whole pairs


def _tasks_of_shard(tasks: tuple[PusherTask, ...], shard: int) -> tuple[PusherTask, ...]:
    n = _tasks_per_shard(len(tasks))
    return tasks[shard * n : (shard + 1) * n]


def _shard_name(shard: int) -> str:
    return f"shard-{shard:04d}"


def _is_intact(shard: Path, recorded: dict[str, Any] | None) -> bool:
    """Whether the files are as the manifest, or else the shard's own meta.json, says."""
    try:
        files = recorded or _read_json(shard / "meta.json")["files"]
        return all(_file_record(shard / name) == record for name, record in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _create_npy(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> IO[bytes]:
    """An .npy file with its header written: rows follow one by one, never all in memory."""
    file = open(path, "wb")  # the caller closes it
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file


def _file_record(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    return record


def _write_json(path: Path, record: dict[str, Any]) -> None:
    """Whole or not at all."""
    work = path.with_suffix(".tmp")
    work.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    os.replace(work, path)
