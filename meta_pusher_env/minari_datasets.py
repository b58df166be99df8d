"""Demonstrations as Minari data sets, and any multi-task Minari data set as trajectories; lossless.

Minari is an optional extra: ``pip install 'metapusher[minari]'``. It keeps its data sets below
``MINARI_DATASETS_PATH``, or in the home directory.

An episode's infos have one row for each observation, as Minari's own have: what a demonstration's
infos say (task_id, pair_id, demo_id, step, attention_target), the last row twice, and
``mujoco_state``. Rewards are NaN where none were recorded. The data set's metadata have the
environment's spec and spaces and, below "metapusher", the tasks' universe, versions and hashes.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from meta_pusher_env.datasets import DemonstrationSet
from meta_pusher_env.demonstrations import Demonstration
from meta_pusher_env.env import MetaPusherEnv
from meta_pusher_env.minari_episodes import (
    Trajectory,
    check_demonstration,
    columns_of,
    decoded,
    row_of,
    update_digest,
)
from meta_pusher_env.tasks import DEFAULT_SPLIT_SEED, hash_tasks, make_tasks

_STATE = "mujoco_state"
_METADATA = "metapusher"
_ID = re.compile(r"([-\w]+/)*[-\w]+-v\d+")


def to_minari(
    demonstrations: Sequence[Demonstration | Trajectory],
    dataset_id: str,
    *,
    env: gym.Env[Any, Any],
    **metadata: Any,
) -> Any:
    """Writes demonstrations as a new Minari data set.

    Args:
        demonstrations: With observations at every step; a `DemonstrationSet`'s are drawn again.
        dataset_id: Such as "metapusher/test-expert-v0".
        env: The environment they are of, from ``gym.make``: for its spec, spaces and tasks.
        **metadata: More of Minari's ``create_dataset_from_buffers``: ``author``, ...

    Returns:
        The ``minari.MinariDataset``.

    Raises:
        ImportError: Minari is not installed.
        ValueError: The id is malformed or taken, there are no demonstrations, one lacks
            observations or does not fit the environment, or this Minari cannot store images
            without loss.
    """
    minari, get_dataset_path = _import_minari()
    if not _ID.fullmatch(dataset_id):
        raise ValueError(
            f"The id is {dataset_id!r}, expected one like 'metapusher/test-expert-v0'."
        )
    if len(demonstrations) == 0:
        raise ValueError("The list of demonstrations is empty, expected at least one.")
    path = get_dataset_path(dataset_id)
    if path.exists():
        raise ValueError(f"{dataset_id!r} exists at {path}: delete it or raise the version.")
    digest = hashlib.sha256()
    try:
        with warnings.catch_warnings():  # it wants authors and links that are not ours to make up
            warnings.filterwarnings("ignore", "`.*` is set to None", UserWarning)
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                _buffers(minari, demonstrations, env, digest),
                env=env,
                **_lossless(minari, env.observation_space),
                **{"requirements": _requirements(), **metadata},
            )
        about = {**_about(env), "data_sha256": digest.hexdigest()}
        dataset.storage.update_metadata({_METADATA: about})
    except BaseException:  # whole or not at all
        shutil.rmtree(path, ignore_errors=True)
        raise
    return dataset


def from_minari(dataset: Any) -> list[Demonstration]:
    """Reads what `to_minari` wrote of `Demonstration`s; equal to these in every field.

    Args:
        dataset: Id, or a ``minari.MinariDataset``, such as a part of one.

    Raises:
        ImportError: Minari is not installed.
        FileNotFoundError: There is no such data set here.
        ValueError: It is not of MetaPusher's demonstrations, is damaged, or its tasks were drawn
            by another version of this package.
    """
    dataset = _open(dataset)
    _check_tasks(dataset)
    demonstrations = []
    for trajectory, states in _read(dataset):
        if states is None:
            raise ValueError(
                f"{dataset.spec.dataset_id!r} has no infos {_STATE!r}, so its episodes are not "
                "MetaPusher's demonstrations: take trajectories_from_minari(dataset)."
            )
        demonstrations.append(
            Demonstration(
                obs=trajectory.obs,
                acts=trajectory.acts,
                infos=trajectory.infos,
                terminal=trajectory.terminal,
                steps=np.arange(len(states)),
                states=states,
            )
        )
    return demonstrations


def trajectories_from_minari(dataset: Any) -> list[Trajectory]:
    """Reads any Minari data set whose infos name the task: what ``EntBC`` learns from.

    Args:
        dataset: Id, or a ``minari.MinariDataset``.

    Raises:
        ImportError: Minari is not installed.
        FileNotFoundError: There is no such data set here.
        ValueError: The infos have no "task_id", or the data are damaged.
    """
    return [trajectory for trajectory, _ in _read(_open(dataset))]


def _buffers(
    minari: Any, demonstrations: Sequence[Any], env: gym.Env[Any, Any], digest: Any
) -> Iterator[Any]:
    """Minari's episode buffers, one at a time; ``digest`` takes in their content."""
    buffer = importlib.import_module("minari.data_collector").EpisodeBuffer
    for index in range(len(demonstrations)):
        if isinstance(demonstrations, DemonstrationSet):
            demo: Any = demonstrations.full(index)
        else:
            demo = demonstrations[index]
        check_demonstration(demo, index, env)
        infos: dict[str, Any] = columns_of(demo.infos, index)
        if hasattr(demo, "states"):
            infos[_STATE] = demo.states
        ends = np.arange(len(demo.acts)) == len(demo.acts) - 1
        content = {
            "observations": demo.obs,
            "actions": demo.acts,
            "rewards": getattr(demo, "rews", np.full(len(demo.acts), np.nan)),
            "infos": infos,
        }
        update_digest(digest, content)
        yield buffer(
            **content, terminations=ends & demo.terminal, truncations=ends & (not demo.terminal)
        )


