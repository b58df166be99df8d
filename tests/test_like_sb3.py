"""What Stable-Baselines3 promises of saving and loading: `EntBC`, and PPO with our policy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from imitation.policies import serialize
from reach import (
    DEMONSTRATIONS,
    TOLD_KWARGS,
    ReachEnv,
    reacher,
    told_env,
    told_venv,
)
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv
from toys import SPACES

from ent_bc import EntBC, TaskConditionedPolicy

PATHS: dict[type, str] = {EntBC: "model.safetensors", PPO: "model.zip"}


def fine_tuner(**kwargs: Any) -> PPO:
    """PPO with our policy, small."""
    arguments = {
        "n_steps": 12,
        "batch_size": 12,
        "n_epochs": 2,
        "seed": 0,
        "device": "cpu",
        "policy_kwargs": TOLD_KWARGS,
        **kwargs,
    }
    return PPO(TaskConditionedPolicy, arguments.pop("env", None) or told_venv(), **arguments)


def make(cls: type, **kwargs: Any) -> Any:
    """A trained model of either class, whose observation has its sentence."""
    if cls is PPO:
        return fine_tuner(**kwargs).learn(24)
    venv = told_venv()
    of_env = {name: getattr(venv, name) for name in ("observation_space", "action_space")}
    model = reacher(**{**of_env, **kwargs})
    model.set_demonstrations(TOLD_BATCHES)
    return model.learn(3)


def told_observations(n: int = 8, seed: int = 0) -> Any:
    return told_venv(n, seed=seed).reset()


TOLD_BATCHES = [
    {"obs": told_observations(seed=seed), "acts": np.full((8, 2), 0.1 * seed, np.float32)}
    for seed in range(4)
]
both = pytest.mark.parametrize("cls", [EntBC, PPO])


def actions_of(model: Any) -> np.ndarray:
    return model.predict(told_observations(seed=5), deterministic=True)[0]


def assert_equal(first: Any, second: Any) -> None:
    th.testing.assert_close(first, second, rtol=0, atol=0)


# --- parameters ---


@both
def test_parameters_are_set_from_a_dict_or_a_file(cls: type, tmp_path: Path) -> None:
    model = make(cls)
    path = tmp_path / PATHS[cls]
    model.save(path)
    expected, kept = actions_of(model), copy.deepcopy(model.get_parameters())
    assert "policy" in kept and any("optimizer" in name for name in kept)
    drawn = {name: th.rand_like(value) for name, value in kept["policy"].items()}
    for source in (kept, path, str(path)):
        model.set_parameters({**kept, "policy": drawn})
        assert not np.allclose(actions_of(model), expected)
        model.set_parameters(source)
        assert np.array_equal(actions_of(model), expected)
        for name, state in model.get_parameters().items():
            assert_equal(state.get("state", state), kept[name].get("state", kept[name]))


@both
def test_an_exact_match_is_of_all_parameters(cls: type) -> None:
    model = make(cls)
    kept = copy.deepcopy(model.get_parameters())
    policy = kept["policy"]
    part = {name: th.zeros_like(policy[name]) for name in policy if name.startswith("action_net")}
    with pytest.raises(ValueError, match="policy"):
        model.set_parameters({"policy": policy})
    with pytest.raises(ValueError):
        model.set_parameters({})
    assert_equal(model.get_parameters(), kept)
    with pytest.raises(RuntimeError, match="Missing key"):
        model.set_parameters({**kept, "policy": part})
    model.set_parameters(kept)
    model.set_parameters({"policy": part}, exact_match=False)
    now = model.get_parameters()["policy"]
    assert_equal({name: now[name] for name in policy}, {**policy, **part})


@both
@pytest.mark.parametrize("exact_match", [True, False])
def test_parameters_of_what_is_not_there_are_refused(cls: type, exact_match: bool) -> None:
    model = make(cls)
    with pytest.raises(ValueError, match="critic"):
        model.set_parameters({**model.get_parameters(), "critic": {}}, exact_match=exact_match)


# --- files ---


@both
def test_a_file_keeps_predictions_and_optimiser(cls: type, tmp_path: Path) -> None:
    model = make(cls)
    model.save(str(tmp_path / PATHS[cls]))
    loaded = cls.load(tmp_path / PATHS[cls], device="cpu")  # type: ignore[attr-defined]
    assert loaded.num_timesteps == model.num_timesteps
    assert np.array_equal(actions_of(loaded), actions_of(model))
    now, saved = loaded.get_parameters(), model.get_parameters()
    assert_equal(now["policy"], saved["policy"])
    name = "optimizer" if cls is EntBC else "policy.optimizer"
    assert saved[name]["state"], "there were steps to remember"
    assert_equal(now[name]["state"], saved[name]["state"])


def test_entbc_goes_on_after_loading_as_if_never_broken_off(tmp_path: Path) -> None:
    path = tmp_path / PATHS[EntBC]
    whole = reacher(demonstrations=DEMONSTRATIONS).learn(3)
    whole.save(path)
    loaded = EntBC.load(path, env=ReachEnv(), demonstrations=DEMONSTRATIONS, device="cpu")
    for model in (whole, loaded):
        model.learn(3, reset_num_timesteps=False)
    assert loaded.num_timesteps == 6
    assert_equal(loaded.get_parameters(), whole.get_parameters())


def test_ppo_goes_on_after_loading_as_sb3_does(tmp_path: Path) -> None:
    # SB3 resets the environment then, and does not save the state of the random numbers.
    path = tmp_path / PATHS[PPO]
    whole = make(PPO)
    whole.save(path)
    whole.set_env(told_venv())
    loaded = PPO.load(path, env=told_venv(), device="cpu")
    for model in (whole, loaded):
        model.set_random_seed(1)
        model.learn(24, reset_num_timesteps=False)
    assert loaded.num_timesteps == whole.num_timesteps == 48
    assert_equal(loaded.get_parameters(), whole.get_parameters())


@both
def test_other_policy_kwargs_than_the_saved_ones_are_refused(cls: type, tmp_path: Path) -> None:
    path = tmp_path / PATHS[cls]
    make(cls).save(path)
    load: Callable[..., Any] = cls.load  # type: ignore[attr-defined]
    for changed in ({"net_arch": [16]}, {"sentence_dim": 3}, {"blind": True}):
        with pytest.raises(ValueError, match=next(iter(changed))):
            load(path, policy_kwargs={**TOLD_KWARGS, **changed})
    load(path, policy_kwargs=TOLD_KWARGS)


def test_the_policy_alone_is_saved_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where SB3's loader reads a pickle, torch >= 2.6 must be told to trust it.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    model = make(PPO)
    model.policy.save(str(tmp_path / "policy"))
    policy = TaskConditionedPolicy.load(str(tmp_path / "policy"), device="cpu")
    assert policy.options == model.policy.options
    assert np.array_equal(actions_of(policy), actions_of(model))


def test_imitation_serialises_ppo_with_our_policy(tmp_path: Path) -> None:
    model = make(PPO)
    serialize.save_stable_model(tmp_path, model)
    policy = serialize.load_policy("ppo", told_venv(), path=str(tmp_path))
    assert isinstance(policy, TaskConditionedPolicy)
    assert np.array_equal(actions_of(policy), actions_of(model))


# --- environments ---


@both
def test_environments_may_be_exchanged_and_wrapped(cls: type) -> None:
    model = make(cls)
    for env, n_envs in ((told_venv(2, seed=3), 2), (told_venv(2), 2)):
        model.set_env(env)
        assert model.get_env() is env and model.n_envs == n_envs
        model.learn(3)
    single = make(EntBC)
    single.set_env(told_env())  # EntBC learns from no environment: their number is free
    assert single.n_envs == 1 and single.get_env() is not None


@both
def test_environments_with_other_spaces_are_refused(cls: type, tmp_path: Path) -> None:
    model = make(cls)
    model.save(tmp_path / PATHS[cls])
    load: Callable[..., Any] = cls.load  # type: ignore[attr-defined]
    for other in (DummyVecEnv([ReachEnv] * 2), told_venv(flat=True)):
        with pytest.raises(ValueError, match="Observation spaces do not match"):
            model.set_env(other)
        with pytest.raises(ValueError, match="Observation spaces do not match"):
            load(tmp_path / PATHS[cls], env=other)


def test_spaces_that_are_given_beside_an_environment_are_its_own() -> None:
    EntBC(env=ReachEnv(), observation_space=spaces.Box(-3, 3, (2,), np.float32))
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        EntBC(env=ReachEnv(), observation_space=SPACES["state"])
    with pytest.raises(ValueError, match="Action spaces do not match"):
        EntBC(env=ReachEnv(), action_space=spaces.Box(-2, 2, (2,), np.float32))
