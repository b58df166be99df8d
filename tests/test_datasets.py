"""Data sets on disk: collecting, going on after interruptions, reading."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import pickle
import shutil
from pathlib import Path

import mujoco
import numpy as np
import pytest

from meta_pusher_env import datasets, scene
from meta_pusher_env.datasets import CollectConfig, DemonstrationSet, collect
from meta_pusher_env.env import EPISODE_STEPS, GOAL_RADIUS_SQUARED, GOAL_STEPS, MetaPusherEnv
from meta_pusher_env.expert import Expert

CONFIG = CollectConfig(
    n_tasks=4, image_size=32, demos_per_task=2, frames_per_demo=3, noise=0.3, clean_demos=1
)
STATE = dataclasses.replace(CONFIG, obs_type="state", n_tasks=2)


def contents(directory: Path) -> dict[str, bytes]:
    files = (file for file in directory.rglob("*") if file.is_file())
    return {str(file.relative_to(directory)): file.read_bytes() for file in files}


def is_mapped(array: np.ndarray) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished data set, made in this process; not to be changed."""
    directory = tmp_path_factory.mktemp("original")
    collect(directory, CONFIG, n_workers=1)
    return directory


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A finished data set to damage."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.fixture(scope="module")
def state_set(tmp_path_factory: pytest.TempPathFactory) -> DemonstrationSet:
    return collect(tmp_path_factory.mktemp("state"), STATE, n_workers=1)


# Collecting


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
    with pytest.raises(ValueError, match=rf"Damaged files: .*shard-0001/{file}\. Run collect"):
        DemonstrationSet(copy).verify()
    collect(copy, CONFIG, n_workers=1).verify()
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
        patch.setattr(datasets, "_rows", fail)
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


def test_bad_number_of_workers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n_workers is 0, expected at least 1"):
        collect(tmp_path, CONFIG, n_workers=0)


