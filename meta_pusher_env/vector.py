"""`MetaPusherVectorEnv`: many episodes at once, their physics on all cores.

MuJoCo's own thread pool (`mujoco.rollout`) steps all scenes; the rest is done once for all in
arrays. Trajectories are bitwise those of single environments.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle

from meta_pusher_env import scene
from meta_pusher_env.env import (
    EPISODE_STEPS,
    FRAME_SKIP,
    HUMAN_SIZE,
    NO_EPISODE,
    TORQUE_LIMIT,
    MetaPusherEnv,
    check_options,
    draw_episode,
)
from meta_pusher_env.episodes import Episodes, Physics
from meta_pusher_env.measures import AGENT_POS_DIM
from meta_pusher_env.rendering import Renderer
from meta_pusher_env.tasks import PusherTask

_JOINTS = scene.N_JOINTS
_IS_BEFORE_1_0 = gym.__version__.startswith("0.")
FINAL_OBS = "final_observation" if _IS_BEFORE_1_0 else "final_obs"
"""The key of an episode's last observation in info, which this Gymnasium's wrappers read."""


def _autoreset_mode() -> Any:
    """`AutoresetMode.SAME_STEP`, where this Gymnasium has it."""
    mode = getattr(gym.vector, "AutoresetMode", None)
    return "SameStep" if mode is None else mode.SAME_STEP


class MetaPusherVectorEnv(gym.vector.VectorEnv, EzPickle):
    """Many MetaPusher environments, each with a task of its own: `meta_pusher_env.make_vec`.

    Observation, reward, info and starts are those of `MetaPusherEnv`; environment ``i`` of
    ``reset(seed=s)`` is a single one's ``reset(seed=s + i)``, bit for bit. All episodes end
    together, after exactly 100 steps, and the next ones begin within that same step (autoreset
    mode "SameStep"): the last observations are then in info, under Gymnasium's key, which is
    "final_obs", and "final_observation" before 1.0; the last info under "final_info".

    ``reset(options={"task": t})`` pins a task, for all or, as a list, one for each; it stays until
    another or None is given.

    Args:
        num_envs: How many.
        n_threads: Threads of the physics; by default one for each available core.
        max_episode_steps: Only 100; Gymnasium's ``make_vec`` passes what is registered.
        render_mode: None or "rgb_array".
        **kwargs: `MetaPusherEnv`'s arguments.

    Attributes:
        tasks: As `MetaPusherEnv.tasks`.
        slot_layout: As `MetaPusherEnv.slot_layout`.

    Raises:
        ValueError: An argument is out of range; the message says what was expected.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        n_threads: int | None = None,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        EzPickle.__init__(self, num_envs, n_threads=n_threads, render_mode=render_mode, **kwargs)
        for name, value in (("num_envs", num_envs), ("n_threads", n_threads or 1)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}, expected at least 1.")
        if max_episode_steps not in (None, EPISODE_STEPS):
            raise ValueError(f"max_episode_steps is {max_episode_steps}, expected {EPISODE_STEPS}.")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}, expected None or 'rgb_array'.")
        self._one = MetaPusherEnv(**kwargs)
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": MetaPusherEnv.metadata["render_fps"],
            "autoreset_mode": _autoreset_mode(),
        }
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.is_vector_env, self.viewer = True, None  # what Gymnasium looks at before 1.0
        self.single_observation_space = self._one.observation_space
        self.single_action_space = self._one.action_space
        self.observation_space = gym.vector.utils.batch_space(self._one.observation_space, num_envs)
        self.action_space = gym.vector.utils.batch_space(self._one.action_space, num_envs)
        self.tasks, self.slot_layout = self._one.tasks, self._one.slot_layout
        self._n_threads = n_threads or len(os.sched_getaffinity(0))
        self._rngs = [np.random.default_rng() for _ in range(num_envs)]
        self._pinned = [self._one.pinned] * num_envs
        self._episodes: Episodes | None = None
        self._physics = Physics(num_envs, self._n_threads, FRAME_SKIP)
        self._pictures: dict[int, Renderer] = {}
        self.closed = False

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode everywhere.

        Args:
            seed: Of the first; the others' are the numbers that follow. Or one for each.
            options: ``{"task": t}`` pins a task: an index into `tasks`, a task id, a `PusherTask`
                or None, for all; or a list of such, one for each.

        Raises:
            ValueError: A wrong number of seeds or tasks, an unknown option, or no task.
        """
        options = check_options(options)
        seeds = self._one_each("seeds", seed)
        if isinstance(seed, (int, np.integer)):
            seeds = [int(seed) + index for index in range(self.num_envs)]
        if "task" in options:
            tasks = self._one_each("tasks", options["task"])
            self._pinned = [None if t is None else self._one.resolve(t) for t in tasks]
        for index, its_seed in enumerate(seeds):
            if its_seed is not None:
                self._rngs[index] = gym.utils.seeding.np_random(its_seed)[0]
        self._begin()
        return self._observation(), self._info()

    def step(  # type: ignore[override]
        self, actions: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Applies torques (num_envs, 7), N m, clipped to +-2, for 0.05 s."""
        episodes = self._running()
        torques = self._check_actions(actions)
        self._physics.advance(np.clip(torques, -TORQUE_LIMIT, TORQUE_LIMIT))
        episodes.take(self._physics)
        rewards, terms = episodes.rewards(torques)
        info = self._info(terms)
        obs = self._observation()
        ended = episodes.n_steps >= EPISODE_STEPS
        if ended:
            self._begin()
            last, obs = obs, self._observation()
            info = self._info() | self._final(last, info)
        nowhere = np.zeros(self.num_envs, dtype=bool)
        return obs, rewards, nowhere, np.full(self.num_envs, ended), info

    def render(self) -> tuple[np.ndarray, ...]:  # type: ignore[override]
        """A picture (480, 480, 3) of each environment, from the observations' camera."""
        if self.render_mode is None:
            raise ValueError("render() needs render_mode='rgb_array'.")
        return tuple(self._draw(HUMAN_SIZE))

    def get_demonstrations(
        self, task: int | str | PusherTask, n: int, *, seed: int | None = None
    ) -> list[Any]:
        """See `MetaPusherEnv.get_demonstrations`."""
        return self._one.get_demonstrations(task, n, seed=seed)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:  # type: ignore[override]
        """Calls a method or reads an attribute for each environment, as in Gymnasium's vectors."""
        if name == "task":
            return tuple(self._running().tasks)
        value = getattr(self, name)
        if not callable(value):
            return (value,) * self.num_envs
        return tuple(value(*args, **kwargs) for _ in range(self.num_envs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of each environment."""
        return self.call(name)

    def close_extras(self, **kwargs: Any) -> None:
        """Ends threads and renderers."""
        self._physics.close()
        for renderer in self._pictures.values():
            renderer.close()
        self._pictures = {}
        self._one.close()

    # What Gymnasium's wrappers call before 1.0.

    def reset_wait(
        self,
        seed: int | list[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """See `reset`."""
        return self.reset(seed=seed, options=options)

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self, **_: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """See `step`."""
        return self.step(self._actions)

    def _begin(self) -> None:
        """Starts all episodes."""
        drawn = [
            draw_episode(rng, self.tasks, pinned)
            for rng, pinned in zip(self._rngs, self._pinned, strict=True)
        ]
        self._physics.load([scene.build_model(task) for task, _ in drawn], [p for _, p in drawn])
        self._episodes = Episodes.begin([task for task, _ in drawn], [p for _, p in drawn])
        self._episodes.read(self._physics)

    def _running(self) -> Episodes:
        if self._episodes is None:
            raise RuntimeError(NO_EPISODE)
        return self._episodes

    def _observation(self) -> Any:
        if self._one.obs_type == "state":
            return self._running().obs.copy()
        pixels = self._draw(self._one.image_size)
        if self._one.obs_type == "pixels":
            return pixels
        return {"pixels": pixels, "agent_pos": self._running().obs[:, :AGENT_POS_DIM].copy()}

    def _draw(self, size: int) -> np.ndarray:
        """Pictures of all environments, (num_envs, size, size, 3)."""
        if size not in self._pictures:
            self._pictures[size] = Renderer(size, size)
        frames = np.empty((self.num_envs, size, size, 3), np.uint8)
        for frame, (model, data) in zip(frames, self._physics.poses(), strict=True):
            frame[:] = self._pictures[size].render(model, data)
        return frames

    def _info(self, terms: dict[str, np.ndarray] | None = None) -> dict[str, Any]:
        """Arrays over the environments, and for each a mask, as Gymnasium's vectors have them."""
        info: dict[str, Any] = self._running().info() | (terms or {})
        everywhere = np.ones(self.num_envs, dtype=bool)
        return info | {f"_{key}": everywhere for key in info}

    def _final(self, obs: Any, info: dict[str, Any]) -> dict[str, Any]:
        """The last observations and infos, in the form of this Gymnasium's own vectors."""
        everywhere = np.ones(self.num_envs, dtype=bool)
        each_obs = np.empty(self.num_envs, dtype=object)
        for index in range(self.num_envs):
            each_obs[index] = (
                {key: value[index] for key, value in obs.items()}
                if isinstance(obs, dict)
                else obs[index]
            )
        final_info: Any = info
        if _IS_BEFORE_1_0:
            final_info = np.empty(self.num_envs, dtype=object)
            final_info[:] = split_info(info, self.num_envs)
        return {
            FINAL_OBS: each_obs,
            f"_{FINAL_OBS}": everywhere,
            "final_info": final_info,
            "_final_info": everywhere.copy(),
        }

    def _one_each(self, name: str, given: Any) -> list[Any]:
        if not isinstance(given, (list, tuple, np.ndarray)):
            return [given] * self.num_envs
        if len(given) != self.num_envs:
            raise ValueError(
                f"{len(given)} {name} for {self.num_envs} environments: expected one for each, or "
                "a single one for all."
            )
        return list(given)

    def _check_actions(self, actions: Any) -> np.ndarray:
        try:
            torques = np.asarray(actions, dtype=np.float64)
        except (TypeError, ValueError):
            torques = np.zeros(0)
        if torques.shape != (self.num_envs, _JOINTS) or not np.isfinite(torques).all():
            raise ValueError(
                f"The actions are {actions!r:.300}, expected finite torques of shape "
                f"({self.num_envs}, {_JOINTS})."
            )
        return torques


def split_info(info: dict[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """A vector's info as one dict for each environment, of what it has there."""
    columns = {
        key: value.tolist() if value.dtype != object else value
        for key, value in info.items()
        if isinstance(value, np.ndarray) and not key.startswith("_")
    }
    keys = list(columns)
    return [dict(zip(keys, row, strict=True)) for row in zip(*columns.values(), strict=True)] or [
        {} for _ in range(num_envs)
    ]
