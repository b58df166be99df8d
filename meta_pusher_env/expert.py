"""The scripted expert: a Markov law from the physics state to seven torques.

The wrist is a U-shaped scoop. The expert comes down with the target inside the U and carries it
*sideways*: the scoop's heading is nearly square to the path, so that one finger pushes and the
other one stops an object that coasts, and the swept lane is as narrow as the U is deep (14 cm)
instead of as wide as it is broad (24 cm). Close to the distractor the wrist rolls, so that the
finger on that side passes above it. An object that is too wide for the U (only objects from files
are) is held by friction: the scoop presses on its top, and carries it. There is no phase and no
memory: every term is a smooth function of the state, so noise in the executed torques is corrected
from wherever it leads.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import mujoco
import numpy as np
import numpy.typing as npt

from meta_pusher_env.env import TORQUE_LIMIT
from meta_pusher_env.scene import GOAL, N_JOINTS, TABLE_HEIGHT

Array = npt.NDArray[np.float64]

# The numbers below were chosen by CMA-ES, then one at a time, on other placements than those of
# benchmarks/expert.py, then rounded.
# Geometry of the scoop in the tip's frame, from Gymnasium's pusher.xml.
_BAR_X, _FINGERTIP_X, _FINGER_Y = -0.07, 0.03, 0.1  # m: back bar, ends of the fingers, fingers
_FINGER_RADIUS = 0.02  # m: of these capsules
_REACH_X, _REACH_Y = 0.07, 0.08  # m: an object further from the tip than that is outside the U

# Where the target should be in the U. Off the middle, since the bar would land on wide objects.
_SEAT_HIGH, _SEAT_LOW = 0.015, 0.022  # m ahead of the tip, before and after coming down
_SEAT_ROLLED = 0.042  # m per sin(roll) towards the lower finger, as the bar rises from there

# Height of the scoop's lowest point above the table.
_CLEARANCE = 0.03  # m: the capsules' radius is 0.02
_LIFT = 0.13  # m, over _CLEARANCE: clears the highest object, 0.09
_LOW, _NOT_LOW = 0.035, 0.075  # m over _CLEARANCE: carries the target; does not yet
_SEATED, _UNSEATED = (0.4, 1.0), (1.15, 1.47)  # of the U's size: comes down, lifts; when high, low

# Speeds.
_REACH_RATE, _REACH_SPEED = 4.1, 0.8  # 1/s, m/s: to above the target
_LIFT_RATE, _LIFT_SPEED = 4.0, 0.4  # 1/s, m/s
_CARRY_RATE, _CARRY_SPEED = 1.33, 0.13  # 1/s, m/s: slow, since 1 kg coasts at 0.2 N s/m
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

# Objects from files may be larger than drawn ones. Tuned on MIL's, with other placements than those
# that are reported.
_OVER_TOP = 0.035  # m: the lift clears the higher object by as much
_FITS = 0.067  # m: an object of a larger radius is pressed on, and not enclosed
_PEAK = 0.05  # m: what is higher within this radius sticks up into the U
_PRESS, _PRESS_LOW = 0.06, 0.02  # m below the top that the scoop strives for; of it counts as low
_PRESS_SPEED = 1.6  # times the carrying speed: the object lags behind, and cannot run ahead
_ASIDE = 0.04  # m off the middle, away from a distractor that stands as high and is close
_ASIDE_NEAR, _ASIDE_FAR = 0.15, 0.25  # m between the objects: by so much; not at all

# Inverse kinematics and torques.
_TURN_RATE = 6.7  # 1/s, of the rotation error
_TURN_WEIGHTS = np.array([0.049, 0.07, 0.065])  # m/rad of roll, tilt and heading: position first
_DAMPING = 0.002  # m^2, of the least squares
_REST = np.array([0.4, 0.4, 0.0, -1.1, 0.0, -0.5, 0.0])  # rad, elbow bent in mid-range
_REST_RATE = 0.5  # 1/s
_LIMIT_RATE, _LIMIT_MARGIN = 6.0, 0.01  # 1/s, rad: joints slow down before their limits
_TRACKING = 11.8  # 1/s, of joint velocities; stable up to 2 / 0.05 s


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
        if target not in (0, 1):
            raise ValueError(f"target is {target!r}, expected 0 or 1.")
        self._model = model
        self._data = mujoco.MjData(model)  # its own, so that the caller's stays as it is
        self._target = N_JOINTS + 3 * target
        self._distractor = N_JOINTS + 3 * (1 - target)
        self._tip = model.site("tip").id
        self._grip = _choose_grip(model, target)
        limits = model.jnt_range[:N_JOINTS]
        self._lower, self._upper = limits[:, 0] + _LIMIT_MARGIN, limits[:, 1] - _LIMIT_MARGIN
        self._joint_damping = model.dof_damping[:N_JOINTS].copy()
        self._jacobians = np.zeros((2, 3, model.nv))
        self._bias, self._inertial, self._acceleration = np.zeros((3, model.nv))

    def act(self, data: mujoco.MjData) -> Array:
        """The torques (7,) in N m, within +-2, for the state in ``data``, which is not changed."""
        self._update(data)
        target = data.qpos[self._target : self._target + 2]
        distractor = data.qpos[self._distractor : self._distractor + 2]
        rotation, roll = _choose_rotation(GOAL - target, distractor - target)
        velocity = self._choose_velocity(
            target, data.qvel[self._target : self._target + 2], distractor, math.sin(roll)
        )
        actual = self._data.site_xmat[self._tip].reshape(3, 3)
        turn = 0.5 * _TURN_RATE * np.cross(actual.T, rotation.T).sum(axis=0)
        # Rotation in the wanted frame, whose axes are roll, tilt and heading: each has a weight.
        axes = _TURN_WEIGHTS[:, None] * rotation.T
        twist = np.concatenate([velocity, axes @ turn])
        moves, turns = self._jacobians[:, :, :N_JOINTS]
        rates = self._solve_rates(np.concatenate([moves, axes @ turns]), twist)
        return self._track(rates)

    def _update(self, data: mujoco.MjData) -> None:
        """Everything that depends on the arm's state; mj_step leaves it one substep stale."""
        model, own = self._model, self._data
        own.qpos[:] = data.qpos
        own.qvel[:N_JOINTS] = data.qvel[:N_JOINTS]
        mujoco.mj_kinematics(model, own)
        mujoco.mj_comPos(model, own)
        mujoco.mj_crb(model, own)
        mujoco.mj_comVel(model, own)
        mujoco.mj_rne(model, own, 0, self._bias)
        mujoco.mj_jacSite(model, own, self._jacobians[0], self._jacobians[1], self._tip)

    def _choose_velocity(
        self, target: Array, target_velocity: Array, distractor: Array, sin_roll: float
    ) -> Array:
        """The tip's velocity (3,), m/s: towards the target while away from it, else carrying."""
        grip, tip = self._grip, self._data.site_xpos[self._tip]
        rotation = self._data.site_xmat[self._tip].reshape(3, 3)
        ahead = rotation[:2, 0] / (math.hypot(rotation[0, 0], rotation[1, 0]) + 1e-9)
        across = np.array([-ahead[1], ahead[0]])
        bar, fingertip = _BAR_X * rotation[2, 0], _FINGERTIP_X * rotation[2, 0]
        sag = _FINGER_Y * abs(rotation[2, 1]) - min(bar, fingertip)
        height = tip[2] - sag - grip.clearance - TABLE_HEIGHT  # of the lowest point
        low = _smoothstep((_NOT_LOW - (height - grip.low)) / (_NOT_LOW - _LOW))

        offset = target + grip.step_aside(target - distractor) - tip[:2]
        slip = ahead @ offset - grip.seat_high - (grip.seat_low - grip.seat_high) * low
        drift = across @ offset - _SEAT_ROLLED * sin_roll
        # Once down, the target may move about in the U: thresholds grow, so that nothing deadlocks.
        inner = _SEATED[0] + (_UNSEATED[0] - _SEATED[0]) * low
        outer = _SEATED[1] + (_UNSEATED[1] - _SEATED[1]) * low
        outside = (math.hypot(slip / _REACH_X, drift / _REACH_Y) - inner) / (outer - inner)
        climb = _saturate(_LIFT_RATE * (grip.lift * _smoothstep(outside) - height), _LIFT_SPEED)

        reach = _capped(slip * ahead + drift * across, _REACH_RATE, _REACH_SPEED) + target_velocity
        carry = grip.speed * _capped(GOAL - target, _CARRY_RATE, _CARRY_SPEED)
        weight = low * _smoothstep(1 - outside)
        if grip.encloses:
            brake = weight * _BRAKE * (across @ (carry - target_velocity)) + _CENTRE * drift
            follow = _FOLLOW * 0.5 * (slip + math.hypot(slip, _FOLLOW_KNEE))
            carry = carry + brake * across + follow * ahead
        return np.append(weight * carry + (1 - weight) * reach, climb)

    def _solve_rates(self, jacobian: Array, twist: Array) -> Array:
        """Joint velocities (7,), rad/s: damped least squares within the joints' limits."""
        angles = self._data.qpos[:N_JOINTS]
        lowest = _LIMIT_RATE * (self._lower - angles)
        highest = _LIMIT_RATE * (self._upper - angles)
        matrix = jacobian.T @ jacobian + _DAMPING * np.eye(N_JOINTS)
        vector = jacobian.T @ twist + _DAMPING * _REST_RATE * (_REST - angles)
        rates = np.linalg.solve(matrix, vector)
        held = np.zeros(N_JOINTS, dtype=bool)
        for _ in range(3):  # the active set: hold what would pass its limit, solve for the rest
            beyond = ((rates < lowest) | (rates > highest)) & ~held
            if not beyond.any():
                break
            held |= beyond
            rates = np.where(held, np.clip(rates, lowest, highest), rates)
            free = ~held
            rest = vector[free] - matrix[np.ix_(free, held)] @ rates[held]
            rates[free] = np.linalg.solve(matrix[np.ix_(free, free)], rest)
        return rates

    def _track(self, rates: Array) -> Array:
        """Computed torque for joint velocities, squashed smoothly into the actuators' range."""
        self._acceleration[:N_JOINTS] = _TRACKING * (rates - self._data.qvel[:N_JOINTS])
        mujoco.mj_mulM(self._model, self._data, self._inertial, self._acceleration)
        torques = (self._inertial + self._bias)[:N_JOINTS] + self._joint_damping * rates
        return _saturate_array(torques)


