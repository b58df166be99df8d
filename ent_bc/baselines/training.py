"""Training of an `Imitator`: Adam, the schedule of `EntBC`, and the same batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch as th
from torch.utils._pytree import tree_map

from ent_bc.baselines.imitator import Imitator
from ent_bc.batches import TaskBatches
from ent_bc.demonstrations import DemonstrationLike, sample_vectors
from ent_bc.layers import use_low_precision
from ent_bc.prefetch import prefetch
from ent_bc.schedule import ScheduleConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How an imitator is trained."""

    n_batches: int
    """Optimiser steps."""
    batch_size: int = 32
    """Tasks in a batch."""
    learning_rate: float = 1e-3
    """Peak of the schedule, a cosine that ends at 0."""
    low_precision: bool = False
    """Convolve in bfloat16."""
    seed: int = 0
    """Of the batches; the net was made before, with torch's own."""


def train(
    imitator: Imitator,
    demonstrations: Sequence[DemonstrationLike],
    config: TrainConfig,
    *,
    on_batch_end: Callable[[int, float], None] | None = None,
) -> None:
    """Trains in place.

    Args:
        imitator: Its normalisation is taken from the demonstrations.
        demonstrations: As for `EntBC.set_demonstrations`.
        config: How.
        on_batch_end: Told the step, counted from 1, and its loss.

    Raises:
        FloatingPointError: The loss is no longer finite.
    """
    batches = TaskBatches(demonstrations, config.batch_size, imitator.batches, config.seed)
    rng = np.random.default_rng(config.seed)
    imitator.fit_normalisation(tree_map(th.as_tensor, sample_vectors(demonstrations, rng)))
    use_low_precision(imitator, config.low_precision)
    optimizer = th.optim.Adam(imitator.parameters(), lr=config.learning_rate)
    schedule = ScheduleConfig(horizon=config.n_batches)
    imitator.train()
    for step, batch in enumerate(prefetch(map(batches.batch, range(config.n_batches)))):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule.factor(step)
        tensors = tree_map(th.as_tensor, batch)
        loss = imitator.loss(tensors["obs"], tensors["acts"])
        if not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"At step {step} the loss is {loss.item()}: lower the learning rate "
                f"({config.learning_rate})."
            )
        optimizer.zero_grad()
        loss.backward()
        th.nn.utils.clip_grad_norm_(imitator.parameters(), schedule.max_grad_norm)
        optimizer.step()
        if on_batch_end is not None:
            on_batch_end(step + 1, loss.item())
    imitator.eval()
    use_low_precision(imitator, False)
