"""One run of figure 3: trains a variant of preset `paper`, and measures as it goes."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from imitation.util import logger as imit_logger
from stable_baselines3.common import logger as sb3_logger

from ent_bc.batches import BatchConfig
from ent_bc.benchmark.figure3_held_out import HeldOut
from ent_bc.benchmark.results import LETTERS
from ent_bc.benchmark.run import code_version, data_hash
from ent_bc.ent_bc import EntBC
from ent_bc.evaluation import ENV_ID, EvaluationConfig, evaluate_k_shot
from ent_bc.losses import LossConfig
from ent_bc.presets import PRESETS
from meta_pusher_env.dataset_layout import CollectConfig
from meta_pusher_env.datasets import DemonstrationSet

PAPER = PRESETS["paper"]
SEEDS = (0, 1, 2)
BATCH_COLUMNS = ("embedding_accuracy", "twin_accuracy", "mean_sigma", "query_loss")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A reading of the paper, as a change of preset `paper`."""

    title: str
    losses: LossConfig = PAPER.losses
    ent_weight: float = PAPER.ent_weight


VARIANTS = {
    "ent-bc": Variant("entropy-regularised, as printed"),
    "original": Variant("deterministic, no entropy term", ent_weight=0.0),
    "sampled-mse": Variant(
        "squared error of a sampled action",
        dataclasses.replace(PAPER.losses, control_loss="sampled_mse"),
    ),
    "pairing-sentence": Variant(
        "hinge against other sentences", dataclasses.replace(PAPER.losses, pairing="sentence")
    ),
    "nll": Variant(
        "negative log-likelihood", dataclasses.replace(PAPER.losses, control_loss="nll")
    ),
}


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What all runs have in common; by default the paper's, as far as a CPU goes."""

    n_demos: int = 1
    """Support demonstrations of a task, and as many query ones."""
    device: str = "cpu"
    """Torch device."""
    n_tasks: int | None = None
    """Training tasks; by default the split's own number."""
    demos_per_task: int = 4
    """Demonstrations of each."""
    n_val_tasks: int | None = None
    """Held-out tasks; by default the split's own number."""
    image_size: int = PAPER.image_size
    """Height and width of images, pixels."""
    batch_size: int = PAPER.batch_size
    """Tasks in a batch."""
    n_batches: int = PAPER.n_batches
    """Optimiser steps."""
    measure_every: int = 100
    """Steps between measurements of entropy and accuracies."""
    roll_out_every: int = 500
    """Steps between one-shot trials."""

    def __post_init__(self) -> None:
        if self.n_batches % self.roll_out_every or self.roll_out_every % self.measure_every:
            raise ValueError(
                f"n_batches is {self.n_batches}, roll_out_every {self.roll_out_every} and "
                f"measure_every {self.measure_every}, expected each a multiple of the next."
            )
        if self.demos_per_task < 2 * self.n_demos:
            raise ValueError(
                f"demos_per_task is {self.demos_per_task}, expected at least {2 * self.n_demos}: "
                f"{self.n_demos} support and {self.n_demos} query."
            )

    def demonstrations(self) -> CollectConfig:
        """What is learned from."""
        return CollectConfig(
            n_tasks=self.n_tasks,
            demos_per_task=self.demos_per_task,
            obs_type=PAPER.obs_type,
            image_size=self.image_size,
        )

    def trials(self, demonstrated: str, *, sample: bool = False) -> EvaluationConfig:
        """One trial of each held-out task; the same starts for all runs, steps and conditions."""
        return EvaluationConfig(
            split="val",
            n_trials=1,
            n_tasks=self.n_val_tasks,
            image_size=self.image_size,
            demonstrated=demonstrated,  # type: ignore[arg-type]
            sample=sample,
        )