def test_shards_are_whole_pairs_and_few() -> None:
    for n_tasks in (2, 16, 128, 130, 694, 20_000):
        per_shard = datasets._tasks_per_shard(n_tasks)
        assert per_shard % 2 == 0
        assert -(-n_tasks // per_shard) <= datasets.MAX_SHARDS
    assert datasets._tasks_per_shard(16) == 2  # small sets, too, keep many cores busy


def test_sampled_steps_cover_the_episode() -> None:
    for n in (0, 1, 8, 99):
        steps = datasets._sample_steps(5, n)
        assert len(steps) == n + 2 and (steps[0], steps[-1]) == (0, EPISODE_STEPS)
        assert (np.diff(steps) > 0).all()
    samples = np.concatenate([datasets._sample_steps(seed, 4)[1:-1] for seed in range(300)])
    assert set(samples) == set(range(1, EPISODE_STEPS))


# What is in it


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
    assert ((noise[:, 1] > 0) & (noise[:, 1] <= CONFIG.noise)).all()


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


def test_frames_drawn_again_are_the_stored_ones(original: Path) -> None:
    demos = DemonstrationSet(original)
    for index in (0, -1):
        full, demo = demos.full(index), demos[index]
        assert isinstance(full.obs, dict) and isinstance(demo.obs, dict)
        assert len(full.obs["pixels"]) == len(full.obs["agent_pos"]) == EPISODE_STEPS + 1
        for key in demo.obs:
            np.testing.assert_array_equal(full.obs[key][demo.steps], demo.obs[key])
    larger = demos.full(0, image_size=48).obs
    assert isinstance(larger, dict) and larger["pixels"].shape == (101, 48, 48, 3)


def test_acceptance_counts_every_attempt(original: Path) -> None:
    demos = DemonstrationSet(original)
    rows, dropped = demos.acceptance()
    metas = [json.loads(file.read_text()) for file in original.glob("shard-*/meta.json")]
    attempts = [success for meta in metas for success in meta["attempts"]["success"]]
    assert sum(row.attempts for row in rows) == len(attempts)
    assert sum(row.accepted for row in rows) == sum(attempts) == len(demos)
    assert dropped == pytest.approx(1 - len(demos) / len(attempts))


# Reading


def test_demonstrations_lie_in_the_memory_map(original: Path, state_set: DemonstrationSet) -> None:
    demo = DemonstrationSet(original)[3]
    assert isinstance(demo.obs, dict)
    assert demo.obs["pixels"].shape == (5, 32, 32, 3) and demo.obs["pixels"].dtype == np.uint8
    assert demo.obs["agent_pos"].shape == (5, 20) and demo.obs["agent_pos"].dtype == np.float32
    assert demo.acts.shape == (100, 7) and demo.acts.dtype == np.float32
    assert demo.states.shape == (101, 26) and demo.states.dtype == np.float64
    state_obs = state_set[0].obs
    assert isinstance(state_obs, np.ndarray) and state_obs.shape == (101, 136)
    for array in (demo.obs["pixels"], demo.acts, demo.states, state_obs):
        assert is_mapped(array) and not array.flags.writeable


def test_nothing_is_read_until_it_is_asked_for(copy: Path) -> None:
    demos = DemonstrationSet(copy)
    shutil.rmtree(copy / "shard-0001")
    assert len(demos) == 8 and list(demos.task_ids[::2]) == [t.task_id for t in demos.tasks]
    assert demos[0].task_id == demos.task_ids[0]
    with pytest.raises(FileNotFoundError):
        demos[4]


def test_indexing(original: Path) -> None:
    demos = DemonstrationSet(original)
    assert [demo.task_id for demo in demos] == list(demos.task_ids)
    assert demos[-1].infos[7]["demo_id"] == demos[7].infos[7]["demo_id"]
    assert [d.task_id for d in demos[1:6:2]] == list(demos.task_ids[1:6:2])
    for index in (8, -9):
        with pytest.raises(IndexError, match=f"Index {index} is out of range: 8 demos"):
            demos[index]


def test_of_task(original: Path) -> None:
    demos = DemonstrationSet(original)
    for task in (demos.tasks[2], demos.tasks[2].task_id):
        assert [demo.task_id for demo in demos.of_task(task)] == [demos.tasks[2].task_id] * 2
    with pytest.raises(ValueError, match="No task 'nosuch' in .*: its ids run from 'train-0000a'"):
        demos.of_task("nosuch")


def test_pickled_sets_open_their_maps_again(original: Path) -> None:
    demos = DemonstrationSet(original)
    _ = demos[5]
    text = pickle.dumps(demos)
    assert len(text) < 1_000
    np.testing.assert_array_equal(pickle.loads(text)[5].states, demos[5].states)


def test_bare_pixels(original: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, obs_type="pixels", n_tasks=2)
    bare = collect(tmp_path, config, n_workers=1)
    both = DemonstrationSet(original)[0].obs
    assert isinstance(both, dict)
    np.testing.assert_array_equal(np.asarray(bare[0].obs), both["pixels"])
    assert isinstance(bare.full(0).obs, np.ndarray)


def test_a_directory_that_is_no_data_set(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"is no data set: it has no config\.json"):
            DemonstrationSet(directory)


def test_another_format_version(copy: Path) -> None:
    record = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(record | {"format_version": 0}))
    with pytest.raises(ValueError, match="format version 0, expected 1"):
        DemonstrationSet(copy)


def test_tasks_of_another_version(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"tasks_sha256": "0"}))
    with pytest.raises(ValueError, match="drawn by another version of meta_pusher_env"):
        DemonstrationSet(copy)


def test_a_truncated_file(copy: Path) -> None:
    file = copy / "shard-0000" / "acts.npy"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"acts\.npy has 100 bytes, expected {size}.*mend it"):
        DemonstrationSet(copy)
    file.unlink()
    with pytest.raises(ValueError, match=r"acts\.npy has no bytes"):
        DemonstrationSet(copy)
