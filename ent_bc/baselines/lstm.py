"""The recurrent baseline: the demonstration first, then the rollout, in one LSTM."""

from __future__ import annotations

from typing import Any

import torch as th
from gymnasium import spaces
from torch import nn

from ent_bc.baselines.imitator import ActionHead, Imitator, PictureNet, Pooling, Shown
from ent_bc.batches import BatchConfig
from ent_bc.inputs import NO_CROP, Crop

SPACING = 11
"""Steps between the observations that data sets store of an episode of 100, on average."""


class LstmNet(Imitator):
    """An LSTM that watches the demonstration and goes on through the rollout.

    Source: the baseline "LSTM" of Finn et al. (2017), "One-shot visual imitation learning via
    meta-learning", section 6, after Duan et al. (2017). Video only: of the demonstration it gets
    the pictures. A flag tells them from the rollout's own. Several demonstrations are watched one
    after another.

    In training a rollout has the stored frames only, so at evaluation, where it acts in each step,
    it remembers each `spacing`-th one: its state is its memory (h, c) and the number of the step.

    Args:
        observation_space: See `Imitator`.
        action_space: The same.
        crop: The same.
        pooling: See `PictureNet`.
        hidden_size: Numbers in h, and in c.
        spacing: Steps from one remembered frame of the rollout to the next: as far as the stored
            observations of the demonstrations are apart.
    """

    batches = BatchConfig(n_steps=None)

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        *,
        crop: Crop = NO_CROP,
        pooling: Pooling = "flatten",
        hidden_size: int = 256,
        spacing: int = SPACING,
    ) -> None:
        super().__init__(observation_space, action_space, crop=crop)
        if spacing < 1:
            raise ValueError(f"spacing is {spacing}, expected at least 1 step.")
        self.spacing = spacing
        self.pictures = PictureNet(self.image_shape, pooling)
        self.lstm = nn.LSTM(self.pictures.n_features + 1, hidden_size, batch_first=True)
        n_inputs = hidden_size + self.pictures.n_features + self.layout.vector_dim
        self.head = ActionHead(n_inputs, action_space)

    def perceive(self, obs: Any) -> dict[str, th.Tensor]:
        """See `Imitator`."""
        inputs = self.to_inputs(obs)
        return {"features": self.pictures(inputs["pixels"]), "vector": inputs["vector"]}

    def remember(self, shown: Shown) -> th.Tensor:
        """The memory after the demonstrations, and that no step was made."""
        features = shown.frames["features"].flatten(1, 2)
        nothing = features.new_zeros(len(features), 2 * self.lstm.hidden_size)
        _, memory = self._watch(features, nothing, flag=1.0)
        return th.cat([memory, memory.new_zeros(len(memory), 1)], dim=-1)

    def act(self, obs: Any, state: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """See `Imitator`."""
        memory, step = state[:, :-1], state[:, -1:]
        outputs, after = self._watch(obs["features"][:, None], memory, flag=0.0)
        acts = self._answer(outputs[:, 0], obs)
        kept = th.where(step % self.spacing == 0, after, memory)
        return acts, th.cat([kept, step + 1], dim=-1)

    def roll_out(self, obs: Any, state: th.Tensor) -> th.Tensor:
        """See `Imitator`; each frame is remembered."""
        outputs, _ = self._watch(obs["features"], state[:, :-1], flag=0.0)
        return self._answer(outputs, obs)

    def _watch(
        self, features: th.Tensor, memory: th.Tensor, flag: float
    ) -> tuple[th.Tensor, th.Tensor]:
        """Frames (B, F, D) in order, from a memory (B, 2 H): outputs (B, F, H) and the memory."""
        flags = features.new_full((*features.shape[:2], 1), flag)
        hidden, cell = (part[None].contiguous() for part in memory.chunk(2, dim=-1))
        outputs, after = self.lstm(th.cat([features, flags], dim=-1), (hidden, cell))
        return outputs, th.cat(after, dim=-1)[0]

    def _answer(self, outputs: th.Tensor, obs: Any) -> th.Tensor:
        return self.head(th.cat([outputs, obs["features"], obs["vector"]], dim=-1))
