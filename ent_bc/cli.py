"""``ent-bc collect | train | evaluate | quickstart | benchmark``: all from the command line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ent_bc import video
from ent_bc.benchmark.cli import Benchmark, benchmark
from ent_bc.curves import join_logs, set_log_aside
from ent_bc.ent_bc import EntBC
from ent_bc.evaluation import (
    ENV_ID,
    TRIAL_SEEDS,
    EvaluationConfig,
    Trial,
    evaluate_file,
    worker_pool,
)
from ent_bc.losses import ControlLoss
from ent_bc.presets import PRESETS
from ent_bc.report import terminal_table, write_report
from ent_bc.statistics import embed_tasks, pair_distances
from meta_pusher_env.collection import collect
from meta_pusher_env.dataset_layout import CollectConfig
from meta_pusher_env.datasets import DemonstrationSet

CONDITIONS: dict[str, dict[str, Any]] = {
    "own_1shot": {"n_shots": 1},
    "own_5shot": {"n_shots": 5},
    "twin": {"demonstrated": "twin"},
    "shuffled": {"demonstrated": "shuffled"},
    "expert": {"demonstrated": "expert"},
}
console = Console()
PresetName = Literal["pixels", "state", "paper"]


@dataclasses.dataclass(frozen=True)
class Collect:
    """Lets the expert demonstrate tasks, on all cores; goes on where a killed run was."""

    out: Path
    """Directory of the data set."""
    config: tyro.conf.OmitArgPrefixes[CollectConfig] = CollectConfig()
    """What to collect."""
    n_workers: int | None = None
    """Processes; by default one for each core."""


@dataclasses.dataclass(frozen=True)
class Train:
    """Trains on a data set that `ent-bc collect` made; goes on where a killed run was."""

    data: Path
    """Directory of the demonstrations."""
    out: Path
    """Directory for model.safetensors, checkpoint and logs."""
    preset: PresetName = "pixels"
    """Settings: "pixels" or "state", measured as best on CPU, or "paper"."""
    n_batches: int | None = None
    """Optimiser steps; by default the preset's."""
    learning_rate: float | None = None
    """Adam's, at its peak; by default the preset's."""
    seed: int = 0
    """Same seed, same parameters."""
    blind: bool = False
    """Train the demo-blind baseline: the policy always gets the same sentence."""
    control_loss: ControlLoss | None = None
    """Behavioural cloning error; by default the preset's."""
    min_sigma: float | None = None
    """Lower bound of the policy's sigma, in units of the actions; by default the preset's."""
    n_workers: int | None = None
    """Processes that share each batch's tasks; by default, with images, one for each core, at most
    8, and without a single one."""
    checkpoint_interval: int = 500
    """Optimiser steps between checkpoints."""
    device: str = "auto"
    """Torch device."""


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluates a model, one-shot and five-shot, with the twin's demonstration, and reports."""

    model: Path
    """Model file."""
    out: Path
    """Directory for results.json, plots, video and report.html."""
    split: Literal["test", "val", "train"] = "test"
    """Tasks to do; tune on "val"."""
    n_trials: int = 6
    """Trials of each task."""
    conditions: tuple[str, ...] = ("own_1shot", "twin", "shuffled", "own_5shot", "expert")
    """What is shown: own_1shot, own_5shot, twin, shuffled, or expert (no model acts)."""
    sample: bool = False
    """Sample actions instead of taking the mean."""
    seed: int = 0
    """Fixes starts and demonstrations."""
    n_tasks: int | None = None
    """Tasks of the split; by default its own number."""
    split_seed: int = 0
    """Universe of tasks."""
    n_workers: int | None = None
    """Processes; by default one for each core."""


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """The whole way on pixels: tasks, demonstrations, training, one-shot evaluation, report."""

    out: Path = Path("runs/quickstart")
    """Directory for everything."""
    n_tasks: int = 694
    """Training tasks."""
    demos_per_task: int = 8
    """Demonstrations of each."""
    n_batches: int | None = None
    """Optimiser steps; by default the preset's."""
    n_trials: int = 6
    """Trials of each test task."""
    seed: int = 0
    """Of the training."""


def main() -> None:
    """Entry point of the ``ent-bc`` command."""
    commands = tyro.conf.OmitSubcommandPrefixes[
        Annotated[Collect, tyro.conf.subcommand("collect")]
        | Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Quickstart, tyro.conf.subcommand("quickstart")]
        | Annotated[Benchmark, tyro.conf.subcommand("benchmark")]
    ]
    command = tyro.cli(commands, prog="ent-bc", description=__doc__)
    try:
        if isinstance(command, Collect):
            collect_demonstrations(command.out, command.config, command.n_workers)
        elif isinstance(command, Train):
            train(command)
        elif isinstance(command, Evaluate):
            evaluate(command)
        elif isinstance(command, Benchmark):
            benchmark(command)
        else:
            quickstart(command)
    except (ValueError, FileNotFoundError, RuntimeError, FloatingPointError) as error:
        console.print(f"[red]{type(error).__name__}:[/red] {error}", highlight=False)
        raise SystemExit(1) from error


