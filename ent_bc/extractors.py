"""From an observation and a sentence to features, as a Stable-Baselines3 features extractor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn import functional as F

from ent_bc.inputs import NO_CROP, Crop, Inputs, Layout, ReadsObservations, SlotLayout
from ent_bc.layers import (
    LocalFeatures,
    count_features,
    in_pieces,
    mlp,
    soft_argmax,
    strided_convolutions,
)
from ent_bc.observations import NO_SENTENCE, SENTENCE_KEY

Architecture = Literal["tiled", "attention"]


@dataclasses.dataclass(frozen=True)
class Features:
    """What an extractor hands to the control head.

    Attributes:
        latent: (N, features_dim).
        attention: (N, H, W) logits of the map that should find the target, or None.
    """

    latent: th.Tensor
    attention: th.Tensor | None = None


class TiledExtractor(nn.Module):
    """The paper's net: the sentence tiled over the image as channels, convolutions, the vector."""

    def __init__(
        self, image_shape: tuple[int, int, int], vector_dim: int, sentence_dim: int
    ) -> None:
        super().__init__()
        channels, *_ = image_shape
        self.convolutions = strided_convolutions(channels, sentence_dim)
        n_features = count_features(self.convolutions, image_shape, (sentence_dim,))
        self.features_dim = n_features + vector_dim

    def forward(self, inputs: Inputs) -> Features:
        """See `Inputs`."""
        maps = self.convolutions(inputs["pixels"] - 0.5, inputs["sentence"])
        parts = [maps.flatten(1)] + ([inputs["vector"]] if "vector" in inputs else [])
        return Features(th.cat(parts, dim=-1))


class AttentionExtractor(nn.Module):
    """The sentence says what to look for; local features of the image say where it is.

    Each place of the image is described by as many numbers as a sentence has; their product is an
    attention map, and the map's soft-argmax position is what control is told. A few more maps, of
    queries made from the sentence and of none, find the rest of the scene. Control is told neither
    the sentence nor any looks: from these it would learn the training tasks by heart.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        vector_dim: int,
        sentence_dim: int,
        *,
        width: int = 16,
        n_queried: int = 3,
        n_free: int = 4,
    ) -> None:
        super().__init__()
        self.n_channels, self.sentence_dim = image_shape[0], sentence_dim
        self.n_queried, self.n_free = n_queried, n_free
        self.local = LocalFeatures(image_shape[0], width, sentence_dim + n_free)
        self.query = nn.Linear(sentence_dim, n_queried * sentence_dim)
        self.sharpness = nn.Parameter(th.tensor(5.0))
        self.features_dim = 2 * (1 + n_queried + n_free) + vector_dim

    def describe(self, pixels: th.Tensor, weights: th.Tensor) -> th.Tensor:
        """How an image looks at some places, on average.

        Args:
            pixels: (N, C, H, W) in [0, 1].
            weights: (N, H/2 * W/2) of its places; they sum to one.

        Returns:
            (N, sentence_dim).
        """
        pooled = weights[:, None] @ self.local.hidden(pixels - 0.5).float()
        weight, bias = self.local.last()
        return F.linear(pooled[:, 0], weight[: self.sentence_dim], bias[: self.sentence_dim])

    def forward(self, inputs: Inputs) -> Features:
        """See `Inputs`."""
        pixels = inputs["pixels"]
        height, width = ((size + 1) // 2 for size in pixels.shape[2:])
        maps = self._maps(self.local.hidden(pixels - 0.5), inputs["sentence"])
        _, positions = soft_argmax(maps.unflatten(-1, (height, width)))
        parts = [positions.flatten(1)] + ([inputs["vector"]] if "vector" in inputs else [])
        return Features(th.cat(parts, dim=-1), maps[:, 0].unflatten(-1, (height, width)))

    def _maps(self, hidden: th.Tensor, sentence: th.Tensor) -> th.Tensor:
        """The attention maps, each but for a constant: (N, 1 + n_queried + n_free, H/2 * W/2).

        The places' looks are never made: they are linear in what is hidden, so that a query asks
        that instead. What the biases add is the same at all places, and attention to none.
        """
        looks, free = self.local.last()[0].split([self.sentence_dim, self.n_free])
        queries = self.query(sentence).unflatten(-1, (self.n_queried, self.sentence_dim))
        queries = th.cat([self.sharpness * sentence[:, None], queries], dim=1)
        asked = th.cat([queries @ looks, free.expand(len(queries), -1, -1)], dim=1)
        maps = th.bmm(hidden, asked.transpose(1, 2).to(hidden.dtype))
        return maps.transpose(1, 2).float().contiguous()


class ConcatExtractor(nn.Module):
    """Vector observation and sentence side by side: the paper's conditioning without an image."""

    def __init__(self, vector_dim: int, sentence_dim: int) -> None:
        super().__init__()
        self.features_dim = vector_dim + sentence_dim

    def forward(self, inputs: Inputs) -> Features:
        """See `Inputs`."""
        return Features(th.cat([inputs["vector"], inputs["sentence"]], dim=-1))


