"""Minari data sets: out and in again without loss, and any multi-task one as trajectories."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

import meta_pusher_env  # noqa: F401  (registers MetaPusher-v0)
from meta_pusher_env.collection import collect
from meta_pusher_env.dataset_layout import CollectConfig
from meta_pusher_env.demonstrations import Demonstration
from meta_pusher_env.minari_datasets import from_minari, to_minari, trajectories_from_minari
from meta_pusher_env.minari_episodes import Trajectory
from meta_pusher_env.tasks import hash_tasks

ID = "metapusher/test-expert-v0"
OF_TEST = {"split": "test", "n_tasks": 2, "split_seed": 5}
KEEPS_IMAGES = "jpeg_encoding" in inspect.signature(minari.create_dataset_from_buffers).parameters
needs_images = pytest.mark.skipif(not KEEPS_IMAGES, reason="Minari before 0.5.4: JPEG only")
OBS_TYPES = [
    "state",
    *(pytest.param(t, marks=needs_images) for t in ("pixels", "pixels_agent_pos")),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def make_env(**kwargs: Any) -> gym.Env[Any, Any]:
    return gym.make("MetaPusher-v0", **{**OF_TEST, **kwargs})


def demonstrations_of(env: gym.Env[Any, Any], n: int = 1) -> list[Demonstration]:
    demos: list[list[Demonstration]] = [
        env.unwrapped.get_demonstrations(task, n, seed=0)  # type: ignore[attr-defined]
        for task in env.unwrapped.tasks  # type: ignore[attr-defined]
    ]
    return [demo for of_task in demos for demo in of_task]


@pytest.fixture(scope="module")
def env() -> gym.Env[Any, Any]:
    return make_env()


@pytest.fixture(scope="module")
def demos(env: gym.Env[Any, Any]) -> list[Demonstration]:
    return demonstrations_of(env)


def assert_equal(first: Any, second: Any) -> None:
    """Equal in every field, dtypes too; NaN is equal to NaN."""
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if field.name == "infos":
            assert len(one) == len(other)
            for left, right in zip(one, other, strict=True):
                np.testing.assert_equal(left, right)
                assert {k: type(v) for k, v in left.items()} == {
                    k: type(v) for k, v in right.items()
                }
        elif isinstance(one, dict):
            assert one.keys() == other.keys()
            for key in one:
                np.testing.assert_array_equal(one[key], other[key], strict=True)
        elif isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other, strict=True)
        else:
            assert one == other


@pytest.mark.parametrize("obs_type", OBS_TYPES)
def test_demonstrations_come_back_equal_in_every_field(obs_type: str) -> None:
    env = make_env(obs_type=obs_type, image_size=32)
    written = demonstrations_of(env)
    to_minari(written, ID, env=env)
    read = from_minari(ID)
    assert len(read) == len(written) == 2
    for demo, other in zip(written, read, strict=True):
        assert_equal(demo, other)
        assert isinstance(other.infos[3]["attention_target"], np.ndarray)


def test_a_collected_data_set_goes_out_whole(tmp_path: Path) -> None:
    obs_type = "pixels_agent_pos" if KEEPS_IMAGES else "state"
    config = CollectConfig(
        **OF_TEST, obs_type=obs_type, image_size=32, demos_per_task=2, frames_per_demo=1
    )
    collected = collect(tmp_path / "collected", config, n_workers=1)
    to_minari(collected, ID, env=make_env(obs_type=obs_type, image_size=32))
    for index, demo in enumerate(from_minari(ID)):
        full = collected.full(index)
        assert_equal(dataclasses.replace(full, steps=np.arange(101)), demo)


def test_the_environment_comes_back(env: gym.Env[Any, Any], demos: list[Demonstration]) -> None:
    dataset = to_minari(demos, ID, env=env, author="somebody")
    recovered = minari.load_dataset(ID).recover_environment()
    assert recovered.spec.kwargs == env.spec.kwargs  # type: ignore[union-attr]
    assert recovered.unwrapped.tasks == env.unwrapped.tasks  # type: ignore[attr-defined]
    assert dataset.observation_space == env.observation_space
    assert dataset.action_space == env.action_space
    assert dataset.storage.metadata["author"] == {"somebody"}


def test_metadata_name_split_versions_and_hashes(
    env: gym.Env[Any, Any], demos: list[Demonstration]
) -> None:
    about = to_minari(demos, ID, env=env).storage.metadata["metapusher"]
    assert (about["split"], about["split_seed"], about["n_tasks"]) == ("test", 5, 2)
    assert about["tasks_sha256"] == hash_tasks(env.unwrapped.tasks)  # type: ignore[attr-defined]
    assert about["versions"]["gymnasium"] == gym.__version__
    assert about["versions"]["mujoco"]
    again = to_minari(demos, ID.replace("v0", "v1"), env=env).storage.metadata["metapusher"]
    assert again == about
    fewer = to_minari(demos[:1], ID.replace("v0", "v2"), env=env).storage.metadata["metapusher"]
    assert fewer["data_sha256"] != about["data_sha256"]


def test_a_changed_data_set_is_refused(
    env: gym.Env[Any, Any], demos: list[Demonstration], folder: Path
) -> None:
    to_minari(demos, ID, env=env)
    with h5py.File(folder / ID / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/actions"][7, 0] += 1e-6
    with pytest.raises(ValueError, match="has the hash .*, expected .*changed"):
        from_minari(ID)


def test_a_part_of_a_data_set_is_read(env: gym.Env[Any, Any], demos: list[Demonstration]) -> None:
    dataset = to_minari(demos, ID, env=env)
    (second,) = from_minari(dataset.filter_episodes(lambda episode: episode.id == 1))
    assert_equal(second, demos[1])


def test_tasks_of_another_version_are_refused(
    env: gym.Env[Any, Any], demos: list[Demonstration], folder: Path
) -> None:
    to_minari(demos, ID, env=env)
    file = folder / ID / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["metapusher"]["tasks_sha256"] = "0" * 64
    file.write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="drawn by another version"):
        from_minari(ID)
    assert len(trajectories_from_minari(ID)) == 2


def trajectory(task_id: str, seed: int, terminal: bool) -> Trajectory:
    rng = np.random.default_rng(seed)
    infos = [{"task_id": task_id, "goal": rng.normal(size=3), "n": i, "ok": True} for i in range(4)]
    return Trajectory(
        obs=rng.uniform(-0.1, 0.1, size=(5, 4)).astype(np.float32),
        acts=rng.integers(2, size=4),
        rews=rng.normal(size=4),
        infos=infos,
        terminal=terminal,
    )


def test_trajectories_of_another_environment_keep_rewards_and_endings() -> None:
    written = [trajectory("left", 0, True), trajectory("right", 1, False)]
    dataset = to_minari(written, "others/cartpole-v3", env=gym.make("CartPole-v1"))
    read = trajectories_from_minari("others/cartpole-v3")
    for one, other in zip(written, read, strict=True):
        assert_equal(one, other)
    assert [bool(episode.truncations[-1]) for episode in dataset] == [False, True]
    with pytest.raises(ValueError, match="mujoco_state.*trajectories_from_minari"):
        from_minari(dataset)


def test_demonstrations_without_rewards_say_so(
    env: gym.Env[Any, Any], demos: list[Demonstration]
) -> None:
    to_minari(demos, ID, env=env)
    assert np.isnan(trajectories_from_minari(ID)[0].rews).all()


@pytest.mark.parametrize("n_infos", [4, 5])
def test_any_data_set_with_task_ids_is_read(n_infos: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            "others/any-v0",
            [
                EpisodeBuffer(
                    observations=np.zeros((5, 4), np.float32),
                    actions=np.zeros(4, np.int64),
                    rewards=[1.0] * 4,
                    terminations=[False] * 4,
                    truncations=[False] * 3 + [True],
                    infos={"task_id": ["push"] * n_infos, "deep": {"n": np.arange(n_infos)}},
                )
            ],
            env="CartPole-v1",
        )
    (read,) = trajectories_from_minari("others/any-v0")
    assert read.infos == [{"task_id": "push", "deep": {"n": step}} for step in range(4)]
    assert read.rews.tolist() == [1.0] * 4
    assert len(read) == 4


def test_a_data_set_without_task_ids_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = EpisodeBuffer(
            observations=np.zeros((2, 4), np.float32),
            actions=np.zeros(1, np.int64),
            rewards=[0.0],
            terminations=[True],
            truncations=[False],
        )
        minari.create_dataset_from_buffers("others/none-v0", [buffer], env="CartPole-v1")
    with pytest.raises(ValueError, match=r"infos of 'others/none-v0' are \[\], expected 'task_id'"):
        trajectories_from_minari("others/none-v0")


@pytest.mark.parametrize("dataset_id", ["expert", "metapusher/test expert-v0", "/v0", "../x-v0"])
def test_a_malformed_id_is_refused(
    dataset_id: str, env: gym.Env[Any, Any], demos: list[Demonstration], folder: Path
) -> None:
    with pytest.raises(ValueError, match="expected one like 'metapusher/test-expert-v0'"):
        to_minari(demos, dataset_id, env=env)
    assert not list(folder.rglob("*"))


def test_an_existing_data_set_stays(env: gym.Env[Any, Any], demos: list[Demonstration]) -> None:
    to_minari(demos, ID, env=env)
    with pytest.raises(ValueError, match="exists at .*: delete it or raise the version"):
        to_minari(demos[:1], ID, env=env)
    assert len(from_minari(ID)) == 2


def test_what_does_not_fit_is_refused_and_leaves_no_data_set(
    env: gym.Env[Any, Any], demos: list[Demonstration], folder: Path
) -> None:
    good = demos[0]
    for bad, message in (
        (dataclasses.replace(good, obs=good.obs[:9], steps=np.arange(9)), "at 9 of 101 time steps"),
        (dataclasses.replace(good, obs=good.obs[:, :7]), "observations that are not of the env"),
        (dataclasses.replace(good, acts=good.acts + 9), "actions that are not of the environment"),
        (dataclasses.replace(good, infos=[{}] * 100), "does not say its task"),
        (dataclasses.replace(good, infos=[*good.infos[:-1], {}]), "keys differ between steps"),
        (
            dataclasses.replace(good, infos=[{"task_id": "a", "x": None}] * 100),
            "'x'] of NoneType, expected strings, numbers",
        ),
    ):
        with pytest.raises(ValueError, match=f"^Demonstration 1 .*{message}"):
            to_minari([good, bad], ID, env=env)
        assert not (folder / ID).exists()
    with pytest.raises(ValueError, match="empty"):
        to_minari([], ID, env=env)


@pytest.mark.skipif(KEEPS_IMAGES, reason="Minari from 0.5.4 on keeps images without loss")
def test_images_are_refused_where_they_would_be_jpeg(folder: Path) -> None:
    env = make_env(obs_type="pixels", image_size=32)
    with pytest.raises(ValueError, match="install minari>=0.5.4"):
        to_minari(demonstrations_of(env), ID, env=env)
    assert not (folder / ID).exists()


@pytest.mark.parametrize("package", ["minari", "h5py", "PIL"])
def test_without_the_extra_the_error_says_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'metapusher\[minari\]'"):
        from_minari(ID)


def test_the_example_runs(folder: Path) -> None:
    file = Path(__file__).parents[1] / "examples" / "minari_datasets.py"
    done = subprocess.run(
        [sys.executable, file, "--quick"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "metapusher/train-expert-v0: 8 episodes" in done.stdout
    assert (folder / "metapusher" / "train-expert-v0").is_dir()
