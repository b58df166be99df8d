"""One-shot imitation with attention over the demonstration's frames."""

from __future__ import annotations

import math
from typing import Any

import torch as th
from gymnasium import spaces
from torch import nn

from ent_bc.baselines.imitator import ActionHead, Imitator, PictureNet, Pooling, Shown
from ent_bc.batches import BatchConfig
from ent_bc.inputs import NO_CROP, Crop

N_HEADS = 4
N_WAVES = 4
"""Cosines that say when in its demonstration a frame is."""


class DuanNet(Imitator):
    """The current observation asks the demonstration's frames what to do.

    Source: Duan et al. (2017), "One-shot imitation learning", section 4.2: soft attention over
    the demonstration's time steps, with the current observation as the query, gives a context to
    the net that acts. Their attention over blocks (sections 4.1, 4.2) needs the blocks' poses and
    has no part here, where there are pictures; their temporal dropout is the sparse frames. Video
    only. Of several demonstrations all frames are attended to.

    Args:
        observation_space: See `Imitator`.
        action_space: The same.
        crop: The same.
        pooling: See `PictureNet`.
        width: Numbers that a frame is remembered with; its state has so many for each frame.
    """

    batches = BatchConfig(n_steps=None)

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        *,
        crop: Crop = NO_CROP,
        pooling: Pooling = "flatten",
        width: int = 64,
    ) -> None:
        super().__init__(observation_space, action_space, crop=crop)
        self.pictures = PictureNet(self.image_shape, pooling)
        n_inputs = self.pictures.n_features + self.layout.vector_dim
        self.frame = nn.Linear(self.pictures.n_features + N_WAVES, width)
        self.query = nn.Linear(n_inputs, width)
        self.attention = nn.MultiheadAttention(width, N_HEADS, batch_first=True)
        self.head = ActionHead(n_inputs + width, action_space)

    def perceive(self, obs: Any) -> dict[str, th.Tensor]:
        """See `Imitator`."""
        inputs = self.to_inputs(obs)
        return {"features": self.pictures(inputs["pixels"]), "vector": inputs["vector"]}

    def remember(self, shown: Shown) -> th.Tensor:
        """All frames of the demonstrations, each with when in its demonstration it is."""
        features = shown.frames["features"]
        when = th.linspace(0, math.pi, features.shape[2])[:, None] * th.arange(1, N_WAVES + 1)
        waves = when.cos().to(features).expand(*features.shape[:3], -1)
        return self.frame(th.cat([features, waves], dim=-1)).flatten(1)

    def act(self, obs: Any, state: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """See `Imitator`."""
        current = th.cat([obs["features"], obs["vector"]], dim=-1)
        frames = state.unflatten(-1, (-1, self.query.out_features))
        query = self.query(current)[:, None]
        context, _ = self.attention(query, frames, frames, need_weights=False)
        return self.head(th.cat([current, context[:, 0]], dim=-1)), state
