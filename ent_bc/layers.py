"""Small building blocks that embeddings and features extractors share."""

from __future__ import annotations

from collections.abc import Sequence

import torch as th
from torch import nn
from torch.nn import functional as F


def mlp(
    n_inputs: int, widths: Sequence[int], activation: type[nn.Module] = nn.ELU
) -> nn.Sequential:
    """Linear, layer norm and activation, once for each width."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(n_inputs, width), nn.LayerNorm(width), activation()]
        n_inputs = width
    return nn.Sequential(*layers)


class ImageLayerNorm(nn.GroupNorm):
    """Layer norm over channels and positions of a feature map (one group)."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)


class Convolutions(nn.Sequential):
    """Layers over images, kept channels-last, which is what processors convolve fastest.

    Attributes:
        low_precision: Convolve in bfloat16 (autocast); parameters and output stay float32.
    """

    low_precision = False

    def forward(self, images: th.Tensor) -> th.Tensor:
        """(N, C, H, W) -> (N, D, H', W'), float32."""
        images = images.contiguous(memory_format=th.channels_last)
        with th.autocast(images.device.type, th.bfloat16, enabled=self.low_precision):
            maps: th.Tensor = super().forward(images)
        return maps.float()


class LocalFeatures(Convolutions):
    """Describes every place of an image by what is near it: (N, C, H, W) -> (N, D, H/2, W/2).

    A 5x5 convolution with stride 2, two 3x3 and a 1x1: a receptive field of 13 pixels, a little
    more than an object in a 96x96 image.
    """

    def __init__(self, n_channels: int, width: int, n_features: int, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(n_channels, width, 5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, n_features, 1),
        )


def coordinate_grid(height: int, width: int) -> th.Tensor:
    """Centres of an image's cells, (height * width, 2) as (x right, y down) in [-1, 1]."""
    y = (th.arange(height) + 0.5) / height * 2 - 1
    x = (th.arange(width) + 0.5) / width * 2 - 1
    grid_y, grid_x = th.meshgrid(y, x, indexing="ij")
    return th.stack([grid_x, grid_y], dim=-1).reshape(-1, 2)


def soft_argmax(logits: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """Attention weights and their mean position.

    Args:
        logits: (N, K, H, W).

    Returns:
        Weights (N, K, H * W) that sum to one, and positions (N, K, 2) in [-1, 1].
    """
    weights = F.softmax(logits.flatten(2), dim=-1)
    grid = coordinate_grid(logits.shape[-2], logits.shape[-1]).to(logits)
    return weights, weights @ grid


def attention_cross_entropy(
    logits: th.Tensor, positions: th.Tensor, radius: float = 0.06
) -> th.Tensor:
    """Cross-entropy of an attention map towards a place in the image.

    Args:
        logits: (N, H, W).
        positions: (N, 2) as (x right, y down) in [-1, 1]; rows with NaN do not count.
        radius: Standard deviation of the Gaussian label, as a fraction of half the image.

    Returns:
        The mean over the rows that count, a scalar; 0 where none does.
    """
    known = th.isfinite(positions).all(dim=-1)
    if not known.any():
        return logits.sum() * 0.0
    logits, positions = logits[known], positions[known]
    grid = coordinate_grid(logits.shape[-2], logits.shape[-1]).to(logits)
    squared = (positions[:, None, :] - grid).square().sum(dim=-1)
    label = F.softmax(-squared / (2 * radius**2), dim=-1)
    return -(label * F.log_softmax(logits.flatten(1), dim=-1)).sum(dim=-1).mean()


def strided_convolutions(n_channels: int) -> Convolutions:
    """The paper's convolutions: 4 x (16 filters, 5x5, stride 2), layer norm, ELU."""
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Conv2d(n_channels, 16, 5, stride=2, padding=2), ImageLayerNorm(16), nn.ELU()]
        n_channels = 16
    return Convolutions(*layers)


def count_features(net: nn.Module, input_shape: tuple[int, ...]) -> int:
    """How many numbers a net gives for one input of that shape."""
    with th.no_grad():
        return int(net(th.zeros(1, *input_shape)).numel())
