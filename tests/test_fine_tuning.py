"""Fine-tuning by reward: what learns, what stays, and what is rewarded."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv
from toys import TaskEnv, make_model

from ent_bc.fine_tuning import FineTuneConfig, ProgressReward, fine_tune
from ent_bc.vec_env import VectorEnvAdapter
from meta_pusher_env import make_vec

N_STEPS = TaskEnv.n_steps
SHORT = FineTuneConfig(
    total_timesteps=4 * N_STEPS, critic_timesteps=2 * N_STEPS, n_steps=N_STEPS, batch_size=N_STEPS
)


def test_only_the_head_and_the_critic_learn_and_the_model_has_it() -> None:
    model = make_model()
    before = copy.deepcopy(model.policy.state_dict())
    (demo,) = TaskEnv().get_demonstrations(0, 1, seed=0)
    sentence = model.embed(demo)
    ppo = fine_tune(model, DummyVecEnv([TaskEnv] * 2), SHORT, seed=0)
    after = model.policy.state_dict()
    moved = {key.split(".")[0] for key in after if not th.equal(after[key], before[key])}
    assert moved == {"mlp_extractor", "action_net", "linear_net", "value_net"}
    np.testing.assert_array_equal(model.embed(demo), sentence)
    for key, value in ppo.policy.state_dict().items():
        assert th.equal(value, after[key]), key
    assert ppo.num_timesteps == 4 * N_STEPS


def test_the_learning_rate_rises_and_falls() -> None:
    config = FineTuneConfig(learning_rate=1.0, ramp=0.1)
    rates = [config.learning_rate_at(left) for left in (1.0, 0.95, 0.9, 0.5, 0.0)]
    assert rates == pytest.approx([0.0, 0.475, 0.9, 0.5, 0.0])


def test_progress_is_rewarded_and_starts_anew_with_each_episode() -> None:
    plain, rewarded = (VectorEnvAdapter(make_vec(2, n_tasks=2)) for _ in range(2))
    venv = ProgressReward(rewarded)
    for each in (plain, venv):
        each.seed(0)
        each.reset()
    potential = told_potential(plain.reset_infos)
    actions = np.random.default_rng(0).uniform(-2, 2, (101, 2, 7)).astype(np.float32)
    for step, action in enumerate(actions):
        rewards = venv.step(action)[1]
        infos = plain.step(action)[3]
        strict = [0.05 * info["is_success_strict"] for info in infos]
        expected = told_potential(infos) - potential + strict
        np.testing.assert_allclose(rewards, expected, atol=1e-6)
        potential = told_potential(plain.reset_infos if step == 99 else infos)
    venv.close()
    plain.close()


def told_potential(infos: list[dict[str, float]]) -> np.ndarray:
    return np.array([-5 * i["target_distance"] - 2.5 * i["distractor_moved"] for i in infos])
