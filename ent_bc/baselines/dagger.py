"""DAgger: imitation's `SimpleDAggerTrainer` goes on where `EntBC` stopped."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation  # type: ignore[attr-defined]
from imitation.algorithms.dagger import SimpleDAggerTrainer
from imitation.data import types
from stable_baselines3.common.vec_env import DummyVecEnv

from ent_bc.baselines.behavioural_cloning import Clone
from ent_bc.demonstrations import (
    DemonstrationLike,
    group_by_task,
    index_obs,
    observed_steps,
)
from ent_bc.ent_bc import EntBC
from ent_bc.expert_policy import ExpertPolicy
from ent_bc.policies import TaskConditionedPolicy
from ent_bc.sb3_interface import make_logger
from ent_bc.wrappers import SentenceObservation, add_sentence


@dataclasses.dataclass(frozen=True)
class DAggerConfig:
    """How much is added, and learned from it."""

    n_steps: int
    """Steps in the environment; all are kept in memory, a 96x96 picture's takes about 0.4 MB."""
    steps_per_round: int = 500
    """Steps between trainings, at least."""
    batch_size: int = 256
    """Steps in a batch."""
    learning_rate: float = 5e-5
    """Constant."""
    n_tasks: int = 200
    """Tasks whose demonstrations begin the data set, two of each; where there are fewer, all."""
    seed: int = 0
    """Of everything."""


def train_dagger(
    model: EntBC,
    make_env: Callable[[], gym.Env[Any, Any]],
    config: DAggerConfig,
    demonstrations: Sequence[DemonstrationLike],
) -> Clone:
    """Lets a trained model act, and clones what the expert would have done there.

    Source: Ross et al. (2011), "A reduction of imitation learning and structured prediction to
    no-regret online learning", algorithm 3.1. The data of its first round, where the expert
    acts alone, are demonstrations that the model was trained on; beta is 0 from there on.

    Args:
        model: Where it starts, and what makes the sentences; it stays as it is.
        make_env: Makes a multi-task environment with an expert (`ent_bc.protocol.ExpertEnv`).
        config: How.
        demonstrations: What the model was trained on, at least two of each task.

    Raises:
        ValueError: A task that was drawn has a single demonstration.
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
            expert_trajs=_first_round(demonstrations, model, told, config),
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


def _first_round(
    demonstrations: Sequence[DemonstrationLike],
    model: EntBC,
    env: SentenceObservation,
    config: DAggerConfig,
) -> list[types.Trajectory]:
    """Demonstrations as trajectories of the flattened environment, of their stored steps alone.

    Each is told the sentence of its task's other one, as when a policy is evaluated: that shows the
    task and not the episode.
    """
    of_task = list(group_by_task(demonstrations).items())
    drawn = np.random.default_rng(config.seed).permutation(len(of_task))[: config.n_tasks]
    trajectories = []
    for task_id, places in (of_task[place] for place in drawn):
        if len(places) < 2:
            raise ValueError(
                f"Task {task_id!r} has a single demonstration: expected two of each task, so that "
                "one is told what another shows."
            )
        first, second, *_ = places
        for demo, other in itertools.permutations((demonstrations[first], demonstrations[second])):
            sentence = model.embed(other)
            steps = observed_steps(demo)
            told = [
                add_sentence(env.env.observation_space, index_obs(demo.obs, row), sentence)
                for row in range(len(steps))
            ]
            trajectory = types.Trajectory(
                obs=np.array([spaces.flatten(env.observation_space, obs) for obs in told]),
                acts=np.asarray(demo.acts)[steps[:-1]],
                infos=None,
                terminal=False,
            )
            trajectories.append(trajectory)
    return trajectories
