"""From an observation and a sentence to features, as a Stable-Baselines3 features extractor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn import functional as F

from ent_bc.layers import (
    LocalFeatures,
    count_features,
    in_pieces,
    mlp,
    soft_argmax,
    strided_convolutions,
)
from ent_bc.observations import NO_SENTENCE, SENTENCE_KEY, is_hwc, to_chw

Architecture = Literal["tiled", "attention"]
Inputs = Mapping[str, th.Tensor]
"""Normalised, batched tensors: "pixels" (N, C, H, W) in [0, 1], "vector" (N, D), "slots" (N, count,
slot_dim), "sentence" (N, sentence_dim); each where there is such."""


@dataclasses.dataclass(frozen=True)
class SlotLayout:
    """Where a flat state observation lists interchangeable objects.

    The observation is ``start`` numbers of the agent's own, then ``count`` equally long slots. The
    first ``pose`` numbers of a slot say where its object is, the rest how it looks; None: all may.
    """

    start: int
    count: int
    pose: int | None = None


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


class TaskFeaturesExtractor(BaseFeaturesExtractor):
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
        crop: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        dict_space: spaces.Dict | None = None,
    ) -> None:
        _check_crop(crop)
        if dict_space is not None:
            _check_flat(observation_space, dict_space)
        if isinstance(slots, Mapping):
            slots = SlotLayout(**slots)
        parts = _parts(dict_space or observation_space)
        images = {key: box for key, box in parts.items() if len(box.shape) == 3}
        if len(images) > 1:
            raise ValueError(f"Two images {sorted(images)} in the observation, expected one.")
        vector_keys = [key for key in sorted(parts) if key not in images]
        vector_dim = sum(parts[key].shape[0] for key in vector_keys)
        net: nn.Module
        slot_dim = 0
        image_shape = None
        rows = columns = slice(0)
        whole = (0, 0)
        if images:
            ((_, image),) = images.items()
            channels, height, image_width = to_chw(image.shape)
            whole = (image_width, height)
            rows, columns = _kept(height, *crop[:2]), _kept(image_width, *crop[2:])
            image_shape = (channels, rows.stop - rows.start, columns.stop - columns.start)
            net_class = AttentionExtractor if architecture == "attention" else TiledExtractor
            net = net_class(image_shape, vector_dim, sentence_dim)
        elif architecture == "tiled" or slots is None:
            slots = None
            net = ConcatExtractor(vector_dim, sentence_dim)
        else:
            slot_dim = _slot_dim(vector_dim, slots)
            vector_dim = slots.start
            net = SlotExtractor(slot_dim, vector_dim, sentence_dim, slots.pose)
        super().__init__(observation_space, net.features_dim)
        self.net = net
        self._rows, self._columns = rows, columns
        self._whole = whole
        self.slots, self.slot_dim = slots, slot_dim
        self.image_shape, self.vector_dim = image_shape, vector_dim
        self._is_dict = isinstance(observation_space, spaces.Dict)
        self._dict_space = dict_space
        self._image_key = next(iter(images), None)
        self._vector_keys = vector_keys
        self.register_buffer("vector_mean", th.zeros(vector_dim))
        self.register_buffer("vector_std", th.ones(vector_dim))
        self.register_buffer("slots_mean", th.zeros(slot_dim))
        self.register_buffer("slots_std", th.ones(slot_dim))

    def forward(self, observations: Any) -> th.Tensor:
        """Features (N, features_dim) of an observation that holds its sentence."""
        return self.attend(observations).latent

    def attend(self, observations: Any, sentence: th.Tensor | None = None) -> Features:
        """Features and attention; the sentence from the argument, else from the observation."""
        if sentence is None:
            sentence = self._to_parts(observations).get(SENTENCE_KEY)
            if sentence is None:
                raise ValueError(NO_SENTENCE)
        return in_pieces(self._attend, self._to_parts(observations), sentence.float())

    def _attend(self, parts: Mapping[str, th.Tensor], sentence: th.Tensor) -> Features:
        features: Features = self.net({**self.to_inputs(parts), SENTENCE_KEY: sentence})
        return features

    def to_inputs(self, observations: Any) -> dict[str, th.Tensor]:
        """The one place where observations become normalised tensors; see `Inputs`."""
        parts = self._to_parts(observations)
        inputs = {
            name: (values - getattr(self, f"{name}_mean")) / getattr(self, f"{name}_std")
            for name, values in self._vectors(parts).items()
        }
        if self._image_key is not None:
            pixels = parts[self._image_key]
            if is_hwc(pixels.shape):
                pixels = pixels.permute(0, 3, 1, 2)
            inputs["pixels"] = pixels[:, :, self._rows, self._columns] / 255.0
        return inputs

    def _to_parts(self, observations: Any) -> Mapping[str, th.Tensor]:
        """The entries of a Dict observation, or of its flattened view; a bare one has no name."""
        if isinstance(observations, Mapping):
            return observations
        if self._is_dict:  # a Dict of one entry, beside the sentence, may come without its name
            return {self._image_key or self._vector_keys[0]: observations}
        if self._dict_space is None:
            return {"": observations}
        boxes = {key: box.shape for key, box in self._dict_space.spaces.items()}
        sizes = [math.prod(shape or ()) for shape in boxes.values()]
        entries = observations.split(sizes, dim=-1)
        return {
            key: entry.unflatten(-1, shape)
            for (key, shape), entry in zip(boxes.items(), entries, strict=True)
        }

    def _vectors(self, parts: Mapping[str, th.Tensor]) -> dict[str, th.Tensor]:
        if not self._vector_keys or not all(key in parts for key in self._vector_keys):
            return {}  # an observation from a video has its image alone
        vector = th.cat([parts[key].float() for key in self._vector_keys], dim=-1)
        if self.slots is None:
            return {"vector": vector}
        slots = vector[:, self.slots.start :].unflatten(-1, (self.slots.count, -1))
        return {"vector": vector[:, : self.slots.start], "slots": slots}

    def crop_positions(self, positions: th.Tensor) -> th.Tensor:
        """Places (..., 2) in the whole image as places in the cropped one; both in [-1, 1]."""
        whole = th.tensor(self._whole).to(positions)
        first = th.tensor([self._columns.start, self._rows.start]).to(positions)
        kept = th.tensor([self._columns.stop, self._rows.stop]).to(positions) - first
        return (whole * (positions + 1) - 2 * first) / kept - 1

    @property
    def is_fitted(self) -> bool:
        """Whether the normalisation was set, here or where the parameters come from."""
        parts = ("vector_mean", "slots_mean")
        return any(bool(getattr(self, part).any()) for part in parts)

    @th.no_grad()
    def fit_normalisation(self, observations: Any) -> None:
        """Sets mean and standard deviation from a batch (N, ...); images are not needed."""
        for name, values in self._vectors(self._to_parts(observations)).items():
            values = values.flatten(0, -2)
            getattr(self, f"{name}_mean").copy_(values.mean(dim=0))
            # A constant entry says nothing: leave it at 0 rather than blow up its rounding.
            std = values.std(dim=0, correction=min(1, len(values) - 1))
            getattr(self, f"{name}_std").copy_(th.where(std < 1e-4, th.ones_like(std), std))


def _parts(space: spaces.Space[Any]) -> dict[str, spaces.Box]:
    """The boxes that make up an observation, without the sentence; a bare one has no name."""
    parts = dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}
    parts.pop(SENTENCE_KEY, None)
    boxes: dict[str, spaces.Box] = {}
    for key, part in parts.items():
        if not isinstance(part, spaces.Box) or len(part.shape) not in (1, 3):
            raise ValueError(
                f"Observation {key or 'space'} is {part}, expected a Box with 1 dimension (a "
                "vector) or 3 (an image)."
            )
        boxes[key] = part
    return boxes


def _check_crop(crop: Sequence[float]) -> None:
    fits = len(crop) == 4 and min(crop) >= 0
    if not fits or max(crop[0] + crop[1], crop[2] + crop[3]) >= 1:
        raise ValueError(
            f"crop is {tuple(crop)}, expected four fractions of the image, not negative: top and "
            "bottom together below 1, left and right as well."
        )


def _kept(size: int, before: float, after: float) -> slice:
    """The rows, or columns, that are left of so many."""
    return slice(round(before * size), size - round(after * size))


def _check_flat(space: spaces.Space[Any], dict_space: spaces.Dict) -> None:
    expected = spaces.flatten_space(dict_space).shape
    if space.shape != expected:
        raise ValueError(
            f"The observation space is {space}, and {dict_space} flattened would be {expected}: "
            "pass the space from before FlattenObservation as dict_space."
        )


def _slot_dim(vector_dim: int, slots: SlotLayout) -> int:
    slot_dim, remainder = divmod(vector_dim - slots.start, slots.count)
    if slot_dim < 1 or remainder:
        raise ValueError(
            f"{slots} does not fit an observation of {vector_dim} numbers: what is behind the "
            f"first {slots.start} must divide into {slots.count} equal slots."
        )
    return slot_dim
