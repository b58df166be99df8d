"""PPO with our policy: from scratch, from an `EntBC` model, and images in either order of axes."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecTransposeImage
from toys import SLOTS, SPACES, TaskEnv, make_model

from ent_bc import EntBC, TaskConditionedPolicy
from ent_bc.wrappers import SentenceObservation, VecSentenceObservation

N_STEPS = TaskEnv.n_steps


def told_venv(model: EntBC, obs_type: str, n_envs: int = 2) -> VecEnv:
    venv = DummyVecEnv([lambda: Monitor(TaskEnv(obs_type))] * n_envs)
    return VecSentenceObservation(venv, model, seed=0)


def make_ppo(env: Any, policy_kwargs: dict[str, Any], **kwargs: Any) -> PPO:
    return PPO(
        TaskConditionedPolicy,
        env,
        **{"n_steps": N_STEPS, "batch_size": N_STEPS, "n_epochs": 1, "seed": 0, **kwargs},
        policy_kwargs=policy_kwargs,
        device="cpu",
    )


def moved(policy: Any, before: dict[str, th.Tensor]) -> set[str]:
    return {key for key, value in policy.state_dict().items() if (value != before[key]).any()}


@pytest.mark.parametrize("obs_type", SPACES)
def test_ppo_learns_from_scratch(obs_type: str) -> None:
    ppo = make_ppo(told_venv(make_model(obs_type), obs_type), {"net_arch": [16], "slots": SLOTS})
    before = copy.deepcopy(ppo.policy.state_dict())
    ppo.learn(2 * N_STEPS)
    changed = moved(ppo.policy, before)
    assert {"action_net.weight", "log_std_net.weight", "value_net.1.weight"} <= changed
    assert any(key.startswith("features_extractor.net") for key in changed)
    assert all(th.isfinite(value).all() for value in ppo.policy.state_dict().values())


@pytest.mark.parametrize("architecture", ["attention", "tiled"])
@pytest.mark.parametrize("obs_type", SPACES)
def test_a_model_goes_over_to_ppo_with_its_weights_and_acts_alike(
    obs_type: str, architecture: str
) -> None:
    model = make_model(obs_type, policy_kwargs={"architecture": architecture})
    model.train(n_batches=2, progress_bar=False)
    venv = told_venv(model, obs_type)
    ppo = make_ppo(venv, model.policy.options)
    ppo.policy.load_state_dict(model.policy.state_dict())
    obs = venv.reset()
    assert isinstance(obs, dict)
    bare = {key: value for key, value in obs.items() if key != "sentence"}
    expected, _ = model.predict(
        bare if obs_type == "pixels_agent_pos" else next(iter(bare.values())),
        state=obs["sentence"],
        deterministic=True,
    )
    actual, _ = ppo.predict(obs, deterministic=True)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    if obs_type != "state":  # PPO itself sees the images with their channels first
        assert ppo.observation_space["pixels"].shape == (3, 24, 24)
        assert isinstance(ppo.get_env(), VecTransposeImage)


def test_of_bare_images_both_orders_act_alike() -> None:
    model = make_model("pixels", policy_kwargs={"blind": True})
    env = Monitor(TaskEnv("pixels"))
    ppo = make_ppo(env, model.policy.options)
    assert ppo.observation_space.shape == (3, 24, 24)
    ppo.policy.load_state_dict(model.policy.state_dict())
    frame, _ = env.reset(seed=0)
    expected, _ = model.predict(frame, deterministic=True)
    for given in (frame, frame.transpose(2, 0, 1)):
        np.testing.assert_allclose(ppo.predict(given, deterministic=True)[0], expected, atol=1e-6)


def test_a_model_of_transposed_frames_embeds_either_order() -> None:
    space = spaces.Box(0, 255, (3, 24, 24), np.uint8)
    (demo,) = TaskEnv("pixels").get_demonstrations(0, 1, seed=0)
    model = make_model("pixels", observation_space=space, demonstrations=None)
    first, second = (model.embed(frames) for frames in (demo.obs, demo.obs.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_the_critic_learns_nothing_into_the_features() -> None:
    model = make_model()
    venv = told_venv(model, "state")
    ppo = make_ppo(venv, model.policy.options)
    obs, _ = ppo.policy.obs_to_tensor(venv.reset())
    ppo.policy.predict_values(obs).sum().backward()
    for name, parameter in ppo.policy.named_parameters():
        assert (parameter.grad is not None) == name.startswith("value_net"), name


def test_the_flattened_view_serves_ppo_too() -> None:
    model = make_model()
    env = SentenceObservation(TaskEnv(), model)
    flat: gym.Env[Any, Any] = FlattenObservation(env)
    ppo = make_ppo(flat, {**model.policy.options, "dict_space": env.observation_space})
    ppo.policy.load_state_dict(model.policy.state_dict())
    obs, _ = env.reset(seed=0)
    expected, _ = model.predict(obs["state"], state=obs["sentence"], deterministic=True)
    actual, _ = ppo.predict(spaces.flatten(env.observation_space, obs), deterministic=True)
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    ppo.learn(N_STEPS)


def test_callbacks_and_evaluation_work_as_with_any_policy(tmp_path: Any) -> None:
    model = make_model()
    ppo = make_ppo(told_venv(model, "state"), model.policy.options)
    callbacks = [
        EvalCallback(told_venv(model, "state", 1), eval_freq=N_STEPS, n_eval_episodes=1, verbose=0),
        CheckpointCallback(N_STEPS, str(tmp_path)),
    ]
    ppo.learn(2 * N_STEPS, callback=callbacks)
    mean, _ = evaluate_policy(ppo, told_venv(model, "state", 1), n_eval_episodes=2)
    assert np.isfinite(mean) and np.isfinite(callbacks[0].last_mean_reward)
    assert [file.name for file in tmp_path.glob("*.zip")] == ["rl_model_48_steps.zip"]
    ppo.save(tmp_path / "ppo")
    loaded = PPO.load(tmp_path / "ppo", device="cpu")
    for key, value in loaded.policy.state_dict().items():
        assert th.equal(value, ppo.policy.state_dict()[key]), key


def test_entbcs_callbacks_evaluate_in_environments_that_tell_the_task() -> None:
    model = make_model()
    evaluation = EvalCallback(told_venv(model, "state", 1), eval_freq=2, n_eval_episodes=1)
    told = EntBC(
        env=told_venv(model, "state"),
        demonstrations=[d for t in range(4) for d in TaskEnv().get_demonstrations(t, 2, seed=t)],
        batch_size=4,
        policy_kwargs={"net_arch": [16]},
    )
    told.learn(2, callback=evaluation)
    assert np.isfinite(evaluation.last_mean_reward)
