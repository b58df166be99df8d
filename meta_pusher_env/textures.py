"""Procedural textures: 21 families of tileable 64x64 images in a base and an accent colour.

A family maps pattern coordinates (s, t) to the accent's share in [0, 1]. The coordinates are those
of an integer lattice in the tile: whatever repeats with every unit cell of (s, t) therefore repeats
with the tile too, at any of the drawn angles.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

TEXTURE_SIZE = 64
N_TEXTURE_PARAMS = 4

_SUPERSAMPLING = 2  # hard-edged patterns are drawn larger and averaged: no jagged edges


def build_texture_image(
    family: str, params: Sequence[float], base: Sequence[float], accent: Sequence[float]
) -> npt.NDArray[np.uint8]:
    """Draws one member of a texture family.

    Args:
        family: One of `TEXTURE_FAMILIES`.
        params: Frequency, angle, coverage (the accent's share) and phase (also the seed of random
            patterns), each in [0, 1].
        base: rgb in [0, 1].
        accent: rgb in [0, 1].

    Returns:
        (64, 64, 3) uint8, C-contiguous, read-only; it tiles without a seam.
    """
    canvas = _Canvas.of(*params)
    share = np.clip(_FAMILIES[family](canvas), 0.0, 1.0)
    blocks = share.reshape(TEXTURE_SIZE, _SUPERSAMPLING, TEXTURE_SIZE, _SUPERSAMPLING)
    share = blocks.mean(axis=(1, 3))[..., None]
    rgb = (1 - share) * np.asarray(base) + share * np.asarray(accent)
    image = np.ascontiguousarray(np.rint(255 * rgb).astype(np.uint8))
    image.flags.writeable = False
    return image


@dataclasses.dataclass(frozen=True, eq=False)
class _Canvas:
    """What a pattern is drawn from.

    Attributes:
        s, t: (n, n) pattern coordinates; patterns have period 1 in both.
        x, y: (n, n) tile coordinates in [0, 1).
        coverage: In [0, 1].
        cells: Cells per tile side, for patterns on a random grid.
        rng: Seeded by the phase.
    """

    s: Array
    t: Array
    x: Array
    y: Array
    coverage: float
    cells: int
    rng: np.random.Generator

    @classmethod
    def of(cls, frequency: float, angle: float, coverage: float, phase: float) -> _Canvas:
        n = TEXTURE_SIZE * _SUPERSAMPLING
        y, x = np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2, indexing="ij")
        # At most 3.2 periods a tile: at 64x64 pixels a tile is ten pixels wide, and finer patterns
        # would blur away.
        periods = 1.6 + 1.6 * frequency
        kx, ky = (
            round(periods * math.cos(math.pi * angle)),
            round(periods * math.sin(math.pi * angle)),
        )
        rng = np.random.default_rng(int(phase * 2**32))
        return cls(
            s=kx * x + ky * y + phase,
            t=kx * y - ky * x + 0.5 * phase,
            x=x,
            y=y,
            coverage=coverage,
            cells=3 + round(3 * frequency),
            rng=rng,
        )

    def share(self, low: float, high: float) -> float:
        """Maps the coverage to [low, high]."""
        return low + (high - low) * self.coverage

    def noise(self, octaves: int = 3) -> Array:
        """Periodic value noise over the tile, (n, n), stretched to [0, 1]."""
        total = np.zeros_like(self.x)
        for octave in range(octaves):
            cells = max(2, self.cells - 1) * 2**octave
            total += _value_noise(self.rng.random((cells, cells)), self.x, self.y) / 2**octave
        low, high = float(total.min()), float(total.max())
        return (total - low) / (high - low)

    def centred(self) -> tuple[Array, Array]:
        """Coordinates in [-0.5, 0.5) around the middle of each unit cell."""
        return self.s % 1 - 0.5, self.t % 1 - 0.5


def _value_noise(lattice: Array, x: Array, y: Array) -> Array:
    """Smoothly interpolates a periodic (c, c) lattice at tile coordinates."""
    cells = len(lattice)
    i, j = np.floor(y * cells).astype(int), np.floor(x * cells).astype(int)
    u, v = y * cells - i, x * cells - j
    u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
    below, right = (i + 1) % cells, (j + 1) % cells
    upper = (1 - v) * lattice[i, j] + v * lattice[i, right]
    lower = (1 - v) * lattice[below, j] + v * lattice[below, right]
    return np.asarray((1 - u) * upper + u * lower)


def _wave(s: Array) -> Array:
    """Returns a triangle wave of period 1: 0 at whole numbers, 1 halfway."""
    return np.asarray(1 - np.abs(2 * (s % 1) - 1))


def _where(mask: npt.NDArray[np.bool_]) -> Array:
    return mask.astype(np.float64)


# --- the families: the accent's share of each point -----------------------------------------------


def _stripes(c: _Canvas) -> Array:
    return _where(c.s % 1 < c.share(0.25, 0.6))


def _checker(c: _Canvas) -> Array:
    return _where((c.s % 1 < 0.5) ^ (c.t % 1 < 0.5))


def _dots(c: _Canvas) -> Array:
    return _where(np.hypot(*c.centred()) < c.share(0.26, 0.42))


def _gradient(c: _Canvas) -> Array:
    directions = ((1, 0), (0, 1), (1, 1), (1, -1))
    a, b = directions[min(3, int(4 * c.coverage))]
    return _wave(a * c.x + b * c.y + c.s[0, 0])


def _noise(c: _Canvas) -> Array:
    return np.clip((c.noise() - 0.5) * 2.5 + c.share(0.3, 0.6), 0, 1)


def _marble(c: _Canvas) -> Array:
    veins = 0.5 + 0.5 * np.sin(2 * math.pi * (c.s + 1.2 * c.noise()))
    return np.asarray(veins ** c.share(3.0, 1.0))


def _wood(c: _Canvas) -> Array:
    return np.asarray((c.s + 1.2 * c.noise(octaves=1)) % 1) ** c.share(1.6, 0.6)


def _bricks(c: _Canvas) -> Array:
    mortar = c.share(0.12, 0.25)
    row = np.floor(2 * c.t)
    return _where(((2 * c.t) % 1 < 1.4 * mortar) | ((c.s + 0.5 * row) % 1 < mortar))


def _zigzag(c: _Canvas) -> Array:
    return _where((c.s + 0.5 * _wave(c.t)) % 1 < c.share(0.3, 0.55))


def _grid(c: _Canvas) -> Array:
    line = c.share(0.18, 0.35)
    return _where((c.s % 1 < line) | (c.t % 1 < line))


def _ripples(c: _Canvas) -> Array:
    crests = np.sin(2 * math.pi * c.s) + np.sin(2 * math.pi * c.t)
    return np.asarray((0.5 + 0.25 * crests) ** c.share(1.6, 0.7))


def _speckles(c: _Canvas) -> Array:
    inside = np.zeros(c.x.shape, dtype=bool)
    for x, y, size in c.rng.random((6 + 3 * c.cells, 3)):
        dx, dy = (c.x - x + 0.5) % 1 - 0.5, (c.y - y + 0.5) % 1 - 0.5
        inside |= np.hypot(dx, dy) < 0.03 + c.share(0.03, 0.07) * size
    return _where(inside)


def _plaid(c: _Canvas) -> Array:
    band = c.share(0.35, 0.6)
    return 0.5 * _where(c.s % 1 < band) + 0.5 * _where(c.t % 1 < band)


def _triangles(c: _Canvas) -> Array:
    return _where((c.s % 1) + (c.t % 1) < c.share(0.85, 1.1))


def _blocks(c: _Canvas) -> Array:
    shades = c.rng.random((c.cells, c.cells)) ** c.share(2.0, 0.7)
    row, column = (c.y * c.cells).astype(int), (c.x * c.cells).astype(int)
    return np.asarray(shades[row, column])


def _rings(c: _Canvas) -> Array:
    distance = np.hypot(*c.centred())
    return _where((distance < 0.14) | (np.abs(distance - 0.36) < c.share(0.06, 0.12)))


def _hexes(c: _Canvas) -> Array:
    # Centres on a centred lattice; with t stretched by sqrt(3) each has six neighbours at distance
    # 1, so cells are hexagons.
    s, t = c.centred()
    centres = ((0, 0), (1, 0), (-1, 0), (0.5, 0.5), (0.5, -0.5), (-0.5, 0.5), (-0.5, -0.5))
    distances = np.sort([np.hypot(s - x, math.sqrt(3) * (t - y)) for x, y in centres], axis=0)
    return _where(distances[1] - distances[0] < c.share(0.15, 0.35))


def _camouflage(c: _Canvas) -> Array:
    noise = c.noise(octaves=2)
    cut = c.share(0.6, 0.45)
    return 0.5 * _where(noise > cut - 0.1) + 0.5 * _where(noise > cut + 0.1)


def _scales(c: _Canvas) -> Array:
    row = np.floor(2 * c.t)
    along, up = (c.s + 0.5 * row) % 1 - 0.5, (2 * c.t) % 1
    return np.asarray(np.hypot(along, 0.5 * up) / 0.71) ** c.share(3.0, 1.0)


def _crosses(c: _Canvas) -> Array:
    s, t = np.abs(c.centred())
    return _where((np.minimum(s, t) < c.share(0.08, 0.16)) & (np.maximum(s, t) < 0.38))


def _pinwheel(c: _Canvas) -> Array:
    s, t = c.centred()
    return _where((np.arctan2(t, s) * 2 / math.pi) % 1 < c.share(0.35, 0.6))


_Pattern = Callable[[_Canvas], Array]
_TRAIN: dict[str, _Pattern] = {
    "stripes": _stripes,
    "checker": _checker,
    "dots": _dots,
    "gradient": _gradient,
    "noise": _noise,
    "marble": _marble,
    "wood": _wood,
    "bricks": _bricks,
    "zigzag": _zigzag,
    "grid": _grid,
    "ripples": _ripples,
    "speckles": _speckles,
    "plaid": _plaid,
    "triangles": _triangles,
    "blocks": _blocks,
}
_TEST: dict[str, _Pattern] = {
    "rings": _rings,
    "hexes": _hexes,
    "camouflage": _camouflage,
    "scales": _scales,
    "crosses": _crosses,
    "pinwheel": _pinwheel,
}
_FAMILIES = _TRAIN | _TEST

TRAIN_TEXTURES: tuple[str, ...] = tuple(_TRAIN)
"""Families of the train and val splits."""
TEST_TEXTURES: tuple[str, ...] = tuple(_TEST)
"""Families of the test split, which occur in no other."""
TEXTURE_FAMILIES: tuple[str, ...] = TRAIN_TEXTURES + TEST_TEXTURES
