"""Data sets on disk: collecting, going on after interruptions, and what is recorded."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from meta_pusher_env import collection, dataset_layout, make_tasks, scene
from meta_pusher_env.collection import collect
from meta_pusher_env.dataset_layout import CollectConfig, split_into_shards
from meta_pusher_env.datasets import DemonstrationSet
from meta_pusher_env.demonstrations import Order, successful_episodes
from meta_pusher_env.env import EPISODE_STEPS, MetaPusherEnv
from meta_pusher_env.expert import Expert
from meta_pusher_env.measures import GOAL_RADIUS_SQUARED, GOAL_STEPS
from meta_pusher_env.recording import Episode

CONFIG = CollectConfig(
    n_tasks=4, image_size=32, demos_per_task=2, frames_per_demo=3, noise=0.3, clean_demos=1
)
STATE = dataclasses.replace(CONFIG, obs_type="state", n_tasks=2)


def contents(directory: Path) -> dict[str, bytes]:
    files = (file for file in directory.rglob("*") if file.is_file())
    return {str(file.relative_to(directory)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished data set, made in this process; not to be changed."""
    return collect(tmp_path_factory.mktemp("original"), CONFIG, n_workers=1).directory


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A finished data set to damage."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.fixture(scope="module")
def state_set(tmp_path_factory: pytest.TempPathFactory) -> DemonstrationSet:
    return collect(tmp_path_factory.mktemp("state"), STATE, n_workers=1)


