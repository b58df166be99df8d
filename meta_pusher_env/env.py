"""`MetaPusherEnv`, registered as ``MetaPusher-v0``; its docstring is the data sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle

from meta_pusher_env import objects, scene
from meta_pusher_env.measures import AGENT_POS_DIM, POSE_DIM, STATE_OBS_DIM, Measures
from meta_pusher_env.rendering import Renderer, observation_camera
from meta_pusher_env.tasks import DEFAULT_SPLIT_SEED, PusherTask, make_tasks

OBS_TYPES = ("state", "pixels", "pixels_agent_pos")
EPISODE_STEPS = 100
FRAME_SKIP = 5
TORQUE_LIMIT = 2.0  # N m
NO_EPISODE = "The environment has no task yet: call reset() first."
HUMAN_SIZE = 480  # pixels, of render()
CROP_PLACE = (0.3, -0.2)  # m, world xy: off the goal, and not below the arm at rest
CROP_YAW = 0.5  # rad: sides are seen, not edges
CROP_DISTANCE = 0.22  # m, from the camera: an object fills most of its crop


class MetaPusherEnv(gym.Env[Any, np.ndarray], EzPickle):
    """Bring one of two objects to the goal, and let a demonstration say which one.

    ## Description
    A 7-joint arm, Gymnasium's own Pusher, stands at a table with two objects and a red goal. A
    *task* is a pair of objects, with their looks and physics, and the choice of one of them as the
    *target*; the other one is the *distractor*. A task and its *twin* (`PusherTask.twin`) differ
    in that choice only: with one seed, both give byte-identical observations for as long as the
    actions are the same. So nothing but a demonstration tells what to do.

    An *episode* randomises where both objects lie. There is no gravity; objects slide and turn
    on the table, against damping, and do not collide with each other (as in MIL's tasks). One
    step is 0.05 s: 5 substeps of 0.01 s.

    ## Action Space
    `Box(-2, 2, (7,), float32)`: torques in N m; finite values outside the box are clipped.

    | Num | Action                       | Min | Max | Joint in pusher.xml    |
    |-----|------------------------------|-----|-----|------------------------|
    | 0   | Panning of the shoulder      | -2  | 2   | r_shoulder_pan_joint   |
    | 1   | Lifting of the shoulder      | -2  | 2   | r_shoulder_lift_joint  |
    | 2   | Rolling of the upper arm     | -2  | 2   | r_upper_arm_roll_joint |
    | 3   | Flexing of the elbow         | -2  | 2   | r_elbow_flex_joint     |
    | 4   | Rolling of the forearm       | -2  | 2   | r_forearm_roll_joint   |
    | 5   | Flexing of the wrist         | -2  | 2   | r_wrist_flex_joint     |
    | 6   | Rolling of the wrist         | -2  | 2   | r_wrist_roll_joint     |

    ## Observation Space
    By `obs_type`; observations are copies.

    - `"state"` (default; needs no OpenGL): `Box(-Inf, Inf, (136,), float32)`, the arm's own state
      and two slots, one for each object. Which object has which slot is drawn for each episode and
      says nothing about the roles.
    - `"pixels"`: `Box(0, 255, (image_size, image_size, 3), uint8)`, from a fixed camera: lookat
      (0.4, -0.1, 0), distance 0.75 m, elevation -50, azimuth -90 degrees.
    - `"pixels_agent_pos"`: `Dict` of `pixels` as above and `agent_pos`,
      `Box(-Inf, Inf, (20,), float32)`.

    `agent_pos`, also the first 20 numbers of a state observation:

    | Num   | Observation                                            | Unit  |
    |-------|--------------------------------------------------------|-------|
    | 0-6   | Angles of the joints, in the order of the actions      | rad   |
    | 7-13  | Angular velocities of the joints                       | rad/s |
    | 14-16 | World position of the tip, amid the U-shaped scoop     | m     |
    | 17-19 | World position of the goal: (0.45, -0.05, -0.325)      | m     |

    Each slot of a state observation; they begin at number 20 and number 78:

    | Num  | Observation                                                       | Unit    |
    |------|-------------------------------------------------------------------|---------|
    | 0-1  | World position on the table, x and y                              | m       |
    | 2    | Yaw, wrapped to [-pi, pi)                                         | rad     |
    | 3-4  | World velocity, x and y                                           | m/s     |
    | 5-57 | Appearance, in [-1, 1]: size, colours, shape and texture, as      | none    |
    |      | `objects.DESCRIPTOR_FIELDS` names and explains them, one by one;  |         |
    |      | measured, with no identifier and without mass or damping          |         |

    ## Rewards
    Gymnasium's Pusher terms, for the target; `info` holds each at every step, weighted:
    *reward = reward_dist + reward_near + reward_ctrl*.

    - *reward_dist*: minus the distance on the table from target to goal.
    - *reward_near*: -0.5 times the distance from the tip to the target's base.
    - *reward_ctrl*: -0.1 times the sum of the squared torques, as given.

    ## Starting State
    As in MIL's benchmark. All joint angles are 0, joint velocities uniform in [-0.005, 0.005]. The
    goal is at (0.45, -0.05). One object lies off the goal by x in [-0.2, 0.2] and y in [-0.3, 0],
    at least 0.17 m away; the other one within the same bounds in the other half in x, at least
    0.1 m away from the first. A coin says which of them comes first: placement is symmetric in
    the two. Both yaws are uniform. Placement and slots depend on the seed alone, not on the task.

    ## Episode End
    Never terminated; truncated after exactly 100 steps, for imitation needs a fixed horizon.

    ## Information
    At every reset and step:

    | Key                    | Value                                                             |
    |------------------------|-------------------------------------------------------------------|
    | `task_id`              | `PusherTask.task_id`; the only place that names the task          |
    | `is_success`           | MIL's criterion: so far, the target's squared distance from the   |
    |                        | goal was below 0.017 m^2 after at least 10 steps                  |
    | `is_success_other`     | The same criterion for the distractor                             |
    | `is_success_strict`    | Now, the target is within 0.05 m of the goal, and nearer to it    |
    |                        | than the distractor is                                            |
    | `target_distance`      | Distance on the table from target to goal, m                      |
    | `distractor_distance`  | The same for the distractor, m                                    |
    | `target_moved`         | Distance of the target from where it started, m                   |
    | `distractor_moved`     | The same for the distractor, m                                    |

    ## Arguments
    ```python
    import gymnasium
    env = gymnasium.make("meta_pusher_env:MetaPusher-v0", obs_type="pixels", split="test")
    obs, info = env.reset(seed=0, options={"task": 3})
    demonstrations = env.unwrapped.get_demonstrations(3, n=1, seed=0)
    ```

    `reset(options={"task": t})` pins a task until another or None is given; resets without the
    key, autoresets too, keep a pinned task and draw one only if none is pinned.

    Args:
        split: "train", "val" or "test". The test split's shape and texture families occur in no
            other one.
        obs_type: "state", "pixels" or "pixels_agent_pos".
        image_size: Height and width of the observed pictures, at least 16.
        task: Pins a task from the start: an index into `tasks`, a task id, or any `PusherTask`.
        n_tasks: How many tasks, an even number; by default 694, 76 and 74, as MIL has.
        split_seed: The universe that the tasks are drawn from; 0 is the benchmark's.
        tasks: Tasks to use instead of a split's, twins side by side; `mil.load_mil_tasks` reads
            MIL's. Then split and split_seed say nothing, and n_tasks must be None.
        render_mode: "human" (a window), "rgb_array" (480 x 480, from the observations' camera),
            or None; `gymnasium.make` also takes "rgb_array_list".

    Attributes:
        tasks: The split's tasks, or the given ones; twins stand side by side.

    Raises:
        ValueError: An argument is out of range; the message says what was expected.

    ## Version History
    - v0: Initial version.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["human", "rgb_array"],
        "render_fps": 20,
    }

    def __init__(
        self,
        *,
        split: str = "train",
        obs_type: str = "state",
        image_size: int = 64,
        task: int | str | PusherTask | None = None,
        n_tasks: int | None = None,
        split_seed: int = DEFAULT_SPLIT_SEED,
        tasks: Sequence[PusherTask] | None = None,
        render_mode: str | None = None,
    ) -> None:
        EzPickle.__init__(
            self,
            split=split,
            obs_type=obs_type,
            image_size=image_size,
            task=task,
            n_tasks=n_tasks,
            split_seed=split_seed,
            tasks=tasks,
            render_mode=render_mode,
        )
        if obs_type not in OBS_TYPES:
            raise ValueError(
                f"Unknown obs_type {obs_type!r}: expected one of {', '.join(OBS_TYPES)}."
            )
        if not isinstance(image_size, int) or image_size < 16:
            raise ValueError(f"image_size is {image_size!r}, expected at least 16 pixels.")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"Unknown render_mode {render_mode!r}: expected None or one of "
                f"{', '.join(self.metadata['render_modes'])} (through gym.make also "
                "rgb_array_list)."
            )
        if tasks is None:
            self.tasks = make_tasks(split, n_tasks, split_seed)
        else:
            self.tasks = _check_tasks(tasks, n_tasks)
        self.slot_layout = (
            {"start": AGENT_POS_DIM, "count": 2, "pose": POSE_DIM} if obs_type == "state" else None
        )
        self.split = split if tasks is None else "given by tasks"
        self.obs_type = obs_type
        self.image_size = image_size
        self.render_mode = render_mode
        self.observation_space = _observation_space(obs_type, image_size)
        self.action_space = spaces.Box(-TORQUE_LIMIT, TORQUE_LIMIT, (scene.N_JOINTS,), np.float32)
        self._index_of = {t.task_id: index for index, t in enumerate(self.tasks)}
        self.pinned = None if task is None else self.resolve(task)
        self._task: PusherTask | None = None
        self.model: mujoco.MjModel  # both since the first reset
        self.data: mujoco.MjData
        self._obs_renderer: Renderer | None = None
        self._human_renderer: Renderer | None = None
        self._viewer: Any = None

    @property
    def task(self) -> PusherTask:
        """The task of the current episode; set by `reset`."""
        if self._task is None:
            raise RuntimeError(NO_EPISODE)
        return self._task

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: Fixes placement, yaw, slots and joint velocities, and, where no task is pinned,
                the task. The same for a task and its twin.
            options: ``{"task": t}`` pins an index into `tasks`, a task id or a `PusherTask` until
                another or None; without the key a pinned task stays, and if none is pinned one
                is drawn.

        Raises:
            ValueError: An unknown option, or a task that is not one.
        """
        super().reset(seed=seed)
        options = check_options(options)
        if "task" in options:
            pinned = options["task"]
            self.pinned = None if pinned is None else self.resolve(pinned)
        self._task, placement = draw_episode(self.np_random, self.tasks, self.pinned)
        self._load(scene.build_model(self._task))
        scene.place(self.model, self.data, placement)
        self._measures.begin(self._task, placement.slots)
        self._steps = 0
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._measures.info()

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Applies 7 torques (N m, clipped to +-2) for 0.05 s; see the class for the rest."""
        if self._task is None:
            raise RuntimeError(NO_EPISODE)
        torques = _check_action(action)
        self.data.ctrl[:] = [min(max(t, -TORQUE_LIMIT), TORQUE_LIMIT) for t in torques]
        scene.advance(self.model, self.data, FRAME_SKIP)
        self._steps += 1
        self._measures.count_step()
        info = self._measures.info() | self._measures.reward_terms(torques)
        reward = info["reward_dist"] + info["reward_near"] + info["reward_ctrl"]
        if self.render_mode == "human":
            self.render()
        return self._observation(), reward, False, self._steps >= EPISODE_STEPS, info

    def render(self) -> Any:
        """An RGB array (480, 480, 3) from the observation's camera, or the viewer's window."""
        if self.render_mode is None:
            raise ValueError(
                "render() needs a render_mode: gym.make('MetaPusher-v0', render_mode='rgb_array')."
            )
        if self.render_mode == "human":
            self._show()
            return None
        if self._human_renderer is None:
            self._human_renderer = Renderer(HUMAN_SIZE, HUMAN_SIZE)
        return self._human_renderer.render(self.model, self.data)

    def close(self) -> None:
        """Frees renderers and window; may be called twice."""
        for renderer in (self._obs_renderer, self._human_renderer, self._viewer):
            if renderer is not None:
                renderer.close()
        self._obs_renderer = self._human_renderer = self._viewer = None

    def get_demonstrations(
        self, task: int | str | PusherTask, n: int, *, seed: int | None = None
    ) -> list[Any]:
        """The expert's demonstrations of a task, in this environment's observation type.

        Args:
            task: Index into `tasks`, task id or `PusherTask`.
            n: How many; each from another start.
            seed: Fixes them; by default drawn with the environment's own RNG.

        Returns:
            n successful `Demonstration`s.
        """
        from meta_pusher_env import demonstrations  # to the right of this module: only here

        if seed is None:
            seed = int(self.np_random.integers(2**31))
        return demonstrations.record_demonstrations(
            self.resolve(task), n, seed=seed, obs_type=self.obs_type, image_size=self.image_size
        )

    def get_sparse_demonstrations(
        self,
        tasks: Sequence[int | str | PusherTask],
        n: int,
        *,
        seeds: Sequence[int],
        n_obs: int = 2,
    ) -> list[list[Any]]:
        """`get_demonstrations` of several tasks at once, with few observations each.

        Args:
            tasks: As there.
            n: How many of each.
            seeds: One for each task.
            n_obs: Observations, evenly spaced from the first to the last.

        Returns:
            For each task, n `Demonstration`s; all but ``obs`` and ``steps`` as there.
        """
        from meta_pusher_env import demonstrations  # to the right of this module: only here

        orders = [
            demonstrations.Order(self.resolve(task), n, seed)
            for task, seed in zip(tasks, seeds, strict=True)
        ]
        return demonstrations.record_sparse_demonstrations(
            orders,
            obs_type=self.obs_type,
            image_size=self.image_size,
            n_obs=n_obs,
        )

    def expert_action(self) -> np.ndarray:
        """The scripted expert's torques (7,) for the current state and task, N m; privileged."""
        from meta_pusher_env.expert import Expert  # to the right of this module: only here

        return Expert(self.model, self.task.target).act(self.data)

    def object_crops(self, task: int | str | PusherTask, size: int = 32) -> np.ndarray:
        """Close-ups of a task's two objects, each alone in one place, to compare their looks.

        Args:
            task: Index into `tasks`, task id or `PusherTask`; the current episode goes on.
            size: Height and width, pixels.

        Returns:
            (2, size, size, 3) uint8, in the order of ``task.objects``; the same for a twin.
        """
        task = self.resolve(task)
        model = scene.build_model(task)
        data = mujoco.MjData(model)
        camera = observation_camera()
        camera.lookat[:] = (*CROP_PLACE, scene.TABLE_HEIGHT + 0.02)
        # Further away only from objects that are larger than any drawn one.
        scales = [
            getattr(spec, name) / objects.BOUNDS[name][1]
            for spec in task.objects
            for name in ("radius", "height")
        ]
        camera.distance = CROP_DISTANCE * max(1.0, *scales)
        renderer = Renderer(4 * size, 4 * size, camera=camera)
        crops = np.empty((2, size, size, 3), np.uint8)
        for index, crop in enumerate(crops):
            data.qpos[scene.N_JOINTS :] = 10.0  # both out of sight
            start = scene.N_JOINTS + 3 * index
            data.qpos[start : start + 3] = (*CROP_PLACE, CROP_YAW)
            mujoco.mj_forward(model, data)
            large = renderer.render(model, data).reshape(size, 4, size, 4, 3)
            crop[:] = large.mean(axis=(1, 3))  # there is no multisampling: smooth by hand
        renderer.close()
        return crops

    def _load(self, model: mujoco.MjModel) -> None:
        """Sets `model` and clean `data`; the same `data` where it can be: a window shows it."""
        if getattr(self, "model", None) is model:
            mujoco.mj_resetData(model, self.data)
        else:
            self.model, self.data = model, mujoco.MjData(model)
            self._measures = Measures(self.model, self.data)

    def resolve(self, task: object) -> PusherTask:
        """The task that an index into `tasks`, a task id or a `PusherTask` names.

        Raises:
            ValueError: It names none.
        """
        if isinstance(task, PusherTask):
            return task
        if isinstance(task, (int, np.integer)) and not isinstance(task, bool):
            if 0 <= task < len(self.tasks):
                return self.tasks[int(task)]
            raise ValueError(
                f"Task index {task} is out of range: split {self.split!r} has "
                f"{len(self.tasks)} tasks, 0 to {len(self.tasks) - 1}."
            )
        if isinstance(task, str):
            if task in self._index_of:
                return self.tasks[self._index_of[task]]
            raise ValueError(
                f"No task {task!r} in split {self.split!r}: its ids run from "
                f"{self.tasks[0].task_id!r} to {self.tasks[-1].task_id!r}."
            )
        raise ValueError(f"{task!r} is no task: expected an index, a task id or a PusherTask.")

    def _observation(self) -> Any:
        if self.obs_type == "state":
            return self._measures.state_observation()
        if self._obs_renderer is None:
            self._obs_renderer = Renderer(self.image_size, self.image_size)
        pixels = self._obs_renderer.render(self.model, self.data)
        if self.obs_type == "pixels":
            return pixels
        return {"pixels": pixels, "agent_pos": self._measures.agent_pos()}

    def _show(self) -> None:
        import mujoco.viewer

        if self._viewer is not None and self._viewer.m is not self.model:
            self._viewer.close()
            self._viewer = None
        if self._viewer is None:
            self._viewer = mujoco.viewer.launch_passive(self.model, self.data)
        self._viewer.sync()