def run(variant: str, seed: int, config: RunConfig, demonstrations: DemonstrationSet) -> Any:
    """Trains on one thread and measures.

    Args:
        variant: One of `VARIANTS`.
        seed: Of nets and batches; variants with the same seed begin alike.
        config: What to train and measure.
        demonstrations: What to learn from.

    Returns:
        JSON-ready: what was run, the task and pair ids that were held out, "points" (see
        `HeldOut.measure`; "rollouts" and "sampled" have one letter for each trial, as
        `results.Condition`), and the seconds that training and measuring took.
    """
    n_threads = th.get_num_threads()
    th.set_num_threads(1)
    try:
        held_out = HeldOut.of(config.trials("own"))
        batches = _BatchMetrics()
        model = make_model(VARIANTS[variant], seed, config, batches)
        model.set_demonstrations(demonstrations)
        points, seconds = _train_and_measure(model, held_out, config)
    finally:
        th.set_num_threads(n_threads)
    for point in points:
        point["batch"] = batches.mean(point["step"], config.measure_every)
    return {
        "variant": variant,
        "seed": seed,
        "config": dataclasses.asdict(config),
        "data_sha256": data_hash(demonstrations),
        "code": code_version(),
        "n_actions": int(np.prod(model.action_space.shape or ())),
        "task_ids": held_out.task_ids,
        "pair_ids": held_out.pair_ids,
        "points": points,
        "seconds": seconds,
    }


def make_model(variant: Variant, seed: int, config: RunConfig, metrics: _BatchMetrics) -> EntBC:
    """The untrained model of a variant."""
    preset = dataclasses.replace(
        PAPER,
        losses=variant.losses,
        ent_weight=variant.ent_weight,
        batch_size=config.batch_size,
        batches=BatchConfig(n_support=config.n_demos, n_query=config.n_demos, n_steps=1, early=0.0),
    )
    env = gym.make(ENV_ID, obs_type=preset.obs_type, image_size=config.image_size)
    logger = imit_logger.HierarchicalLogger(sb3_logger.Logger(None, [metrics]))
    arguments = preset.arguments(config.n_batches)
    return EntBC(env=env, seed=seed, device=config.device, custom_logger=logger, **arguments)


def _train_and_measure(
    model: EntBC, held_out: HeldOut, config: RunConfig
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The points, and the seconds of each part."""
    points: list[dict[str, Any]] = []
    seconds = dict.fromkeys(("training", "measuring"), 0.0)
    for step in range(0, config.n_batches + 1, config.measure_every):
        begin = time.perf_counter()
        if step:
            model.train(n_batches=config.measure_every, log_interval=1, progress_bar=False)
        trained = time.perf_counter()
        point = {"step": step, **held_out.measure(model)}
        if step and step % config.roll_out_every == 0:
            point["rollouts"] = _roll_out(model, config)
        if step == config.n_batches:
            point["sampled"] = _roll_out(model, config, sample=True)
        points.append(point)
        seconds["training"] += trained - begin
        seconds["measuring"] += time.perf_counter() - trained
    return points, seconds


def _roll_out(model: EntBC, config: RunConfig, *, sample: bool = False) -> dict[str, str]:
    """How the trials ended after the task's own demonstration, and after its twin's."""
    return {
        shown: "".join(
            LETTERS[trial.outcome]
            for trial in evaluate_k_shot(model, config.trials(shown, sample=sample))
        )
        for shown in ("own", "twin")
    }


class _BatchMetrics(sb3_logger.KVWriter):
    """Keeps what each training batch said, by optimiser step."""

    def __init__(self) -> None:
        self._rows: list[list[float]] = []

    def write(self, key_values: dict[str, Any], key_excluded: Any, step: int = 0) -> None:
        """Called by the logger after each step."""
        self._rows.append([float(key_values[f"bc/{name}"]) for name in BATCH_COLUMNS])

    def close(self) -> None:
        """Nothing is open."""

    def mean(self, step: int, n: int) -> dict[str, float]:
        """The mean over the last n batches up to a step; before training, the first batch."""
        rows = np.array(self._rows[max(0, step - n) : max(1, step)])
        return dict(zip(BATCH_COLUMNS, rows.mean(axis=0).tolist(), strict=True))
