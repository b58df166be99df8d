"""Names and shapes of observations: the key of the sentence, and the two orders of an image."""

from __future__ import annotations

from collections.abc import Sequence

SENTENCE_KEY = "sentence"
NO_SENTENCE = (
    "The policy needs to know the task, and no sentence was given. Make one from a demonstration, "
    "sentence = model.embed(demonstration), and pass it as model.predict(obs, state=sentence), or "
    "put it into a Dict observation under the key 'sentence'."
)


def is_hwc(shape: Sequence[int]) -> bool:
    """Whether the shape of an image, or of a batch of images, has the channels last."""
    return shape[-1] in (1, 3, 4)


def to_chw(shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape of an image with its channels first."""
    height, width, channels = shape if is_hwc(shape) else (*shape[1:], shape[0])
    return channels, height, width


def to_hwc(shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape of an image with its channels last."""
    channels, height, width = to_chw(shape)
    return height, width, channels
