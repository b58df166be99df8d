"""The trainers of `imitation` take our policy, features extractor and expert as they take SB3's.

Each runs unmodified on a small multi-task environment whose observation holds the sentence, in the
flattened view, for DAgger, GAIL, AIRL and SQIL assert arrays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.wrappers import FlattenObservation
from imitation.algorithms import bc, density
from imitation.algorithms.adversarial.airl import AIRL
from imitation.algorithms.adversarial.gail import GAIL
from imitation.algorithms.dagger import SimpleDAggerTrainer
from imitation.algorithms.sqil import SQIL
from imitation.data import rollout, serialize, types
from imitation.data.wrappers import RolloutInfoWrapper
from imitation.rewards.reward_nets import BasicRewardNet, BasicShapedRewardNet
from imitation.util import logger as imit_logger
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from toys import DICT_SPACE, SLOTS, TaskEnv, make_demonstrations, make_model

from ent_bc import EntBC, TaskConditionedPolicy, as_trajectories
from ent_bc.expert_policy import ExpertPolicy
from ent_bc.extractors import TaskFeaturesExtractor
from ent_bc.wrappers import SentenceObservation

N_ENVS = 2


@pytest.fixture(scope="module")
def embedder() -> EntBC:
    """A model that knows the toy's tasks; it makes the sentences."""
    env = TaskEnv()
    demonstrations = [d for t in env.tasks for d in env.get_demonstrations(t, 3, seed=t.pair)]
    model = make_model(demonstrations=demonstrations, batch_size=8)
    model.train(n_batches=60, progress_bar=False)
    return model


@pytest.fixture
def quiet(tmp_path: Path) -> imit_logger.HierarchicalLogger:
    return imit_logger.configure(tmp_path / "log", [])


def told_env(embedder: EntBC) -> gym.Env[Any, Any]:
    return SentenceObservation(TaskEnv(), embedder)


@pytest.fixture
def venv(embedder: EntBC) -> VecEnv:
    made = DummyVecEnv(
        [lambda: RolloutInfoWrapper(FlattenObservation(told_env(embedder)))] * N_ENVS
    )
    made.seed(0)
    return made


@pytest.fixture
def flat_kwargs(embedder: EntBC) -> dict[str, Any]:
    """What our policy must know of the flattened view."""
    return {"slots": SLOTS, "dict_space": told_env(embedder).observation_space, "net_arch": [16]}


@pytest.fixture
def expert_trajectories(venv: VecEnv) -> list[types.TrajectoryWithRew]:
    return list(
        rollout.rollout(
            ExpertPolicy(venv),
            venv,
            rollout.make_sample_until(min_episodes=4),
            rng=np.random.default_rng(0),
            exclude_infos=False,
        )
    )


def make_ppo(venv: VecEnv, policy_kwargs: dict[str, Any]) -> PPO:
    return PPO(
        TaskConditionedPolicy,
        venv,
        n_steps=TaskEnv.n_steps,
        batch_size=TaskEnv.n_steps,
        n_epochs=1,
        policy_kwargs=policy_kwargs,
        seed=0,
        device="cpu",
    )


def make_bc(
    policy: TaskConditionedPolicy, logger: imit_logger.HierarchicalLogger, **kwargs: Any
) -> bc.BC:
    return bc.BC(
        observation_space=policy.observation_space,
        action_space=policy.action_space,
        rng=np.random.default_rng(0),
        policy=policy,
        custom_logger=logger,
        **kwargs,
    )


def assert_it_learns(policy: Any, train: Callable[[], Any], venv: VecEnv) -> None:
    """Its parameters move, stay finite, and a rollout finishes."""
    before = copy.deepcopy(policy.state_dict())
    train()
    after = policy.state_dict()
    moved = [key for key in before if not th.equal(before[key], after[key])]
    assert any("action_net" in key or "latent_pi" in key for key in moved), moved
    assert any("features_extractor" in key for key in moved), moved
    assert all(th.isfinite(value).all() for value in after.values())
    episodes = rollout.generate_trajectories(
        policy, venv, rollout.make_min_episodes(N_ENVS), rng=np.random.default_rng(0)
    )
    assert {len(episode) for episode in episodes} == {TaskEnv.n_steps}


