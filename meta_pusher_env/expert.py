"""The scripted expert: a Markov law from the physics state to seven torques.

The wrist is a U-shaped scoop. The expert comes down with the target inside the U and carries it
*sideways*: the scoop's heading is nearly square to the path, so that one finger pushes and the
other one stops an object that coasts, and the swept lane is as narrow as the U is deep (14 cm)
instead of as wide as it is broad (24 cm). Close to the distractor the wrist rolls, so that the
finger on that side passes above it. An object that is too wide for the U (only objects from files
are) is held by friction: the scoop presses on its top, and carries it. There is no phase and no
memory: every term is a smooth function of the state, so noise in the executed torques is corrected
from wherever it leads.

There is one law, written for any number of scenes at once: `Experts`. `Expert` is the law for one.
A scene's torques do not depend, to the last bit, on what other scenes it shares a batch with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import mujoco
import numpy as np
import numpy.typing as npt

from meta_pusher_env.arm import Arms
from meta_pusher_env.grip import Grip, choose_grip
from meta_pusher_env.scene import GOAL, N_JOINTS, TABLE_HEIGHT

Array = npt.NDArray[np.float64]

# The numbers below were chosen by CMA-ES, then one at a time, on other placements than those of
# benchmarks/expert.py, then rounded.
# Geometry of the scoop in the tip's frame, from Gymnasium's pusher.xml.
_BAR_X, _FINGERTIP_X, _FINGER_Y = -0.07, 0.03, 0.1  # m: back bar, ends of the fingers, fingers
_REACH_X, _REACH_Y = 0.07, 0.08  # m: an object further from the tip than that is outside the U

# Where the target is in the U, and the scoop's lowest point; `meta_pusher_env.grip` has the rest.
_SEAT_ROLLED = 0.042  # m per sin(roll) towards the lower finger, as the bar rises from there
_LOW, _NOT_LOW = 0.035, 0.075  # m over the grip's clearance: carries the target; does not yet
# Of the U's size: so far off is the target still seated, so much further not; high up, down.
_SEATED_HIGH, _SEATED_LOW = np.array([[0.4], [0.6]]), np.array([[1.15], [0.32]])

# Speeds.
_REACH_RATE, _REACH_SPEED = 4.1, 0.8  # 1/s, m/s: to above the target
_LIFT_RATE, _LIFT_SPEED = 4.0, 0.4  # 1/s, m/s
_CARRY_RATE, _CARRY_SPEED = 1.33, 0.13  # 1/s, m/s: slow, since 1 kg coasts at 0.2 N s/m
_RATES = np.array([[_REACH_RATE], [_CARRY_RATE]])
_SPEEDS = np.array([[_REACH_SPEED], [_CARRY_SPEED]])
_BRAKE = 0.5  # gain on the target's velocity error across the fingers: closes the finger that stops
_FOLLOW, _CENTRE = 1.2, 0.08  # 1/s: along the fingers, when the target slips ahead; across
_FOLLOW_KNEE = 0.01  # m, softness of "ahead"

# Heading and roll.
_SIDE_SOFTNESS = 0.04  # m, in x: which side of the target the distractor is on
_BEYOND_GOAL = (0.06, 0.18)  # m: the path is aimed there, as its direction is undefined at the goal
_BEYOND_FADE, _NEAR_GOAL = 0.8, 0.17  # share of that which is left out further away than so many m
_TOE = math.radians(79)  # heading relative to the path: under 90 degrees the bar pushes a little
_HEADING, _HEADING_RANGE = math.radians(90), math.radians(64)  # middle and half range: joint limits
_BESIDE = 0.5  # share by which the open side turns to face the distractor's side, where it is close
_BESIDE_NEAR, _BESIDE_FAR = 0.13, 0.18  # m between the objects: by that share; not at all
_ROLL = 0.6  # rad: lifts the finger by 0.2 m * sin(0.6) = 11 cm, more than an object's height
_ROLL_NEAR, _ROLL_FAR = 0.18, 0.265  # m between the objects: rolls fully; not at all
_ROLL_GOAL = 0.12  # m from the goal: levels again, as the lifted finger is the one that stops
_ASIDE_NEAR, _ASIDE_FAR = 0.15, 0.25  # m between the objects: `Grip.aside` by so much; not at all

# Smooth steps from 0 to 1: in the target's distance from 0 the goal or 1 the distractor, or in 2
# the scoop's height; m.
_FADES = (
    (0, 0.0, _NEAR_GOAL),
    (0, 0.0, _ROLL_GOAL),
    (1, _BESIDE_FAR, _BESIDE_NEAR),
    (1, _ROLL_FAR, _ROLL_NEAR),
    (1, _ASIDE_FAR, _ASIDE_NEAR),
    (2, _NOT_LOW, _LOW),
)
_FADE_OF = [quantity for quantity, _, _ in _FADES]
_FADE_FROM, _FADE_TO = np.array([ends for _, *ends in _FADES]).T[..., None]


class Expert:
    """Brings one of a scene's two objects to the goal and leaves the other one alone.

    Privileged: it reads both objects' positions and the target's velocity, and whether their size
    is beyond that of drawn objects; but neither shape, mass nor damping. Deterministic and without
    memory, so its labels are Markov.
    """

    def __init__(self, model: mujoco.MjModel, target: int) -> None:
        """Prepares for a scene.

        Args:
            model: From `scene.build_model`.
            target: Which object to bring to the goal, 0 or 1.

        Raises:
            ValueError: ``target`` is neither 0 nor 1.
        """
        self._data = mujoco.MjData(model)  # its own, so that the caller's stays as it is
        self._arm = Arms([self._data])
        self._experts = Experts(self._arm, [model], [target])

    def act(self, data: mujoco.MjData) -> Array:
        """The torques (7,) in N m, within +-2, for the state in ``data``, which is not changed."""
        own = self._data
        model = own.model
        own.qpos[:], own.qvel[:] = data.qpos, data.qvel
        # All that depends on the arm's state; mj_step leaves it one substep stale.
        mujoco.mj_kinematics(model, own)
        mujoco.mj_comPos(model, own)
        mujoco.mj_crb(model, own)
        mujoco.mj_comVel(model, own)
        mujoco.mj_rne(model, own, 0, own.qfrc_bias)
        self._arm.look(0)
        torques: Array = self._experts.act()[0]
        return torques


class Experts:
    """An expert for each of N scenes, who act at once."""

    def __init__(
        self, arms: Arms, models: Sequence[mujoco.MjModel], targets: Sequence[int]
    ) -> None:
        """Prepares for scenes.

        Args:
            arms: The scenes'; what was read last is what is acted on.
            models: The scenes'.
            targets: Which object to bring to the goal in each scene, 0 or 1.

        Raises:
            ValueError: A target is neither 0 nor 1.
        """
        for target in targets:
            if target not in (0, 1):
                raise ValueError(f"target is {target!r}, expected 0 or 1.")
        n, nv = len(models), models[0].nv
        self._arms = arms
        grips = [choose_grip(model, target) for model, target in zip(models, targets, strict=True)]
        self._grip = grip = Grip(*np.array(grips).T.copy())
        self._floor = grip.clearance + TABLE_HEIGHT
        self._seat_shift = grip.seat_low - grip.seat_high
        self._presses = bool(np.any(grip.aside))
        self._from = np.repeat(_FADE_FROM, n, axis=1)
        self._from[-1] += grip.low
        self._width = np.repeat(_FADE_TO - _FADE_FROM, n, axis=1)
        # In the arms' states: x and y of the distractor, of the target and of its velocity.
        first = 2 * nv * np.arange(n) + N_JOINTS
        target, other = first + 3 * np.array(targets), first + 3 * (1 - np.array(targets))
        self._where = np.stack([other, target, target + nv])[:, None] + np.arange(2)[:, None]
        self._points = np.zeros((4, 2, n))
        self._points[0] = GOAL[:, None]

    def act(self) -> Array:
        """The torques (N, 7) in N m, within +-2, for the states that were read last."""
        self._points[1:] = self._arms.states.take(self._where)
        offsets = self._points[:2] - self._points[2]  # from the target to goal and distractor
        lengths = np.hypot(offsets[:, 0], offsets[:, 1])
        frame, height = self._scoop()
        fades = _smoothstep((np.array([*lengths, height])[_FADE_OF] - self._from) / self._width)
        rotation = _choose_rotation(offsets, fades)
        velocity = self._choose_velocity(offsets, frame, height, fades, rotation[:, 2, 1])
        return self._arms.steer(velocity, rotation)

    def _scoop(self) -> tuple[Array, Array]:
        """Horizontal axes ahead and across (2, 2, N), and the lowest point's height (N,), m."""
        forward = np.ascontiguousarray(self._arms.scoops[:, 0].T)
        frame = np.empty((2, *forward[:2].shape))
        frame[0] = forward[:2] / (np.hypot(forward[0], forward[1]) + 1e-9)
        frame[1, 0], frame[1, 1] = -frame[0, 1], frame[0, 0]
        sag = _FINGER_Y * np.abs(self._arms.scoops[:, 1, 2])
        sag -= np.minimum(_BAR_X * forward[2], _FINGERTIP_X * forward[2])
        return frame, self._arms.tips[:, 2] - sag - self._floor

    def _choose_velocity(
        self, offsets: Array, frame: Array, height: Array, fades: Array, sin_roll: Array
    ) -> Array:
        """The tip's velocity (3, N), m/s: towards the target while away from it, else carrying."""
        grip, (to_goal, to_distractor), velocity = self._grip, offsets, self._points[3]
        *_, aside, low = fades
        place = self._points[2] - self._arms.tips.T[:2]
        if self._presses:
            place -= grip.aside * aside / (np.hypot(*to_distractor) + 1e-9) * to_distractor
        offset = _in_frame(frame, place)
        slip, drift = offset  # of the target ahead of its seat, and across
        slip -= grip.seat_high + self._seat_shift * low
        drift -= _SEAT_ROLLED * sin_roll
        # Once down, the target may move about in the U: thresholds grow, so that nothing deadlocks.
        inner, width = _SEATED_HIGH + (_SEATED_LOW - _SEATED_HIGH) * low
        away = _smoothstep((np.hypot(slip / _REACH_X, drift / _REACH_Y) - inner) / width)
        climb = _saturate(_LIFT_RATE * (grip.lift * away - height), _LIFT_SPEED)

        back = frame.transpose(1, 0, 2)
        reach, carry = _capped(np.array([_in_frame(back, offset), to_goal]), _RATES, _SPEEDS)
        reach += velocity
        carry *= grip.speed
        weight = low * (1 - away)
        follow = np.empty_like(velocity)
        follow[0] = 0.5 * _FOLLOW * (slip + np.hypot(slip, _FOLLOW_KNEE))
        follow[1] = _BRAKE * weight * _dot(frame[1], carry - velocity) + _CENTRE * drift
        carry += grip.encloses * _in_frame(back, follow)
        return np.array([*(reach + weight * (carry - reach)), climb])


