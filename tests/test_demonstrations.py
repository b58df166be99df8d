"""The demonstration record, its recording and its drawing again."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence

import numpy as np
import pytest

from meta_pusher_env import demonstrations, make_tasks, rendering, scene
from meta_pusher_env.demonstrations import (
    DEMONSTRATION_SEEDS,
    Demonstration,
    Order,
    Start,
    attention_targets,
    record_demonstrations,
    render_states,
    successful_episodes,
)
from meta_pusher_env.env import EPISODE_STEPS, TORQUE_LIMIT, MetaPusherEnv
from meta_pusher_env.recording import STATE_DIM, Attempt, Episode, record_episodes

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
    assert max(starts) < DEMONSTRATION_SEEDS


def test_labels_are_torques_and_states_are_whole(demos: list[Demonstration]) -> None:
    for demo in demos:
        assert demo.acts.dtype == np.float32 and np.abs(demo.acts).max() <= TORQUE_LIMIT
        assert demo.states.shape == (EPISODE_STEPS + 1, STATE_DIM)
        assert isinstance(demo.obs, np.ndarray)
        np.testing.assert_array_equal(demo.obs[:, :7], demo.states[:, :7].astype(np.float32))


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


@pytest.mark.parametrize(("n_obs", "steps"), [(2, [0, 100]), (5, [0, 25, 50, 75, 100])])
def test_sparse_demonstrations_are_parts_of_the_same_demonstrations(
    n_obs: int, steps: list[int]
) -> None:
    env = MetaPusherEnv(obs_type="pixels_agent_pos", image_size=32, split="val", n_tasks=4)
    tasks, seeds = [env.tasks[0], env.tasks[3]], [5, 6]
    sparse = env.get_sparse_demonstrations(tasks, 2, seeds=seeds, n_obs=n_obs)
    for some, task, seed in zip(sparse, tasks, seeds, strict=True):
        for part, whole in zip(some, env.get_demonstrations(task, 2, seed=seed), strict=True):
            assert part.steps.tolist() == steps
            assert part.infos[0]["demo_id"] == whole.infos[0]["demo_id"]
            np.testing.assert_array_equal(part.acts, whole.acts)
            for key, values in whole.obs.items():
                np.testing.assert_array_equal(part.obs[key], values[steps])
    with pytest.raises(ValueError, match="n_obs is 1, expected 2 to 101"):
        env.get_sparse_demonstrations(tasks, 2, seeds=seeds, n_obs=1)
    env.close()


def test_states_are_drawn_as_the_environment_drew_them() -> None:
    env = MetaPusherEnv(obs_type="pixels", image_size=32, task=TASKS[2])
    frames, states = [env.reset(seed=0)[0]], [np.concatenate([env.data.qpos, env.data.qvel])]
    for _ in range(5):
        frames.append(env.step(np.full(7, 0.7))[0])
        states.append(np.concatenate([env.data.qpos, env.data.qvel]))
    np.testing.assert_array_equal(render_states(TASKS[2], np.stack(states), 32), np.stack(frames))
    env.close()


def failing(which: Sequence[bool]) -> object:
    """In place of `record_episodes`: says of each attempt, in the order made, whether it fails."""
    outcomes = iter(which)
    [real] = record_episodes([Attempt(TASKS[0], 0)])

    def record(attempts: Sequence[Attempt]) -> list[Episode]:
        return [
            dataclasses.replace(real, **vars(attempt), success=not next(outcomes))
            for attempt in attempts
        ]

    return record


def test_a_noisy_start_is_tried_again_with_half_the_noise_and_then_with_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of two starts both fail, then the second with half the noise, and then also with none.
    outcomes = [True, True, False, True, True, False]
    monkeypatch.setattr(demonstrations, "record_episodes", failing(outcomes))
    [[(calmer, first), (dropped, bad), (last, same)]] = successful_episodes(
        [Order(TASKS[0], 2, seed=0, noise=0.6)]
    )
    assert calmer is not None and calmer.noise == first.noise / 2 and calmer.seed == first.seed
    assert dropped is None and bad.noise > 0
    assert last is same  # another start for the dropped one


def traits(start: Start) -> tuple[object, ...]:
    kept, first = start
    return None if kept is None else kept.states.tobytes(), first.seed, first.states.tobytes()


def test_starts_are_the_same_in_any_company_and_as_many_as_asked_for_are_kept() -> None:
    orders = [Order(TASKS[0], 2, seed=0), Order(TASKS[1], 0, seed=0), Order(TASKS[3], 3, 1, 2.0)]
    together = successful_episodes(orders)
    assert [sum(kept is not None for kept, _ in starts) for starts in together] == [2, 0, 3]
    for order, starts in zip(orders, together, strict=True):
        [alone] = successful_episodes([order])
        assert [traits(start) for start in starts] == [traits(start) for start in alone]


def test_more_demonstrations_begin_with_the_same_ones() -> None:
    [few], [more] = (successful_episodes([Order(TASKS[0], n, seed=0)]) for n in (1, 3))
    assert traits(few[0]) == traits(more[0])


def test_failures_end_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstrations, "record_episodes", failing([True] * 50))
    with pytest.raises(
        RuntimeError, match=f"failed at 50 starts in a row of task '{TASKS[0].task_id}'"
    ):
        successful_episodes([Order(TASKS[0], 1, seed=0)])


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


def test_attention_targets_follow_the_object_in_the_carry() -> None:
    env = MetaPusherEnv(split="val", n_tasks=20)
    errors = []
    for task in env.tasks:
        [demo] = env.get_demonstrations(task, 1, seed=1)
        found = (attention_targets(demo.obs[:, :20]) + 1) / 2
        start = scene.N_JOINTS + 3 * task.target
        height = np.full((101, 1), scene.TABLE_HEIGHT + 0.03)
        true = rendering.project(np.hstack([demo.states[:, start : start + 2], height]), 96, 96)
        errors.append(np.linalg.norm(96 * found - true, axis=1))
    env.close()
    assert np.isnan(errors).mean() < 0.1
    for part in np.array_split(np.array(errors), 5, axis=1):  # the last is at the goal
        assert np.nanmedian(part) < 3  # pixels of 96: about 3 cm
