"""Fine-tuning a model by reward, with Stable-Baselines3's PPO: `fine_tune`.

PPO spoils a cloned policy in its first updates: the critic knows nothing yet, Adam's first steps
have full length in every parameter, and sigma is small, so that a small step is a large one in KL.
Hence the critic is trained first, the learning rate rises from 0 before it falls, and rollouts are
large. Only the control head learns, without its layer of sigma: what sentences are, and where they
make the policy look, stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from ent_bc.demonstrations import DemonstrationLike
from ent_bc.ent_bc import EntBC
from ent_bc.policies import TaskConditionedPolicy
from ent_bc.wrappers import VecSentenceObservation

CRITIC_LEARNING_RATE = 1e-3  # while it is trained alone


@dataclasses.dataclass(frozen=True)
class FineTuneConfig:
    """How PPO is run; by default as was measured to improve success on MetaPusher's states."""

    total_timesteps: int = 1_000_000
    """Environment steps that train the policy."""
    critic_timesteps: int = 40_000
    """Environment steps before that, which train the critic alone."""
    n_steps: int = 100
    """Steps of each environment in a rollout."""
    batch_size: int = 3200
    """Steps in a minibatch."""
    n_epochs: int = 4
    """Passes over a rollout."""
    learning_rate: float = 6e-5
    """Of the policy: its peak, were it not falling."""
    ramp: float = 0.1
    """Share of the run during which it rises from 0; all the while it falls linearly to 0."""
    target_kl: float = 0.02
    """A rollout's updates end early beyond 1.5 times this."""

    def learning_rate_at(self, left: float) -> float:
        """The learning rate when this share of the run is left."""
        return self.learning_rate * min(1.0, (1.0 - left) / self.ramp) * left


class ProgressReward(VecEnvWrapper):
    """Rewards what success is made of: the target nearer to the goal, the distractor left alone.

    5 per metre by which the target came nearer, minus 2.5 per metre by which the distractor moved,
    plus 0.05 for every step that is a strict success. MetaPusher's own reward, that of Gymnasium's
    Pusher, takes more for torques than it gives for the last centimetres. The numbers are read from
    info: "target_distance", "distractor_moved" and "is_success_strict".
    """

    def reset(self) -> VecEnvObs:
        """See `VecEnv.reset`."""
        obs = self.venv.reset()
        self._potential = _potential(self.venv.unwrapped.reset_infos)
        return obs

    def step_wait(self) -> VecEnvStepReturn:
        """See `VecEnv.step_wait`."""
        obs, _, dones, infos = self.venv.step_wait()
        potential = _potential(infos)
        succeeds = np.array([info["is_success_strict"] for info in infos])
        rewards = potential - self._potential + 0.05 * succeeds
        started = _potential(self.venv.unwrapped.reset_infos) if dones.any() else potential
        self._potential = np.where(dones, started, potential)
        return obs, rewards.astype(np.float32), dones, infos


def _potential(infos: Sequence[dict[str, Any]]) -> np.ndarray:
    """What the steps' rewards are the differences of, (n_envs,)."""
    return np.array(
        [-5.0 * info["target_distance"] - 2.5 * info["distractor_moved"] for info in infos]
    )


def fine_tune(
    model: EntBC,
    venv: VecEnv,
    config: FineTuneConfig | None = None,
    *,
    demonstrations: Sequence[DemonstrationLike] | None = None,
    seed: int | None = None,
    callback: MaybeCallback = None,
) -> PPO:
    """Trains a model's control head by reward, in place.

    Args:
        model: What learned from demonstrations; at the end it has the new parameters.
        venv: Multi-task environments without sentences; these come from the model.
        config: How PPO is run.
        demonstrations: Recorded ones to show; by default the environments' ``get_demonstrations``.
        seed: Of PPO, and of which demonstrations are shown.
        callback: SB3's, called while the policy is trained.

    Returns:
        The PPO, whose policy is like the model's; its environments give the sentences.
    """
    config = config or FineTuneConfig()
    told = VecSentenceObservation(venv, model, demonstrations=demonstrations, seed=seed)

    def make(learning_rate: Any, target_kl: float | None) -> PPO:
        return PPO(
            TaskConditionedPolicy,
            told,
            learning_rate=learning_rate,
            n_steps=config.n_steps,
            batch_size=config.batch_size,
            n_epochs=config.n_epochs,
            target_kl=target_kl,
            policy_kwargs=model.policy.options,
            seed=seed,
            device=model.device,
        )

    critic = make(CRITIC_LEARNING_RATE, None)
    critic.policy.load_state_dict(model.policy.state_dict())
    for name, parameter in critic.policy.named_parameters():
        parameter.requires_grad_(name.startswith("value_net"))
    if config.critic_timesteps:
        critic.learn(config.critic_timesteps)
    ppo = make(config.learning_rate_at, config.target_kl)
    ppo.policy.load_state_dict(critic.policy.state_dict())
    for part in (ppo.policy.features_extractor, ppo.policy.log_std_net):
        part.requires_grad_(False)
    ppo.learn(config.total_timesteps, callback=callback)
    model.policy.load_state_dict(ppo.policy.state_dict())
    return ppo
