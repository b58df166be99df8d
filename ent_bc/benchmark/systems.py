"""How each system of the benchmark is trained: a function for each kind, settings for the rest."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import torch as th
from gymnasium import spaces
from torch import nn
from torch.utils._pytree import tree_map

from ent_bc.baselines import (
    BCConfig,
    ChunkNet,
    ContextualNet,
    DAggerConfig,
    DuanNet,
    Imitator,
    LstmNet,
    MilNet,
    MixtureNet,
    TrainConfig,
    train,
    train_bc,
    train_dagger,
)
from ent_bc.batches import BatchConfig, TaskBatches
from ent_bc.benchmark.cells import Cell
from ent_bc.benchmark.oracle import ORACLE_ENV_ID, MarkedDemonstrations
from ent_bc.ent_bc import EntBC
from ent_bc.evaluation import ENV_ID, Model
from ent_bc.presets import PRESETS, WHERE_OBJECTS_ARE
from ent_bc.schedule import bfloat16_is_fast
from meta_pusher_env.datasets import DemonstrationSet


@dataclasses.dataclass(frozen=True)
class Trained:
    """A system that has been trained.

    Attributes:
        model: What is evaluated.
        n_parameters: Numbers that were trained.
        n_samples: Pairs of observation and action that it was trained on.
        seconds: What that took, of one core.
        entropy: Of the policy, nats, on a batch of what it was trained on; None if it has none.
    """

    model: Model
    n_parameters: int
    n_samples: int
    seconds: float
    entropy: float | None


Settings = Mapping[str, Any]
OnStep = Callable[[], None]
Train = Callable[[Cell, Sequence[Any], Settings, OnStep], tuple[Model, nn.Module, BatchConfig]]
"""Trains, and tells each optimiser step; returns the model, what was trained, and its batches."""


@dataclasses.dataclass(frozen=True)
class System:
    """A system: how it is trained, and the settings that it got by tuning."""

    train: Train
    settings: Settings
    """Of the preset, the net or the training, what differs from their defaults."""
    env_id: str = ENV_ID
    view: Callable[[DemonstrationSet], Sequence[Any]] = lambda data: data
    """What it sees of a data set."""


def train_cell(
    cell: Cell, demonstrations: Sequence[Any], on_step: OnStep = lambda: None
) -> Trained:
    """Trains a cell's system on one thread."""
    system = SYSTEMS[cell.system]
    settings = merge(system.settings, cell.options)
    th.set_num_threads(1)
    th.manual_seed(cell.seed)
    begin = time.process_time()
    model, net, batches = system.train(cell, demonstrations, settings, on_step)
    seconds = time.process_time() - begin
    drawn = TaskBatches(demonstrations, settings["batch_size"], batches, cell.seed).batch(0)
    return Trained(
        model=model,
        n_parameters=sum(p.numel() for p in net.parameters() if p.requires_grad),
        n_samples=cell.n_batches * drawn["acts"][..., 0].size,
        seconds=seconds,
        entropy=_entropy(model, drawn),
    )


def _entropy(model: Model, batch: dict[str, Any]) -> float | None:
    if not isinstance(model, EntBC):
        return None
    tensors = tree_map(th.as_tensor, batch)
    with model.policy.evaluation_mode():
        metrics: Any = model.loss_calculator(model.policy, tensors["obs"], tensors["acts"])
    return float(metrics.entropy)