@dataclasses.dataclass(frozen=True)
class _Grip:
    """How a scene's target is held; the defaults are for drawn objects.

    Attributes:
        encloses: Within the U, or else by pressing on the top.
        clearance: Height above the table that the scoop's lowest point strives for, m.
        lift: Height above that on the way to the target, m.
        low: Height above that which still counts as none, m.
        seat_high: Where the target should be ahead of the tip, m, before coming down.
        seat_low: And after it.
        speed: Factor of the carrying speed.
        aside: How far to press off the middle, away from a distractor that is close, m.
    """

    encloses: bool = True
    clearance: float = _CLEARANCE
    lift: float = _LIFT
    low: float = 0.0
    seat_high: float = _SEAT_HIGH
    seat_low: float = _SEAT_LOW
    speed: float = 1.0
    aside: float = 0.0

    def step_aside(self, from_distractor: Array) -> Array | float:
        """Offset (2,) from the target's middle, m, given that from distractor to target."""
        if not self.aside:
            return 0.0
        distance = math.hypot(from_distractor[0], from_distractor[1])
        near = _smoothstep((_ASIDE_FAR - distance) / (_ASIDE_FAR - _ASIDE_NEAR))
        return self.aside * near / (distance + 1e-9) * from_distractor


@functools.lru_cache(maxsize=128)  # an Expert may be made for every step
def _choose_grip(model: mujoco.MjModel, target: int) -> _Grip:
    edges, others = _edge_points(model, target), _edge_points(model, 1 - target)
    radii, heights = np.hypot(edges[:, 0], edges[:, 1]), edges[:, 2]
    lift = max(_LIFT, max(heights.max(), others[:, 2].max()) + _OVER_TOP)
    if radii.max() < _FITS:
        return _Grip(lift=lift)
    top = float(heights[radii >= _PEAK].max())
    clearance = top + _FINGER_RADIUS - _PRESS
    return _Grip(
        encloses=False,
        clearance=clearance,
        lift=max(_LIFT, lift + _CLEARANCE - clearance),
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


def _choose_rotation(to_goal: Array, to_distractor: Array) -> tuple[Array, float]:
    """The scoop's wanted rotation (3, 3) and the roll in it, rad.

    ``side`` is +1 where the distractor lies at greater x than the target. It fixes the sense of
    the turn, and as the distractor stays where it is, keeps it up to the goal.
    """
    left = math.hypot(to_goal[0], to_goal[1])
    distance = math.hypot(to_distractor[0], to_distractor[1])
    side = math.tanh(to_distractor[0] / _SIDE_SOFTNESS)
    beyond = 1 - _BEYOND_FADE * _smoothstep(left / _NEAR_GOAL)
    path_x = to_goal[0] + beyond * _BEYOND_GOAL[0] * side
    path_y = max(to_goal[1], -0.03) + beyond * _BEYOND_GOAL[1]  # never back: it cannot turn round
    turned = math.atan2(path_y, path_x) + side * _TOE - _HEADING
    beside = side * math.atan2(to_distractor[1], abs(to_distractor[0]))
    close = _smoothstep((_BESIDE_FAR - distance) / (_BESIDE_FAR - _BESIDE_NEAR))
    turned += _BESIDE * close * (beside - turned)
    heading = _HEADING + _HEADING_RANGE * math.tanh(turned / _HEADING_RANGE)
    near = _smoothstep((_ROLL_FAR - distance) / (_ROLL_FAR - _ROLL_NEAR))
    roll = -side * _ROLL * near * _smoothstep(left / _ROLL_GOAL)
    ch, sh, cr, sr = math.cos(heading), math.sin(heading), math.cos(roll), math.sin(roll)
    return np.array([[ch, -sh * cr, sh * sr], [sh, ch * cr, -ch * sr], [0.0, sr, cr]]), roll


def _smoothstep(x: float) -> float:
    """0 below 0, 1 above 1, with a continuous slope."""
    x = min(1.0, max(0.0, x))
    return x * x * (3.0 - 2.0 * x)


def _saturate(x: float, limit: float) -> float:
    return limit * math.tanh(x / limit)


def _saturate_array(torques: Array) -> Array:
    squashed: Array = TORQUE_LIMIT * np.tanh(torques / TORQUE_LIMIT)
    return squashed


def _capped(offset: Array, rate: float, speed: float) -> Array:
    """Velocity (2,) along an offset: proportional nearby, of limited speed further away."""
    distance = math.hypot(offset[0], offset[1])
    return offset * (_saturate(rate * distance, speed) / (distance + 1e-9))
