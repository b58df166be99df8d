"""What Stable-Baselines3's users rely on in policies: distributions, modes, and seeds."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from imitation.data import rollout
from reach import (
    DEMONSTRATIONS,
    TOLD_KWARGS,
    reacher,
    told_model,
    told_policy,
    told_venv,
)
from stable_baselines3 import PPO
from stable_baselines3.common.distributions import kl_divergence
from stable_baselines3.common.policies import ActorCriticPolicy
from test_like_sb3 import both, fine_tuner, make, told_observations
from torch import nn

from ent_bc import EntBC, LossConfig, TaskConditionedPolicy
from ent_bc.extractors import Features, TaskFeaturesExtractor

N_SAMPLES = 200_000


@pytest.fixture
def policy() -> Any:
    """Before training, but with a sigma that depends on the observation."""
    policy = told_policy()
    nn.init.normal_(policy.log_std_net.weight, std=0.1)
    return policy


def flat_observations(n: int = 4, seed: int = 0) -> th.Tensor:
    return th.as_tensor(told_venv(n, flat=True, seed=seed).reset())


# --- distributions ---


def test_the_mode_is_the_mean_and_what_is_predicted(policy: Any) -> None:
    obs = flat_observations()
    with th.no_grad():
        distribution = policy.get_distribution(obs)
        mode = distribution.mode()
        assert th.equal(mode, distribution.distribution.mean)
        assert th.equal(mode, distribution.get_actions(deterministic=True))
        peak = distribution.log_prob(mode)
        assert (peak > distribution.log_prob(mode + 0.1)).all()
    predicted, _ = policy.predict(obs.numpy(), deterministic=True)
    np.testing.assert_allclose(predicted, mode.clamp(-1, 1), atol=1e-6)


def test_samples_have_the_mean_sigma_and_entropy_that_are_told(policy: Any) -> None:
    th.manual_seed(0)
    obs = flat_observations(1).expand(N_SAMPLES, -1)
    with th.no_grad():
        distribution, control = policy.get_distribution(obs), policy.control(obs)
        samples = distribution.sample()
        sigma = control.log_std[0].exp()
        near = 5 * float(sigma.max()) / math.sqrt(N_SAMPLES)
        th.testing.assert_close(samples.mean(dim=0), control.mean[0], atol=near, rtol=0)
        th.testing.assert_close(samples.std(dim=0), sigma, atol=near, rtol=0)
        surprise = -distribution.log_prob(samples).mean()
        th.testing.assert_close(surprise, distribution.entropy()[0], atol=1e-2, rtol=0)


def test_what_forward_says_of_its_actions_evaluation_says_too(policy: Any) -> None:
    obs = flat_observations()
    actions, values, log_prob = policy(obs)
    again, log_prob_again, entropy = policy.evaluate_actions(obs, actions)
    th.testing.assert_close(values, again)
    th.testing.assert_close(log_prob, log_prob_again)
    assert log_prob.shape == entropy.shape == (4,) and values.shape == (4, 1)


def test_divergence_is_zero_from_itself_alone(policy: Any) -> None:
    with th.no_grad():  # SB3's policies reuse one distribution object, and so do ours
        first = copy.deepcopy(policy.get_distribution(flat_observations()))
        other = policy.get_distribution(flat_observations(seed=1))
        assert kl_divergence(first, first).abs().max() < 1e-6
        assert (kl_divergence(first, other).sum(dim=1) > 1e-3).all()


def test_gradients_reach_mean_and_sigma_through_samples(policy: Any) -> None:
    policy.get_distribution(flat_observations()).sample().square().sum().backward()
    for net in (policy.action_net, policy.log_std_net):
        assert net.weight.grad.abs().max() > 0


# --- shapes and bounds ---


@both
def test_actions_of_a_rollout_are_valid(cls: type) -> None:
    policy, venv = make(cls).policy, told_venv()
    nn.init.constant_(policy.log_std_net.bias, 1.0)  # well beyond the bounds
    until = rollout.make_min_episodes(4)
    trajectories = rollout.generate_trajectories(policy, venv, until, np.random.default_rng(0))
    actions = np.concatenate([trajectory.acts for trajectory in trajectories])
    assert all(venv.action_space.contains(action) for action in actions)
    assert (np.abs(actions) == 1).any()


# --- training and evaluation mode ---


class NoisyExtractor(TaskFeaturesExtractor):
    """With what behaves otherwise in training: dropout before, batch normalisation behind."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dropout = nn.Dropout(0.5)
        self.batch_norm = nn.BatchNorm1d(self.features_dim)

    def to_inputs(self, observations: Any) -> dict[str, th.Tensor]:
        inputs = super().to_inputs(observations)
        return {name: self.dropout(values) for name, values in inputs.items()}

    def attend(self, observations: Any, sentence: th.Tensor | None = None) -> Features:
        features = super().attend(observations, sentence)
        return dataclasses.replace(features, latent=self.batch_norm(features.latent))


NOISY_KWARGS = {**TOLD_KWARGS, "features_extractor_class": NoisyExtractor}


def noisy(cls: type) -> Any:
    """Not trained yet."""
    venv = told_venv()
    if cls is PPO:
        return fine_tuner(policy_kwargs=NOISY_KWARGS)
    spaces = {name: getattr(venv, name) for name in ("observation_space", "action_space")}
    return reacher(**spaces, policy_kwargs=NOISY_KWARGS)


