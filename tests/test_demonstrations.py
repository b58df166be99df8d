"""The demonstration record, its recording and its drawing again."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest

from meta_pusher_env import demonstrations, make_tasks, scene
from meta_pusher_env.demonstrations import (
    Demonstration,
    Episode,
    attention_targets,
    record_demonstrations,
    record_episode,
    render_states,
    successful_episodes,
)
from meta_pusher_env.env import EPISODE_STEPS, TORQUE_LIMIT, MetaPusherEnv

TASKS = make_tasks("train", 4)


@pytest.fixture(scope="module")
def demos() -> list[Demonstration]:
    return record_demonstrations(TASKS[0], 2, seed=0)


def test_fields_are_those_of_imitation(demos: list[Demonstration]) -> None:
    demo = demos[0]
    names = [field.name for field in dataclasses.fields(demo)]
    assert names[:4] == ["obs", "acts", "infos", "terminal"]
    assert len(demo) == len(demo.acts) == len(demo.infos) == len(demo.obs) - 1 == EPISODE_STEPS
    assert demo.terminal is False
    with pytest.raises(dataclasses.FrozenInstanceError):
        demo.terminal = True  # type: ignore[misc]


def test_infos(demos: list[Demonstration]) -> None:
    for demo in demos:
        assert [info["step"] for info in demo.infos] == list(range(EPISODE_STEPS))
        assert {info["task_id"] for info in demo.infos} == {TASKS[0].task_id} == {demo.task_id}
        assert {info["pair_id"] for info in demo.infos} == {TASKS[0].pair_id}
    assert demos[0].infos[0]["demo_id"] != demos[1].infos[0]["demo_id"]
    assert demos[0].infos[-1]["step"] == EPISODE_STEPS - 1
    assert [info["step"] for info in demos[0].infos[2:5]] == [2, 3, 4]
    with pytest.raises(IndexError):
        demos[0].infos[EPISODE_STEPS]


def test_demonstrations_pickle(demos: list[Demonstration]) -> None:
    again = pickle.loads(pickle.dumps(demos[0]))
    np.testing.assert_array_equal(again.states, demos[0].states)
    assert again.infos[3]["demo_id"] == demos[0].infos[3]["demo_id"]


def test_the_seed_fixes_them_and_the_task_matters(demos: list[Demonstration]) -> None:
    again = record_demonstrations(TASKS[0], 1, seed=0)
    np.testing.assert_array_equal(again[0].states, demos[0].states)
    for task, seed in ((TASKS[0], 1), (TASKS[0].twin, 0)):
        other = record_demonstrations(task, 1, seed=seed)
        assert not np.array_equal(other[0].states[0], demos[0].states[0])


def test_every_demonstration_starts_elsewhere(demos: list[Demonstration]) -> None:
    assert not np.array_equal(demos[0].states[0], demos[1].states[0])
    starts = [int(demo.infos[0]["demo_id"].split("/")[1]) for demo in demos]
    assert max(starts) < demonstrations.DEMONSTRATION_SEEDS


def test_labels_are_torques_and_states_are_whole(demos: list[Demonstration]) -> None:
    for demo in demos:
        assert demo.acts.dtype == np.float32 and np.abs(demo.acts).max() <= TORQUE_LIMIT
        assert demo.states.shape == (EPISODE_STEPS + 1, demonstrations.STATE_DIM)
        assert isinstance(demo.obs, np.ndarray)
        np.testing.assert_array_equal(demo.obs[:, :7], demo.states[:, :7].astype(np.float32))


def test_a_clean_recording_replays() -> None:
    env = MetaPusherEnv(n_tasks=2)
    episode = record_episode(env, TASKS[0], seed=3)
    env.reset(seed=3, options={"task": TASKS[0]})
    for step in range(5):  # acts are rounded to float32, so not for ever
        env.step(episode.acts[step])
        np.testing.assert_allclose(env.data.qpos, episode.states[step + 1, :13], atol=1e-5)


def test_noise_is_in_the_motion_and_repeatable() -> None:
    env = MetaPusherEnv(n_tasks=2)
    clean, noisy, again = (
        record_episode(env, TASKS[0], seed=3, noise=noise) for noise in (0.0, 0.5, 0.5)
    )
    np.testing.assert_array_equal(clean.states[0], noisy.states[0])
    np.testing.assert_array_equal(clean.acts[0], noisy.acts[0])  # a label is the expert's own
    assert np.abs(clean.states[1] - noisy.states[1]).max() > 1e-3
    np.testing.assert_array_equal(noisy.states, again.states)


@pytest.mark.parametrize("obs_type", ["pixels", "pixels_agent_pos"])
def test_observations_are_those_of_the_environment(obs_type: str) -> None:
    [demo] = record_demonstrations(TASKS[0], 1, seed=0, obs_type=obs_type, image_size=32)
    env = MetaPusherEnv(obs_type=obs_type, image_size=32, task=TASKS[0])
    obs, _ = env.reset(seed=int(demo.infos[0]["demo_id"].split("/")[1]))
    if isinstance(demo.obs, dict):
        assert {key: value.shape[1:] for key, value in demo.obs.items()} == {
            key: value.shape for key, value in obs.items()
        }
        assert all(np.array_equal(demo.obs[key][0], obs[key]) for key in obs)
    else:
        assert demo.obs.shape == (101, 32, 32, 3)
        np.testing.assert_array_equal(demo.obs[0], obs)
    env.close()


def test_states_are_drawn_as_the_environment_drew_them() -> None:
    env = MetaPusherEnv(obs_type="pixels", image_size=32, task=TASKS[2])
    frames, states = [env.reset(seed=0)[0]], [np.concatenate([env.data.qpos, env.data.qvel])]
    for _ in range(5):
        frames.append(env.step(np.full(7, 0.7))[0])
        states.append(np.concatenate([env.data.qpos, env.data.qvel]))
    np.testing.assert_array_equal(render_states(TASKS[2], np.stack(states), 32), np.stack(frames))
    env.close()


def test_failures_are_reported_and_end_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = record_episode(MetaPusherEnv(n_tasks=2), TASKS[0], seed=3)

    def fail(*args: object, **kwargs: object) -> Episode:
        return dataclasses.replace(real, success=False)

    monkeypatch.setattr(demonstrations, "record_episode", fail)
    attempts = successful_episodes(TASKS[0], seed=0)
    success, attempt = next(attempts)
    assert success is None and not attempt.success
    with pytest.raises(
        RuntimeError, match=f"failed at 50 starts in a row of task '{TASKS[0].task_id}'"
    ):
        for success, _ in attempts:
            assert success is None


def test_bad_requests_are_named() -> None:
    with pytest.raises(ValueError, match="n is 0, expected at least 1"):
        record_demonstrations(TASKS[0], 0, seed=0)
    with pytest.raises(ValueError, match="Unknown obs_type 'rgb': expected one of state"):
        record_demonstrations(TASKS[0], 1, seed=0, obs_type="rgb")


def test_attention_targets_look_ahead_to_where_the_tip_comes_down() -> None:
    agent_pos = np.zeros((4, 20), np.float32)
    low, high = scene.TABLE_HEIGHT + 0.03, scene.TABLE_HEIGHT + 0.2
    agent_pos[:, 14:17] = [(0.1, 0, high), (0.3, -0.1, high), (0.4, -0.2, low), (0.4, -0.1, low)]
    targets = attention_targets(agent_pos)
    assert targets.shape == (4, 2) and targets.dtype == np.float32
    assert (targets[:2] == targets[2]).all() and (np.abs(targets[:3]) < 1).all()
    assert np.isnan(targets[3]).all()  # in the scoop, but where?
