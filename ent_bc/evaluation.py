"""k-shot evaluation: does the arm do the task that was shown, and does the demonstration decide?

Every trial ends in exactly one of four outcomes, by the environment's success criterion for each
object: the shown one only, the other only, both, or neither. Any environment takes part that is
made by id and has the protocol of `ent_bc.protocol`.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol

import gymnasium as gym
import numpy as np
import torch as th

from ent_bc.protocol import (
    Task,
    TwinTask,
    as_expert,
    as_multi_task,
    demonstrations_of,
    outcome_of,
    pair_of,
)

ENV_ID = "meta_pusher_env:MetaPusher-v0"
OUTCOMES = ("shown only", "other only", "both", "neither")
TRIAL_SEEDS = 2**31  # demonstrations start from seeds below
CHUNK = 24  # trials that step together: fixed, so that scores do not depend on the machine
TOUCHED = 0.02  # m: an object that moved less was never reached

Demonstrated = Literal["own", "twin", "shuffled", "expert"]


class Model(Protocol):
    """What is evaluated: anything with `EntBC`'s `embed` and `predict`.

    Where it has ``n_demonstrated_obs``, demonstrations may have only so many observations, evenly
    spaced from the first to the last. What `predict` returns as state it gets in the next step.
    """

    def embed(self, demonstrations: Any) -> np.ndarray:
        """See `EntBC.embed`."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """See `EntBC.predict`."""


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What is run."""

    split: str = "test"
    """Tasks to do: "test", or "val" to tune on."""
    n_trials: int = 6
    """Trials of each task."""
    n_shots: int = 1
    """Demonstrations shown, distinct ones."""
    demonstrated: Demonstrated = "own"
    """Whose demonstration is shown: the task's own, its twin's, or some other task's; "expert": the
    environment's ``expert_action`` acts instead of the model."""
    sample: bool = False
    """Sample actions instead of taking the mean."""
    seed: int = 0
    """Fixes starts and demonstrations."""
    n_tasks: int | None = None
    """Tasks of the split; None for the default."""
    split_seed: int = 0
    """Universe of tasks."""
    obs_type: str | None = "pixels_agent_pos"
    """Observation type of the environment; None where it has no such argument."""
    image_size: int | None = 96
    """Height and width of its images, pixels; None where it has no such argument."""

    def env_kwargs(self) -> dict[str, Any]:
        """Arguments of the environment."""
        kwargs = {name: getattr(self, name) for name in ("split", "n_tasks", "split_seed")}
        looks = {"obs_type": self.obs_type, "image_size": self.image_size}
        return kwargs | {name: value for name, value in looks.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Trial:
    """How one trial ended."""

    task_id: str
    pair_id: str
    seed: int
    success: bool
    """The task's object was brought to the goal."""
    success_other: bool
    """The other one was."""
    strict: bool
    target_moved: float  # m, this and the following; NaN where the environment does not say
    distractor_moved: float
    target_distance: float
    distractor_distance: float

    @property
    def outcome(self) -> str:
        """One of `OUTCOMES`, where "shown" is the task's own object."""
        if self.success:
            return "both" if self.success_other else "shown only"
        return "other only" if self.success_other else "neither"

    @property
    def failure(self) -> str | None:
        """Why it failed, one of `statistics.FAILURES`; None if it did not, or none can tell."""
        if self.success:
            return None
        if self.success_other:
            return "wrong object"
        if np.isnan(self.target_moved):
            return None
        return "never reached" if self.target_moved < TOUCHED else "last centimetres"


def evaluate_k_shot(
    model: Model,
    config: EvaluationConfig,
    *,
    env_id: str = ENV_ID,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Trial]:
    """Runs the trials in this process.

    Args:
        model: What embeds the demonstrations and acts.
        config: What is run.
        env_id: The environment.
        on_progress: Told the number of trials done, and of all.

    Returns:
        The trials, by task and then by trial.
    """
    chunks = list(_chunks(config, env_id))
    trials: list[Trial] = []
    total = sum(len(chunk) for chunk in chunks)
    for chunk in chunks:
        trials += run_chunk(model, config, chunk, env_id)
        if on_progress is not None:
            on_progress(len(trials), total)
    return trials


def evaluate_file(
    path: Path,
    config: EvaluationConfig,
    *,
    pool: Executor,
    env_id: str = ENV_ID,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Trial]:
    """`evaluate_k_shot` of a saved model, spread over a pool's processes; the same trials."""
    chunks = list(_chunks(config, env_id))
    total = sum(len(chunk) for chunk in chunks)
    trials: list[Trial] = []
    jobs = [pool.submit(_run_chunk_of_file, path, config, chunk, env_id) for chunk in chunks]
    for job in jobs:
        trials += job.result()
        if on_progress is not None:
            on_progress(len(trials), total)
    return trials


def worker_pool(n_workers: int) -> ProcessPoolExecutor:
    """Processes for `evaluate_file`; several evaluations may share them."""
    return ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn"))


@dataclasses.dataclass(frozen=True)
class _Start:
    """A trial to run: task, start, and whose demonstrations are shown."""

    task: int
    seed: int
    shown: int
    demonstration_seed: int


def _chunks(config: EvaluationConfig, env_id: str) -> Iterator[list[_Start]]:
    """The trials in groups of `CHUNK`, a function of the configuration alone."""
    env = gym.make(env_id, **config.env_kwargs())
    tasks = as_multi_task(env).tasks
    env.close()
    place = {task.task_id: index for index, task in enumerate(tasks)}
    rng = np.random.default_rng([config.seed, 2])
    _check_condition(config, tasks)
    starts = []
    for index, task in enumerate(tasks):
        for _ in range(config.n_trials):
            seed, demo_seed = (int(s) for s in rng.integers(2**31, size=2))
            twin = place[task.twin.task_id] if isinstance(task, TwinTask) else index
            others = [i for i in range(len(tasks)) if i not in (index, twin)]
            other = others[rng.integers(len(others))] if others else index
            shown = {"twin": twin, "shuffled": other}.get(config.demonstrated, index)
            starts.append(_Start(index, TRIAL_SEEDS + seed, shown, demo_seed))
    for begin in range(0, len(starts), CHUNK):
        yield starts[begin : begin + CHUNK]


def _check_condition(config: EvaluationConfig, tasks: Sequence[Task]) -> None:
    """Raises a ValueError where the tasks are none that this condition can be had with."""
    lonely = [task.task_id for task in tasks if not isinstance(task, TwinTask)]
    if config.demonstrated == "twin" and lonely:
        raise ValueError(f"Task {lonely[0]!r} has no twin, expected a condition other than 'twin'.")
    if config.demonstrated == "shuffled" and len({pair_of(task) for task in tasks}) < 2:
        raise ValueError(
            f"Split {config.split!r} has {len(tasks)} tasks, expected at least "
            f"{2 if lonely else 4}: a shuffled demonstration is one of another pair."
        )


def run_chunk(
    model: Model, config: EvaluationConfig, starts: Sequence[_Start], env_id: str
) -> list[Trial]:
    """Runs a few trials side by side."""
    envs = [gym.make(env_id, **config.env_kwargs()) for _ in starts]
    tasks = as_multi_task(envs[0]).tasks
    act = _expert_control(envs) if config.demonstrated == "expert" else None
    if act is None:
        act = _model_control(
            model, config, envs[0], [tasks[start.shown] for start in starts], starts
        )
    observations = [
        env.reset(seed=start.seed, options={"task": tasks[start.task]})[0]
        for env, start in zip(envs, starts, strict=True)
    ]
    if config.sample:
        th.manual_seed(starts[0].seed)
    finished = False
    infos: list[Mapping[str, Any]] = []
    while not finished:
        actions = act(observations)
        steps = [env.step(action) for env, action in zip(envs, actions, strict=True)]
        observations = [step[0] for step in steps]
        infos = [step[4] for step in steps]
        finished = steps[0][2] or steps[0][3]
    for env in envs:
        env.close()
    return [
        Trial(
            task_id=info["task_id"],
            pair_id=pair_of(tasks[start.task]),
            seed=start.seed,
            **outcome_of(info),
        )
        for start, info in zip(starts, infos, strict=True)
    ]


Act = Callable[[Sequence[Any]], np.ndarray]


def _model_control(
    model: Model,
    config: EvaluationConfig,
    env: gym.Env[Any, Any],
    shown: Sequence[Task],
    starts: Sequence[_Start],
) -> Act:
    """Shows the model its demonstrations; returns what acts for all environments at once."""
    demonstrations = demonstrations_of(
        as_multi_task(env),
        shown,
        config.n_shots,
        seeds=[start.demonstration_seed for start in starts],
        n_obs=getattr(model, "n_demonstrated_obs", None),
    )
    state: Any = model.embed([list(some) for some in demonstrations])

    def act(observations: Sequence[Any]) -> np.ndarray:
        nonlocal state
        stacked = stack_observations(observations)
        acts, state = model.predict(stacked, state=state, deterministic=not config.sample)
        return acts

    return act


def _expert_control(envs: Sequence[gym.Env[Any, Any]]) -> Act:
    experts = [as_expert(env) for env in envs]

    def act(_: Sequence[Any]) -> np.ndarray:
        return np.stack([expert.expert_action() for expert in experts])

    return act


def stack_observations(observations: Sequence[Any]) -> Any:
    """A batch of observations from several environments' own."""
    if isinstance(observations[0], Mapping):
        return {key: np.stack([obs[key] for obs in observations]) for key in observations[0]}
    return np.stack(observations)


_model_of_worker: dict[Path, Any] = {}


def _run_chunk_of_file(
    path: Path, config: EvaluationConfig, chunk: list[_Start], env_id: str
) -> list[Trial]:
    from ent_bc.ent_bc import EntBC

    th.set_num_threads(1)
    if path not in _model_of_worker:
        _model_of_worker[path] = EntBC.load(path, device="cpu")
    return run_chunk(_model_of_worker[path], config, chunk, env_id)
