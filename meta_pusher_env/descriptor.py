"""The descriptor: what an object looks like, in numbers measured on its mesh and its texture.

The numbers mean the same for families that were never seen; there is no identifier in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_SLICES: Final = (0.15, 0.5, 0.85)  # horizontal cuts, as fractions of the object's height
_ANGLES = 48  # directions of a silhouette's radial profile
_HARMONICS = 8

DESCRIPTOR_FIELDS: Final[tuple[str, ...]] = (
    # Size, scaled from the drawn range to [-1, 1]; extents of the footprint relative to its
    # diameter, long side first.
    "radius", "height", "long_extent", "short_extent",
    # Colour: rgb from [0, 1] to [-1, 1].
    "base_r", "base_g", "base_b", "accent_r", "accent_g", "accent_b", "mean_r", "mean_g", "mean_b",
    # Shape: magnitudes of the Fourier series of the silhouette's radial profile at three heights,
    # which do not change as the object turns; the 0th is the mean radius.
    *(f"slice{i}_harmonic{k}" for i in range(len(_SLICES)) for k in range(_HARMONICS)),
    # Shape: solid part of the bounding circle at the three heights.
    *(f"slice{i}_fill" for i in range(len(_SLICES))),
    # Shape: volume in the bounding cylinder; height of the volume's centre; growth of the mean
    # radius from the lowest to the highest slice; part of the silhouette that is not solid (holes,
    # cups); part of the surface that looks up.
    "volume_fraction", "centre_of_volume", "widening", "hollowness", "upward_area",
    # Texture, as image statistics: root mean square contrast; mean share of the accent; dominant
    # and mean spatial frequency; share of the dominant frequency's power; direction of the
    # gradients, weighted with how much they agree; edge density.
    "contrast", "accent_share", "dominant_frequency", "mean_frequency", "spectral_peak",
    "direction_cos", "direction_sin", "edge_density",
)  # fmt: skip
"""Name of each number of `measure`, in order."""

DESCRIPTOR_DIM: Final = len(DESCRIPTOR_FIELDS)


def measure(
    size: Sequence[float],
    corners: Array,
    image: Array,
    base: Sequence[float],
    accent: Sequence[float],
) -> npt.NDArray[np.float32]:
    """Measures an object's look.

    Args:
        size: Radius and height, each scaled to [-1, 1].
        corners: (F, 3, 3), the mesh's triangles, scaled to unit radius and height.
        image: (n, n, 3), the texture in [0, 1].
        base: Base colour, rgb in [0, 1].
        accent: Second colour, rgb in [0, 1].

    Returns:
        (DESCRIPTOR_DIM,) float32, each in [-1, 1], named and explained by `DESCRIPTOR_FIELDS`.
    """
    colours = np.concatenate([base, accent, image.mean(axis=(0, 1))])
    values = np.concatenate(
        [
            size,
            _extents(corners),
            2 * colours - 1,
            _shape_numbers(corners),
            _texture_numbers(image, np.array(base), np.array(accent)),
        ]
    )
    # Rounded, since the last bits (and the sign of a zero) differ between NumPy versions.
    values = np.round(np.clip(values, -1, 1), 5) + 0.0
    return values.astype(np.float32)


def _extents(corners: Array) -> Array:
    """Returns the footprint's widest and narrowest extent; 1 is the bounding circle's diameter."""
    angles = np.arange(_ANGLES) * math.pi / _ANGLES
    reach = corners[..., :2].reshape(-1, 2) @ np.stack([np.cos(angles), np.sin(angles)])
    widths = reach.max(axis=0) - reach.min(axis=0)
    return np.array([widths.max() - 1, widths.min() - 1])


def _shape_numbers(corners: Array) -> Array:
    """Measures a mesh scaled to unit radius and height, (F, 3, 3)."""
    profiles, fills = zip(*(_slice(corners, z) for z in _SLICES), strict=True)
    harmonics = np.abs(np.fft.rfft(np.stack(profiles), axis=1))[:, :_HARMONICS] / _ANGLES
    mean_radius = harmonics[:, 0]
    spectrum = np.column_stack([2 * mean_radius - 1, np.minimum(1, 6 * harmonics[:, 1:])])
    silhouettes = np.mean(np.stack(profiles) ** 2, axis=1)  # area over that of the bounding circle
    hollowness = 1 - sum(fills) / silhouettes.sum()
    signed = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
    centre = (signed * corners[..., 2].sum(axis=1) / 4).sum() / signed.sum()
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    upward = np.maximum(normals[:, 2], 0).sum() / np.linalg.norm(normals, axis=1).sum()
    return np.concatenate(
        [
            spectrum.ravel(),
            2 * np.array(fills) - 1,
            [
                2 * signed.sum() / math.pi - 1,
                4 * (centre - 0.5),
                mean_radius[-1] - mean_radius[0],
                hollowness,
                4 * upward - 1,
            ],
        ]
    )


def _slice(corners: Array, height: float) -> tuple[Array, float]:
    """Cuts a mesh horizontally.

    Args:
        corners: (F, 3, 3), scaled to unit radius.
        height: Of the cut; no vertex may lie on it.

    Returns:
        The outermost radius in `_ANGLES` directions around the axis (0 where there is nothing), and
        the solid area over that of the unit circle.
    """
    # A hair off the round number, which vertices may share.
    above = corners[..., 2] > height + 1e-5
    cut = corners[above.any(axis=1) & ~above.all(axis=1)]
    above = cut[..., 2] > height + 1e-5
    # Turn each triangle so that its first corner is alone on its side: the cut then crosses the two
    # edges that meet there.
    first = np.where(above.sum(axis=1) == 1, above.argmax(axis=1), above.argmin(axis=1))
    alone, left, right = (cut[np.arange(len(cut)), (first + k) % 3] for k in range(3))
    ends = []
    for other in (left, right):
        share = (height + 1e-5 - alone[:, 2]) / (other[:, 2] - alone[:, 2])
        ends.append(alone[:, :2] + share[:, None] * (other[:, :2] - alone[:, :2]))
    p, q = ends
    # Segments run counter-clockwise around solid matter if their triangle's lonely corner is below.
    sign = np.where(above.sum(axis=1) == 1, 1.0, -1.0)
    area = float((sign * (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])).sum() / 2)
    angles = 2 * math.pi * (np.arange(_ANGLES) + 0.5) / _ANGLES
    ray = np.stack([np.cos(angles), np.sin(angles)])  # (2, A)
    side_p, side_q = (p @ np.stack([-ray[1], ray[0]]), q @ np.stack([-ray[1], ray[0]]))  # (S, A)
    crosses = (side_p > 0) != (side_q > 0)
    share = np.where(crosses, side_p / np.where(crosses, side_p - side_q, 1), 0)
    reach = np.where(crosses, (1 - share) * (p @ ray) + share * (q @ ray), 0)
    return reach.max(axis=0, initial=0), abs(area) / math.pi


def _texture_numbers(image: Array, base: Array, accent: Array) -> Array:
    """Measures a texture, (n, n, 3) in [0, 1]."""
    axis = accent - base
    share = (image - base) @ axis / (axis @ axis)
    contrast = math.sqrt(float(image.var(axis=(0, 1)).sum()))
    power: Array = np.square(np.abs(np.fft.fft2(share - share.mean())))
    power = power / power.sum()
    waves = np.fft.fftfreq(len(image), 1 / len(image))  # periods a tile
    frequency: Array = np.hypot(waves[:, None], waves[None, :])
    by_frequency = np.bincount(np.rint(frequency).astype(int).ravel(), power.ravel())
    # Over both neighbours, around the tile's edge: the texture repeats.
    gx = (np.roll(share, -1, axis=1) - np.roll(share, 1, axis=1)) / 2
    gy = (np.roll(share, -1, axis=0) - np.roll(share, 1, axis=0)) / 2
    energy = float((gx**2 + gy**2).sum())
    return np.array(
        [
            2 * contrast - 1,
            2 * share.mean() - 1,
            float(by_frequency.argmax()) / 5 - 1,
            float((power * frequency).sum()) / 5 - 1,
            2 * by_frequency.max() - 1,
            float((gx**2 - gy**2).sum()) / energy,
            float((2 * gx * gy).sum()) / energy,
            3 * float(np.mean(np.hypot(gx, gy) > 0.15)) - 1,
        ]
    )
