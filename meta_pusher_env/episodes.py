"""The states of many episodes in arrays: their physics, and what environments tell of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import mujoco
import numpy as np
from mujoco.rollout import Rollout

from meta_pusher_env import scene
from meta_pusher_env.measures import (
    AGENT_POS_DIM,
    GOAL_RADIUS_SQUARED,
    GOAL_STEPS,
    POSE_DIM,
    SLOT_DIM,
    STRICT_RADIUS,
    blank_observation,
)
from meta_pusher_env.tasks import PusherTask
from meta_pusher_env.untimed import untimed

ARMS_AT_ONCE = 64
CHUNKS_PER_THREAD = 4  # few hand-overs, and yet no thread waits long for the last
_JOINTS = scene.N_JOINTS
_QPOS = slice(1, 1 + _JOINTS + 6)  # of mjSTATE_FULLPHYSICS: time, qpos, qvel
_QVEL = slice(_QPOS.stop, _QPOS.stop + _JOINTS + 6)
_N_STATE = _QVEL.stop


class Physics:
    """The scenes' states, stepped by a pool of threads.

    Attributes:
        qpos: (N, 13), a view of the states.
        qvel: (N, 13), a view of the states.
        tips: (N, 3) world positions of the tips, up to date with the states, m.
    """

    def __init__(self, n: int, n_threads: int, frame_skip: int) -> None:
        self._n, self._n_threads, self._frame_skip = n, n_threads, frame_skip
        self._states = np.zeros((n, _N_STATE))
        self.qpos, self.qvel = self._states[:, _QPOS], self._states[:, _QVEL]
        self.tips = np.zeros((n, 3))
        self._arms = mujoco.MjData(scene.build_arms(min(n, ARMS_AT_ONCE)))
        self._trajectory = np.zeros((n, frame_skip, _N_STATE))
        self._control = np.zeros((n, frame_skip, _JOINTS))
        self._warm_start = np.zeros((n, _JOINTS + 6))
        self._sensors = np.zeros((n, frame_skip, 0))
        self._models: list[mujoco.MjModel] = []
        self._thread_data: list[mujoco.MjData] = []
        self._posed: dict[int, tuple[mujoco.MjModel, mujoco.MjData]] = {}
        self._pool: Rollout | None = None

    def load(self, models: list[mujoco.MjModel], placements: list[scene.Placement]) -> None:
        """Puts every scene to where its episode starts."""
        self._models = models
        self._states[:] = 0
        for index, placement in enumerate(placements):
            self.qpos[index, _JOINTS:] = placement.object_qpos.ravel()
            self.qvel[index, :_JOINTS] = placement.joint_velocities
        if self._pool is None:  # lazily: threads do not survive a fork
            self._pool = Rollout(nthread=self._n_threads if self._n_threads > 1 else 0)
        largest = max(models, key=lambda model: model.nbvh)  # only meshes differ in size
        if not self._thread_data or largest.nbvh > self._thread_data[0].model.nbvh:
            self._thread_data = [mujoco.MjData(largest) for _ in range(self._n_threads)]
        self._find_tips()

    def advance(self, torques: np.ndarray) -> None:
        """One control step; as `scene.advance`, with the warm start zeroed."""
        if self._pool is None:
            raise RuntimeError("The environments are closed: make others.")
        self._control[:] = torques[:, None]
        with untimed():
            self._pool.rollout(
                self._models,
                self._thread_data,
                self._states,
                self._control,
                skip_checks=True,
                nstep=self._frame_skip,
                initial_warmstart=self._warm_start,
                state=self._trajectory,
                sensordata=self._sensors,
                chunk_size=max(1, self._n // (CHUNKS_PER_THREAD * self._n_threads)),
            )
        self._states[:] = self._trajectory[:, -1]
        self._find_tips()

    def poses(self) -> Iterator[tuple[mujoco.MjModel, mujoco.MjData]]:
        """Each scene with data that can be drawn, one after the other."""
        for index, model in enumerate(self._models):
            if self._posed.get(index, (None, None))[0] is not model:
                self._posed[index] = model, mujoco.MjData(model)
            data = self._posed[index][1]
            data.qpos[:] = self.qpos[index]
            mujoco.mj_kinematics(model, data)
            mujoco.mj_camlight(model, data)
            yield model, data

    def close(self) -> None:
        """Ends the threads; `load` starts others."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _find_tips(self) -> None:
        """Brings `tips` up to date; the arm is the same in all scenes."""
        arms, angles = self._arms, self._arms.qpos.reshape(-1, _JOINTS)
        for start in range(0, self._n, len(angles)):
            some = self.qpos[start : start + len(angles), :_JOINTS]
            angles[: len(some)] = some
            mujoco.mj_kinematics(arms.model, arms)
            self.tips[start : start + len(some)] = arms.site_xpos[: len(some)]


