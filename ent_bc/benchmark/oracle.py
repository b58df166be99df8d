"""The oracle's view: the same pictures, with a mark painted over the object to be pushed.

A system that sees it needs no demonstration: what it scores is what control alone is worth.
``evaluate_k_shot(..., env_id=ORACLE_ENV_ID)`` finds the environment, `MarkedDemonstrations` is the
same view of a data set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, overload

import gymnasium as gym
import numpy as np

from meta_pusher_env import MetaPusherEnv, PusherTask, rendering, scene
from meta_pusher_env.datasets import DemonstrationSet
from meta_pusher_env.demonstrations import OBJECT_MIDDLE, Demonstration
from meta_pusher_env.env import EPISODE_STEPS

ORACLE_ENV_ID = "ent_bc.benchmark.oracle:MarkedMetaPusher-v0"
MARK = (255, 0, 255)  # no picture has it: the lights sum to less than 1
MARK_REACH = 2  # pixels from the mark's middle to its edges: a square of 5 x 5


def paint_marks(pixels: np.ndarray, states: np.ndarray, target: int) -> None:
    """Paints the marks over pictures, in place.

    Args:
        pixels: (N, H, W, 3) uint8.
        states: (N, 13 or more) the MuJoCo states that they show; qpos comes first.
        target: Which of the two objects is marked.
    """
    height, width = pixels.shape[1:3]
    start = scene.N_JOINTS + 3 * target
    heights = np.full((len(states), 1), scene.TABLE_HEIGHT + OBJECT_MIDDLE)
    middles = np.hstack([states[:, start : start + 2], heights])
    places = np.floor(rendering.project(middles, width, height)).astype(int)
    for picture, (column, row) in zip(pixels, places, strict=True):
        rows, columns = (  # none, where the object has left the picture
            slice(max(middle - MARK_REACH, 0), max(middle + MARK_REACH + 1, 0))
            for middle in (row, column)
        )
        picture[rows, columns] = MARK


class MarkedMetaPusherEnv(MetaPusherEnv):
    """`MetaPusherEnv` with the target marked in its observations and demonstrations.

    Args:
        obs_type: "pixels" or "pixels_agent_pos".
        **kwargs: See `MetaPusherEnv`.
    """

    def __init__(self, *, obs_type: str = "pixels_agent_pos", **kwargs: Any) -> None:
        _check_obs_type(obs_type)
        super().__init__(obs_type=obs_type, **kwargs)

    def get_demonstrations(
        self, task: int | str | PusherTask, n: int, *, seed: int | None = None
    ) -> list[Any]:
        """See `MetaPusherEnv`."""
        return self._marked(task, super().get_demonstrations(task, n, seed=seed))

    def get_sparse_demonstrations(
        self,
        tasks: Sequence[int | str | PusherTask],
        n: int,
        *,
        seeds: Sequence[int],
        n_obs: int = 2,
    ) -> list[list[Any]]:
        """See `MetaPusherEnv`."""
        several = super().get_sparse_demonstrations(tasks, n, seeds=seeds, n_obs=n_obs)
        return [self._marked(task, demos) for task, demos in zip(tasks, several, strict=True)]

    def _marked(
        self, task: int | str | PusherTask, demonstrations: list[Demonstration]
    ) -> list[Demonstration]:
        target = self.resolve(task).target
        for demo in demonstrations:
            paint_marks(_pixels_of(demo.obs), demo.states[demo.steps], target)
        return demonstrations

    def _observation(self) -> Any:
        obs = super()._observation()
        paint_marks(_pixels_of(obs)[None], self.data.qpos[None], self.task.target)
        return obs


if "MarkedMetaPusher-v0" not in gym.registry:
    gym.register(
        id="MarkedMetaPusher-v0",
        entry_point="ent_bc.benchmark.oracle:MarkedMetaPusherEnv",
        max_episode_steps=EPISODE_STEPS,
    )


class MarkedDemonstrations(Sequence[Demonstration]):
    """A data set's demonstrations with the target marked in their stored pictures.

    Pictures are read and painted when they are asked for, as those of the data set are.

    Args:
        demonstrations: Of pictures.

    Raises:
        ValueError: It has state observations.
    """

    def __init__(self, demonstrations: DemonstrationSet) -> None:
        _check_obs_type(demonstrations.config.obs_type)
        self._demonstrations = demonstrations

    def __len__(self) -> int:
        return len(self._demonstrations)

    @overload
    def __getitem__(self, index: int) -> Demonstration: ...
    @overload
    def __getitem__(self, index: slice) -> list[Demonstration]: ...
    def __getitem__(self, index: int | slice) -> Demonstration | list[Demonstration]:
        """A demonstration whose pictures have ``shape``, ``dtype`` and ``[...]``, or a list."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        demo = self._demonstrations[index]
        pictures: Any = _MarkedPictures(
            _pixels_of(demo.obs), demo.states[demo.steps], self._target(index)
        )
        obs = {**demo.obs, "pixels": pictures} if isinstance(demo.obs, dict) else pictures
        return dataclasses.replace(demo, obs=obs)

    def will_read(self, wanted: Iterable[tuple[int, Iterable[int]]]) -> None:
        """See `DemonstrationSet`."""
        self._demonstrations.will_read(wanted)

    def read_obs(self, index: int, places: Sequence[int]) -> np.ndarray | dict[str, np.ndarray]:
        """See `DemonstrationSet`."""
        demo = self._demonstrations[index]
        obs = self._demonstrations.read_obs(index, places)
        shown = demo.states[demo.steps[list(places)]]
        paint_marks(_pixels_of(obs), shown, self._target(index))
        return obs

    def _target(self, index: int) -> int:
        per_task = self._demonstrations.config.demos_per_task
        return self._demonstrations.tasks[range(len(self))[index] // per_task].target


class _MarkedPictures:
    """What is needed of an array of pictures (T, H, W, 3): a copy of those that are asked for."""

    ndim = 4

    def __init__(self, pixels: np.ndarray, states: np.ndarray, target: int) -> None:
        self._pixels, self._states, self._target = pixels, states, target
        self.shape, self.dtype = pixels.shape, pixels.dtype

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: Any) -> np.ndarray:
        pixels = np.array(self._pixels[index])
        states = self._states[index].reshape(-1, self._states.shape[-1])
        paint_marks(pixels.reshape(-1, *self.shape[1:]), states, self._target)
        return pixels


def _pixels_of(obs: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
    return obs["pixels"] if isinstance(obs, dict) else obs


def _check_obs_type(obs_type: str) -> None:
    if obs_type == "state":
        raise ValueError(
            "obs_type is 'state', expected 'pixels' or 'pixels_agent_pos': the mark is painted "
            "into pictures."
        )