# --- behavioural cloning ---


def test_bc_trains_our_policy_with_its_own_loss(
    embedder: EntBC,
    venv: VecEnv,
    flat_kwargs: dict[str, Any],
    expert_trajectories: list[types.TrajectoryWithRew],
    quiet: imit_logger.HierarchicalLogger,
) -> None:
    policy = TaskConditionedPolicy(
        venv.observation_space, venv.action_space, lambda _: 1.0, **flat_kwargs
    )
    trainer = make_bc(policy, quiet, demonstrations=expert_trajectories)
    assert_it_learns(policy, lambda: trainer.train(n_batches=5, progress_bar=False), venv)
    transitions = rollout.flatten_trajectories(expert_trajectories)
    metrics = trainer.loss_calculator(policy, transitions.obs[:8], transitions.acts[:8])
    assert metrics.entropy is not None and metrics.ent_loss != 0
    entropy = policy.get_distribution(th.as_tensor(transitions.obs[:8])).entropy()
    assert entropy is not None and entropy.std() > 0  # it depends on the observation


def test_bc_takes_dict_observations_with_a_sentence(quiet: imit_logger.HierarchicalLogger) -> None:
    env = SentenceObservation(TaskEnv("pixels_agent_pos"), make_model("pixels_agent_pos"))
    venv = DummyVecEnv([lambda: RolloutInfoWrapper(env)])
    venv.seed(0)
    trajectories = rollout.rollout(
        ExpertPolicy(venv),
        venv,
        rollout.make_sample_until(min_episodes=2),
        rng=np.random.default_rng(0),
    )
    policy = TaskConditionedPolicy(
        env.observation_space, env.action_space, lambda _: 1.0, net_arch=[16]
    )
    trainer = make_bc(policy, quiet, demonstrations=trajectories)
    assert_it_learns(policy, lambda: trainer.train(n_batches=3, progress_bar=False), venv)


# --- DAgger ---


def test_dagger_trains_our_policy_with_our_expert(
    venv: VecEnv,
    flat_kwargs: dict[str, Any],
    quiet: imit_logger.HierarchicalLogger,
    tmp_path: Path,
) -> None:
    policy = TaskConditionedPolicy(
        venv.observation_space, venv.action_space, lambda _: 1.0, **flat_kwargs
    )
    bc_trainer = make_bc(policy, quiet)
    trainer = SimpleDAggerTrainer(
        venv=venv,
        scratch_dir=tmp_path / "dagger",
        expert_policy=ExpertPolicy(venv),
        bc_trainer=bc_trainer,
        rng=bc_trainer.rng,
        custom_logger=quiet,
    )
    arguments = {"n_epochs": 1, "progress_bar": False, "log_rollouts_venv": None}

    def train() -> None:
        trainer.train(
            total_timesteps=100,
            rollout_round_min_episodes=2,
            rollout_round_min_timesteps=40,
            bc_train_kwargs=arguments,
        )

    assert_it_learns(policy, train, venv)


# --- adversarial, density and off-policy ---


@pytest.mark.parametrize(
    ("algorithm", "reward"), [(GAIL, BasicRewardNet), (AIRL, BasicShapedRewardNet)]
)
def test_adversarial_trainers_train_our_policy(
    algorithm: Any,
    reward: Any,
    venv: VecEnv,
    flat_kwargs: dict[str, Any],
    expert_trajectories: list[types.TrajectoryWithRew],
    quiet: imit_logger.HierarchicalLogger,
) -> None:
    ppo = make_ppo(venv, flat_kwargs)
    trainer = algorithm(
        demonstrations=expert_trajectories,
        demo_batch_size=16,
        venv=venv,
        gen_algo=ppo,
        reward_net=reward(venv.observation_space, venv.action_space),
        custom_logger=quiet,
    )
    assert_it_learns(ppo.policy, lambda: trainer.train(N_ENVS * TaskEnv.n_steps), venv)