def statistics_of(model: Any) -> dict[str, th.Tensor]:
    return copy.deepcopy(model.policy.features_extractor.batch_norm.state_dict())


def differ(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> set[str]:
    return {name for name in first if not th.equal(first[name], second[name])}


@both
def test_prediction_is_without_dropout_and_moves_no_statistics(cls: type) -> None:
    model, obs = noisy(cls), told_observations()
    model.policy.set_training_mode(True)
    before = statistics_of(model)
    first, _ = model.predict(obs, deterministic=True)
    for _ in range(4):
        assert np.array_equal(model.predict(obs, deterministic=True)[0], first)
    assert not differ(before, statistics_of(model))


def test_a_prediction_that_fails_leaves_the_mode_as_it_was(policy: Any) -> None:
    policy.set_training_mode(True)
    with pytest.raises(ValueError, match="nan"):
        policy.predict(np.full((4, 4), np.nan, np.float32))
    assert policy.training


def test_embedding_is_without_dropout_while_training_goes_on() -> None:
    model = reacher(policy_kwargs=NOISY_KWARGS, demonstrations=DEMONSTRATIONS)
    pairs: list[list[np.ndarray]] = []

    def embed() -> None:
        before = statistics_of(model)
        pairs.append([model.embed(DEMONSTRATIONS[0]) for _ in range(2)])
        assert model.policy.training and not differ(before, statistics_of(model))

    model.train(n_batches=2, on_batch_end=embed, progress_bar=False)
    for first, second in pairs:
        assert np.array_equal(first, second)
    assert not np.array_equal(pairs[0][0], pairs[1][0])


@pytest.mark.parametrize("form", ["tasks", "transitions"])
def test_entbc_trains_in_training_mode(form: str) -> None:
    if form == "tasks":
        model = reacher(policy_kwargs=NOISY_KWARGS, demonstrations=DEMONSTRATIONS)
    else:
        model = noisy(EntBC)
        acts = np.zeros((8, 2), np.float32)
        model.set_demonstrations([{"obs": told_observations(), "acts": acts}])
    before = statistics_of(model)
    model.learn(2)
    assert {"bias", "weight", "running_mean"} <= differ(before, statistics_of(model))
    assert not model.policy.training


def test_ppo_collects_in_evaluation_mode_and_trains_in_training_mode() -> None:
    model = noisy(PPO)
    before = statistics_of(model)
    _, callback = model._setup_learn(24)
    env = model.get_env()
    model.collect_rollouts(env, callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
    assert not differ(before, statistics_of(model))
    model.train()
    assert {"bias", "weight", "running_mean"} <= differ(before, statistics_of(model))


# --- seeds ---


def run(cls: type, seed: int) -> tuple[Any, list[np.ndarray], list[np.ndarray]]:
    """Trains, then acts with sampled actions."""
    model = make(cls, seed=seed)
    venv = told_venv() if cls is EntBC else model.get_env()
    obs, actions, rewards = venv.reset(), [], []
    for _ in range(10):
        action, _ = model.predict(obs, deterministic=False)
        obs, reward, _, _ = venv.step(action)
        actions.append(action)
        rewards.append(reward)
    return copy.deepcopy(model.policy.state_dict()), actions, rewards


@both
def test_the_same_seed_gives_the_same_training_and_the_same_actions(cls: type) -> None:
    first, second, other = run(cls, 0), run(cls, 0), run(cls, 1)
    th.testing.assert_close(first[0], second[0], rtol=0, atol=0)
    assert np.array_equal(first[1], second[1]) and np.array_equal(first[2], second[2])
    assert not np.array_equal(first[1], other[1])


@both
def test_a_model_can_be_seeded_again(cls: type) -> None:
    model, drawn = make(cls), []
    for _ in range(2):
        model.set_random_seed(3)
        sample = model.predict(told_observations())[0]
        drawn.append([sample, model.action_space.sample(), th.rand(2).numpy()])
    for first, second in zip(*drawn, strict=True):
        assert np.array_equal(first, second)
    model.set_random_seed(None)
    assert not np.array_equal(model.predict(told_observations())[0], drawn[0][0])


def test_sampled_losses_are_seeded_too() -> None:
    trained = []
    for _ in range(2):
        model = told_model(losses=LossConfig(control_loss="sampled_mse"))
        model.set_demonstrations([{"obs": flat_observations(8), "acts": th.zeros(8, 2)}])
        trained.append(model.learn(3).policy.state_dict())
    th.testing.assert_close(trained[0], trained[1], rtol=0, atol=0)


def test_adams_epsilon_is_sb3s_unless_options_are_given() -> None:
    space = spaces.Box(-1, 1, (3,), np.float32)
    theirs, ours = (
        kind(space, space, lambda _: 0.1) for kind in (ActorCriticPolicy, TaskConditionedPolicy)
    )
    assert ours.optimizer.defaults["eps"] == theirs.optimizer.defaults["eps"] == 1e-5
    given = TaskConditionedPolicy(space, space, lambda _: 0.1, optimizer_kwargs={"eps": 1e-3})
    assert given.optimizer.defaults["eps"] == 1e-3
