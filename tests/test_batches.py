"""Batches of tasks: pure functions of seed and step, twins together, support apart from query."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from torch.utils._pytree import tree_flatten
from toys import IMAGE_SIZE, N_ACTIONS, N_STEPS, START, STATE_DIM, make_demonstrations

from ent_bc import BatchConfig
from ent_bc.batches import TaskBatches
from ent_bc.trajectories import as_trajectories


def make_batches(
    obs_type: str = "state", *, n_pairs: int = 4, batch_size: int = 4, seed: int = 0, **config: Any
) -> TaskBatches:
    demonstrations = make_demonstrations(obs_type, n_pairs=n_pairs, n_demos=4)
    return TaskBatches(demonstrations, batch_size, BatchConfig(**config), seed)


def mark(demonstrations: list[Any]) -> list[Any]:
    """Puts number of the demonstration and step in the place of the first two actions."""
    marked = []
    for index, demo in enumerate(demonstrations):
        acts = demo.acts.copy()
        acts[:, 0], acts[:, 1] = index, np.arange(len(acts))
        marked.append(dataclasses.replace(demo, acts=acts))
    return marked


def equal(first: Any, second: Any) -> bool:
    pairs = zip(tree_flatten(first)[0], tree_flatten(second)[0], strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


@pytest.mark.parametrize("obs_type", ["state", "pixels", "pixels_agent_pos"])
def test_shapes_and_dtypes(obs_type: str) -> None:
    batch = make_batches(obs_type, n_support=1, n_query=2, n_steps=5).batch(0)
    shapes = {
        "state": {"": (STATE_DIM,)},
        "pixels": {"": (IMAGE_SIZE, IMAGE_SIZE, 3)},
        "pixels_agent_pos": {"pixels": (IMAGE_SIZE, IMAGE_SIZE, 3), "agent_pos": (START,)},
    }[obs_type]
    for key, shape in shapes.items():
        demo, obs = (batch["obs"][k][key] if key else batch["obs"][k] for k in ("demo", "obs"))
        assert demo.shape == (4, 3, 2, *shape)
        assert obs.shape == (4, 3, 5, *shape)
        assert obs.dtype == demo.dtype == (np.uint8 if len(shape) == 3 else np.float32)
    assert batch["acts"].shape == batch["obs"]["noise"].shape == (4, 3, 5, N_ACTIONS)
    assert batch["acts"].dtype == batch["obs"]["noise"].dtype == np.float32
    assert batch["obs"]["attention_target"].shape == (4, 3, 5, 2)
    assert batch["obs"]["demo_target"].shape == (4, 3, 2)
    assert batch["obs"]["twin_of"].shape == (4,)


def test_a_batch_is_a_pure_function_of_seed_and_step() -> None:
    batches = make_batches()
    later_first = batches.batch(7)
    in_order = [batches.batch(step) for step in range(8)]
    assert equal(later_first, in_order[7])
    assert equal(in_order[3], make_batches().batch(3))
    for key in ("noise", "attention_target", "obs"):  # of one pair alone: the draws differ too
        first, second = (make_batches(n_pairs=1).batch(step)["obs"][key] for step in (0, 1))
        assert not equal(first, second)
    assert not equal(in_order[3]["acts"], make_batches(seed=1).batch(3)["acts"])


def test_twins_share_a_batch_and_know_their_places() -> None:
    for step in range(6):
        demonstrations = mark(make_demonstrations(n_pairs=4, n_demos=2))
        batch = TaskBatches(demonstrations, 4, BatchConfig(), seed=0).batch(step)
        numbers = batch["acts"][:, 0, 0, 0].astype(int)
        tasks = [demonstrations[number].infos[0]["task_id"] for number in numbers]
        assert len(set(tasks)) == 4
        for task, twin in zip(tasks, batch["obs"]["twin_of"], strict=True):
            assert tasks[twin][:-1] == task[:-1] and tasks[twin] != task


def test_tasks_of_no_pair_have_no_twin() -> None:
    demonstrations = make_demonstrations(n_pairs=4, n_demos=2)
    for demo in demonstrations:
        for info in demo.infos:
            del info["pair_id"]
    batch = TaskBatches(demonstrations, 3, BatchConfig(), seed=0).batch(0)
    assert (batch["obs"]["twin_of"] == -1).all() and len(batch["acts"]) == 3


def test_support_and_query_are_different_demonstrations_of_one_task() -> None:
    demonstrations = mark(make_demonstrations(n_pairs=2, n_demos=4))
    batches = TaskBatches(demonstrations, 4, BatchConfig(n_support=2, n_query=2), seed=0)
    for step in range(10):
        for row in batches.batch(step)["acts"][..., 0].astype(int):  # (K, n_steps)
            assert (row == row[:, :1]).all()
            assert len(set(row[:, 0])) == 4
            assert len({demonstrations[number].infos[0]["task_id"] for number in row[:, 0]}) == 1


def test_observations_and_actions_are_of_the_same_step() -> None:
    demonstrations = mark(make_demonstrations(n_pairs=2))
    batch = TaskBatches(demonstrations, 4, BatchConfig(n_steps=6), seed=0).batch(0)
    for task in range(4):
        for k in range(2):
            for obs, (number, step, *_) in zip(
                batch["obs"]["obs"][task, k], batch["acts"][task, k].astype(int), strict=True
            ):
                assert np.array_equal(obs, demonstrations[number].obs[step])
            first, last = batch["obs"]["demo"][task, k]
            assert np.array_equal(first, demonstrations[number].obs[0])
            assert np.array_equal(last, demonstrations[number].obs[-1])


def test_a_sparse_demonstration_gives_the_steps_that_it_has() -> None:
    @dataclasses.dataclass(frozen=True)
    class Sparse:
        obs: np.ndarray
        acts: np.ndarray
        infos: list[dict[str, Any]]
        steps: np.ndarray

    steps = np.array([0, 3, 7, N_STEPS])
    demonstrations = [
        Sparse(demo.obs[steps], demo.acts, demo.infos, steps)
        for demo in mark(make_demonstrations(n_pairs=1))
    ]
    batch = TaskBatches(demonstrations, 2, BatchConfig(n_steps=64), seed=0).batch(0)
    assert set(batch["acts"][..., 1].astype(int).ravel()) == {0, 3, 7}  # no action at the end
    number, step = batch["acts"][0, 0, 0, :2].astype(int)
    row = list(steps).index(step)
    assert np.array_equal(batch["obs"]["obs"][0, 0, 0], demonstrations[number].obs[row])
    assert np.array_equal(batch["obs"]["demo"][0, 0, 1], demonstrations[number].obs[-1])


def test_a_batch_may_have_the_actions_that_come_next_and_is_else_the_same() -> None:
    demonstrations = mark(make_demonstrations(n_pairs=1))
    plain, batch = (
        TaskBatches(demonstrations, 2, BatchConfig(n_steps=6, chunk=chunk), seed=0).batch(0)
        for chunk in (None, 5)
    )
    chunks = batch["obs"].pop("chunks")
    assert equal(batch, plain)
    assert "chunks" not in plain["obs"]
    assert chunks.dtype == np.float32
    for task, k, place in np.ndindex(2, 2, 6):
        number, step = batch["acts"][task, k, place, :2].astype(int)
        last = demonstrations[number].acts[-1]  # goes on beyond the end
        expected = [*demonstrations[number].acts[step : step + 5], *[last] * 5][:5]
        assert np.array_equal(chunks[task, k, place], expected)


@pytest.mark.parametrize("early", [0.0, 3.0])
def test_early_steps_can_be_drawn_more_often(early: float) -> None:
    demonstrations = mark(make_demonstrations(n_pairs=1))
    config = BatchConfig(n_steps=4000, early=early)
    drawn = TaskBatches(demonstrations, 2, config, seed=0).batch(0)["acts"][..., 1]
    counts = np.bincount(drawn.astype(int).ravel(), minlength=N_STEPS)
    weights = 1 + early * (1 - np.arange(N_STEPS) / N_STEPS)
    np.testing.assert_allclose(counts / counts.sum(), weights / weights.sum(), rtol=0.1)


def test_places_to_look_at_are_those_of_the_steps_or_unknown() -> None:
    demonstrations = mark(make_demonstrations(n_pairs=1))
    for demo in demonstrations:
        for step, info in enumerate(demo.infos):
            info["attention_target"] = np.array([step / 100, 0.5], np.float32)
    batch = TaskBatches(demonstrations, 2, BatchConfig(n_steps=6), seed=0).batch(0)
    np.testing.assert_allclose(
        batch["obs"]["attention_target"][..., 0], batch["acts"][..., 1] / 100, rtol=1e-6
    )
    assert (batch["obs"]["demo_target"] == [0.0, 0.5]).all()
    for demo in demonstrations:
        for info in demo.infos:
            del info["attention_target"]
    batch = TaskBatches(demonstrations, 2, BatchConfig(), seed=0).batch(0)
    assert np.isnan(batch["obs"]["attention_target"]).all()
    assert np.isnan(batch["obs"]["demo_target"]).all()


def pairs_of_epoch(batches: TaskBatches, demonstrations: list[Any], epoch: int) -> list[str]:
    numbers = [
        int(number)
        for step in range(len(batches))
        for number in batches.batch(epoch * len(batches) + step)["acts"][:, 0, 0, 0]
    ]
    return [demonstrations[number].infos[0]["task_id"] for number in numbers]


def test_an_epoch_has_every_task_once_in_an_order_of_its_own() -> None:
    demonstrations = mark(make_demonstrations(n_pairs=6, n_demos=2))
    batches = TaskBatches(demonstrations, 4, BatchConfig(), seed=0)
    assert len(batches) == 3
    first, second = (pairs_of_epoch(batches, demonstrations, epoch) for epoch in (0, 1))
    assert (
        sorted(first) == sorted(second) == sorted({d.infos[0]["task_id"] for d in demonstrations})
    )
    assert first != second


def test_what_does_not_fill_a_batch_waits_for_another_epoch() -> None:
    demonstrations = mark(make_demonstrations(n_pairs=5, n_demos=2))
    batches = TaskBatches(demonstrations, 4, BatchConfig(), seed=0)
    assert len(batches) == 2
    epochs = [pairs_of_epoch(batches, demonstrations, epoch) for epoch in range(10)]
    assert all(len(set(epoch)) == len(epoch) == 8 for epoch in epochs)
    assert len(set().union(*epochs)) == 10


@pytest.mark.parametrize(("batch_size", "n_tasks"), [(1, 2), (4, 4), (100, 8)])
def test_batches_have_whole_pairs_and_no_more_than_there_are(batch_size: int, n_tasks: int) -> None:
    assert len(make_batches(n_pairs=4, batch_size=batch_size).batch(0)["acts"]) == n_tasks


def test_trajectories_make_the_same_batches() -> None:
    demonstrations = make_demonstrations("pixels_agent_pos")
    one, other = (
        TaskBatches(demos, 4, BatchConfig(), seed=0).batch(2)
        for demos in (demonstrations, as_trajectories(demonstrations))
    )
    assert equal(one, other)


def test_too_few_demonstrations_of_a_task_are_named() -> None:
    demonstrations = make_demonstrations(n_demos=3)[:-2]
    with pytest.raises(
        ValueError, match="Task '2b' has 1 demonstrations, expected at least 2: 1 support and 1"
    ):
        TaskBatches(demonstrations, 4, BatchConfig(), seed=0)


@pytest.mark.parametrize("name", ["n_support", "n_query", "n_steps", "chunk"])
def test_there_is_at_least_one_of_each(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0, expected at least 1"):
        BatchConfig(**{name: 0})


def test_noise_is_standard_normal() -> None:
    noise = make_batches(n_steps=200).batch(0)["obs"]["noise"]
    assert abs(noise.mean()) < 0.1 and math.isclose(noise.std(), 1, rel_tol=0.1)