def _choose_rotation(offsets: Array, fades: Array) -> Array:
    """The scoops' wanted rotations (N, 3, 3), given offsets (2, 2, N) to goal and distractor.

    ``side`` is +1 where the distractor lies at greater x than the target. It fixes the sense of
    the turn, and as the distractor stays where it is, keeps it up to the goal.
    """
    (goal_x, goal_y), (other_x, other_y) = offsets
    far, level, close, near, _, _ = fades
    side = np.tanh(other_x / _SIDE_SOFTNESS)
    beyond = 1 - _BEYOND_FADE * far
    path_x = goal_x + beyond * _BEYOND_GOAL[0] * side
    # Never back: it cannot turn round.
    path_y = np.maximum(goal_y, -0.03) + beyond * _BEYOND_GOAL[1]
    turned = np.arctan2(path_y, path_x) + side * _TOE - _HEADING
    beside = side * np.arctan2(other_y, np.abs(other_x))
    turned += _BESIDE * close * (beside - turned)
    angles = np.empty((2, len(side)))
    angles[0] = _HEADING + _HEADING_RANGE * np.tanh(turned / _HEADING_RANGE)
    angles[1] = -side * _ROLL * near * level
    (ch, cr), (sh, sr) = np.cos(angles), np.sin(angles)
    rotation = np.zeros((len(side), 3, 3))
    rotation[:, 0, 0], rotation[:, 0, 1], rotation[:, 0, 2] = ch, -sh * cr, sh * sr
    rotation[:, 1, 0], rotation[:, 1, 1], rotation[:, 1, 2] = sh, ch * cr, -ch * sr
    rotation[:, 2, 1], rotation[:, 2, 2] = sr, cr
    return rotation


def _dot(a: Array, b: Array) -> Array:
    """Of vectors (2, N)."""
    product = a * b
    return product[0] + product[1]


def _in_frame(axes: Array, vectors: Array) -> Array:
    """Coordinates (2, N) of vectors (2, N) along axes (2, 2, N)."""
    product = axes * vectors
    return product[:, 0] + product[:, 1]


def _smoothstep(x: Array) -> Array:
    """0 below 0, 1 above 1, with a continuous slope."""
    x = np.minimum(1.0, np.maximum(0.0, x))
    return x * x * (3.0 - 2.0 * x)


def _saturate(x: Array, limit: float | Array) -> Array:
    squashed: Array = limit * np.tanh(x / limit)
    return squashed


def _capped(offsets: Array, rates: Array, speeds: Array) -> Array:
    """Velocities (2, 2, N) along offsets: proportional nearby, of limited speed further away."""
    distances = np.hypot(offsets[:, 0], offsets[:, 1])
    return offsets * (_saturate(rates * distances, speeds) / (distances + 1e-9))[:, None]