def train_ent_bc(
    cell: Cell, demonstrations: Sequence[Any], settings: Settings, on_step: OnStep
) -> tuple[Model, nn.Module, BatchConfig]:
    """`EntBC`, from the preset of the cell's observations."""
    preset = PRESETS["state" if cell.obs_type == "state" else "pixels"]
    arguments = preset.arguments(cell.n_batches)
    arguments["policy_kwargs"] = {**arguments["policy_kwargs"], **settings["policy_kwargs"]}
    arguments["losses"] = dataclasses.replace(preset.losses, **settings["losses"])
    arguments["batches"] = dataclasses.replace(preset.batches, **settings["batches"])
    arguments["batch_size"] = settings["batch_size"]
    arguments["ent_weight"] = settings["ent_weight"]
    arguments["optimizer_kwargs"] = {"lr": settings["learning_rate"]}
    model = EntBC(env=_make_env(cell), seed=cell.seed, device="cpu", **arguments)
    model.set_demonstrations(demonstrations)
    model.train(
        n_batches=cell.n_batches, on_batch_end=on_step, progress_bar=False, log_interval=10**9
    )
    return model, model.policy, arguments["batches"]


def train_imitator(imitator_class: type[Imitator]) -> Train:
    """A function that trains a baseline of this class."""

    def train_it(
        cell: Cell, demonstrations: Sequence[Any], settings: Settings, on_step: OnStep
    ) -> tuple[Model, nn.Module, BatchConfig]:
        env = _make_env(cell)
        assert isinstance(env.action_space, spaces.Box)
        net = imitator_class(
            env.observation_space, env.action_space, crop=WHERE_OBJECTS_ARE, **settings["net"]
        )
        config = TrainConfig(
            n_batches=cell.n_batches,
            batch_size=settings["batch_size"],
            learning_rate=settings["learning_rate"],
            low_precision=bfloat16_is_fast(),
            seed=cell.seed,
        )
        train(net, demonstrations, config, on_batch_end=lambda *_: on_step())
        return net, net, net.batches

    return train_it


def train_bc_blind(
    cell: Cell, demonstrations: Sequence[Any], settings: Settings, on_step: OnStep
) -> tuple[Model, nn.Module, BatchConfig]:
    """Imitation's BC, which is not shown anything."""
    return _train_bc(cell, demonstrations, settings, on_step, cell.n_batches, None)


def train_bc_sentence(
    cell: Cell, demonstrations: Sequence[Any], settings: Settings, on_step: OnStep
) -> tuple[Model, nn.Module, BatchConfig]:
    """Imitation's BC, told the sentences of an `EntBC` that gets the first half of the steps."""
    first = cell.n_batches // 2
    half = dataclasses.replace(cell, n_batches=first)
    # Batches as large as the second half's, so that samples can be counted in batches.
    embedding = {**settings["embedding"], "batch_size": settings["batch_size"]}
    model, *_ = train_ent_bc(half, demonstrations, embedding, on_step)
    assert isinstance(model, EntBC)
    n_batches = cell.n_batches - first
    return _train_bc(cell, demonstrations, settings, on_step, n_batches, model)


def _train_bc(
    cell: Cell,
    demonstrations: Sequence[Any],
    settings: Settings,
    on_step: OnStep,
    n_batches: int,
    sentences: EntBC | None,
) -> tuple[Model, nn.Module, BatchConfig]:
    env = _make_env(cell)
    assert isinstance(env.action_space, spaces.Box)
    config = BCConfig(
        n_batches=n_batches,
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        low_precision=bfloat16_is_fast(),
        seed=cell.seed,
        ent_weight=settings["ent_weight"],
    )
    clone = train_bc(
        demonstrations,
        env.observation_space,
        env.action_space,
        config,
        sentences=sentences,
        policy_kwargs={"crop": WHERE_OBJECTS_ARE, **settings["policy_kwargs"]},
        on_batch_end=lambda _: on_step(),
    )
    return clone, clone.policy, clone.batches


def train_ours_then_dagger(
    cell: Cell, demonstrations: Sequence[Any], settings: Settings, on_step: OnStep
) -> tuple[Model, nn.Module, BatchConfig]:
    """`EntBC`, then imitation's DAgger from there on training tasks, with the expert's labels.

    In the environment it takes as many steps as it had batches before.
    """
    model, _, batches = train_ent_bc(cell, demonstrations, settings, on_step)
    assert isinstance(model, EntBC)
    config = DAggerConfig(n_steps=cell.n_batches, seed=cell.seed, **settings["dagger"])
    clone = train_dagger(model, lambda: _make_env(cell), config, demonstrations)
    return clone, clone.policy, batches


