"""DAgger: imitation's `SimpleDAggerTrainer` goes on where `EntBC` stopped."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FlattenObservation  # type: ignore[attr-defined]
from imitation.algorithms.dagger import SimpleDAggerTrainer
from stable_baselines3.common.vec_env import DummyVecEnv

from ent_bc.baselines.behavioural_cloning import Clone
from ent_bc.ent_bc import EntBC
from ent_bc.expert_policy import ExpertPolicy
from ent_bc.policies import TaskConditionedPolicy
from ent_bc.sb3_interface import make_logger
from ent_bc.wrappers import SentenceObservation


@dataclasses.dataclass(frozen=True)
class DAggerConfig:
    """How much is added, and learned from it."""

    n_steps: int
    """Steps in the environment; all are kept in memory, a 96x96 picture's takes about 0.4 MB."""
    steps_per_round: int = 500
    """Steps between trainings, at least."""
    batch_size: int = 256
    """Steps in a batch."""
    learning_rate: float = 5e-4
    """Constant."""
    seed: int = 0
    """Of everything."""


def train_dagger(
    model: EntBC, make_env: Callable[[], gym.Env[Any, Any]], config: DAggerConfig
) -> Clone:
    """Lets a trained model act, and clones what the expert would have done there.

    Source: Ross et al. (2011), "A reduction of imitation learning and structured prediction to
    no-regret online learning", algorithm 3.1, with beta 0 from the start, for the first policy is a
    trained one. The demonstrations that it was trained on are not learned from again.

    Args:
        model: Where it starts, and what makes the sentences; it stays as it is.
        make_env: Makes a multi-task environment with an expert (`ent_bc.protocol.ExpertEnv`).
        config: How.
    """
    told = SentenceObservation(make_env(), model)
    venv = DummyVecEnv([lambda: FlattenObservation(told)])
    venv.seed(config.seed)
    trainer = EntBC(
        env=venv,
        policy_kwargs={**model.policy.options, "dict_space": told.observation_space},
        batch_size=config.batch_size,
        optimizer_kwargs={"lr": config.learning_rate},
        ent_weight=model.ent_weight,
        losses=model.losses,
        seed=config.seed,
        device="cpu",
    )
    trainer.policy.load_state_dict(model.policy.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        dagger = SimpleDAggerTrainer(
            venv=venv,
            scratch_dir=folder,
            expert_policy=ExpertPolicy(venv),
            rng=np.random.default_rng(config.seed),
            beta_schedule=lambda _: 0.0,
            bc_trainer=trainer,
            custom_logger=make_logger(None, 0),
        )
        dagger.train(
            config.n_steps,
            rollout_round_min_timesteps=config.steps_per_round,
            bc_train_kwargs={"log_rollouts_venv": None, "progress_bar": False},
        )
    venv.close()
    spaces = (model.observation_space, model.action_space)
    policy = TaskConditionedPolicy(*spaces, lambda _: 0.0, **model.policy.options)
    policy.load_state_dict(trainer.policy.state_dict())
    policy.set_training_mode(False)
    # Its own embedding went along with the features that it shares with control: not trained.
    return Clone(policy, model)
