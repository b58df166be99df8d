"""Objects of the MetaPusher: what one is, how it is drawn, how it looks, and its descriptor.

`ObjectSpec` holds all there is to know about an object; mesh, texture and descriptor are pure
functions of it.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from meta_pusher_env.descriptor import DESCRIPTOR_DIM, DESCRIPTOR_FIELDS, measure
from meta_pusher_env.shapes import (
    N_SHAPE_PARAMS,
    SHAPE_FAMILIES,
    TEST_SHAPES,
    TRAIN_SHAPES,
    ObjectMesh,
    build_shape,
    finish_mesh,
    read_stl,
)
from meta_pusher_env.textures import (
    N_TEXTURE_PARAMS,
    TEST_TEXTURES,
    TEXTURE_FAMILIES,
    TEXTURE_SIZE,
    TRAIN_TEXTURES,
    build_texture_image,
)

__all__ = [
    "BOUNDS",
    "DESCRIPTOR_DIM",
    "DESCRIPTOR_FIELDS",
    "FILE_BOUNDS",
    "FILE_SHAPE",
    "LOOK_ALIKE_PROBABILITY",
    "N_SHAPE_PARAMS",
    "N_TEXTURE_PARAMS",
    "SHAPE_FAMILIES",
    "TEST_SHAPES",
    "TEST_TEXTURES",
    "TEXTURE_FAMILIES",
    "TEXTURE_SIZE",
    "TRAIN_SHAPES",
    "TRAIN_TEXTURES",
    "ObjectMesh",
    "ObjectSpec",
    "build_mesh",
    "build_texture",
    "describe",
    "sample_object",
]

LOOK_ALIKE_PROBABILITY: Final = 0.2
"""With it, the second of a pair copies each of shape family, texture family and base colour."""

BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "radius": (0.035, 0.055),
    "height": (0.05, 0.09),
    "mass": (0.1, 1.0),
    "damping": (0.2, 5.0),
}
"""Range of each scalar of an `ObjectSpec`: m, m, kg, N s/m."""

FILE_SHAPE: Final = "file"
"""The `ObjectSpec.shape` of an object whose mesh is given, and not drawn."""

FILE_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "radius": (0.005, 0.2),
    "height": (0.005, 0.3),
    "mass": (0.01, 10.0),
    "damping": (0.01, 100.0),
}
"""As `BOUNDS`, for such an object: what this arm and this table are for."""

_MIN_COLOUR_DISTANCE = 0.5  # between base and accent, in the unit rgb cube: plainly two colours
_LENGTHS: Final = {
    "shape_params": N_SHAPE_PARAMS,
    "texture_params": N_TEXTURE_PARAMS,
    "color": 3,
    "accent": 3,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectSpec:
    """All there is to know about an object: its look and its physics.

    Attributes:
        shape: One of `SHAPE_FAMILIES`, or `FILE_SHAPE` for the one in `mesh`.
        shape_params: The family's `N_SHAPE_PARAMS` free parameters (number of sides, wall, taper,
            ...), each in [0, 1]; none for a given mesh.
        radius: Radius of the smallest circle around the footprint, m, in [0.035, 0.055].
        height: m, in [0.05, 0.09].
        texture: One of `TEXTURE_FAMILIES`.
        texture_params: Frequency, angle, coverage and phase, each in [0, 1].
        color: Base colour, rgb in [0, 1].
        accent: Second colour, rgb in [0, 1].
        mass: kg, in [0.1, 1].
        damping: Of the slide joints, N s/m, in [0.2, 5].
        mesh: For `FILE_SHAPE` only: the bytes of an STL file, its z axis up, in base64. The content
            and not its path, so that equality, hash, JSON and pickle speak of the object itself,
            on any machine. Its radius, height, mass and damping may be in `FILE_BOUNDS`.

    Raises:
        ValueError: A field has a wrong type, length or range.
    """

    shape: str
    shape_params: tuple[float, ...]
    radius: float
    height: float
    texture: str
    texture_params: tuple[float, ...]
    color: tuple[float, float, float]
    accent: tuple[float, float, float]
    mass: float
    damping: float
    mesh: str | None = dataclasses.field(default=None, repr=False)  # repr: may be 200 kB

    def __post_init__(self) -> None:
        given = self.shape == FILE_SHAPE
        if isinstance(self.mesh, str) != given:
            raise ValueError(
                f"shape={self.shape!r} with mesh={self.mesh!r:.40}; expected the base64 of an STL "
                f"file if shape is {FILE_SHAPE!r}, and None if not."
            )
        if not given:
            _check_family("shape", self.shape, SHAPE_FAMILIES)
        _check_family("texture", self.texture, TEXTURE_FAMILIES)
        # Plain floats and tuples, so that specs made from numpy values or from JSON are equal and
        # hashable.
        for name, length in (_LENGTHS | {"shape_params": 0} if given else _LENGTHS).items():
            object.__setattr__(self, name, _unit_tuple(name, getattr(self, name), length))
        for name, (low, high) in (FILE_BOUNDS if given else BOUNDS).items():
            object.__setattr__(self, name, _number(name, getattr(self, name), low, high))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values, from which `from_dict` makes an equal spec."""
        values = dataclasses.asdict(self)
        if self.mesh is None:
            del values["mesh"]
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ObjectSpec:
        """Reads what `to_dict` wrote.

        Raises:
            ValueError: A field is missing, unknown, or bad.
        """
        if not isinstance(values, Mapping):
            # Read from a file, so a bad value and not a programmer's bad type.
            raise ValueError(  # noqa: TRY004
                f"An object spec must be a mapping of its fields, got {values!r}."
            )
        names = {field.name for field in dataclasses.fields(cls)}
        if values.get("shape") != FILE_SHAPE:
            names.remove("mesh")
        for problem, wrong in (
            ("lacks", names - set(values)),
            ("has unknown", set(values) - names),
        ):
            if wrong:
                raise ValueError(
                    f"An object spec {problem} field(s) {sorted(map(str, wrong))}; "
                    f"expected exactly {sorted(names)}."
                )
        return cls(**values)


