"""`ExpertPolicy`: an environment's own expert as a Stable-Baselines3 policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv


class ExpertPolicy(BasePolicy):
    """Does what each environment's ``expert_action()`` says, whatever the observation is.

    The expert of a multi-task environment is privileged: it knows the task and the simulator's
    state. So it belongs to the environments that it acts in, and asks them; for
    `imitation.data.rollout`, `SimpleDAggerTrainer` and SB3's ``evaluate_policy`` on these.

    Args:
        venv: The environments that are acted in, or any wrapper of them.
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv.observation_space, venv.action_space)
        self._venv: VecEnv | None = venv

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """The experts' actions (n_envs, ...); the arguments are `BasePolicy.predict`'s.

        Raises:
            ValueError: The environments have no ``expert_action``, or were lost in pickling.
        """
        if self._venv is None:
            raise ValueError(
                "This ExpertPolicy was loaded without its environments: make a new one, "
                "ExpertPolicy(venv), of those that are acted in now."
            )
        try:
            actions = self._venv.env_method("expert_action")
        except AttributeError as error:
            raise ValueError(
                "The environments have no expert: expected a method expert_action()."
            ) from error
        return np.stack(actions).astype(np.float32), state

    def __getstate__(self) -> dict[str, Any]:
        """Without the environments: a copy would be asked about episodes that nobody acts in."""
        return {**self.__dict__, "_venv": None}

    def _predict(self, observation: Any, deterministic: bool = False) -> th.Tensor:
        return th.as_tensor(self.predict(observation)[0])
