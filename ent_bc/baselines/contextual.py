"""The contextual network: the demonstration's last picture beside the current one."""

from __future__ import annotations

from typing import Any

import torch as th
from gymnasium import spaces
from torch.utils._pytree import tree_map

from ent_bc.baselines.imitator import ActionHead, Imitator, PictureNet, Pooling, Shown
from ent_bc.inputs import NO_CROP, Crop


class ContextualNet(Imitator):
    """A feedforward net that sees the demonstration's last picture beside the current one.

    Source: the baseline "contextual" of Finn et al. (2017), "One-shot visual imitation learning via
    meta-learning", section 6, which TecNets compares with too: both pictures are stacked on
    channels. Of several demonstrations it sees the first one.

    Args:
        observation_space: See `Imitator`.
        action_space: The same.
        crop: The same.
        pooling: See `PictureNet`.
    """

    n_demonstrated_obs = 2

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        *,
        crop: Crop = NO_CROP,
        pooling: Pooling = "flatten",
    ) -> None:
        super().__init__(observation_space, action_space, crop=crop)
        channels, height, width = self.image_shape
        self.pictures = PictureNet((2 * channels, height, width), pooling)
        self.head = ActionHead(self.pictures.n_features + self.layout.vector_dim, action_space)

    def remember(self, shown: Shown) -> th.Tensor:
        """The last picture itself."""
        last = tree_map(lambda leaf: leaf[:, 0], shown.last)
        return self.to_inputs(last)["pixels"].flatten(1)

    def act(self, obs: Any, state: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """See `Imitator`."""
        inputs = self.to_inputs(obs)
        both = th.cat([inputs["pixels"], state.view_as(inputs["pixels"])], dim=1)
        return self.head(th.cat([self.pictures(both), inputs["vector"]], dim=-1)), state
