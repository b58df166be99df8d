"""Runs cells that have no result yet: collects their data, trains, evaluates, writes the file."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import multiprocessing
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from ent_bc.benchmark.cells import Cell
from ent_bc.benchmark.results import Condition, Result, Training
from ent_bc.benchmark.systems import SYSTEMS, Trained, train_cell
from ent_bc.ent_bc import EntBC
from ent_bc.evaluation import (
    ENV_ID,
    EvaluationConfig,
    Model,
    evaluate_k_shot,
    stack_observations,
)
from ent_bc.protocol import as_multi_task, demonstrations_of
from ent_bc.statistics import embed_tasks, embedding_metrics
from meta_pusher_env.collection import collect
from meta_pusher_env.dataset_layout import CollectConfig
from meta_pusher_env.datasets import DemonstrationSet


def result_path(results: Path, cell: Cell) -> Path:
    """Where a cell's result is, or will be."""
    return results / f"{cell.hash}.json"


def missing(cells: Iterable[Cell], results: Path) -> list[Cell]:
    """The cells without a result."""
    return [cell for cell in cells if not result_path(results, cell).exists()]


def fill(
    cells: Sequence[Cell],
    results: Path,
    data: Path,
    *,
    jobs: int = 1,
    on_cell: Callable[[Cell, float], None] | None = None,
) -> None:
    """Runs the cells without a result, in order, each in a process of its own.

    A cell that fails holds up no other; stopped, it goes on when it is called again.

    Args:
        cells: What the benchmark has.
        results: Folder of the result files.
        data: Folder of the data sets; those that are not there are collected.
        jobs: Processes at once.
        on_cell: Told each cell that is done, and its seconds.

    Raises:
        RuntimeError: Cells failed; after all others are done.
    """
    todo = missing(cells, results)
    for cell in todo:
        data_for(cell, data)  # with all cores, and not by two processes at once
    results.mkdir(parents=True, exist_ok=True)
    pool = ThreadPoolExecutor(jobs)
    running = {pool.submit(_run_apart, cell, results, data): cell for cell in todo}
    try:
        for job in as_completed(running):
            if job.exception() is None and on_cell is not None:
                on_cell(running[job], job.result())
    finally:
        pool.shutdown(cancel_futures=True)  # of those that wait, where this was stopped
    _check_all_done(running)


def _check_all_done(running: Mapping[Future[float], Cell]) -> None:
    errors = {cell.name: job.exception() for job, cell in running.items() if job.exception()}
    if errors:
        told = "; ".join(f"{name} ({type(e).__name__}: {e})" for name, e in errors.items())
        raise RuntimeError(
            f"{len(errors)} of {len(running)} cells failed, the others have their results: {told}. "
            "Run the command again for these alone."
        ) from next(iter(errors.values()))


def _run_apart(cell: Cell, results: Path, data: Path) -> float:
    """`run_cell` in a process of its own, whose death is an error of this cell alone."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_cell, cell, results, data).result()


def run_cell(cell: Cell, results: Path, data: Path) -> float:
    """Trains and evaluates a cell and writes its result; returns the seconds that took."""
    begin = time.perf_counter()
    code, version = code_version(), importlib.metadata.version("metapusher")  # of what runs now
    system, demonstrations = SYSTEMS[cell.system], data_for(cell, data)
    view = system.view(demonstrations)
    if not cell.twins:
        view = OneOfTwins(view, cell.demos_per_task)
    trained = train_cell(cell, view)
    Result(
        cell=cell.to_json(),
        data_sha256=data_hash(demonstrations),
        code=code,
        package_version=version,
        training=_training(cell, trained),
        conditions=_conditions(cell, trained.model),
        embedding=_embedding(cell, trained.model),
    ).write(result_path(results, cell))
    return time.perf_counter() - begin


def data_for(cell: Cell, root: Path) -> DemonstrationSet:
    """The data set that a cell is trained on, collected where it is not there."""
    config = CollectConfig(
        n_tasks=cell.n_tasks,
        demos_per_task=cell.demos_per_task,
        frames_per_demo=cell.frames_per_demo,
        obs_type=cell.obs_type,
        image_size=cell.image_size,
        noise=cell.noise,
    )
    looks = cell.obs_type if cell.obs_type == "state" else f"{cell.image_size}px"
    name = (
        f"{looks}-{cell.n_tasks}x{cell.demos_per_task}x{cell.frames_per_demo}-noise{cell.noise:g}"
    )
    return collect(root / name, config)


def data_hash(demonstrations: DemonstrationSet) -> str:
    """SHA-256 of a data set's manifest, which holds those of all its files."""
    manifest = demonstrations.directory / "manifest.json"
    return hashlib.sha256(manifest.read_bytes()).hexdigest()