def test_density_trains_our_policy(
    venv: VecEnv,
    flat_kwargs: dict[str, Any],
    expert_trajectories: list[types.TrajectoryWithRew],
    quiet: imit_logger.HierarchicalLogger,
) -> None:
    ppo = make_ppo(venv, flat_kwargs)
    trainer = density.DensityAlgorithm(
        demonstrations=expert_trajectories,
        venv=venv,
        rl_algo=ppo,
        rng=np.random.default_rng(0),
        custom_logger=quiet,
    )

    def train() -> None:
        trainer.train()
        trainer.train_policy(n_timesteps=N_ENVS * TaskEnv.n_steps)

    assert_it_learns(ppo.policy, train, venv)


@pytest.mark.skipif(
    "discounts" in ReplayBufferSamples._fields,
    reason="imitation 1.0.1's SQIL does not know this field of Stable-Baselines3's newer samples",
)
def test_sqil_trains_sac_on_our_features(
    venv: VecEnv,
    flat_kwargs: dict[str, Any],
    expert_trajectories: list[types.TrajectoryWithRew],
    quiet: imit_logger.HierarchicalLogger,
) -> None:
    extractor_kwargs = {key: flat_kwargs[key] for key in ("slots", "dict_space")}
    trainer = SQIL(
        venv=venv,
        demonstrations=expert_trajectories,
        policy="MlpPolicy",
        custom_logger=quiet,
        rl_algo_class=SAC,
        rl_kwargs={
            "learning_starts": 10,
            "batch_size": 16,
            "seed": 0,
            "device": "cpu",
            "policy_kwargs": {
                "net_arch": [16],
                "features_extractor_class": TaskFeaturesExtractor,
                "features_extractor_kwargs": extractor_kwargs,
            },
        },
    )
    assert_it_learns(trainer.policy, lambda: trainer.train(total_timesteps=40), venv)


# --- rollouts and files ---


def test_the_experts_rollouts_succeed(expert_trajectories: list[types.TrajectoryWithRew]) -> None:
    assert len(expert_trajectories) >= 4
    for trajectory in expert_trajectories:
        assert trajectory.infos is not None and trajectory.infos[-1]["is_success"]
        assert len(trajectory) == TaskEnv.n_steps


def test_a_model_can_be_rolled_out_itself(embedder: EntBC) -> None:
    env = told_env(embedder)
    model = EntBC(env=env, policy_kwargs=embedder.policy.options)
    venv = DummyVecEnv([lambda: RolloutInfoWrapper(env)])
    (episode,) = rollout.generate_trajectories(
        model, venv, rollout.make_min_episodes(1), rng=np.random.default_rng(0)
    )
    assert len(episode) == TaskEnv.n_steps


def test_an_expert_is_asked_for_where_there_is_none() -> None:
    venv = DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    with pytest.raises(ValueError, match=r"no expert: expected a method expert_action\(\)"):
        ExpertPolicy(venv).predict(venv.reset())


def test_rollouts_of_the_flattened_view_survive_a_file(
    expert_trajectories: list[types.TrajectoryWithRew], tmp_path: Path
) -> None:
    serialize.save(tmp_path / "rollouts", expert_trajectories)
    for saved, loaded in zip(
        expert_trajectories, serialize.load(tmp_path / "rollouts"), strict=True
    ):
        np.testing.assert_array_equal(loaded.obs, saved.obs)
        np.testing.assert_array_equal(loaded.acts, saved.acts)
        assert saved.infos is not None and loaded.infos is not None
        assert [i["task_id"] for i in loaded.infos] == [i["task_id"] for i in saved.infos]


def test_our_demonstrations_are_trajectories_of_theirs() -> None:
    trajectories = as_trajectories(make_demonstrations("pixels_agent_pos"))
    transitions = rollout.flatten_trajectories(trajectories)
    assert set(types.maybe_unwrap_dictobs(transitions.obs)) == set(DICT_SPACE.spaces)
