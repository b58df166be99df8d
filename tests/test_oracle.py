"""The oracle's view: the target is marked, in environment and data set alike, and nothing else."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from ent_bc.batches import BatchConfig, TaskBatches
from ent_bc.benchmark.oracle import (
    MARK,
    MARK_REACH,
    ORACLE_ENV_ID,
    MarkedDemonstrations,
    MarkedMetaPusherEnv,
    paint_marks,
)
from ent_bc.demonstrations import ReadsAhead, check_demonstrations
from ent_bc.evaluation import EvaluationConfig, evaluate_k_shot
from meta_pusher_env import MetaPusherEnv
from meta_pusher_env.collection import collect
from meta_pusher_env.dataset_layout import CollectConfig
from meta_pusher_env.datasets import DemonstrationSet
from meta_pusher_env.demonstrations import DEMONSTRATION_SEEDS

SIZE = 96


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DemonstrationSet:
    config = CollectConfig(
        n_tasks=4, demos_per_task=2, frames_per_demo=3, image_size=SIZE, clean_demos=1
    )
    return collect(tmp_path_factory.mktemp("marked") / "data", config, n_workers=1)


def make_env(**kwargs: Any) -> MarkedMetaPusherEnv:
    env = gym.make(ORACLE_ENV_ID, image_size=SIZE, **kwargs).unwrapped
    assert isinstance(env, MarkedMetaPusherEnv)
    return env


def is_mark(pixels: np.ndarray) -> np.ndarray:
    return (pixels == MARK).all(axis=-1)


def middle(pixels: np.ndarray) -> np.ndarray:
    """Row and column of the mark's middle."""
    return np.argwhere(is_mark(pixels)).mean(axis=0)


def test_the_environment_marks_what_the_data_set_marks_to_the_pixel(data: DemonstrationSet) -> None:
    env = make_env(n_tasks=4)
    for index, demo in enumerate(MarkedDemonstrations(data)):
        env.reset(seed=0, options={"task": demo.task_id})
        for pixels, state in zip(demo.obs["pixels"], demo.states[demo.steps], strict=True):
            env.data.qpos[:] = state[: env.model.nq]
            mujoco.mj_forward(env.model, env.data)
            assert is_mark(pixels).sum() == (2 * MARK_REACH + 1) ** 2, index
            np.testing.assert_array_equal(env._observation()["pixels"], pixels)


def test_nothing_but_the_mark_differs_from_the_unmarked_picture(data: DemonstrationSet) -> None:
    for plain, marked in zip(data, MarkedDemonstrations(data), strict=True):
        before, after = plain.obs["pixels"], marked.obs["pixels"][:]
        assert not is_mark(before).any()
        assert is_mark(after).any(axis=(1, 2)).all()
        np.testing.assert_array_equal(before[~is_mark(after)], after[~is_mark(after)])
        np.testing.assert_array_equal(plain.obs["agent_pos"], marked.obs["agent_pos"])
        assert plain.acts is not None and np.array_equal(plain.acts, marked.acts)


def test_twins_differ_in_the_mark_alone() -> None:
    env = make_env(n_tasks=2)
    ours, theirs = (env.reset(seed=5, options={"task": i})[0]["pixels"] for i in (0, 1))
    assert np.abs(middle(ours) - middle(theirs)).max() > 2 * MARK_REACH
    elsewhere = ~is_mark(ours) & ~is_mark(theirs)
    np.testing.assert_array_equal(ours[elsewhere], theirs[elsewhere])


@pytest.mark.parametrize("role", ["target", "distractor"])
def test_the_mark_moves_with_the_target_and_with_it_alone(role: str) -> None:
    env = make_env(n_tasks=2)
    before = middle(env.reset(seed=0, options={"task": 0})[0]["pixels"])
    which = env.task.target if role == "target" else 1 - env.task.target
    env.data.qpos[7 + 3 * which] += 0.1
    mujoco.mj_forward(env.model, env.data)
    moved = middle(env._observation()["pixels"]) - before
    if role == "target":
        assert abs(moved[1]) > 8 and abs(moved[0]) <= 1  # the camera looks across the x axis
    else:
        np.testing.assert_array_equal(moved, 0)


