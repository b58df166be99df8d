"""Settings that belong together, by name: the paper's, and the ones that were measured as best."""

from __future__ import annotations

import dataclasses
from typing import Any

from ent_bc.batches import BatchConfig
from ent_bc.losses import LossConfig
from ent_bc.schedule import ScheduleConfig, bfloat16_is_fast

# Of the picture, cut off at the top, bottom, left and right: there is nothing but the arm and the
# table; it leaves 50 x 72 pixels of 96 x 96.
WHERE_OBJECTS_ARE = (0.4, 1 / 12, 1 / 16, 3 / 16)


@dataclasses.dataclass(frozen=True)
class Preset:
    """A way to train on MetaPusher."""

    obs_type: str
    """Observation type of environment and demonstrations."""
    image_size: int
    """Height and width of images, pixels."""
    policy_kwargs: dict[str, Any]
    """Arguments of the policy."""
    losses: LossConfig
    """Options of the loss."""
    batches: BatchConfig
    """Options of the batches."""
    batch_size: int
    """Tasks in a batch."""
    learning_rate: float
    """Peak of the schedule."""
    n_batches: int
    """Optimiser steps, where nothing else is asked for."""
    cosine: bool = True
    """Whether the learning rate falls to 0 over the run."""
    low_precision: bool = False
    """Convolve in bfloat16, where `bfloat16_is_fast`."""
    several_workers: bool = True
    """Whether processes that share each batch are worth it: not where a step takes 30 ms."""
    ent_weight: float = 1e-5
    """Weight of the entropy term."""

    def arguments(self, n_batches: int) -> dict[str, Any]:
        """`EntBC`'s arguments for a run of so many steps."""
        horizon = n_batches if self.cosine else None
        low_precision = self.low_precision and bfloat16_is_fast()
        return {
            "policy_kwargs": self.policy_kwargs,
            "losses": self.losses,
            "batches": self.batches,
            "batch_size": self.batch_size,
            "optimizer_kwargs": {"lr": self.learning_rate},
            "ent_weight": self.ent_weight,
            "schedule": ScheduleConfig(horizon=horizon, low_precision=low_precision),
        }


PRESETS = {
    "pixels": Preset(
        obs_type="pixels_agent_pos",
        image_size=96,
        policy_kwargs={"architecture": "attention", "crop": WHERE_OBJECTS_ARE},
        losses=LossConfig(),
        batches=BatchConfig(),
        batch_size=32,
        learning_rate=4e-3,
        n_batches=3200,
        low_precision=True,
    ),
    "state": Preset(
        obs_type="state",
        image_size=96,
        policy_kwargs={"architecture": "attention", "slots": {"start": 20, "count": 2, "pose": 5}},
        losses=LossConfig(embedding_weight=10.0),
        batches=BatchConfig(n_steps=16),
        batch_size=32,
        learning_rate=2e-3,
        n_batches=3000,
        several_workers=False,
    ),
    "paper": Preset(
        obs_type="pixels_agent_pos",
        image_size=125,
        policy_kwargs={"architecture": "tiled"},
        losses=LossConfig(
            pairing="query",
            control_loss="mse",
            support_weight=0.1,
            query_weight=0.1,
            attention_weight=0.0,
        ),
        batches=BatchConfig(n_support=5, n_query=5, n_steps=1, early=0.0),
        batch_size=100,
        learning_rate=5e-4,
        n_batches=2000,
        cosine=False,
        low_precision=True,
    ),
}