def _check_tasks(tasks: Sequence[PusherTask], n_tasks: int | None) -> tuple[PusherTask, ...]:
    """The given tasks, or a ValueError."""
    if n_tasks is not None:
        raise ValueError(f"n_tasks is {n_tasks}, expected None where tasks are given.")
    checked = tuple(tasks)
    if not checked or not all(isinstance(task, PusherTask) for task in checked):
        raise ValueError(
            f"tasks is {tasks!r:.200}, expected PusherTasks, at least a pair of twins."
        )
    if checked[1::2] != tuple(task.twin for task in checked[::2]):
        raise ValueError(
            f"tasks holds {[task.task_id for task in checked]}, expected each task's twin right "
            "after it: [role for task in tasks for role in (task, task.twin)]."
        )
    if len({task.task_id for task in checked}) < len(checked):
        raise ValueError(
            f"tasks holds {[task.task_id for task in checked]}, expected each task only once."
        )
    return checked


def _check_action(action: Any) -> list[float]:
    """The action as 7 finite numbers, or a ValueError."""
    try:
        torques = np.asarray(action, dtype=np.float64)
    except (TypeError, ValueError):
        torques = np.zeros(0)
    numbers: list[float] = torques.tolist()
    if torques.shape != (scene.N_JOINTS,) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"The action is {action!r}, expected 7 finite torques.")
    return numbers


def check_options(options: dict[str, Any] | None) -> dict[str, Any]:
    """The options of a reset, maybe none, or a ValueError."""
    options = options or {}
    if set(options) - {"task"}:
        raise ValueError(f"Unknown options {sorted(set(options) - {'task'})}: expected 'task'.")
    return options


def draw_episode(
    rng: np.random.Generator, tasks: Sequence[PusherTask], pinned: PusherTask | None
) -> tuple[PusherTask, scene.Placement]:
    """The task of an episode, one of ``tasks`` where none is pinned, and its placement."""
    placement = scene.draw_placement(rng)  # first: it must not depend on whether a task is drawn
    return (tasks[rng.integers(len(tasks))] if pinned is None else pinned), placement


def _observation_space(obs_type: str, image_size: int) -> spaces.Space[Any]:
    pixels = spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)
    if obs_type == "pixels":
        return pixels
    if obs_type == "pixels_agent_pos":
        arm = spaces.Box(-np.inf, np.inf, (AGENT_POS_DIM,), np.float32)
        return spaces.Dict({"pixels": pixels, "agent_pos": arm})
    return spaces.Box(-np.inf, np.inf, (STATE_OBS_DIM,), np.float32)
