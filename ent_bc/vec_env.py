"""A Gymnasium vector environment as a Stable-Baselines3 `VecEnv`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

_FINAL_OBS = ("final_obs", "final_observation")  # from Gymnasium 1.0 on, and before


class VectorEnvAdapter(VecEnv):
    """Lets SB3's and imitation's trainers use a Gymnasium vector environment as it is.

    The environment must begin the next episode within the step that ended the last (autoreset mode
    "SameStep"), as SB3's own do; `meta_pusher_env.make_vec` gives such a one::

        venv = VectorEnvAdapter(meta_pusher_env.make_vec(64))

    Args:
        envs: The vector environment. Attributes and methods are asked of it by `get_attr` and
            `call`, as Gymnasium's own have them.

    Raises:
        ValueError: Another autoreset mode.
    """

    def __init__(self, envs: gym.vector.VectorEnv) -> None:
        mode = envs.metadata.get("autoreset_mode", "undeclared")
        if getattr(mode, "value", mode) != "SameStep":
            raise ValueError(
                f"The environments' autoreset mode is {mode}, expected SameStep: SB3 wants the "
                "next episode's first observation from the step that ended the last."
            )
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> VecEnvObs:
        """Starts an episode everywhere, with the seeds and options that were set."""
        seeds = self._seeds if any(seed is not None for seed in self._seeds) else None
        obs, info = self.envs.reset(seed=seeds, options=self._joined_options())  # type: ignore[arg-type]
        self.reset_infos = _split(info, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Observations, rewards, dones and infos, in SB3's form."""
        obs, rewards, terminated, truncated, info = self.envs.step(self._actions)
        dones = terminated | truncated
        if not dones.any():
            return obs, rewards.astype(np.float32), dones, _split(info, self.num_envs)
        last_obs = next(info.pop(key) for key in _FINAL_OBS if key in info)
        last_infos = info.pop("final_info")
        if isinstance(last_infos, dict):
            last_infos = _split(last_infos, self.num_envs)
        infos = _split(info, self.num_envs)
        for index in np.flatnonzero(dones):
            self.reset_infos[index] = infos[index]
            infos[index] = dict(last_infos[index])
            infos[index]["terminal_observation"] = last_obs[index]
            infos[index]["TimeLimit.truncated"] = bool(truncated[index] and not terminated[index])
        return obs, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Closes the environments."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of some environments."""
        values = self.envs.get_attr(attr_name)
        return [values[index] for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Not possible: what steps together has one set of attributes."""
        raise NotImplementedError(
            f"{attr_name} cannot be set: the environments step as one; pass it when they are made."
        )

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Calls a method of the vector environment once for each of some environments."""
        method = getattr(self.envs, method_name)
        return [method(*method_args, **kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Never: they are not single environments."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """A picture of each."""
        frames: Sequence[np.ndarray | None] = self.envs.render()  # type: ignore[assignment]
        return frames

    def _joined_options(self) -> dict[str, Any] | None:
        """SB3's options, a dict for each environment, as Gymnasium's: lists of one for each."""
        keys = {frozenset(options) for options in self._options}
        if len(keys) > 1:
            raise ValueError(
                f"The options are {self._options}, expected the same keys for all environments."
            )
        joined = {key: [options[key] for options in self._options] for key in self._options[0]}
        return joined or None


def _split(info: dict[str, Any], n: int) -> list[dict[str, Any]]:
    """An info of arrays and masks as one dict for each environment, of what it has there."""
    everywhere: dict[str, list[Any]] = {}
    somewhere: dict[str, list[Any]] = {}
    full = None  # masks are mostly one array, which is asked once
    for key, values in info.items():
        if not key.startswith("_"):
            mask = info.get(f"_{key}")
            if mask is not None and mask is not full and mask.all():
                full = mask
            columns = everywhere if mask is full or mask is None else somewhere
            columns[key] = values.tolist()
    rows = zip(*everywhere.values(), strict=True) if everywhere else repeat((), n)
    infos = list(map(dict, map(zip, repeat(tuple(everywhere)), rows)))
    for key, column in somewhere.items():
        for index in np.flatnonzero(info[f"_{key}"]).tolist():
            infos[index][key] = column[index]
    return infos
