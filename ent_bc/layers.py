"""Small building blocks that embeddings and features extractors share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch as th
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

T = TypeVar("T")

PIECE = 3 * 2**19
"""The most numbers in the observations of a piece, see `in_pieces`; 33 images of 125x125."""


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


class TiledConv2d(nn.Conv2d):
    """Convolves images beside which numbers are tiled as further channels, without tiling them.

    A constant channel's convolution is a bias for each position: the sum of those taps of its
    kernel that lie inside the image.
    """

    def forward(self, images: th.Tensor, tiled: th.Tensor) -> th.Tensor:  # type: ignore[override]
        """(N, C, H, W) and (N, D) -> (N, O, H', W'), for C + D input channels."""
        n_channels = images.shape[1]
        weight, of_tiled = self.weight.split([n_channels, self.in_channels - n_channels], dim=1)
        maps = F.conv2d(images, weight, self.bias, self.stride, self.padding)
        rows, columns = (self._taps_inside(images, axis) for axis in (0, 1))
        kernels = th.einsum("nd,odij->nijo", tiled, of_tiled)
        across = th.einsum("wj,nijo->niwo", columns, kernels)
        biases = (rows @ across.flatten(2)).unflatten(-1, across.shape[2:])
        return maps.add_(biases.permute(0, 3, 1, 2))

    def _taps_inside(self, images: th.Tensor, axis: int) -> th.Tensor:
        """Whether a tap of an output position lies inside the image along an axis: (H', taps)."""
        size, taps = images.shape[2 + axis], self.kernel_size[axis]
        stride, padding = self.stride[axis], int(self.padding[axis])
        n_outputs = (size + 2 * padding - taps) // stride + 1
        first = th.arange(n_outputs, device=images.device)[:, None] * stride - padding
        place = first + th.arange(taps, device=images.device)
        return ((place >= 0) & (place < size)).float()


class Convolutions(nn.Sequential):
    """Layers over images, kept channels-last, which is what processors convolve fastest.

    Attributes:
        low_precision: Convolve in bfloat16 (autocast); parameters and output stay float32.
    """

    low_precision = False

    def forward(self, images: th.Tensor, *tiled: th.Tensor) -> th.Tensor:
        """(N, C, H, W) -> (N, D, H', W'), float32; ``tiled`` is for a first `TiledConv2d`."""
        return self._convolve(self, images, *tiled).float()

    def _convolve(
        self, layers: Iterable[nn.Module], images: th.Tensor, *tiled: th.Tensor
    ) -> th.Tensor:
        images = images.contiguous(memory_format=th.channels_last)
        with th.autocast(images.device.type, th.bfloat16, enabled=self.low_precision):
            first, *others = layers
            maps: th.Tensor = first(images, *tiled)
            for layer in others:
                maps = layer(maps)
        return maps


def use_low_precision(net: nn.Module, enabled: bool) -> None:
    """Lets all `Convolutions` of a net convolve in bfloat16, or no longer."""
    for module in net.modules():
        if isinstance(module, Convolutions):
            module.low_precision = enabled


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

    def hidden(self, images: th.Tensor) -> th.Tensor:
        """What the last layer maps, place by place: (N, C, H, W) -> (N, H/2 * W/2, width).

        In the precision that is convolved in.
        """
        maps = self._convolve(list(self)[:-1], images)
        return maps.flatten(2).transpose(1, 2)

    def last(self) -> tuple[th.Tensor, th.Tensor]:
        """The last layer's weight (n_features, width) and bias (n_features,)."""
        layer = self[-1]
        assert isinstance(layer, nn.Conv2d) and layer.bias is not None
        return layer.weight[:, :, 0, 0], layer.bias


def in_pieces(function: Callable[..., T], *inputs: Any) -> T:
    """Applies a net to a batch a piece at a time, where that is faster: on a processor.

    Maps of a whole batch of images fit no cache, and their memory is given back to the system and
    taken anew in every step, which costs more than the arithmetic.

    Args:
        function: From batched tensors to a dataclass of such, or of None.
        *inputs: Batched tensors, or mappings of such.
    """
    leaves = tree_leaves(inputs)
    n_pieces = math.ceil(max(leaf.numel() for leaf in leaves) / PIECE)
    n = len(leaves[0])
    if n_pieces < 2 or n < 2 or leaves[0].device.type != "cpu":
        return function(*inputs)
    size = math.ceil(n / n_pieces)
    results = [
        function(*tree_map(lambda leaf, at=start: leaf[at : at + size], inputs))
        for start in range(0, n, size)
    ]
    fields = zip(*(vars(result).values() for result in results), strict=True)
    return type(results[0])(*(None if field[0] is None else th.cat(field) for field in fields))


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
    """Cross-entropies of attention maps towards places in the image.

    Args:
        logits: (N, H, W).
        positions: (N, 2) as (x right, y down) in [-1, 1], NaN where unknown.
        radius: Standard deviation of the Gaussian label, as a fraction of half the image.

    Returns:
        (N,), 0 where the place is unknown.
    """
    errors = logits.new_zeros(len(logits))
    known = th.isfinite(positions).all(dim=-1)
    logits, positions = logits[known], positions[known]
    grid = coordinate_grid(logits.shape[-2], logits.shape[-1]).to(logits)
    squared = (positions[:, None, :] - grid).square().sum(dim=-1)
    label = F.softmax(-squared / (2 * radius**2), dim=-1)
    errors[known] = -(label * F.log_softmax(logits.flatten(1), dim=-1)).sum(dim=-1)
    return errors


def strided_convolutions(n_channels: int, n_tiled: int = 0) -> Convolutions:
    """The paper's convolutions: 4 x (16 filters, 5x5, stride 2), layer norm, ELU.

    Args:
        n_channels: Of the images.
        n_tiled: How many numbers are tiled over them, as further channels.
    """
    first = TiledConv2d if n_tiled else nn.Conv2d
    layers: list[nn.Module] = [first(n_channels + n_tiled, 16, 5, stride=2, padding=2)]
    for _ in range(3):
        layers += [ImageLayerNorm(16), nn.ELU(inplace=True)]
        layers += [nn.Conv2d(16, 16, 5, stride=2, padding=2)]
    return Convolutions(*layers, ImageLayerNorm(16), nn.ELU(inplace=True))


def count_features(net: nn.Module, *input_shapes: tuple[int, ...]) -> int:
    """How many numbers a net gives for one input of these shapes."""
    with th.no_grad():
        return int(net(*(th.zeros(1, *shape) for shape in input_shapes)).numel())