def evaluation_config(cell: Cell) -> EvaluationConfig:
    """One demonstration of the task itself; the other conditions are changes of it."""
    return EvaluationConfig(
        split=cell.split,
        n_trials=cell.trials_per_task,
        obs_type=cell.obs_type,
        image_size=cell.image_size,
    )


def code_version() -> str:
    """The commit of the code, "+" behind it where files were changed; "" where there is no git."""
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        packages = ("ent_bc", "meta_pusher_env")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *packages)
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


class OneOfTwins(Sequence[Any]):
    """A data set's demonstrations of one task of each pair alone, the first."""

    def __init__(self, demonstrations: Any, demos_per_task: int) -> None:
        self._all = demonstrations
        indices = np.arange(len(demonstrations))
        self._indices = indices[indices // demos_per_task % 2 == 0].tolist()

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        return self._all[self._indices[index]]

    def will_read(self, wanted: Iterable[tuple[int, Iterable[int]]]) -> None:
        """See `ReadsAhead`."""
        self._all.will_read((self._indices[index], places) for index, places in wanted)

    def read_obs(self, index: int, places: Sequence[int]) -> Any:
        """See `ReadsAhead`."""
        return self._all.read_obs(self._indices[index], places)


def _conditions(cell: Cell, model: Model) -> dict[str, Condition]:
    own = evaluation_config(cell)
    asked = {"own_1shot": own, "twin": dataclasses.replace(own, demonstrated="twin")}
    if cell.trials_per_task_5shot:
        n_trials = cell.trials_per_task_5shot
        asked["own_5shot"] = dataclasses.replace(own, n_shots=5, n_trials=n_trials)
    env_id = SYSTEMS[cell.system].env_id
    return {
        name: Condition.of_trials(evaluate_k_shot(model, config, env_id=env_id))
        for name, config in asked.items()
    }


def _embedding(cell: Cell, model: Model) -> dict[str, float] | None:
    """Retrieval by sentences, of systems that have such."""
    if not isinstance(model, EntBC):
        return None
    metrics = embedding_metrics(embed_tasks(model, ENV_ID, evaluation_config(cell).env_kwargs()))
    return {key: metrics[key]["value"] for key in ("embedding_accuracy", "twin_accuracy")}


def _training(cell: Cell, trained: Trained) -> Training:
    return Training(
        n_batches=cell.n_batches,
        n_samples=trained.n_samples,
        seconds=trained.seconds,
        samples_per_second=trained.n_samples / trained.seconds,
        n_parameters=trained.n_parameters,
        inference_ms=1000 * _seconds_of_prediction(cell, trained.model),
        entropy=trained.entropy,
    )


def _seconds_of_prediction(cell: Cell, model: Model, n: int = 50) -> float:
    """Median time of an answer to one observation."""
    env = gym.make(SYSTEMS[cell.system].env_id, **evaluation_config(cell).env_kwargs())
    obs = stack_observations([env.reset(seed=0)[0]])
    base = as_multi_task(env)
    n_obs = getattr(model, "n_demonstrated_obs", None)
    [shown] = demonstrations_of(base, base.tasks[:1], 1, seeds=[0], n_obs=n_obs)
    state = model.embed([list(shown)])
    times = []
    for _ in range(n):
        begin = time.perf_counter()
        model.predict(obs, state=state, deterministic=True)
        times.append(time.perf_counter() - begin)
    env.close()
    return float(np.median(times))
