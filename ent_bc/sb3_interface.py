"""What Stable-Baselines3's callbacks, helpers and users expect of an algorithm, for `EntBC`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from imitation.util import logger as imit_logger
from stable_baselines3.common import logger as sb3_logger
from stable_baselines3.common import vec_env
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import check_for_correct_spaces, set_random_seed

Env = gym.Env[Any, Any] | vec_env.VecEnv | str


class SB3Interface:
    """The part of `EntBC` that is as in `stable_baselines3.common.base_class.BaseAlgorithm`.

    Attributes:
        env: The VecEnv, or None.
        num_timesteps: Optimiser steps so far.
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    logger: imit_logger.HierarchicalLogger
    optimizer: th.optim.Optimizer
    policy: Any
    env: vec_env.VecEnv | None
    num_timesteps: int
    tensorboard_log: str | None
    verbose: int
    train: Callable[..., None]

    def learn(
        self,
        total_timesteps: int,
        callback: Callable[..., Any] | Sequence[BaseCallback] | BaseCallback | None = None,
        log_interval: int = 100,
        tb_log_name: str = "EntBC",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Any:
        """Trains as in SB3; one optimiser step counts as one timestep.

        Args:
            total_timesteps: Optimiser steps.
            callback: SB3 callbacks; one that says False stops the training.
            log_interval: Steps between logs.
            tb_log_name: Name of the run below ``tensorboard_log``.
            reset_num_timesteps: Counts from 0 again, and so do schedule and batches.
            progress_bar: Shows one.

        Returns:
            The model.
        """
        if reset_num_timesteps:
            self.num_timesteps = 0
        if self.tensorboard_log is not None:
            self.logger = make_logger(str(Path(self.tensorboard_log) / tb_log_name), self.verbose)
        callbacks = _as_callback(callback)
        callbacks.init_callback(self)  # type: ignore[arg-type]
        callbacks.on_training_start(locals(), globals())

        def on_batch_end() -> None:
            if not callbacks.on_step():
                raise _Stopped

        try:
            self.train(
                n_batches=total_timesteps,
                on_batch_end=on_batch_end,
                log_interval=log_interval,
                progress_bar=progress_bar,
            )
        except _Stopped:
            pass
        callbacks.on_training_end()
        return self

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: np.ndarray | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Actions for the task that the sentence ``state`` names; see the policy's `predict`."""
        return self.policy.predict(observation, state, episode_start, deterministic)

    @property
    def n_envs(self) -> int:
        """How many environments were given."""
        return 0 if self.env is None else self.env.num_envs

    def get_env(self) -> vec_env.VecEnv | None:
        """The environments that were given, as a VecEnv, or None."""
        return self.env

    def set_env(self, env: Env) -> None:
        """Attaches environments, for callbacks.

        Raises:
            ValueError: Their spaces are not the model's.
        """
        venv = as_vec_env(env)
        check_for_correct_spaces(venv, self.observation_space, self.action_space)
        self.env = venv

    def get_vec_normalize_env(self) -> None:
        """None: normalisation is the policy's own."""

    def set_logger(self, logger: imit_logger.HierarchicalLogger) -> None:
        """Replaces the logger."""
        self.logger = logger

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seeds torch, numpy, Python, the action space and the environments; None does nothing."""
        if seed is None:
            return
        set_random_seed(seed, using_cuda=self.policy.device.type == "cuda")
        self.action_space.seed(seed)
        if self.env is not None:
            self.env.seed(seed)

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """State dicts of "policy" and "optimizer"."""
        return {"policy": self.policy.state_dict(), "optimizer": self.optimizer.state_dict()}

    def set_parameters(
        self, load_path_or_dict: str | Path | Mapping[str, Any], exact_match: bool = True
    ) -> None:
        """Sets parameters in place.

        Args:
            load_path_or_dict: A saved model, or state dicts as `get_parameters` gives.
            exact_match: Expects all of them.

        Raises:
            ValueError: A name is unknown, or, for an exact match, missing.
            RuntimeError: A state dict does not fit.
        """
        given = load_path_or_dict
        if not isinstance(given, Mapping):
            given = type(self).load(given).get_parameters()  # type: ignore[attr-defined]
        expected = {"policy", "optimizer"}
        if set(given) - expected or (exact_match and set(given) != expected):
            raise ValueError(f"The parameters are of {sorted(given)}, expected {sorted(expected)}.")
        if "policy" in given:
            self.policy.load_state_dict(given["policy"], strict=exact_match)
        if "optimizer" in given:
            self.optimizer.load_state_dict(given["optimizer"])


class _Stopped(Exception):
    """A callback asked to stop."""


def as_vec_env(env: Env) -> vec_env.VecEnv:
    """An environment, or the id of one, as SB3 knows them."""
    if isinstance(env, vec_env.VecEnv):
        return env
    made = gym.make(env) if isinstance(env, str) else env
    return vec_env.DummyVecEnv([lambda: Monitor(made)])


def make_logger(folder: str | None, verbose: int) -> imit_logger.HierarchicalLogger:
    """A logger to TensorBoard and CSV, where there is a folder; ``verbose`` prints too."""
    formats = ["stdout"] if verbose else []
    if folder is None:  # imitation's configure() would leave an empty directory for each
        writers: list[sb3_logger.KVWriter] = []
        if verbose:
            writers.append(sb3_logger.HumanOutputFormat(sys.stdout))
        return imit_logger.HierarchicalLogger(sb3_logger.Logger(None, writers), formats)
    return imit_logger.configure(folder, [*formats, "tensorboard", "csv"])


def _as_callback(callback: Any) -> BaseCallback:
    if callback is None:
        return CallbackList([])
    if isinstance(callback, BaseCallback):
        return callback
    if isinstance(callback, Iterable):
        return CallbackList(list(callback))
    return ConvertCallback(callback)