def collect_demonstrations(out: Path, config: Any, n_workers: int | None = None) -> None:
    """``ent-bc collect``."""
    with _progress("Demonstrations") as on_progress:
        data = collect(out, config, n_workers=n_workers, on_progress=on_progress)
    acceptance = data.acceptance()
    table = Table("start distance [m]", "starts", "kept", title="Starts that were kept")
    for row in acceptance.rows:
        table.add_row(f"{row.low:.2f} - {row.high:.2f}", str(row.starts), str(row.kept))
    console.print(table)
    console.print(
        f"{len(data)} demonstrations in {out}; {acceptance.dropped:.1%} of starts dropped"
    )


def demonstrations_for(preset_name: PresetName, n_tasks: int, demos_per_task: int) -> CollectConfig:
    """What a preset learns from."""
    preset = PRESETS[preset_name]
    return CollectConfig(
        n_tasks=n_tasks,
        demos_per_task=demos_per_task,
        obs_type=preset.obs_type,
        image_size=preset.image_size,
    )


def train(command: Train) -> Path:
    """``ent-bc train``; returns the model's file, which may be there already."""
    preset = PRESETS[command.preset]
    if command.learning_rate is not None:
        if not command.learning_rate > 0:
            raise ValueError(f"learning_rate is {command.learning_rate}, expected more than 0.")
        preset = dataclasses.replace(preset, learning_rate=command.learning_rate)
    n_batches = command.n_batches or preset.n_batches
    path, checkpoint = (command.out / f"{n}.safetensors" for n in ("model", "checkpoint"))
    data = DemonstrationSet(command.data)
    if data.config.obs_type != preset.obs_type:
        raise ValueError(
            f"{command.data} holds {data.config.obs_type!r} observations, preset "
            f"{command.preset!r} expects {preset.obs_type!r}: collect with --obs-type "
            f"{preset.obs_type}, or take another preset."
        )
    arguments = preset.arguments(n_batches)
    n_cores = min(os.cpu_count() or 1, 8)
    n_workers = command.n_workers or (n_cores if preset.several_workers else 1)
    arguments["schedule"] = dataclasses.replace(arguments["schedule"], n_workers=n_workers)
    arguments["policy_kwargs"] = {**arguments["policy_kwargs"], "blind": command.blind}
    if command.min_sigma is not None:
        arguments["policy_kwargs"]["min_sigma"] = command.min_sigma
    if command.control_loss is not None:
        arguments["losses"] = dataclasses.replace(preset.losses, control_loss=command.control_loss)
    if path.exists():
        trained = EntBC.load(path, device="cpu")
        _check_same_run(path, trained, command.seed, arguments, trained.num_timesteps, n_batches)
        return path
    env = gym.make(ENV_ID, obs_type=data.config.obs_type, image_size=data.config.image_size)
    log = command.out / "log"
    if checkpoint.exists():
        earlier = set_log_aside(log)
        model = EntBC.load(checkpoint, env=env, device=command.device, tensorboard_log=log)
        horizon = arguments["schedule"].horizon
        _check_same_run(checkpoint, model, command.seed, arguments, model.schedule.horizon, horizon)
        console.print(f"Going on from step {model.num_timesteps} of {checkpoint}")
    else:
        earlier = []
        model = EntBC(
            env=env, seed=command.seed, device=command.device, tensorboard_log=log, **arguments
        )
    model.set_demonstrations(data)

    def save_checkpoint() -> None:
        if model.num_timesteps % command.checkpoint_interval == 0:
            model.save(checkpoint)

    start = time.perf_counter()
    model.train(
        n_batches=n_batches - model.num_timesteps, on_batch_end=save_checkpoint, log_interval=50
    )
    model.save(path)
    join_logs(log, earlier)
    checkpoint.unlink(missing_ok=True)
    console.print(f"{path}: {n_batches} steps, {time.perf_counter() - start:.0f} s in this run")
    return path


def _check_same_run(
    path: Path,
    model: EntBC,
    seed: int,
    arguments: dict[str, Any],
    n_batches: int | None,
    n_asked: int | None,
) -> None:
    """Raises a ValueError if a saved model is not of the run that is asked for."""
    policy_kwargs = {key: model.policy.options[key] for key in arguments["policy_kwargs"]}
    pairs = {
        "seed": (model.seed, seed),
        "n_batches": (n_batches, n_asked),
        "policy_kwargs": (policy_kwargs, arguments["policy_kwargs"]),
        "losses": (model.losses, arguments["losses"]),
        "batches": (model.batches, arguments["batches"]),
        "batch_size": (model.batch_size, arguments["batch_size"]),
        "optimizer_kwargs": (model.optimizer_kwargs, arguments["optimizer_kwargs"]),
    }
    for name, (found, asked) in pairs.items():
        if found != asked:
            raise ValueError(
                f"{path} was trained with {name} {found}, and {asked} is asked for: choose "
                "another --out, or delete it."
            )