def test_number_of_workers_changes_no_byte(original: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    collect(tmp_path, CONFIG, n_workers=2, on_progress=lambda *counts: calls.append(counts))
    assert contents(tmp_path) == contents(original)
    assert calls == [(0, 8), (4, 8), (8, 8)]


def test_missing_and_damaged_shards_are_made_again_and_no_other(original: Path, copy: Path) -> None:
    (copy / "manifest.json").unlink()  # as after an interruption,
    (copy / "shard-0000").rename(copy / "shard-0000.tmp")  # in the middle of a shard
    kept = (copy / "shard-0001" / "pixels.npy").stat().st_mtime_ns
    calls: list[tuple[int, int]] = []
    collect(copy, CONFIG, n_workers=1, on_progress=lambda *counts: calls.append(counts))
    assert contents(copy) == contents(original)
    assert calls == [(4, 8), (8, 8)]
    assert (copy / "shard-0001" / "pixels.npy").stat().st_mtime_ns == kept


@pytest.mark.parametrize("file", ["pixels.npy", "meta.json"])
def test_a_changed_byte_is_noticed_and_mended(original: Path, copy: Path, file: str) -> None:
    damaged = copy / "shard-0001" / file
    text = bytearray(damaged.read_bytes())
    text[-20] ^= 1
    damaged.write_bytes(text)
    collect(copy, CONFIG, n_workers=1)
    assert contents(copy) == contents(original)


def test_a_finished_set_is_left_as_it_is(copy: Path) -> None:
    times = {file: file.stat().st_mtime_ns for file in copy.rglob("*")}
    collect(copy, CONFIG, n_workers=1)
    assert times == {file: file.stat().st_mtime_ns for file in copy.rglob("*")}


def test_a_failing_worker_stops_with_its_own_error_and_collecting_goes_on_later(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(collection, "_rows", fail)
        with pytest.raises(OSError, match="disk full"):
            collect(tmp_path, CONFIG, n_workers=1)
    with pytest.raises(ValueError, match=r"unfinished.*Run collect\(\).*goes on where it stopped"):
        DemonstrationSet(tmp_path)
    collect(tmp_path, CONFIG, n_workers=1)
    assert contents(tmp_path) == contents(original)


def test_stopping_keeps_finished_shards(original: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(tmp_path, CONFIG, n_workers=2, on_progress=stop)
    assert not multiprocessing.active_children()
    assert not (tmp_path / "manifest.json").exists()
    calls: list[tuple[int, int]] = []
    collect(tmp_path, CONFIG, n_workers=1, on_progress=lambda *counts: calls.append(counts))
    assert calls[0][0] >= 4
    assert contents(tmp_path) == contents(original)


def test_another_configuration_in_the_directory_is_refused(original: Path) -> None:
    other = dataclasses.replace(CONFIG, obs_type="pixels", seed=3)
    with pytest.raises(
        ValueError,
        match="obs_type is 'pixels_agent_pos' there and 'pixels' here;"
        " seed is 0 there and 3 here.*another directory",
    ):
        collect(original, other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("split", "dev"), ("n_tasks", 3), ("split_seed", -1), ("obs_type", "rgb"),
        ("image_size", 8), ("demos_per_task", 0), ("frames_per_demo", 100), ("noise", -0.1),
        ("noise", float("nan")), ("clean_demos", 9), ("seed", -1),
    ],
)  # fmt: skip
def test_a_bad_value_is_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{field}.*{value}.*expected"):
        CollectConfig(**{field: value})  # type: ignore[arg-type]


def test_workers_that_hang_are_ended_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "PATIENCE", 0.01)  # no process starts so fast
    with pytest.raises(RuntimeError, match="No worker has finished .* n_workers=1"):
        collect(tmp_path, CONFIG, n_workers=2)
    assert (
        len(collect(tmp_path, CONFIG, n_workers=1)) == len(CONFIG.tasks()) * CONFIG.demos_per_task
    )


def test_bad_number_of_workers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n_workers is 0, expected at least 1"):
        collect(tmp_path, CONFIG, n_workers=0)


def test_shards_are_whole_pairs_and_few() -> None:
    for n_tasks in (2, 16, 128, 130, 694, 4_000):
        tasks = make_tasks("train", n_tasks)
        shards = split_into_shards(tasks)
        assert sum(shards, ()) == tasks
        assert all(len(shard) % 2 == 0 for shard in shards)
        assert len(shards) <= dataset_layout.MAX_SHARDS
    assert len(shards[0]) == 64
    assert len(split_into_shards(make_tasks("train", 16))) == 8  # small sets busy many cores, too


def test_shards_of_several_pairs(
    state_set: DemonstrationSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_layout, "MAX_SHARDS", 2)
    calls: list[tuple[int, int]] = []
    config = dataclasses.replace(STATE, n_tasks=6)
    demos = collect(tmp_path, config, n_workers=1, on_progress=lambda *counts: calls.append(counts))
    assert calls == [(0, 12), (8, 12), (12, 12)]
    assert [demo.task_id for demo in demos[::2]] == [task.task_id for task in demos.tasks]
    np.testing.assert_array_equal(demos[3].states, state_set[3].states)


def test_sampled_steps_cover_the_episode() -> None:
    for n in (0, 1, 8, 99):
        steps = collection._sample_steps(5, n)
        assert len(steps) == n + 2 and (steps[0], steps[-1]) == (0, EPISODE_STEPS)
        assert (np.diff(steps) > 0).all()
    samples = np.concatenate([collection._sample_steps(seed, 4)[1:-1] for seed in range(300)])
    assert set(samples) == set(range(1, EPISODE_STEPS))


def test_only_successes_are_kept(original: Path) -> None:
    demos = DemonstrationSet(original)
    for index, demo in enumerate(demos):
        target = demos.tasks[index // 2].target
        xy = demo.states[1:, 7:13].reshape(-1, 2, 3)[:, target, :2]
        near = np.square(xy - scene.GOAL).sum(axis=1) < GOAL_RADIUS_SQUARED
        assert near.sum() >= GOAL_STEPS


def test_labels_are_clean_and_noise_was_executed(state_set: DemonstrationSet) -> None:
    for index, (demo, noise) in enumerate(zip(state_set, state_set.noise_levels(), strict=True)):
        model = scene.build_model(state_set.tasks[index // 2])
        data = mujoco.MjData(model)
        expert = Expert(model, state_set.tasks[index // 2].target)
        executed_differs = False
        for step in range(0, EPISODE_STEPS, 10):
            data.qpos[:], data.qvel[:] = np.split(demo.states[step], [model.nq])
            np.testing.assert_allclose(demo.acts[step], expert.act(data), rtol=1e-5, atol=1e-6)
            data.ctrl[:] = demo.acts[step]
            scene.advance(model, data, 5)
            executed_differs |= not np.allclose(data.qpos, demo.states[step + 1, :13], atol=1e-6)
        assert executed_differs == (noise > 0)


def test_clean_demonstrations_come_first(original: Path) -> None:
    noise = DemonstrationSet(original).noise_levels().reshape(4, 2)
    assert (noise[:, 0] == 0).all()
    assert (noise[:, 1] <= CONFIG.noise).all() and noise[:, 1].any()


def test_every_demonstration_has_its_own_start(original: Path) -> None:
    demos = DemonstrationSet(original)
    assert len({demo.states[0].tobytes() for demo in demos}) == len(demos)
    assert len({demo.infos[0]["demo_id"] for demo in demos}) == len(demos)


def test_observations_are_those_of_the_environment(
    original: Path, state_set: DemonstrationSet
) -> None:
    for demos in (DemonstrationSet(original), state_set):
        demo = demos[0]
        env = MetaPusherEnv(obs_type=demos.config.obs_type, image_size=32)
        seed = int(demo.infos[0]["demo_id"].split("/")[1])
        obs, _ = env.reset(seed=seed, options={"task": demos.tasks[0]})
        expert = Expert(env.model, demos.tasks[0].target)
        for step in range(EPISODE_STEPS + 1):
            for row in np.flatnonzero(demo.steps == step):
                if isinstance(demo.obs, dict):
                    assert all(np.array_equal(demo.obs[key][row], obs[key]) for key in obs)
                else:
                    assert np.array_equal(demo.obs[row], obs)
            obs = env.step(expert.act(env.data))[0]
        env.close()


def test_starts_and_real_noise_levels_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distances: list[float] = []

    def every_second_start_dropped_and_the_others_calmed(orders: Sequence[Order]) -> list[Any]:
        doubled = [dataclasses.replace(order, n=2 * order.n) for order in orders]
        given: list[list[tuple[Episode | None, Episode]]] = []
        for starts in successful_episodes(doubled):
            firsts = [first for _, first in starts]
            distances.extend(first.start_distance for first in firsts)
            calmer = [dataclasses.replace(it, noise=it.noise / 2 + 0.5) for it in firsts]
            given.append([(calmer[i] if i % 2 else None, it) for i, it in enumerate(firsts)])
        return given

    monkeypatch.setattr(
        collection, "successful_episodes", every_second_start_dropped_and_the_others_calmed
    )
    config = dataclasses.replace(STATE, demos_per_task=3)
    demos = collect(tmp_path, config, n_workers=1)
    meta = json.loads((tmp_path / "shard-0000" / "meta.json").read_text())
    assert meta["starts"] == {"start_distance": distances, "kept": 6 * [False, True]}
    noise = demos.noise_levels().reshape(2, 3)
    assert (noise[:, 0] == 0.5).all()  # the kept episodes' level, not the first attempts'
    assert ((noise[:, 1:] > 0.5) & (noise[:, 1:] <= 0.65)).all()
    acceptance = demos.acceptance()
    assert sum(row.starts for row in acceptance.rows) == 12
    assert sum(row.kept for row in acceptance.rows) == len(demos) == 6
    assert acceptance.dropped == 0.5


def test_acceptance_is_binned_by_start_distance() -> None:
    distances = np.array([0.10, 0.18, 0.30, 0.31, 0.50])
    rows = collection._acceptance(distances, np.array([True, False, True, False, True]))
    assert [row[:2] for row in rows] == [
        [0.17, 0.2], [0.2, 0.24], [0.24, 0.28], [0.28, 0.32], [0.32, 0.37]
    ]  # fmt: skip
    assert [row[2:] for row in rows] == [[2, 1], [0, 0], [0, 0], [2, 1], [1, 1]]


def test_the_default_number_of_tasks_is_the_same_configuration_as_saying_it() -> None:
    assert CollectConfig() == CollectConfig(n_tasks=694)
    assert CollectConfig(split="val") == CollectConfig(split="val", n_tasks=76)
