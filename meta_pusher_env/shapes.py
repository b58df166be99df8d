"""Procedural object meshes: 27 shape families of at most 600 flat-shaded triangles.

A family is one function of three free parameters in [0, 1]. It returns a closed `trimesh.Trimesh`
at any scale; `build_shape` then brings it to the size that is asked for, splits it into flat faces
and lays texture coordinates on them.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import shapely
import trimesh
from shapely.geometry import MultiPoint, Point, Polygon

Array = npt.NDArray[np.float64]

N_SHAPE_PARAMS = 3
MAX_TRIANGLES = 600
TILE = 0.1
"""Side of one texture tile on the object, m: about ten pixels in a 64x64 image."""

_ROUND = 20  # sections of a round body: still round at 64 pixels, and cheap to render


@dataclasses.dataclass(frozen=True, eq=False)
class ObjectMesh:
    """A flat-shaded triangle mesh, ready for `MjSpec.add_mesh`; every array is read-only.

    Attributes:
        vertices: (V, 3) float32, m; the base is at z = 0, the footprint's bounding circle is
            centred on x = y = 0.
        normals: (V, 3) float32, unit, outward; the three corners of a face share its normal.
        texcoords: (V, 2) float32, in tiles; continues beyond [0, 1], so the texture must repeat.
        faces: (F, 3) int32, counter-clockwise from outside; V = 3 F.
    """

    vertices: npt.NDArray[np.float32]
    normals: npt.NDArray[np.float32]
    texcoords: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]


def build_shape(family: str, params: Sequence[float], radius: float, height: float) -> ObjectMesh:
    """Builds one member of a shape family.

    Args:
        family: One of `SHAPE_FAMILIES`.
        params: `N_SHAPE_PARAMS` numbers in [0, 1].
        radius: Radius of the smallest circle around the footprint, m.
        height: m.
    """
    return finish_mesh(_FAMILIES[family](*params), radius, height)


def read_stl(content: bytes) -> trimesh.Trimesh:
    """Reads the bytes of an STL file.

    Raises:
        ValueError: They are no such file, or its triangles do not enclose a volume.
    """
    expected = "expected an STL file of a closed surface, its triangles counter-clockwise"
    try:
        body = trimesh.load_mesh(io.BytesIO(content), file_type="stl")
        vertices = np.asarray(body.vertices, dtype=np.float64)
    except Exception as error:  # whatever a parser stumbles over
        raise ValueError(f"{len(content)} bytes are no mesh ({error}); {expected}.") from error
    # Volume and footprint are quotients by what may be nothing.
    solid = len(vertices) and np.isfinite(vertices).all() and np.ptp(vertices, axis=0).all()
    if not solid or not body.volume > 0:
        raise ValueError(
            f"{len(content)} bytes hold {len(body.faces)} triangles and no volume; {expected}."
        )
    return body


def bounding_circle(vertices: Array) -> tuple[Array, float]:
    """The smallest circle around the footprint of (V, 3) points: its centre (2,) and its radius."""
    footprint = MultiPoint(vertices[:, :2])
    centre = shapely.minimum_bounding_circle(footprint).centroid
    return np.array([centre.x, centre.y]), float(shapely.minimum_bounding_radius(footprint))


def finish_mesh(body: trimesh.Trimesh, radius: float, height: float) -> ObjectMesh:
    """Brings a body of any scale to a size, splits it into flat faces and lays a texture on them.

    Args:
        body: z is up.
        radius: Radius of the smallest circle around the footprint, m.
        height: m.
    """
    corners = _fit(np.asarray(body.vertices, dtype=np.float64), radius, height)[body.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1, keepdims=True)
    seen = areas[:, 0] > 0  # a file may have slivers that vanish at this size
    corners, normals = corners[seen], _rounded(normals[seen] / areas[seen], 6)
    texcoords = _rounded(_texcoords(corners, normals, radius), 5)
    mesh = ObjectMesh(
        vertices=corners.reshape(-1, 3).astype(np.float32),
        normals=np.repeat(normals, 3, axis=0).astype(np.float32),
        texcoords=texcoords.reshape(-1, 2).astype(np.float32),
        faces=np.arange(3 * len(corners), dtype=np.int32).reshape(-1, 3),
    )
    for array in (mesh.vertices, mesh.normals, mesh.texcoords, mesh.faces):
        array.flags.writeable = False
    return mesh


def _rounded(values: Array, decimals: int) -> Array:
    """Drops last bits and signed zeros, which differ between NumPy versions: meshes are hashed."""
    return np.round(values, decimals) + 0.0


def _fit(vertices: Array, radius: float, height: float) -> Array:
    """Scales (V, 3) points to the given bounding radius and height, base at z = 0."""
    centre, drawn_radius = bounding_circle(vertices)
    xy = (vertices[:, :2] - centre) * (radius / drawn_radius)
    z = vertices[:, 2] - vertices[:, 2].min()
    return _rounded(np.column_stack([xy, z * (height / z.max())]), 7)


def _texcoords(corners: Array, normals: Array, radius: float) -> Array:
    """Lays the texture on the faces by one of three projections, whichever the face looks at.

    Seen from above: (x, y). Outer and inner walls: (angle, z), with a whole number of tiles around,
    so that there is no seam. Walls that run outwards (a gear's flanks): (distance to the axis, z).

    Args:
        corners: (F, 3, 3) m.
        normals: (F, 3).
        radius: m.

    Returns:
        (F, 3, 2) in tiles.
    """
    x, y, z = corners[..., 0], corners[..., 1], corners[..., 2]
    middle = corners.mean(axis=1)
    middle_angle = np.arctan2(middle[:, 1], middle[:, 0])
    # Unwrapped around the face's middle, so that no face spans the jump at +-pi.
    turn = np.arctan2(y, x) - middle_angle[:, None]
    angle = middle_angle[:, None] + (turn + math.pi) % (2 * math.pi) - math.pi
    tiles_around = max(1, round(2 * math.pi * radius / TILE))
    top = np.stack([x / TILE + 0.5, y / TILE + 0.5], axis=-1)
    wall = np.stack([angle * tiles_around / (2 * math.pi), z / TILE], axis=-1)
    flank = np.stack([np.hypot(x, y) / TILE, z / TILE], axis=-1)
    outward = np.abs(normals[:, 0] * np.cos(middle_angle) + normals[:, 1] * np.sin(middle_angle))
    sideways = np.abs(normals[:, 1] * np.cos(middle_angle) - normals[:, 0] * np.sin(middle_angle))
    texcoords = np.where((outward > sideways)[:, None, None], wall, flank)
    return np.where((np.abs(normals[:, 2]) > 0.75)[:, None, None], top, texcoords)


# --- what the families are made with -----------------------------------------------------------


def _lerp(low: float, high: float, t: float) -> float:
    return low + (high - low) * t


def _count(low: int, high: int, t: float) -> int:
    """Maps [0, 1] to the integers low to high, each equally often."""
    return min(high, low + int(t * (high - low + 1)))


def _polar(radii: Array, turn: float = 0.0) -> Array:
    """(n, 2) points at n equal angles with the given radii (n,)."""
    angles = turn + 2 * math.pi * np.arange(len(radii)) / len(radii)
    return np.column_stack([radii * np.cos(angles), radii * np.sin(angles)])


def _regular(n: int, elongation: float = 1.0) -> Array:
    return _polar(np.ones(n)) * (1.0, elongation)


def _loft(rings: Sequence[tuple[Array, float]]) -> trimesh.Trimesh:
    """Joins rings of n points, each at its own z, and closes the first and the last with a fan.

    Rings run counter-clockwise; they may come back down inside of themselves, which makes a cup.
    """
    n = len(rings[0][0])
    points = [np.column_stack([xy, np.full(n, z)]) for xy, z in rings]
    hubs = np.array([points[0].mean(axis=0), points[-1].mean(axis=0)])
    here = np.arange(n)
    after = (here + 1) % n
    faces = []
    for level in range(len(rings) - 1):
        a, b = level * n + here, level * n + after
        faces += [np.column_stack([a, b, b + n]), np.column_stack([a, b + n, a + n])]
    bottom, last = len(rings) * n, (len(rings) - 1) * n
    faces.append(np.column_stack([np.full(n, bottom), after, here]))
    faces.append(np.column_stack([np.full(n, bottom + 1), last + here, last + after]))
    return trimesh.Trimesh(np.vstack([*points, hubs]), np.vstack(faces), process=False)


def _scaled(outline: Array, profile: Sequence[tuple[float, float]]) -> trimesh.Trimesh:
    """Lofts one outline (n, 2) along a profile of (scale, z) pairs."""
    return _loft([(outline * scale, z) for scale, z in profile])


def _revolve(profile: Sequence[tuple[float, float]]) -> trimesh.Trimesh:
    return _scaled(_regular(_ROUND), profile)


def _extrude(outline: Polygon, top: float = 1.0) -> trimesh.Trimesh:
    """Extrudes a polygon of about unit size to z = 1, narrowing to `top` times its size there."""
    body = trimesh.creation.extrude_polygon(outline, 1.0)
    vertices = np.array(body.vertices, dtype=np.float64)
    centre = shapely.minimum_bounding_circle(outline).centroid
    narrowed = vertices[:, :2] - (centre.x, centre.y)
    vertices[:, :2] = narrowed * (1 + (top - 1) * vertices[:, 2:])
    return trimesh.Trimesh(vertices, body.faces, process=False)


def _upright(side_view: Sequence[tuple[float, float]], width: float) -> trimesh.Trimesh:
    """Extrudes a side view of (x, z) corners along y."""
    body = trimesh.creation.extrude_polygon(Polygon(side_view), width)
    # (x, z, y) to (x, -y, z): a rotation, so that faces keep their outside.
    vertices = np.array(body.vertices, dtype=np.float64)[:, [0, 2, 1]] * (1.0, -1.0, 1.0)
    return trimesh.Trimesh(vertices, body.faces, process=False)


# --- the families: three parameters in [0, 1] each ------------------------------------------------


def _prism(sides: float, narrow: float, taper: float) -> trimesh.Trimesh:
    outline = _regular(_count(3, 8, sides), _lerp(1.0, 0.65, narrow))
    return _scaled(outline, [(1, 0), (_lerp(1.0, 0.85, taper), 1)])


def _pyramid(sides: float, top: float, narrow: float) -> trimesh.Trimesh:
    outline = _regular(_count(3, 6, sides), _lerp(1.0, 0.7, narrow))
    return _scaled(outline, [(1, 0), (_lerp(0.08, 0.4, top), 1)])


def _cone(top: float, foot: float, lip: float) -> trimesh.Trimesh:
    edge, low = _lerp(0.65, 0.95, foot), _lerp(0.08, 0.25, lip)
    return _revolve([(1, 0), (1, low), (edge, low), (_lerp(0.1, 0.35, top), 1)])


def _cup(wall: float, flare: float, depth: float) -> trimesh.Trimesh:
    foot, inside, floor = (_lerp(0.65, 1, flare), _lerp(0.65, 0.85, wall), _lerp(0.1, 0.5, depth))
    return _revolve([(foot, 0), (1, 1), (inside, 1), (inside * foot, floor)])


def _star(points: float, inner: float, taper: float) -> trimesh.Trimesh:
    n = _count(4, 8, points)
    outline = _polar(np.tile([1.0, _lerp(0.4, 0.65, inner)], n))
    return _scaled(outline, [(1, 0), (_lerp(0.6, 1.0, taper), 1)])


def _l_profile(foot: float, stem: float, length: float) -> trimesh.Trimesh:
    a, b, c = _lerp(0.25, 0.5, foot), _lerp(0.25, 0.5, stem), _lerp(0.7, 1.2, length)
    return _extrude(Polygon([(0, 0), (1, 0), (1, a), (b, a), (b, c), (0, c)]))


def _t_profile(bar: float, stem: float, length: float) -> trimesh.Trimesh:
    a, b, c = _lerp(0.25, 0.4, bar), _lerp(0.12, 0.25, stem), _lerp(0.7, 1.1, length)
    corners = [(-b, 0), (b, 0), (b, c - a), (0.5, c - a), (0.5, c), (-0.5, c), (-0.5, c - a)]
    return _extrude(Polygon([*corners, (-b, c - a)]))


def _u_profile(wall: float, floor: float, length: float) -> trimesh.Trimesh:
    a, b, c = _lerp(0.2, 0.32, wall), _lerp(0.2, 0.4, floor), _lerp(0.8, 1.2, length)
    corners = [(0, 0), (1, 0), (1, c), (1 - a, c), (1 - a, b), (a, b), (a, c), (0, c)]
    return _extrude(Polygon(corners))


def _plus(arm: float, length: float, taper: float) -> trimesh.Trimesh:
    a, b = _lerp(0.18, 0.4, arm), _lerp(0.7, 1.0, length)
    bars = shapely.union(shapely.box(-1, -a, 1, a), shapely.box(-a, -b, a, b))
    return _extrude(bars, _lerp(0.7, 1.0, taper))


def _vase(belly: float, neck: float, lip: float) -> trimesh.Trimesh:
    foot, waist, mouth = 0.55, _lerp(0.25, 0.5, neck), _lerp(0.5, 0.9, lip)
    middle = _lerp(0.3, 0.45, belly)
    z = np.array([0, 0.4 * middle, middle, 0.5 * (middle + 0.78), 0.78, 0.9, 1])
    r = [foot, 0.9, 1, 0.5 * (1 + waist), waist, 0.5 * (waist + mouth), mouth]
    return _revolve([*zip(r, z.tolist(), strict=True), (0.7 * mouth, 1), (0.6 * waist, 0.75)])


def _dome(roundness: float, plinth: float, narrow: float) -> trimesh.Trimesh:
    power, low = _lerp(1.6, 3.5, roundness), _lerp(0.0, 0.3, plinth)
    rise = np.array([0.0, 0.3, 0.55, 0.75, 0.9, 0.98, 1.0])
    r = np.append((1 - rise[:-1] ** power) ** (1 / power), 0.05)
    z = low + (1 - low) * rise
    profile = ([(1.0, 0.0)] if low > 0 else []) + list(zip(r.tolist(), z.tolist(), strict=True))
    return _scaled(_regular(_ROUND, _lerp(1.0, 0.7, narrow)), profile)


def _gear(teeth: float, depth: float, taper: float) -> trimesh.Trimesh:
    n, root = _count(6, 10, teeth), _lerp(0.65, 0.8, depth)
    outline = _polar(np.tile([1.0, 1.0, root, root], n))
    top = _lerp(0.8, 1.0, taper)
    return _scaled(outline, [(1, 0), (top, 1), (0.4 * top, 1), (0.4 * top, 0.6)])


def _ring(hole: float, bevel: float, narrow: float) -> trimesh.Trimesh:
    outer = _regular(_ROUND, _lerp(1.0, 0.75, narrow))
    inner = outer * _lerp(0.5, 0.75, hole)
    return _extrude(Polygon(outer, [inner]), _lerp(0.75, 1.0, bevel))


def _staircase(steps: float, lowest: float, width: float) -> trimesh.Trimesh:
    n, low = _count(2, 4, steps), _lerp(0.1, 0.35, lowest)
    side: list[tuple[float, float]] = [(1, 0)]
    for step in range(n):
        z = low + (1 - low) * step / (n - 1)
        side += [(1 - step / n, z), (1 - (step + 1) / n, z)]
    return _upright([(0, 0), *side], _lerp(0.5, 1.0, width))


def _twist(sides: float, turn: float, taper: float) -> trimesh.Trimesh:
    corners = _regular(_count(3, 5, sides))
    # Four points a side: walls that turn are not flat, and larger facets would show as a saw.
    steps = np.linspace(0, 1, 5)[:-1, None]
    following = np.roll(corners, -1, axis=0)
    outline = np.vstack([p + steps * (q - p) for p, q in zip(corners, following, strict=True)])
    top, twist = _lerp(0.6, 1.0, taper), _lerp(0.6, 1.5, turn)
    rings = []
    for z in np.linspace(0, 1, 9).tolist():
        cos, sin = math.cos(twist * z), math.sin(twist * z)
        rings.append((outline @ np.array([[cos, sin], [-sin, cos]]) * _lerp(1, top, z), z))
    return _loft(rings)


def _oval(narrow: float, squareness: float, taper: float) -> trimesh.Trimesh:
    power = 2 / _lerp(2.0, 5.0, squareness)
    circle = _regular(24)
    outline = np.sign(circle) * np.abs(circle) ** power * (1, _lerp(0.35, 0.65, narrow))
    return _scaled(outline, [(1, 0), (_lerp(0.7, 1.0, taper), 1)])


def _wedge(edge: float, ridge: float, width: float) -> trimesh.Trimesh:
    low, x = _lerp(0.1, 0.4, edge), _lerp(0.05, 0.5, ridge)
    side = [(0, 0), (1, 0), (1, low), (x, 1), (0, low)]
    return _upright(side, _lerp(0.5, 1.1, width))


def _gem(sides: float, belt: float, top: float) -> trimesh.Trimesh:
    middle, table = _lerp(0.45, 0.7, belt), _lerp(0.35, 0.7, top)
    return _scaled(_regular(_count(4, 8, sides)), [(0.45, 0), (1, middle), (table, 1)])


def _tower(sides: float, second: float, third: float) -> trimesh.Trimesh:
    outline = _regular((4, 6, _ROUND)[_count(0, 2, sides)])
    mid, top = _lerp(0.6, 0.8, second), _lerp(0.2, 0.45, third)
    return _scaled(outline, [(1, 0), (1, 0.33), (mid, 0.33), (mid, 0.67), (top, 0.67), (top, 1)])


def _hourglass(waist: float, middle: float, top: float) -> trimesh.Trimesh:
    narrow, mid, mouth = (_lerp(0.2, 0.45, waist), _lerp(0.4, 0.6, middle), _lerp(0.75, 1.0, top))
    return _revolve([(1, 0), (1, 0.1), (narrow, mid), (mouth, 0.9), (mouth, 1)])


def _crescent(bite: float, size: float, taper: float) -> trimesh.Trimesh:
    disc = Point(0, 0).buffer(1.0, quad_segs=8)
    hole = Point(_lerp(0.4, 0.6, bite), 0).buffer(_lerp(0.65, 0.85, size), quad_segs=8)
    return _extrude(disc.difference(hole), _lerp(0.85, 1.0, taper))


def _heart(notch: float, narrow: float, taper: float) -> trimesh.Trimesh:
    t = np.linspace(0, 2 * math.pi, 33)[:-1]
    y = 13 * np.cos(t) - _lerp(4, 7, notch) * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    outline = np.column_stack([16 * np.sin(t) * _lerp(0.8, 1.1, narrow), y])[::-1] / 16
    return _extrude(Polygon(outline), _lerp(0.75, 1.0, taper))


def _arrow(shaft: float, head: float, barb: float) -> trimesh.Trimesh:
    a, b, c = _lerp(0.12, 0.28, shaft), _lerp(0.1, 0.4, head), _lerp(0.5, 0.75, barb)
    corners = [(1, 0), (b, c), (b, a), (-0.8, a), (-0.8, -a), (b, -a), (b, -c)]
    return _extrude(Polygon(corners))


def _clover(lobes: float, depth: float, taper: float) -> trimesh.Trimesh:
    n = _count(3, 5, lobes)
    angles = 2 * math.pi * np.arange(8 * n) / (8 * n)
    outline = _polar(1 + _lerp(0.3, 0.5, depth) * np.cos(n * angles))
    return _scaled(outline, [(1, 0), (_lerp(0.7, 1.0, taper), 1)])


def _mushroom(stem: float, cap: float, foot: float) -> trimesh.Trimesh:
    s, low = _lerp(0.3, 0.5, stem), _lerp(0.5, 0.7, cap)
    rise = np.array([0.0, 0.3, 0.6, 0.85, 0.97])
    r, z = np.sqrt(1 - rise**2), low + (1 - low) * rise
    stalk = [(s * _lerp(1.0, 1.5, foot), 0.0), (s, low)]
    return _revolve([*stalk, *zip(r.tolist(), z.tolist(), strict=True), (0.05, 1)])


def _z_profile(bar: float, web: float, shift: float) -> trimesh.Trimesh:
    a, b, c = _lerp(0.25, 0.38, bar), _lerp(0.12, 0.2, web), _lerp(0.5, 0.8, shift)
    half = [(b, -0.5 + a), (b, 0.5), (-c, 0.5), (-c, 0.5 - a), (-b, 0.5 - a)]
    return _extrude(Polygon(half + [(-x, -y) for x, y in half]).buffer(0))


def _arch(opening: float, lintel: float, width: float) -> trimesh.Trimesh:
    a, top = _lerp(0.25, 0.34, opening), _lerp(0.5, 0.75, lintel)
    t = np.linspace(0, math.pi, 9)
    inside = zip((0.5 + a * np.cos(t)).tolist(), (top - a + a * np.sin(t)).tolist(), strict=True)
    side = [(1, 0), (1, 1), (0, 1), (0, 0), (0.5 - a, 0), *list(inside)[::-1], (0.5 + a, 0)]
    return _upright(side, _lerp(0.35, 0.7, width))


_TRAIN: dict[str, Callable[..., trimesh.Trimesh]] = {
    "prism": _prism,
    "pyramid": _pyramid,
    "cone": _cone,
    "cup": _cup,
    "star": _star,
    "l_profile": _l_profile,
    "t_profile": _t_profile,
    "u_profile": _u_profile,
    "plus": _plus,
    "vase": _vase,
    "dome": _dome,
    "gear": _gear,
    "ring": _ring,
    "staircase": _staircase,
    "twist": _twist,
    "oval": _oval,
    "wedge": _wedge,
    "gem": _gem,
    "tower": _tower,
}
_TEST: dict[str, Callable[..., trimesh.Trimesh]] = {
    "hourglass": _hourglass,
    "crescent": _crescent,
    "heart": _heart,
    "arrow": _arrow,
    "clover": _clover,
    "mushroom": _mushroom,
    "z_profile": _z_profile,
    "arch": _arch,
}
_FAMILIES = _TRAIN | _TEST

TRAIN_SHAPES: tuple[str, ...] = tuple(_TRAIN)
"""Families of the train and val splits."""
TEST_SHAPES: tuple[str, ...] = tuple(_TEST)
"""Families of the test split, which occur in no other."""
SHAPE_FAMILIES: tuple[str, ...] = TRAIN_SHAPES + TEST_SHAPES
