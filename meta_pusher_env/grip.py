"""How the expert holds an object: drawn ones fit into its scoop, those from files may not."""

from __future__ import annotations

import functools
from typing import NamedTuple

import mujoco
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

CLEARANCE = 0.03  # m: the capsules' radius is 0.02
LIFT = 0.13  # m, over CLEARANCE: clears the highest drawn object, 0.09
SEAT_HIGH, SEAT_LOW = 0.015, 0.022  # m ahead of the tip, before and after coming down
_FINGER_RADIUS = 0.02  # m: of the scoop's capsules

# Objects from files may be larger than drawn ones. Tuned on MIL's, with other placements than those
# that are reported.
_OVER_TOP = 0.035  # m: the lift clears the higher object by as much
_FITS = 0.067  # m: an object of a larger radius is pressed on, and not enclosed
_PEAK = 0.05  # m: what is higher within this radius sticks up into the U
_PRESS, _PRESS_LOW = 0.06, 0.02  # m below the top that the scoop strives for; of it counts as low
_PRESS_SPEED = 1.6  # times the carrying speed: the object lags behind, and cannot run ahead
_ASIDE = 0.04  # m off the middle, away from a distractor that stands as high and is close


class Grip(NamedTuple):
    """How a scene's target is held; the defaults are for drawn objects.

    Attributes:
        encloses: 1 within the U, or else 0: by pressing on the top.
        clearance: Height above the table that the scoop's lowest point strives for, m.
        lift: Height above that on the way to the target, m.
        low: Height above that which still counts as none, m.
        seat_high: Where the target should be ahead of the tip, m, before coming down. Off the
            middle, since the bar would land on wide objects.
        seat_low: And after it.
        speed: Factor of the carrying speed.
        aside: How far to press off the middle, away from a distractor that is close, m.
    """

    encloses: float = 1.0
    clearance: float = CLEARANCE
    lift: float = LIFT
    low: float = 0.0
    seat_high: float = SEAT_HIGH
    seat_low: float = SEAT_LOW
    speed: float = 1.0
    aside: float = 0.0


@functools.lru_cache(maxsize=128)  # an Expert may be made for every step
def choose_grip(model: mujoco.MjModel, target: int) -> Grip:
    """How to hold object ``target``, 0 or 1, of a scene from `scene.build_model`."""
    edges, others = _edge_points(model, target), _edge_points(model, 1 - target)
    radii, heights = np.hypot(edges[:, 0], edges[:, 1]), edges[:, 2]
    lift = max(LIFT, max(heights.max(), others[:, 2].max()) + _OVER_TOP)
    if radii.max() < _FITS:
        return Grip(lift=lift)
    top = float(heights[radii >= _PEAK].max())
    clearance = top + _FINGER_RADIUS - _PRESS
    return Grip(
        encloses=0.0,
        clearance=clearance,
        lift=max(LIFT, lift + CLEARANCE - clearance),
        low=_PRESS_LOW,
        seat_high=0.0,
        seat_low=0.0,
        speed=_PRESS_SPEED,
        aside=_ASIDE if others[:, 2].max() > top - 0.01 else 0.0,
    )


def _edge_points(model: mujoco.MjModel, index: int) -> Array:
    """Points (N, 3) along all edges of an object's mesh, from the middle of its base, m."""
    geom = model.geom(f"object_{index}")
    mesh = model.mesh(int(geom.dataid[0]))
    vertices = model.mesh_vert[int(mesh.vertadr[0]) :]
    faces = model.mesh_face[int(mesh.faceadr[0]) :][: int(mesh.facenum[0])]
    starts = vertices[faces].astype(np.float64)
    ends = np.roll(starts, 1, axis=1)
    points = np.concatenate([starts + share * (ends - starts) for share in (0, 0.25, 0.5, 0.75)])
    # MuJoCo stores a mesh around its centre of mass; the geom's pose puts it back.
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, geom.quat)
    return np.asarray(points.reshape(-1, 3) @ turn.reshape(3, 3).T + geom.pos)
