"""Recording in lockstep: to the last bit what an environment would have done, one by one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from meta_pusher_env import make_tasks, recording
from meta_pusher_env.env import EPISODE_STEPS, TORQUE_LIMIT, MetaPusherEnv
from meta_pusher_env.recording import Attempt, Episode, record_episode, record_episodes

TASKS = make_tasks("train", 6)
ATTEMPTS = [
    Attempt(task, seed, noise)
    for seed, task in enumerate(TASKS)
    for noise in (0.0, 0.5 + 0.3 * seed)
]


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    return record_episodes(ATTEMPTS)


def assert_equal(episode: Episode, other: Episode) -> None:
    for field in dataclasses.fields(Episode):
        mine, others = getattr(episode, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == others.dtype
            np.testing.assert_array_equal(mine, others, err_msg=field.name)
        else:
            assert mine == others


def test_episodes_recorded_together_are_those_of_the_environment_to_the_last_bit(
    episodes: list[Episode],
) -> None:
    env = MetaPusherEnv(n_tasks=2)
    for attempt, episode in zip(ATTEMPTS, episodes, strict=True):
        assert_equal(episode, record_episode(env, **vars(attempt)))


@pytest.mark.parametrize("at_once", [1, 5])
def test_the_size_of_a_batch_changes_no_bit(
    episodes: list[Episode], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_AT_ONCE", at_once)
    for episode, other in zip(episodes, record_episodes(ATTEMPTS), strict=True):
        assert_equal(episode, other)


def test_a_clean_recording_replays(episodes: list[Episode]) -> None:
    env = MetaPusherEnv(n_tasks=2)
    env.reset(seed=ATTEMPTS[0].seed, options={"task": ATTEMPTS[0].task})
    for step in range(5):  # acts are rounded to float32, so not for ever
        env.step(episodes[0].acts[step])
        np.testing.assert_allclose(env.data.qpos, episodes[0].states[step + 1, :13], atol=1e-5)


def test_noise_is_in_the_motion_and_not_in_the_labels(episodes: list[Episode]) -> None:
    for clean, noisy in zip(episodes[::2], episodes[1::2], strict=True):
        np.testing.assert_array_equal(clean.states[0], noisy.states[0])
        np.testing.assert_array_equal(clean.acts[0], noisy.acts[0])
        assert np.abs(clean.states[1] - noisy.states[1]).max() > 1e-3
        assert np.abs(noisy.acts).max() <= TORQUE_LIMIT


def test_an_episode_keeps_no_other_one_in_memory(episodes: list[Episode]) -> None:
    episode = episodes[0]
    for array in (episode.states, episode.acts, episode.state_obs):
        assert array.base is None and len(array) >= EPISODE_STEPS
