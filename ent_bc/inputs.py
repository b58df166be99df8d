"""From observations as environments give them to normalised tensors as networks take them.

The one place where an image is cropped, scaled and turned to channels first, and where vectors are
joined and normalised.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch as th
from gymnasium import spaces
from torch import nn

from ent_bc.observations import SENTENCE_KEY, is_hwc, to_chw

Inputs = Mapping[str, th.Tensor]
"""Normalised, batched tensors: "pixels" (N, C, H, W) in [0, 1], "vector" (N, D), "slots" (N, count,
slot_dim), "sentence" (N, sentence_dim); each where there is such."""
Crop = Sequence[float]
"""Fractions of an image that are cut off at the top, bottom, left and right."""
NO_CROP: Crop = (0.0, 0.0, 0.0, 0.0)


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
class Layout:
    """What an observation is made of, and what of it networks take.

    Attributes:
        image_key: Name of the image, "" where it is all there is, or None.
        vector_keys: Names of the vectors, in the order in which they are joined.
        image_size: Width and height of the whole image, pixels.
        rows: Of the image, those that are kept.
        columns: The same.
        image_shape: (C, H, W) of what is kept, or None.
        vector_dim: Of the joined vectors, without slots.
        slots: Layout of the slots, or None.
        slot_dim: Numbers of a slot.
        is_dict: Whether the space is a Dict.
        dict_space: The Dict that was flattened, or None.
    """

    image_key: str | None
    vector_keys: tuple[str, ...]
    image_size: tuple[int, int]
    rows: slice
    columns: slice
    image_shape: tuple[int, int, int] | None
    vector_dim: int
    slots: SlotLayout | None
    slot_dim: int
    is_dict: bool
    dict_space: spaces.Dict | None

    @classmethod
    def of(
        cls,
        space: spaces.Space[Any],
        *,
        crop: Crop = NO_CROP,
        slots: SlotLayout | None = None,
        dict_space: spaces.Dict | None = None,
    ) -> Layout:
        """Reads a space; see `TaskFeaturesExtractor` for the arguments.

        Raises:
            ValueError: An option is out of range, or does not fit the space.
        """
        _check_crop(crop)
        if dict_space is not None:
            _check_flat(space, dict_space)
        parts = _parts(dict_space or space)
        images = [key for key, box in parts.items() if len(box.shape) == 3]
        if len(images) > 1:
            raise ValueError(f"Two images {sorted(images)} in the observation, expected one.")
        vector_keys = tuple(key for key in sorted(parts) if key not in images)
        vector_dim = sum(parts[key].shape[0] for key in vector_keys)
        rows = columns = slice(0, 0)
        height = width = slot_dim = 0
        image_shape = None
        if images:
            slots = None
            channels, height, width = to_chw(parts[images[0]].shape)
            rows, columns = _kept(height, *crop[:2]), _kept(width, *crop[2:])
            image_shape = (channels, rows.stop - rows.start, columns.stop - columns.start)
        elif slots is not None:
            slot_dim, vector_dim = _slot_dim(vector_dim, slots), slots.start
        return cls(
            image_key=images[0] if images else None,
            vector_keys=vector_keys,
            image_size=(width, height),
            rows=rows,
            columns=columns,
            image_shape=image_shape,
            vector_dim=vector_dim,
            slots=slots,
            slot_dim=slot_dim,
            is_dict=isinstance(space, spaces.Dict),
            dict_space=dict_space,
        )


class ReadsObservations(nn.Module):
    """A network that reads observations; the statistics are buffers, saved with the parameters."""

    layout: Layout

    def read_as(self, layout: Layout) -> None:
        """Called by the constructor, once."""
        self.layout = layout
        for name, size in (("vector", layout.vector_dim), ("slots", layout.slot_dim)):
            self.register_buffer(f"{name}_mean", th.zeros(size))
            self.register_buffer(f"{name}_std", th.ones(size))

    def to_inputs(self, observations: Any) -> dict[str, th.Tensor]:
        """The one place where observations become normalised tensors; see `Inputs`."""
        parts = self.to_parts(observations)
        inputs = {
            name: (values - getattr(self, f"{name}_mean")) / getattr(self, f"{name}_std")
            for name, values in self._vectors(parts).items()
        }
        if self.layout.image_key is not None:
            pixels = parts[self.layout.image_key]
            if is_hwc(pixels.shape):
                pixels = pixels.permute(0, 3, 1, 2)
            inputs["pixels"] = pixels[:, :, self.layout.rows, self.layout.columns] / 255.0
        return inputs

    def to_parts(self, observations: Any) -> Mapping[str, th.Tensor]:
        """The entries of a Dict observation, or of its flattened view; a bare one has no name."""
        if isinstance(observations, Mapping):
            return observations
        if self.layout.is_dict:  # one entry beside the sentence may come without its name
            return {self.layout.image_key or self.layout.vector_keys[0]: observations}
        if self.layout.dict_space is None:
            return {"": observations}
        boxes = {key: box.shape for key, box in self.layout.dict_space.spaces.items()}
        sizes = [math.prod(shape or ()) for shape in boxes.values()]
        entries = observations.float().split(sizes, dim=-1)  # imitation's savers make it float64
        return {
            key: entry.unflatten(-1, shape)
            for (key, shape), entry in zip(boxes.items(), entries, strict=True)
        }

    def _vectors(self, parts: Mapping[str, th.Tensor]) -> dict[str, th.Tensor]:
        if not self.layout.vector_keys or not all(key in parts for key in self.layout.vector_keys):
            return {}  # an observation from a video has its image alone
        vector = th.cat([parts[key].float() for key in self.layout.vector_keys], dim=-1)
        if self.layout.slots is None:
            return {"vector": vector}
        slots = vector[:, self.layout.slots.start :].unflatten(-1, (self.layout.slots.count, -1))
        return {"vector": vector[:, : self.layout.slots.start], "slots": slots}

    def crop_positions(self, positions: th.Tensor) -> th.Tensor:
        """Places (..., 2) in the whole image as places in the cropped one; both in [-1, 1]."""
        whole = th.tensor(self.layout.image_size).to(positions)
        first = th.tensor([self.layout.columns.start, self.layout.rows.start]).to(positions)
        kept = th.tensor([self.layout.columns.stop, self.layout.rows.stop]).to(positions) - first
        return (whole * (positions + 1) - 2 * first) / kept - 1

    @property
    def is_fitted(self) -> bool:
        """Whether the normalisation was set, here or where the parameters come from."""
        parts = ("vector_mean", "slots_mean")
        return any(bool(getattr(self, part).any()) for part in parts)

    @th.no_grad()
    def fit_normalisation(self, observations: Any) -> None:
        """Sets mean and standard deviation from a batch (N, ...); images are not needed."""
        for name, values in self._vectors(self.to_parts(observations)).items():
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
