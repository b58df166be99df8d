"""A Gymnasium vector environment for SB3: equal to SB3's own vectors of single environments."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor
from test_vector import assert_bitwise

from ent_bc.vec_env import VectorEnvAdapter, _split
from ent_bc.wrappers import VecSentenceObservation
from meta_pusher_env import MetaPusherEnv, make_vec

N = 3
ACTIONS = np.random.default_rng(0).uniform(-2, 2, (105, N, 7)).astype(np.float32)


@pytest.fixture
def venv() -> Iterator[VectorEnvAdapter]:
    venv = VectorEnvAdapter(make_vec(N, n_tasks=8, split="val"))
    yield venv
    venv.close()


def test_steps_are_those_of_sb3s_own_vectors(venv: VectorEnvAdapter) -> None:
    theirs = DummyVecEnv(
        [lambda: gym.make("MetaPusher-v0", n_tasks=8, split="val") for _ in range(N)]
    )
    for each in (venv, theirs):
        each.seed(3)
        each.set_options([{"task": 1}, {"task": 6}, {"task": 4}])
    assert_bitwise(venv.reset(), theirs.reset())
    for actions in ACTIONS:
        obs, rewards, dones, infos = venv.step(actions)
        expected, their_rewards, their_dones, their_infos = theirs.step(actions)
        assert_bitwise(obs, expected)
        assert_bitwise(rewards, their_rewards)
        assert_bitwise(dones, their_dones)
        for info, their_info in zip(infos, their_infos, strict=True):
            their_info.setdefault("TimeLimit.truncated", False)
            assert_bitwise({"TimeLimit.truncated": False} | info, their_info)
    assert [info["task_id"] for info in venv.reset_infos] == [
        info["task_id"] for info in theirs.reset_infos
    ]


def test_monitor_and_ppo_use_it(venv: VectorEnvAdapter) -> None:
    monitored = VecMonitor(venv)
    ppo = PPO("MlpPolicy", monitored, n_steps=101, batch_size=101, n_epochs=1, device="cpu", seed=0)
    ppo.learn(101 * N)
    assert len(ppo.ep_info_buffer or ()) == N
    mean, _ = evaluate_policy(ppo, monitored, n_eval_episodes=N)
    assert mean < 0


class Named:
    """Makes a sentence of a demonstration's task, to see whose was shown."""

    policy = types.SimpleNamespace(sentence_dim=1)

    def embed(self, demonstrations: Any) -> np.ndarray:
        return np.array([[hash(shown[0].task_id) % 997] for shown in demonstrations], np.float32)


def test_sentences_follow_the_tasks(venv: VectorEnvAdapter) -> None:
    told = VecSentenceObservation(venv, Named(), seed=0)  # type: ignore[arg-type]
    told.set_options([{"task": None}] * N)
    obs = told.reset()
    for _ in range(3):
        ids = [info["task_id"] for info in venv.reset_infos]
        assert isinstance(obs, dict)
        assert obs["sentence"].ravel().tolist() == [hash(task_id) % 997 for task_id in ids]
        for actions in ACTIONS[:100]:
            obs = told.step(actions)[0]


def test_attributes_and_methods_are_the_environments(venv: VectorEnvAdapter) -> None:
    assert venv.get_attr("slot_layout", [0, 2]) == [MetaPusherEnv().slot_layout] * 2
    assert venv.env_method("get_demonstrations", 0, 1, seed=0, indices=1)[0][0].obs.shape[0] == 101
    assert venv.env_is_wrapped(gym.Wrapper) == [False] * N
    with pytest.raises(NotImplementedError, match="pinned cannot be set"):
        venv.set_attr("pinned", 3)


def test_what_only_some_environments_tell_only_these_have() -> None:
    info = {
        "all": np.array([1.5, 2.5]),
        "_all": np.array([True, True]),
        "one": np.array([0, 7]),
        "_one": np.array([False, True]),
    }
    assert _split(info, 2) == [{"all": 1.5}, {"all": 2.5, "one": 7}]
    assert _split({}, 2) == [{}, {}]


def test_another_autoreset_mode_is_named() -> None:
    envs = gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")])
    with pytest.raises(ValueError, match="autoreset mode is .*, expected SameStep"):
        VectorEnvAdapter(envs)


def test_options_for_some_only_are_named(venv: VectorEnvAdapter) -> None:
    venv.set_options([{"task": 1}, {}, {}])
    with pytest.raises(ValueError, match="the same keys for all"):
        venv.reset()


def test_pictures_of_all() -> None:
    venv = VectorEnvAdapter(make_vec(2, n_tasks=2, render_mode="rgb_array"))
    venv.reset()
    assert np.shape(venv.get_images()) == (2, 480, 480, 3)
    assert np.shape(venv.render("rgb_array")) == (960, 480, 3)
    venv.close()