@dataclasses.dataclass
class Episodes:
    """What `measures.Measures` does, for N episodes in arrays; index 1 of role axes is the other.

    Attributes:
        tasks: The task of each.
        obs: (N, 136) float32, the present state observations.
        n_steps: Steps since the start.
    """

    tasks: list[PusherTask]
    obs: np.ndarray
    roles: np.ndarray  # (N, 2) indices of target and distractor
    slots: np.ndarray  # (N, 2)
    start: np.ndarray  # (N, 2, 2) places by role
    task_ids: np.ndarray
    n_steps: int = 0

    @classmethod
    def begin(cls, tasks: list[PusherTask], placements: list[scene.Placement]) -> Episodes:
        """Episodes that begin now."""
        slots = np.stack([placement.slots for placement in placements])
        roles = np.array([[task.target, 1 - task.target] for task in tasks])
        places = np.stack([placement.object_qpos[:, :2] for placement in placements])
        obs = [blank_observation(task, pair) for task, pair in zip(tasks, slots, strict=True)]
        return cls(
            tasks=tasks,
            obs=np.stack(obs),
            roles=roles,
            slots=slots,
            start=np.take_along_axis(places, roles[:, :, None], axis=1),
            task_ids=np.array([task.task_id for task in tasks], dtype=object),
        )

    def __post_init__(self) -> None:
        self._steps_at_goal = np.zeros((len(self.tasks), 2), dtype=np.int64)
        self._rows = np.arange(len(self.tasks))[:, None]
        slots = self.obs[:, AGENT_POS_DIM:].reshape(len(self.tasks), 2, SLOT_DIM)
        self._poses = slots[:, :, :POSE_DIM]  # a view of obs

    def take(self, physics: Physics) -> None:
        """Takes notice of a step's end."""
        self.n_steps += 1
        self.read(physics)
        self._steps_at_goal += self._goal_squared < GOAL_RADIUS_SQUARED

    def read(self, physics: Physics) -> None:
        """Brings observations and distances up to date."""
        obs, qpos, qvel = self.obs, physics.qpos, physics.qvel
        obs[:, :_JOINTS] = qpos[:, :_JOINTS]
        obs[:, _JOINTS : 2 * _JOINTS] = qvel[:, :_JOINTS]
        obs[:, 14:17] = self._tips = physics.tips
        objects = qpos[:, _JOINTS:].reshape(-1, 2, 3)
        in_slots = objects[self._rows, self.slots]
        in_slots[:, :, 2] = (in_slots[:, :, 2] + np.pi) % (2 * np.pi) - np.pi
        self._poses[:, :, :3] = in_slots
        velocities = qvel[:, _JOINTS:].reshape(-1, 2, 3)
        self._poses[:, :, 3:] = velocities[self._rows, self.slots][:, :, :2]
        self._places = objects[self._rows, self.roles][:, :, :2]
        self._goal_squared = _squared(self._places - scene.GOAL)

    def info(self) -> dict[str, np.ndarray]:
        """What the data sheet lists under Information."""
        distances = np.sqrt(self._goal_squared)
        moved = np.sqrt(_squared(self._places - self.start))
        at_goal = self._steps_at_goal >= GOAL_STEPS
        nearest = np.minimum(STRICT_RADIUS, distances[:, 1])
        return {
            "task_id": self.task_ids.copy(),
            "is_success": at_goal[:, 0],
            "is_success_other": at_goal[:, 1],
            "is_success_strict": distances[:, 0] < nearest,
            "target_distance": distances[:, 0],
            "distractor_distance": distances[:, 1],
            "target_moved": moved[:, 0],
            "distractor_moved": moved[:, 1],
        }

    def rewards(self, torques: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Rewards (N,), and Gymnasium's Pusher terms, weighted, for the targets."""
        height = scene.OBJECT_HEIGHT - self._tips[:, 2]
        reach = _squared(self._places[:, 0] - self._tips[:, :2]) + height * height
        terms = {
            "reward_near": -0.5 * np.sqrt(reach),
            "reward_dist": -np.sqrt(self._goal_squared[:, 0]),
            "reward_ctrl": -0.1 * np.square(torques).sum(axis=1),
        }
        rewards = terms["reward_dist"] + terms["reward_near"] + terms["reward_ctrl"]
        return rewards, terms


def _squared(offsets: np.ndarray) -> np.ndarray:
    """Squared lengths of (..., 2)."""
    squares = offsets * offsets
    total: np.ndarray = squares[..., 0] + squares[..., 1]
    return total
