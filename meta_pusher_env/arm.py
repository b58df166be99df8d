"""How the expert moves its arm: inverse kinematics within joint limits, and computed torque.

Written for the arms of any number of scenes at once; an arm's torques do not depend, to the last
bit, on what others it shares a batch with.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
import numpy.typing as npt

from meta_pusher_env.env import TORQUE_LIMIT
from meta_pusher_env.scene import N_JOINTS

Array = npt.NDArray[np.float64]

_TURN_RATE = 6.7  # 1/s, of the rotation error
_TURN_WEIGHTS = np.array([0.049, 0.07, 0.065])  # m/rad of roll, tilt and heading: position first
_DAMPING = 0.002  # m^2, of the least squares
_REST = np.array([0.4, 0.4, 0.0, -1.1, 0.0, -0.5, 0.0])  # rad, elbow bent in mid-range
_REST_RATE = 0.5  # 1/s
_LIMIT_RATE, _LIMIT_MARGIN = 6.0, 0.01  # 1/s, rad: joints slow down before their limits
_TRACKING = 11.8  # 1/s, of joint velocities; stable up to 2 / 0.05 s
_DAMPED = _DAMPING * np.eye(6)
_TURN_GAINS = 0.5 * _TURN_RATE * _TURN_WEIGHTS


class Arms:
    """The arms of N scenes.

    Attributes:
        states: (N, 26) the scenes' qpos and qvel when they were last read.
        tips: (N, 3) world positions of the tips then, m.
        scoops: (N, 3, 3) then, one axis a row: ahead along the fingers, across and up.
    """

    def __init__(self, scenes: Sequence[mujoco.MjData]) -> None:
        """Prepares for scenes.

        Args:
            scenes: At least one, of models from `scene.build_model`; `look` reads them.
        """
        n, model = len(scenes), scenes[0].model  # the arm is the same in all scenes
        lower, upper = model.jnt_range[:N_JOINTS].T
        limits = np.array([lower + _LIMIT_MARGIN, upper - _LIMIT_MARGIN])
        self._limits = np.repeat(limits[:, None], n, axis=1)
        self._damping = model.dof_damping[:N_JOINTS].copy()
        self.states, self.tips = np.zeros((n, 2 * model.nv)), np.zeros((n, 3))
        self._angles = self.states[:, :N_JOINTS]
        self._rates = self.states[:, model.nv : model.nv + N_JOINTS]
        self.scoops, self._centres = np.zeros((n, 3, 3)), np.zeros((n, 3))
        self._motions = np.zeros((n, N_JOINTS, 6))
        self._bias, self._inertial, self._acceleration = np.zeros((3, n, model.nv))
        self._products = [
            (data.model, data, self._inertial[i], self._acceleration[i])
            for i, data in enumerate(scenes)
        ]
        self._sources = [self._pair_rows(lane, data) for lane, data in enumerate(scenes)]

    def _pair_rows(self, i: int, data: mujoco.MjData) -> list[tuple[Array, Array]]:
        """Rows of ours, each with the view of the scene that it is a copy of."""
        model, joints, tip = data.model, slice(N_JOINTS), data.model.site("tip").id
        nv, root = model.nv, model.body_rootid[model.site_bodyid[tip]]
        return [
            (self.states[i, :nv], data.qpos),
            (self.states[i, nv:], data.qvel),
            (self.tips[i], data.site_xpos[tip]),
            (self.scoops[i], data.site_xmat[tip].reshape(3, 3).T),
            (self._motions[i], data.cdof[joints]),
            (self._centres[i], data.subtree_com[root]),
            (self._bias[i], data.qfrc_bias),
        ]

    def look(self, lane: int) -> None:
        """Reads a scene; what depends on its state must be up to date, as after mj_step1."""
        for own, source in self._sources[lane]:
            own[...] = source

    def steer(self, velocities: Array, rotations: Array) -> Array:
        """The torques (N, 7) in N m, within +-2, that make the tips move.

        Args:
            velocities: Wanted ones of the tips, (3, N), m/s.
            rotations: Wanted ones of the scoops, (N, 3, 3), one axis a column: roll, tilt and
                heading are weighed in their frames.
        """
        seen = self.scoops @ rotations
        twist = np.empty((len(seen), 6))
        twist[:, :3] = velocities.T
        twist[:, 3] = seen[:, 2, 1] - seen[:, 1, 2]
        twist[:, 4] = seen[:, 0, 2] - seen[:, 2, 0]
        twist[:, 5] = seen[:, 1, 0] - seen[:, 0, 1]
        twist[:, 3:] *= _TURN_GAINS
        # A joint turns about its axis, and moves what is at the arm's centre of mass.
        axes, moves = self._motions[..., :3], self._motions[..., 3:]
        jacobian = axes @ np.concatenate(
            [_crossing(self.tips - self._centres), rotations * _TURN_WEIGHTS], axis=2
        )  # transposed
        jacobian[..., :3] += moves
        return self._track(self._solve_rates(jacobian, twist))

    def _solve_rates(self, jacobian: Array, twist: Array) -> Array:
        """Joint velocities (N, 7), rad/s: damped least squares within the joints' limits."""
        angles = self._angles.copy()  # contiguous
        lowest, highest = _LIMIT_RATE * (self._limits - angles)
        rates = _REST_RATE * (_REST - angles)
        free = np.ones(rates.shape, dtype=bool)
        movable = jacobian
        for _ in range(4):  # the active set: hold what would pass its limit, solve for the rest
            # Damped least squares in the dual: from these rates, as little motion as will do.
            missing = twist - (rates[:, None] @ jacobian)[:, 0]
            square = movable.transpose(0, 2, 1).copy() @ movable + _DAMPED
            effort = np.linalg.solve(square, missing[..., None])
            solved = rates + (movable @ effort)[..., 0]
            within = np.minimum(np.maximum(solved, lowest), highest)
            beyond = (within != solved) & free
            if not np.count_nonzero(beyond):
                break
            free &= ~beyond
            rates = np.where(beyond, within, rates)
            movable = jacobian * free[..., None]
        return solved

    def _track(self, rates: Array) -> Array:
        """Computed torque for joint velocities, squashed smoothly into the actuators' range."""
        self._acceleration[:, :N_JOINTS] = _TRACKING * (rates - self._rates)
        for model, data, product, acceleration in self._products:
            mujoco.mj_mulM(model, data, product, acceleration)
        torques = (self._inertial + self._bias)[:, :N_JOINTS] + self._damping * rates
        squashed: Array = TORQUE_LIMIT * np.tanh(torques / TORQUE_LIMIT)
        return squashed


def _crossing(vectors: Array) -> Array:
    """Matrices (N, 3, 3) such that ``a @ matrix`` is the cross product of a and the vector."""
    x, y, z = vectors.T
    matrices = np.zeros((len(vectors), 3, 3))
    matrices[:, 1, 0], matrices[:, 2, 1], matrices[:, 0, 2] = z, x, y
    return matrices - matrices.transpose(0, 2, 1)
