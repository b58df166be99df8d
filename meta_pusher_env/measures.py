"""What an environment tells of one episode: state observation, info and reward terms.

Twenty-odd numbers are faster to work out as plain floats than as small arrays, and MuJoCo's arrays
are faster to read through views that are made once. `meta_pusher_env.episodes` does the same for
many episodes in arrays, with the same operations in the same order; tests hold the two bitwise
equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from meta_pusher_env import objects, scene
from meta_pusher_env.tasks import PusherTask

AGENT_POS_DIM = 20
POSE_DIM = 5
SLOT_DIM = POSE_DIM + objects.DESCRIPTOR_DIM
STATE_OBS_DIM = AGENT_POS_DIM + 2 * SLOT_DIM
GOAL_RADIUS_SQUARED = 0.017  # m^2, MIL's: squared distance of an object that is at the goal
GOAL_STEPS = 10  # MIL's: an object was brought to the goal if it was there in so many steps
STRICT_RADIUS = 0.05  # m

_ARM = slice(0, scene.N_JOINTS)
_GOAL_X, _GOAL_Y = map(float, scene.GOAL)


def blank_observation(task: PusherTask, slots: Sequence[int] | np.ndarray) -> np.ndarray:
    """All of a state observation (136,), float32, that stays the same during an episode."""
    obs = np.zeros(STATE_OBS_DIM, np.float32)
    obs[17:20] = (*scene.GOAL, scene.TABLE_HEIGHT)
    for start, index in zip((AGENT_POS_DIM, AGENT_POS_DIM + SLOT_DIM), slots, strict=True):
        obs[start + POSE_DIM : start + SLOT_DIM] = objects.describe(task.objects[index])
    return obs


class Measures:
    """Reads one episode's scene; made anew for every `MjData`.

    Args:
        model: From `scene.build_model`.
        data: Its state, of which views are kept.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._qpos, self._qvel = data.qpos, data.qvel
        self._tip = data.site_xpos[model.site("tip").id]

    def begin(self, task: PusherTask, slots: np.ndarray) -> None:
        """Starts an episode from the present state."""
        self._task_id, self._target = task.task_id, task.target
        self._slots = slots.tolist()
        self._obs = blank_observation(task, slots)
        self._start = self._object_xy()
        self._steps_at_goal = [0, 0]

    def count_step(self) -> None:
        """Takes notice of a step's end."""
        for index, (x, y) in enumerate(self._object_xy()):
            self._steps_at_goal[index] += _squared(x - _GOAL_X, y - _GOAL_Y) < GOAL_RADIUS_SQUARED

    def state_observation(self) -> np.ndarray:
        """`agent_pos` and, per slot, [x, y, yaw, x velocity, y velocity, looks]; float32 (136,)."""
        obs, qpos, qvel = self._obs, self._qpos, self._qvel
        obs[_ARM] = qpos[_ARM]
        obs[7:14] = qvel[_ARM]
        obs[14:17] = self._tip
        all_qpos, all_qvel = qpos.tolist(), qvel.tolist()
        start = AGENT_POS_DIM
        for index in self._slots:
            at = scene.N_JOINTS + 3 * index
            x, y, yaw = all_qpos[at : at + 3]
            yaw = (yaw + math.pi) % (2 * math.pi) - math.pi
            obs[start : start + POSE_DIM] = (x, y, yaw, all_qvel[at], all_qvel[at + 1])
            start += SLOT_DIM
        return obs.copy()

    def agent_pos(self) -> np.ndarray:
        """Joint angles, joint velocities, tip and goal; float32 (20,)."""
        return self.state_observation()[:AGENT_POS_DIM].copy()

    def info(self) -> dict[str, Any]:
        """What the data sheet lists under Information."""
        target, other = self._target, 1 - self._target
        places = self._object_xy()
        distances = [math.sqrt(_squared(x - _GOAL_X, y - _GOAL_Y)) for x, y in places]
        moved = [
            math.sqrt(_squared(x - x0, y - y0))
            for (x, y), (x0, y0) in zip(places, self._start, strict=True)
        ]
        return {
            "task_id": self._task_id,
            "is_success": self._steps_at_goal[target] >= GOAL_STEPS,
            "is_success_other": self._steps_at_goal[other] >= GOAL_STEPS,
            "is_success_strict": distances[target] < min(STRICT_RADIUS, distances[other]),
            "target_distance": distances[target],
            "distractor_distance": distances[other],
            "target_moved": moved[target],
            "distractor_moved": moved[other],
        }

    def reward_terms(self, torques: Sequence[float]) -> dict[str, float]:
        """Gymnasium's Pusher terms, weighted, for the target."""
        x, y = self._object_xy()[self._target]
        tip_x, tip_y, tip_z = self._tip.tolist()
        height = scene.OBJECT_HEIGHT - tip_z
        reach = _squared(x - tip_x, y - tip_y) + height * height
        effort = 0.0
        for torque in torques:
            effort += torque * torque
        return {
            "reward_near": -0.5 * math.sqrt(reach),
            "reward_dist": -math.sqrt(_squared(x - _GOAL_X, y - _GOAL_Y)),
            "reward_ctrl": -0.1 * effort,
        }

    def _object_xy(self) -> tuple[tuple[float, float], tuple[float, float]]:
        x0, y0, _, x1, y1, _ = self._qpos[scene.N_JOINTS :].tolist()
        return (x0, y0), (x1, y1)


def _squared(x: float, y: float) -> float:
    return x * x + y * y
