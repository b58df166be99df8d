"""Data sets on disk: reading."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from meta_pusher_env.collection import collect
from meta_pusher_env.dataset_layout import CollectConfig
from meta_pusher_env.datasets import DemonstrationSet
from meta_pusher_env.env import EPISODE_STEPS

CONFIG = CollectConfig(
    n_tasks=4, image_size=32, demos_per_task=2, frames_per_demo=3, noise=0.3, clean_demos=1
)


def is_mapped(array: np.ndarray) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished data set, not to be changed."""
    return collect(tmp_path_factory.mktemp("original"), CONFIG, n_workers=1).directory


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A finished data set to damage."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.fixture(scope="module")
def state_set(tmp_path_factory: pytest.TempPathFactory) -> DemonstrationSet:
    config = dataclasses.replace(CONFIG, obs_type="state", n_tasks=2)
    return collect(tmp_path_factory.mktemp("state"), config, n_workers=1)


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


def test_what_is_large_lies_in_the_memory_map_and_all_is_read_only(
    original: Path, state_set: DemonstrationSet
) -> None:
    demo = DemonstrationSet(original)[3]
    assert isinstance(demo.obs, dict)
    assert demo.obs["pixels"].shape == (5, 32, 32, 3) and demo.obs["pixels"].dtype == np.uint8
    assert demo.obs["agent_pos"].shape == (5, 20) and demo.obs["agent_pos"].dtype == np.float32
    assert demo.acts.shape == (100, 7) and demo.acts.dtype == np.float32
    assert demo.states.shape == (101, 26) and demo.states.dtype == np.float64
    state_obs = state_set[0].obs
    assert isinstance(state_obs, np.ndarray) and state_obs.shape == (101, 136)
    large = (demo.obs["pixels"], demo.states, state_obs)
    assert all(is_mapped(array) for array in large)
    assert not any(array.flags.writeable for array in (*large, demo.acts, demo.steps))


def test_nothing_is_read_until_it_is_asked_for(copy: Path) -> None:
    demos = DemonstrationSet(copy)
    shutil.rmtree(copy / "shard-0001")
    assert len(demos) == 8
    assert demos[0].task_id == demos.tasks[0].task_id
    with pytest.raises(FileNotFoundError):
        demos[4]


def test_indexing(original: Path) -> None:
    demos = DemonstrationSet(original)
    task_ids = [task.task_id for task in demos.tasks for _ in range(CONFIG.demos_per_task)]
    assert [demo.task_id for demo in demos] == task_ids
    assert demos[-1].infos[7]["demo_id"] == demos[7].infos[7]["demo_id"]
    assert [demo.task_id for demo in demos[1:6:2]] == task_ids[1:6:2]
    for index in (8, -9):
        with pytest.raises(IndexError, match=f"Index {index} is out of range: 8 demos"):
            demos[index]


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


def test_noise_levels_and_acceptance(original: Path) -> None:
    demos = DemonstrationSet(original)
    assert demos.noise_levels().shape == (len(demos),)
    assert sum(row.kept for row in demos.acceptance().rows) == len(demos)
