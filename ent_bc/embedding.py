"""From a demonstration to a unit vector, the "sentence" (TecNets, and section 2.1 of the paper).

Each encoder reads the first and the last observation of a demonstration and nothing else: for
pixels no states and no actions, video only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch as th
from torch import nn
from torch.nn import functional as F

from ent_bc.layers import LocalFeatures, count_features, mlp, soft_argmax, strided_convolutions

Describe = Callable[..., th.Tensor]


@dataclasses.dataclass(frozen=True)
class Embedding:
    """What an encoder says of a batch of demonstrations.

    Attributes:
        sentences: (N, sentence_dim), unit norm.
        attention: (N, H, W) logits of where in the first image it looked, or None.
    """

    sentences: th.Tensor
    attention: th.Tensor | None = None


class TiledEncoder(nn.Module):
    """The paper's and TecNets' net: 4 x (conv 5x5, stride 2, 16), then 3 x 200, on 6 channels."""

    def __init__(self, image_shape: tuple[int, int, int], sentence_dim: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.convolutions = strided_convolutions(2 * channels)
        n_features = count_features(self.convolutions, (2 * channels, height, width))
        self.head = nn.Sequential(
            nn.Flatten(), mlp(n_features, [200] * 3), nn.Linear(200, sentence_dim)
        )

    def forward(self, first: th.Tensor, last: th.Tensor) -> Embedding:
        """Embeds (N, C, H, W) first and last images in [0, 1]."""
        features = self.convolutions(th.cat([first, last], dim=1).sub_(0.5))
        return Embedding(F.normalize(self.head(features), dim=-1))


class AttentionEncoder(nn.Module):
    """Finds what was moved by comparing the two images; how it looked at first is the sentence.

    The looks are described by the control network's own local features, so that a sentence is what
    the policy will look for. The map of where to look can be trained in hindsight, towards where
    the demonstrator came down.
    """

    def __init__(self, n_channels: int, describe: Describe, width: int = 16) -> None:
        super().__init__()
        self.where = LocalFeatures(2 * n_channels, width, 1, dilation=2)
        self.describe = describe

    def forward(self, first: th.Tensor, last: th.Tensor) -> Embedding:
        """Embeds (N, C, H, W) first and last images in [0, 1]."""
        logits = self.where(th.cat([first, last], dim=1) - 0.5)
        weights, _ = soft_argmax(logits)
        return Embedding(F.normalize(self.describe(first, weights[:, 0]), dim=-1), logits[:, 0])


class MlpEncoder(nn.Module):
    """The paper's net without its convolutions, for vector observations."""

    def __init__(self, n_inputs: int, sentence_dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(mlp(2 * n_inputs, [200] * 3), nn.Linear(200, sentence_dim))

    def forward(self, first: th.Tensor, last: th.Tensor) -> Embedding:
        """Embeds (N, D) first and last observations."""
        return Embedding(F.normalize(self.net(th.cat([first, last], dim=-1)), dim=-1))


class SlotEncoder(nn.Module):
    """Finds the slot that was moved by comparing first and last state, and describes it.

    As in `AttentionEncoder`, the control network's own description of a slot is the sentence.
    """

    def __init__(self, slot_dim: int, describe: Describe) -> None:
        super().__init__()
        self.score = nn.Sequential(mlp(2 * slot_dim, [64]), nn.Linear(64, 1))
        self.describe = describe

    def forward(self, first: th.Tensor, last: th.Tensor) -> Embedding:
        """Embeds (N, n_slots, slot_dim) first and last slots."""
        weights = F.softmax(self.score(th.cat([first, last - first], dim=-1)), dim=-2)
        return Embedding(F.normalize((weights * self.describe(first)).sum(dim=-2), dim=-1))
