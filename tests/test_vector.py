"""The native vector environment: equal to single ones, tasks, autoreset, Gymnasium's make_vec."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import meta_pusher_env
from meta_pusher_env import MetaPusherEnv, MetaPusherVectorEnv, episodes, make_vec
from meta_pusher_env.env import OBS_TYPES
from meta_pusher_env.vector import FINAL_OBS, split_info

N = 3
SMALL = 32  # pixels
IS_BEFORE_1_0 = gym.__version__.startswith("0.")
TORQUES = np.random.default_rng(0).uniform(-2, 2, (110, N, 7)).astype(np.float32)


@pytest.fixture
def envs() -> Iterator[MetaPusherVectorEnv]:
    envs = make_vec(N)
    yield envs
    envs.close()


def pick(obs: Any, index: int) -> Any:
    return {k: v[index] for k, v in obs.items()} if isinstance(obs, dict) else obs[index]


def assert_bitwise(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for key in theirs:
            assert_bitwise(ours[key], theirs[key])
    elif isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()
    else:
        assert ours == theirs and isinstance(ours, type(theirs))


# --- equal to single environments -----------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_trajectories_are_bitwise_those_of_single_environments(
    obs_type: str, n_threads: int
) -> None:
    arguments: dict[str, Any] = {"obs_type": obs_type, "image_size": SMALL, "split": "val"}
    envs = make_vec(N, n_threads=n_threads, **arguments)
    singles = [MetaPusherEnv(**arguments) for _ in range(N)]
    obs, info = envs.reset(seed=7)
    infos = split_info(info, N)
    for index, single in enumerate(singles):
        single_obs, single_info = single.reset(seed=7 + index)
        assert_bitwise(pick(obs, index), single_obs)
        assert_bitwise(infos[index], single_info)
    for torques in TORQUES:  # beyond the end of the first episode
        obs, rewards, terminated, truncated, info = envs.step(torques)
        infos = split_info({k: v for k, v in info.items() if "final" not in k}, N)
        for index, single in enumerate(singles):
            expected, reward, *ended, single_info = single.step(torques[index])
            assert (rewards[index], terminated[index], truncated[index]) == (reward, *ended)
            if ended[1]:
                assert_bitwise(info[FINAL_OBS][index], expected)
                final = info["final_info"]
                last = final[index] if IS_BEFORE_1_0 else split_info(final, N)[index]
                assert_bitwise(last, single_info)
                expected, single_info = single.reset()
            assert_bitwise(pick(obs, index), expected)
            assert_bitwise(infos[index], single_info)
    envs.close()
    for single in singles:
        single.close()


def test_pushed_objects_move_as_in_single_environments() -> None:
    demo = MetaPusherEnv(n_tasks=2).get_demonstrations(0, 1, seed=0)[0]
    seed = int(demo.infos[0]["demo_id"].rsplit("/", 1)[1])
    envs = make_vec(2, n_tasks=2, task=0)
    envs.reset(seed=[seed, seed])
    single = MetaPusherEnv(n_tasks=2, task=0)
    single.reset(seed=seed)
    for torques in demo.acts[:99]:
        obs = envs.step(np.stack([torques, torques]))[0]
        expected, *_, info = single.step(torques)
        assert_bitwise(obs[1], expected)
    assert info["target_moved"] > 0.1
    envs.close()


def test_more_environments_than_arms_at_once_are_told_their_own_tips(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(episodes, "ARMS_AT_ONCE", 2)
    envs = make_vec(N)
    envs.reset(seed=3)
    obs = envs.step(TORQUES[0])[0]
    for index in range(N):
        single = MetaPusherEnv()
        single.reset(seed=3 + index)
        assert_bitwise(obs[index], single.step(TORQUES[0, index])[0])
    envs.close()


# --- Gymnasium's conventions ----------------------------------------------------------------------


def test_spaces_and_shapes(envs: MetaPusherVectorEnv) -> None:
    obs, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(obs)
    assert envs.single_observation_space == MetaPusherEnv().observation_space
    actions = envs.action_space.sample()
    obs, rewards, terminated, truncated, _ = envs.step(actions)
    assert envs.observation_space.contains(obs)
    assert rewards.shape == terminated.shape == truncated.shape == (N,)
    assert terminated.dtype == truncated.dtype == bool


def test_observations_are_copies(envs: MetaPusherVectorEnv) -> None:
    before, _ = envs.reset(seed=0)
    kept = before.copy()
    after = envs.step(TORQUES[0])[0]
    assert_bitwise(before, kept)
    after[:] = 0
    assert envs.step(TORQUES[1])[0].any()


def test_info_has_a_mask_for_each_key(envs: MetaPusherVectorEnv) -> None:
    _, info = envs.reset(seed=0)
    for key in [key for key in info if not key.startswith("_")]:
        assert info[key].shape == info[f"_{key}"].shape == (N,)
        assert info[f"_{key}"].all()


def test_episodes_end_together_after_100_steps_and_begin_in_the_same_step(
    envs: MetaPusherVectorEnv,
) -> None:
    envs.reset(seed=0)
    for step in range(1, 201):
        _, _, _, truncated, info = envs.step(TORQUES[step % 100])
        assert truncated.tolist() == [step % 100 == 0] * N
        assert (FINAL_OBS in info) == (step % 100 == 0)
    assert str(getattr(envs.metadata["autoreset_mode"], "value", "SameStep")) == "SameStep"


def test_gymnasium_makes_it() -> None:
    kwargs: dict[str, Any] = {"split": "test", "task": 5}
    if IS_BEFORE_1_0:
        envs = gym.make_vec(
            "meta_pusher_env:MetaPusher-v0", N, vectorization_mode="custom", vector_kwargs=kwargs
        )
    else:
        envs = gym.make_vec("meta_pusher_env:MetaPusher-v0", N, **kwargs)
    assert isinstance(envs, MetaPusherVectorEnv)
    ours = make_vec(N, **kwargs)
    assert_bitwise(envs.reset(seed=0)[0], ours.reset(seed=0)[0])
    assert envs.spec is not None and envs.spec.id == "MetaPusher-v0"
    envs.close()
    ours.close()


def test_gymnasiums_wrapper_sees_each_episode(envs: MetaPusherVectorEnv) -> None:
    wrappers = gym.wrappers if IS_BEFORE_1_0 else gym.wrappers.vector
    wrapped = wrappers.RecordEpisodeStatistics(envs)
    wrapped.reset(seed=0)
    returns = np.zeros(N)
    for torques in TORQUES[:100]:
        _, rewards, _, _, info = wrapped.step(torques)
        returns += rewards
    assert np.ravel(info["episode"]["r"]) == pytest.approx(returns, rel=1e-5)


def test_pictures_of_all(envs: MetaPusherVectorEnv) -> None:
    with pytest.raises(ValueError, match="render_mode='rgb_array'"):
        envs.render()
    envs = make_vec(2, render_mode="rgb_array", n_tasks=2)
    envs.reset(seed=0)
    single = MetaPusherEnv(render_mode="rgb_array", n_tasks=2)
    single.reset(seed=1)
    frames = envs.render()
    assert len(frames) == 2
    assert_bitwise(frames[1], single.render())
    single.close()
    envs.close()


def test_pickles(envs: MetaPusherVectorEnv) -> None:
    envs.reset(seed=0)
    other = pickle.loads(pickle.dumps(envs))
    assert_bitwise(other.reset(seed=4)[0], envs.reset(seed=4)[0])
    other.close()


def test_close_twice_and_step_after_it_is_named(envs: MetaPusherVectorEnv) -> None:
    envs.reset(seed=0)
    envs.close()
    envs.close()
    with pytest.raises(RuntimeError, match="closed"):
        envs.step(TORQUES[0])


# --- tasks ----------------------------------------------------------------------------------------


def test_each_can_have_a_task_of_its_own_until_another_or_none(envs: MetaPusherVectorEnv) -> None:
    ids = [task.task_id for task in envs.tasks]
    _, info = envs.reset(seed=0, options={"task": [4, ids[9], envs.tasks[2]]})
    assert info["task_id"].tolist() == [ids[4], ids[9], ids[2]]
    for torques in TORQUES[:100]:
        info = envs.step(torques)[4]
    assert info["task_id"].tolist() == [ids[4], ids[9], ids[2]]  # after the autoreset
    assert envs.reset()[1]["task_id"].tolist() == [ids[4], ids[9], ids[2]]
    drawn = {envs.reset(options={"task": None})[1]["task_id"][0] for _ in range(4)}
    assert len(drawn) > 1
    assert envs.reset(options={"task": 3})[1]["task_id"].tolist() == [ids[3]] * N


def test_attributes_and_calls_are_told_for_each(envs: MetaPusherVectorEnv) -> None:
    envs.reset(seed=0, options={"task": [0, 1, 2]})
    assert envs.get_attr("slot_layout") == (MetaPusherEnv().slot_layout,) * N
    assert [task.task_id for task in envs.call("task")] == [t.task_id for t in envs.tasks[:3]]
    demos = envs.call("get_demonstrations", 0, 1, seed=0)
    assert_bitwise(demos[2][0].obs, MetaPusherEnv().get_demonstrations(0, 1, seed=0)[0].obs)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0, expected at least 1"),
        ({"num_envs": 2, "n_threads": -1}, "n_threads is -1, expected at least 1"),
        ({"num_envs": 2, "render_mode": "human"}, "expected None or 'rgb_array'"),
        ({"num_envs": 2, "max_episode_steps": 7}, "max_episode_steps is 7, expected 100"),
        ({"num_envs": 2, "obs_type": "smell"}, "Unknown obs_type 'smell'"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta_pusher_env.make_vec(**arguments)


@pytest.mark.parametrize(
    ("reset", "message"),
    [
        ({"seed": [1, 2]}, "2 seeds for 3 environments"),
        ({"options": {"task": [1, 2]}}, "2 tasks for 3 environments"),
        ({"options": {"task": 10**6}}, "out of range"),
        ({"options": {"tasks": 1}}, "Unknown options"),
    ],
)
def test_a_bad_reset_is_named(
    envs: MetaPusherVectorEnv, reset: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        envs.reset(**reset)


@pytest.mark.parametrize("actions", [np.zeros((2, 7)), np.full((N, 7), np.nan), "push", None])
def test_bad_actions_are_named(envs: MetaPusherVectorEnv, actions: Any) -> None:
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="expected finite torques of shape"):
        envs.step(actions)


def test_step_needs_a_reset(envs: MetaPusherVectorEnv) -> None:
    with pytest.raises(RuntimeError, match="call reset"):
        envs.step(TORQUES[0])