class SlotExtractor(nn.Module):
    """The sentence says which slot to look for; its pose comes first, then the others'.

    As in `AttentionExtractor`, control is told neither the sentence nor any looks.
    """

    def __init__(
        self, slot_dim: int, vector_dim: int, sentence_dim: int, pose_dim: int | None
    ) -> None:
        super().__init__()
        self.pose_dim = pose_dim or slot_dim
        self.looks = nn.Sequential(mlp(slot_dim, [128, 128]), nn.Linear(128, sentence_dim))
        self.sharpness = nn.Parameter(th.tensor(10.0))
        self.features_dim = vector_dim + 2 * self.pose_dim

    def describe(self, slots: th.Tensor) -> th.Tensor:
        """How the object of each slot looks: (..., slot_dim) -> (..., sentence_dim)."""
        looks: th.Tensor = self.looks(slots)
        return looks

    def forward(self, inputs: Inputs) -> Features:
        """See `Inputs`."""
        slots, sentence = inputs["slots"], inputs["sentence"]
        looks = F.normalize(self.describe(slots), dim=-1)
        weights = F.softmax(self.sharpness * looks @ sentence[:, :, None], dim=-2)
        poses = slots[..., : self.pose_dim]
        found = (weights * poses).sum(dim=-2)
        rest = poses.sum(dim=-2) - found
        return Features(th.cat([inputs["vector"], found, rest], dim=-1))


class TaskFeaturesExtractor(ReadsObservations, BaseFeaturesExtractor):
    """Observation and sentence to features, with the normalisation of both; an SB3 extractor.

    It takes images as H x W x C or C x H x W, whichever the space says, bare or in a Dict;
    one-dimensional entries of a Dict are joined, in the order of their keys, to one vector. The
    statistics are buffers, saved with the parameters.

    Args:
        observation_space: Box, or Dict of Boxes; the key "sentence" is the sentence.
        architecture: "attention" or "tiled".
        sentence_dim: Length of a sentence.
        slots: Layout of a flat state observation; needed for "attention" there.
        crop: Fractions of the image that are cut off at the top, bottom, left and right.
        dict_space: The Dict that observations were before Gymnasium's ``FlattenObservation``, for
            trainers that take arrays only.

    Raises:
        ValueError: An option is out of range, or does not fit the space.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        architecture: Architecture = "attention",
        sentence_dim: int = 20,
        slots: SlotLayout | Mapping[str, int] | None = None,
        crop: Crop = NO_CROP,
        dict_space: spaces.Dict | None = None,
    ) -> None:
        if isinstance(slots, Mapping):
            slots = SlotLayout(**slots)
        layout = Layout.of(
            observation_space,
            crop=crop,
            slots=slots if architecture == "attention" else None,
            dict_space=dict_space,
        )
        net: nn.Module
        if layout.image_shape is not None:
            net_class = AttentionExtractor if architecture == "attention" else TiledExtractor
            net = net_class(layout.image_shape, layout.vector_dim, sentence_dim)
        elif layout.slots is None:
            net = ConcatExtractor(layout.vector_dim, sentence_dim)
        else:
            pose = layout.slots.pose
            net = SlotExtractor(layout.slot_dim, layout.vector_dim, sentence_dim, pose)
        super().__init__(observation_space, net.features_dim)
        self.net = net
        self.read_as(layout)

    def forward(self, observations: Any) -> th.Tensor:
        """Features (N, features_dim) of an observation that holds its sentence."""
        return self.attend(observations).latent

    def attend(self, observations: Any, sentence: th.Tensor | None = None) -> Features:
        """Features and attention; the sentence from the argument, else from the observation."""
        if sentence is None:
            sentence = self.to_parts(observations).get(SENTENCE_KEY)
            if sentence is None:
                raise ValueError(NO_SENTENCE)
        return in_pieces(self._attend, self.to_parts(observations), sentence.float())

    def _attend(self, parts: Mapping[str, th.Tensor], sentence: th.Tensor) -> Features:
        features: Features = self.net({**self.to_inputs(parts), SENTENCE_KEY: sentence})
        return features