def _read(dataset: Any) -> Iterator[tuple[Trajectory, np.ndarray | None]]:
    """Trajectories, and the MuJoCo states where there are such; a whole data set is verified."""
    digest = hashlib.sha256()
    for episode in dataset.iterate_episodes():
        infos = dict(episode.infos or {})
        if "task_id" not in infos:
            raise ValueError(
                f"The infos of {dataset.spec.dataset_id!r} are {sorted(infos)}, expected 'task_id' "
                "among them: the task of each step."
            )
        infos = {key: decoded(column) for key, column in infos.items()}
        content = {"observations": episode.observations, "actions": episode.actions}
        update_digest(digest, {**content, "rewards": episode.rewards, "infos": infos})
        states = infos.pop(_STATE, None)
        trajectory = Trajectory(
            obs=episode.observations,
            acts=episode.actions,
            rews=episode.rewards,
            infos=[row_of(infos, step) for step in range(len(episode.actions))],
            terminal=bool(episode.terminations[-1]),
        )
        yield trajectory, states
    expected = dataset.storage.metadata.get(_METADATA, {}).get("data_sha256")
    is_whole = dataset.total_episodes == dataset.storage.total_episodes
    if expected and is_whole and digest.hexdigest() != expected:
        raise ValueError(
            f"{dataset.spec.dataset_id!r} has the hash {digest.hexdigest()}, expected {expected}: "
            "it was changed or stored with loss; write or fetch it again."
        )


def _about(env: gym.Env[Any, Any]) -> dict[str, Any]:
    versions = {name: _version(name) for name in ("metapusher", "gymnasium", "mujoco", "numpy")}
    inner = env.unwrapped
    if not isinstance(inner, MetaPusherEnv):
        return {"versions": versions}
    split_seed = env.spec.kwargs.get("split_seed", DEFAULT_SPLIT_SEED) if env.spec else None
    return {
        "versions": versions,
        "split": inner.split,
        "split_seed": split_seed,
        "n_tasks": len(inner.tasks),
        "tasks_sha256": hash_tasks(inner.tasks),
    }


def _check_tasks(dataset: Any) -> None:
    about = dataset.storage.metadata.get(_METADATA, {})
    if "tasks_sha256" in about and about["split_seed"] is not None:
        tasks = make_tasks(about["split"], about["n_tasks"], about["split_seed"])
        if hash_tasks(tasks) != about["tasks_sha256"]:
            raise ValueError(
                f"The tasks of {dataset.spec.dataset_id!r} were drawn by another version of "
                f"meta_pusher_env ({about['versions']['metapusher']}): install that one, or take "
                "trajectories_from_minari(dataset)."
            )


def _lossless(minari: Any, space: gym.Space[Any]) -> dict[str, Any]:
    """The argument that turns JPEG off; Minari before 0.5.4 has none."""
    if "jpeg_encoding" in inspect.signature(minari.create_dataset_from_buffers).parameters:
        return {"jpeg_encoding": False}
    parts = space.spaces.values() if isinstance(space, gym.spaces.Dict) else [space]
    if any(part.dtype == np.uint8 for part in parts):
        raise ValueError(
            f"Minari {minari.__version__} stores images as JPEG, with loss: install minari>=0.5.4 "
            "(which needs numpy>=2), or export state observations."
        )
    return {}


def _requirements() -> list[str]:
    versions = {name: _version(name) for name in ("metapusher", "mujoco")}
    return [f"{name}=={version}" for name, version in versions.items() if version is not None]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return None


def _open(dataset: Any) -> Any:
    minari, _ = _import_minari()
    return minari.load_dataset(dataset) if isinstance(dataset, str) else dataset


def _import_minari() -> tuple[Any, Any]:
    """The module, and its function from an id to a path."""
    try:
        for name in ("h5py", "PIL"):  # which Minari itself does not ask for
            importlib.import_module(name)
        minari = importlib.import_module("minari")
        return minari, importlib.import_module("minari.storage").get_dataset_path
    except ImportError as error:
        raise ImportError(
            f"Minari data sets need an extra ({error}): pip install 'metapusher[minari]'."
        ) from error