def evaluate(command: Evaluate) -> dict[str, Any]:
    """``ent-bc evaluate``; returns the results that it writes."""
    unknown = set(command.conditions) - set(CONDITIONS)
    if unknown:
        raise ValueError(f"Unknown conditions {sorted(unknown)}: expected some of {[*CONDITIONS]}.")
    model = EntBC.load(command.model, device="cpu")
    base = _evaluation_config(command, model)
    n_workers = command.n_workers or os.cpu_count() or 1
    conditions = {}
    with worker_pool(n_workers) as pool:
        for name in command.conditions:
            config = dataclasses.replace(base, **CONDITIONS[name])
            conditions[name] = _trials(command.model, config, command.out / "trials", name, pool)
    env_kwargs = base.env_kwargs()
    with console.status("Embedding, likeness, video"):
        sentences = embed_tasks(model, ENV_ID, env_kwargs, seed=command.seed)
        likeness = pair_distances(ENV_ID, env_kwargs)
        frames = video.record_side_by_side(
            model,
            ENV_ID,
            env_kwargs,
            0,
            seed=TRIAL_SEEDS + command.seed,
            demonstration_seed=command.seed + 1,  # by seed 0 both objects end at the goal
        )
        video.write_video(frames, command.out / "one_shot.mp4")
        video.write_gif(frames, command.out / "one_shot.gif")
    curves = command.model.parent / "log" / "progress.csv"
    results = write_report(
        command.out,
        conditions,
        base,
        curves_csv=curves if curves.exists() else None,
        sentences=sentences,
        pair_distance=likeness,
        video=command.out / "one_shot.mp4",
        commands=[f"ent-bc evaluate --model {command.model} --out {command.out}"],
    )
    console.print(terminal_table(results))
    console.print(f"Report: {command.out / 'report.html'}")
    return results


def quickstart(command: Quickstart) -> None:
    """``ent-bc quickstart``, which is ``make quickstart``."""
    data = command.out / "demonstrations"
    start = time.perf_counter()
    console.rule("1/3  Tasks and demonstrations")
    config = demonstrations_for("pixels", command.n_tasks, command.demos_per_task)
    collect_demonstrations(data, config)
    console.rule("2/3  Training")
    out = command.out / "model"
    model = train(Train(data, out, n_batches=command.n_batches, seed=command.seed))
    console.rule("3/3  One-shot evaluation on objects that were never seen")
    evaluate(
        Evaluate(
            model,
            command.out / "report",
            n_trials=command.n_trials,
            conditions=("own_1shot", "twin"),
        )
    )
    files = [path for path in command.out.rglob("*") if path.is_file()]
    console.print(
        f"The whole way took {(time.perf_counter() - start) / 60:.1f} minutes and "
        f"{sum(path.stat().st_size for path in files) / 1e9:.1f} GB of disk; at most "
        f"{_peak_memory(resource.RUSAGE_SELF):.1f} GiB of memory here and "
        f"{_peak_memory(resource.RUSAGE_CHILDREN):.1f} GiB in a worker"
    )


def _peak_memory(who: int) -> float:
    """The largest resident set of this process, or of one of its ended children, GiB."""
    return resource.getrusage(who).ru_maxrss / 2**20


def _evaluation_config(command: Evaluate, model: EntBC) -> EvaluationConfig:
    """The configuration of a single demonstration of its own, for the model's observations."""
    space = model.observation_space
    is_dict = isinstance(space, gym.spaces.Dict)
    image = space["pixels"] if isinstance(space, gym.spaces.Dict) else space
    has_image = len(image.shape or ()) == 3
    return EvaluationConfig(
        split=command.split,
        n_trials=command.n_trials,
        sample=command.sample,
        seed=command.seed,
        n_tasks=command.n_tasks,
        split_seed=command.split_seed,
        obs_type="pixels_agent_pos" if is_dict else "pixels" if has_image else "state",
        image_size=image.shape[0] if has_image and image.shape else 96,
    )


def _trials(
    model: Path, config: EvaluationConfig, folder: Path, name: str, pool: Executor
) -> list[Trial]:
    """Runs a condition's trials, or reads them where this model has already done them."""
    key = hashlib.sha256(model.read_bytes() + repr(config).encode()).hexdigest()
    path = folder / f"{name}.json"
    if path.exists():
        record = json.loads(path.read_text())
        if record["key"] == key:
            return [Trial(**trial) for trial in record["trials"]]
    with _progress(f"Trials, {name}") as on_progress:
        trials = evaluate_file(model, config, pool=pool, on_progress=on_progress)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    record = {"key": key, "trials": [dataclasses.asdict(trial) for trial in trials]}
    temporary.write_text(json.dumps(record))
    os.replace(temporary, path)
    return trials


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that is told how much is done, and of how much."""
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