def test_an_object_outside_the_picture_has_no_mark_or_a_part_of_it() -> None:
    pixels = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    states = np.zeros((2, 13))
    states[:, 7:9] = [[-3.0, -0.1], [0.4, -0.1]]
    paint_marks(pixels, states, 0)
    assert is_mark(pixels).sum(axis=(1, 2)).tolist() == [0, 25]


def test_its_demonstrations_are_marked_and_else_the_environments_own() -> None:
    ours, plain = make_env(n_tasks=2), MetaPusherEnv(n_tasks=2, obs_type="pixels", image_size=SIZE)
    (demo,) = ours.get_demonstrations(1, 1, seed=3)
    ((sparse,),) = ours.get_sparse_demonstrations([1], 1, seeds=[3], n_obs=3)
    (expected,) = plain.get_demonstrations(1, 1, seed=3)
    assert is_mark(demo.obs["pixels"]).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(sparse.obs["pixels"], demo.obs["pixels"][sparse.steps])
    unmarked = ~is_mark(demo.obs["pixels"])
    np.testing.assert_array_equal(demo.obs["pixels"][unmarked], expected.obs[unmarked])
    start = ours.reset(seed=int(demo.infos[0]["demo_id"].split("/")[1]), options={"task": 1})[0]
    np.testing.assert_array_equal(start["pixels"], demo.obs["pixels"][0])


def test_batches_of_the_view_are_marked(data: DemonstrationSet) -> None:
    marked = MarkedDemonstrations(data)
    assert isinstance(marked, ReadsAhead)
    check_demonstrations(
        marked, *[getattr(make_env(), f"{k}_space") for k in ("observation", "action")]
    )
    index, places = 5, [0, 2, -1]
    read = marked.read_obs(index, places)
    np.testing.assert_array_equal(read["pixels"], marked[index].obs["pixels"][places])
    batch = TaskBatches(marked, 4, BatchConfig(n_steps=2), 0).batch(0)
    for part in ("obs", "demo"):
        assert is_mark(batch["obs"][part]["pixels"]).any(axis=(-1, -2)).all()


def test_environment_and_view_survive_pickling(data: DemonstrationSet) -> None:
    env = pickle.loads(pickle.dumps(make_env(n_tasks=2)))
    assert is_mark(env.reset(seed=0)[0]["pixels"]).any()
    view = pickle.loads(pickle.dumps(MarkedDemonstrations(data)))
    np.testing.assert_array_equal(view[-1].obs["pixels"][-1], view[len(view) - 1].obs["pixels"][-1])


def test_state_observations_cannot_be_marked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 'pixels'"):
        make_env(obs_type="state")
    config = CollectConfig(n_tasks=2, demos_per_task=2, obs_type="state", clean_demos=1)
    with pytest.raises(ValueError, match="expected 'pixels'"):
        MarkedDemonstrations(collect(tmp_path, config, n_workers=1))


class Follower:
    """Tells each trial's object by its mark; does nothing."""

    n_demonstrated_obs = 2

    def __init__(self) -> None:
        self.marks: list[np.ndarray] = []

    def embed(self, demonstrations: Any) -> np.ndarray:
        assert all(is_mark(demo.obs["pixels"]).any() for (demo,) in demonstrations)
        return np.zeros((len(demonstrations), 1), np.float32)

    def predict(self, observation: Any, state: Any = None, **_: Any) -> tuple[np.ndarray, Any]:
        self.marks.append(is_mark(observation["pixels"]).sum(axis=(1, 2)))
        return np.zeros((len(state), 7), np.float32), state


def test_the_evaluation_finds_it_by_its_id() -> None:
    model = Follower()
    config = EvaluationConfig(n_tasks=2, n_trials=1)
    trials = evaluate_k_shot(model, config, env_id=ORACLE_ENV_ID)
    assert len(trials) == 2 and len(model.marks) == 100
    assert (np.array(model.marks) == 25).all()
    assert all(trial.seed >= DEMONSTRATION_SEEDS for trial in trials)