def resolved(cell: Cell) -> Cell:
    """The cell with all settings of its system: with others it is another cell."""
    return dataclasses.replace(cell, options=merge(SYSTEMS[cell.system].settings, cell.options))


def merge(settings: Settings, changes: Settings) -> dict[str, Any]:
    """Settings with some changed; where they are mappings, entries of these.

    Raises:
        ValueError: A change of a setting that there is not.
    """
    unknown = set(changes) - set(settings)
    if unknown:
        raise ValueError(f"Unknown settings {sorted(unknown)}: expected some of {[*settings]}.")
    merged = copy.deepcopy(dict(settings))
    for key, value in changes.items():
        merged[key] = {**merged[key], **value} if isinstance(value, Mapping) else value
    return merged


def _make_env(cell: Cell) -> gym.Env[Any, Any]:
    return gym.make(SYSTEMS[cell.system].env_id, obs_type=cell.obs_type, image_size=cell.image_size)


_OURS: dict[str, Any] = {
    "policy_kwargs": {},
    "losses": {"attention_weight": 0.3},
    "batches": {},
    "batch_size": 32,
    "ent_weight": 1e-5,
    "learning_rate": 4e-3,
}
_BC: dict[str, Any] = {
    "policy_kwargs": {},
    "batch_size": 32,
    "learning_rate": 4e-3,
    "ent_weight": 1e-3,
}
_TILED: dict[str, Any] = {"policy_kwargs": {"architecture": "tiled"}}
_IMITATOR: dict[str, Any] = {"net": {}, "batch_size": 16, "learning_rate": 1e-3}
_FLAT: dict[str, Any] = merge(_IMITATOR, {"net": {"pooling": "flatten"}})
_ON_OURS: dict[str, Any] = {"net": {}, "batch_size": 32, "learning_rate": 4e-3}

SYSTEMS: dict[str, System] = {
    "ours": System(train_ent_bc, _OURS),
    # Deterministic: no entropy term, and squared error of the mean.
    "tecnets": System(
        train_ent_bc,
        merge(
            _OURS,
            {
                **_TILED,
                "losses": {
                    "pairing": "query",
                    "control_loss": "mse",
                    "support_weight": 0.1,
                    "query_weight": 0.1,
                    "attention_weight": 0.0,
                },
                "ent_weight": 0.0,
                "learning_rate": 1e-3,
            },
        ),
    ),
    "mil": System(
        train_imitator(MilNet), merge(_IMITATOR, {"batch_size": 8, "net": {"video_only": False}})
    ),
    "lstm": System(train_imitator(LstmNet), {**_FLAT, "learning_rate": 2e-3}),
    "contextual": System(train_imitator(ContextualNet), {**_FLAT, "learning_rate": 4e-3}),
    "bc": System(train_bc_blind, {**_BC, "ent_weight": 1e-1}),
    "bc_sentence": System(train_bc_sentence, {**merge(_BC, _TILED), "embedding": _OURS}),
    # Ours, told in its pictures instead of by a demonstration.
    "oracle": System(
        train_ent_bc,
        merge(_OURS, {"policy_kwargs": {"blind": True}}),
        env_id=ORACLE_ENV_ID,
        view=MarkedDemonstrations,
    ),
    "duan": System(train_imitator(DuanNet), {**_FLAT, "learning_rate": 4e-3}),
    "dagger": System(
        train_ours_then_dagger, {**_OURS, "dagger": {"learning_rate": 5e-5, "n_tasks": 694}}
    ),
    "mixture": System(train_imitator(MixtureNet), {**_ON_OURS, "batch_size": 16}),
    "chunks": System(train_imitator(ChunkNet), _ON_OURS),
}
"""All systems, with the settings that tuning on val gave; see `tuning`."""