def _check_family(field: str, name: object, families: tuple[str, ...]) -> None:
    if not isinstance(name, str) or name not in families:
        raise ValueError(f"{field}={name!r} is no {field} family; expected one of {families}.")


def _number(field: str, value: Any, low: float, high: float) -> float:
    is_number = isinstance(value, (int, float, np.integer, np.floating))
    if not is_number or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{field}={value!r}; expected a number in [{low:g}, {high:g}].")
    return float(value)


def _unit_tuple(field: str, values: Any, length: int) -> tuple[float, ...]:
    if not isinstance(values, (tuple, list, np.ndarray)) or len(values) != length:
        raise ValueError(f"{field}={values!r}; expected {length} numbers in [0, 1].")
    return tuple(_number(f"{field}[{i}]", value, 0.0, 1.0) for i, value in enumerate(values))


def sample_object(
    rng: np.random.Generator,
    shapes: Sequence[str],
    textures: Sequence[str],
    like: ObjectSpec | None = None,
) -> ObjectSpec:
    """Draws an object; every property is drawn independently.

    Args:
        rng: The only source of randomness.
        shapes: Shape families to draw from.
        textures: Texture families to draw from.
        like: The other object of the pair, if this is the second: shape family, texture family and
            base colour are each copied from it with probability `LOOK_ALIKE_PROBABILITY`,
            independently; free parameters are still drawn anew.

    Raises:
        ValueError: No families are given, or an unknown one.
    """
    if not len(shapes) or not len(textures):
        raise ValueError(
            f"shapes={shapes!r}, textures={textures!r}; expected at least one of each."
        )
    shape = shapes[int(rng.random() * len(shapes))]
    texture = textures[int(rng.random() * len(textures))]
    color = _color(rng)
    copies = rng.random(3) < LOOK_ALIKE_PROBABILITY
    if like is not None:
        shape = like.shape if copies[0] else shape
        texture = like.texture if copies[1] else texture
        color = like.color if copies[2] else color
    accent = _color(rng)
    while math.dist(color, accent) < _MIN_COLOUR_DISTANCE:
        accent = _color(rng)
    return ObjectSpec(
        shape=shape,
        shape_params=tuple(rng.random(N_SHAPE_PARAMS).tolist()),
        radius=_uniform(rng, *BOUNDS["radius"]),
        height=_uniform(rng, *BOUNDS["height"]),
        texture=texture,
        texture_params=tuple(rng.random(N_TEXTURE_PARAMS).tolist()),
        color=color,
        accent=accent,
        mass=_uniform(rng, *BOUNDS["mass"]),
        damping=_log_uniform(rng, *BOUNDS["damping"]),
    )


def _color(rng: np.random.Generator) -> tuple[float, float, float]:
    red, green, blue = rng.random(3).tolist()
    return red, green, blue


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    # Clipped, since exp(log(x)) may miss x by one rounding.
    return min(high, max(low, math.exp(_uniform(rng, math.log(low), math.log(high)))))


@functools.lru_cache(maxsize=256)
def build_mesh(spec: ObjectSpec) -> ObjectMesh:
    """Builds the object's mesh, a pure function of the spec; a drawn one has at most 600 triangles.

    Raises:
        ValueError: The given mesh is no STL file of a closed surface.
    """
    if spec.mesh is not None:
        return finish_mesh(read_stl(base64.b64decode(spec.mesh)), spec.radius, spec.height)
    return build_shape(spec.shape, spec.shape_params, spec.radius, spec.height)


@functools.lru_cache(maxsize=256)
def build_texture(spec: ObjectSpec) -> npt.NDArray[np.uint8]:
    """Draws the object's texture, (64, 64, 3) uint8, read-only; a pure function of the spec."""
    return build_texture_image(spec.texture, spec.texture_params, spec.color, spec.accent)


@functools.lru_cache(maxsize=4096)
def describe(spec: ObjectSpec) -> npt.NDArray[np.float32]:
    """Describes how an object looks: size, colour, shape and texture, measured, not named.

    There is no identifier in it, and no physics: mass and damping cannot be seen.

    Returns:
        (DESCRIPTOR_DIM,) float32, read-only, each in [-1, 1]; `DESCRIPTOR_FIELDS` names and
        explains them.
    """
    scale = np.array([spec.radius, spec.radius, spec.height])
    vector = measure(
        size=[_rescale(getattr(spec, name), *BOUNDS[name]) for name in ("radius", "height")],
        corners=build_mesh(spec).vertices.astype(np.float64).reshape(-1, 3, 3) / scale,
        image=build_texture(spec).astype(np.float64) / 255,
        base=spec.color,
        accent=spec.accent,
    )
    vector.flags.writeable = False
    return vector


def _rescale(value: float, low: float, high: float) -> float:
    """Maps [low, high] to [-1, 1]."""
    return 2 * (value - low) / (high - low) - 1
