"""What counts as a demonstration, its checks, and what training and embedding see of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces

from ent_bc.observations import SENTENCE_KEY, to_chw, to_hwc

UNKNOWN = np.full(2, np.nan, dtype=np.float32)
Obs = np.ndarray | dict[str, np.ndarray]
_N_FOR_STATISTICS = 256


class DemonstrationLike(Protocol):
    """What is needed of a demonstration: imitation's ``Trajectory``, or a record with its fields.

    ``infos`` are dicts with "task_id"; where there are such, "pair_id" (tasks that share one are
    told apart by a demonstration alone and share a batch) and "attention_target" (2,), where in
    the image the demonstrated object is, (x right, y down) in [-1, 1], NaN where unknown.
    A record may have ``steps``, the time steps at which it has observations.
    """

    @property
    def obs(self) -> Any:
        """Observations over time, an array or a mapping of such."""

    @property
    def acts(self) -> np.ndarray:
        """Actions (T, A)."""

    @property
    def infos(self) -> Any:
        """T dicts."""


@runtime_checkable
class ReadsAhead(Protocol):
    """A sequence of demonstrations on a disk, which reads best what it was told before."""

    def will_read(self, wanted: Iterable[tuple[int, Iterable[int]]]) -> None:
        """Takes pairs of a demonstration's index and the places in its ``obs``."""

    def read_obs(self, index: int, places: Sequence[int]) -> Any:
        """A demonstration's ``obs`` at some places."""


def check_demonstrations(
    demonstrations: Any, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> None:
    """Raises a ValueError that says what is wrong with what should be demonstrations."""
    if not isinstance(demonstrations, Sequence):
        raise ValueError(
            f"The demonstrations are a {type(demonstrations).__name__}, expected a sequence of "
            "trajectories or Demonstrations."
        )
    if len(demonstrations) == 0:
        raise ValueError("The list of demonstrations is empty, expected at least one.")
    for index, demo in enumerate(demonstrations):
        name = f"Demonstration {index}"
        if not all(hasattr(demo, field) for field in ("obs", "acts", "infos")):
            raise ValueError(
                f"{name} is a {type(demo).__name__}, expected a record with obs, acts and infos, "
                "as imitation's Trajectory."
            )
        acts = np.asarray(demo.acts)
        _check_obs(demo.obs, observation_space, name)
        _check_times(demo, len(acts), name)
        if acts.ndim != 2 or acts.shape[1:] != action_space.shape:
            raise ValueError(
                f"{name} has actions of shape {acts.shape}, expected (T, *{action_space.shape})."
            )
        if acts.dtype.kind not in "fiu":
            raise ValueError(f"{name} has actions of {acts.dtype}, expected numbers.")
        if not np.isfinite(acts).all():
            raise ValueError(f"{name} has NaN or infinite actions.")


def end_observations(
    demonstrations: Sequence[Any], observation_space: spaces.Space[Any]
) -> tuple[Obs, Obs]:
    """First and last observations of some demonstrations, each (n, ...).

    Of a Dict observation only the image is read, where there is one: video only.

    Args:
        demonstrations: Records with ``obs``, or bare arrays of observations over time.
        observation_space: What they are checked against.

    Raises:
        ValueError: None at all, or not of the space's shape and dtype, or NaN.
    """
    if len(demonstrations) == 0:
        raise ValueError("The list of demonstrations is empty, expected at least one.")
    parts = demonstrated_parts(observation_space)
    ends: list[list[Any]] = [[], []]
    for index, demo in enumerate(demonstrations):
        obs = _take_parts(getattr(demo, "obs", demo), parts, f"Demonstration {index}")
        for end, place in zip(ends, (0, -1), strict=True):
            end.append({key: np.asarray(array[place]) for key, array in obs.items()})
    first, last = ({key: np.stack([o[key] for o in end]) for key in parts} for end in ends)
    return (first, last) if isinstance(observation_space, spaces.Dict) else (first[""], last[""])


def demonstrated_parts(observation_space: spaces.Space[Any]) -> dict[str, spaces.Box]:
    """Which entries of an observation a sentence is made from: the image, else all vectors.

    A space that is no Dict is one entry without a name.
    """
    if not isinstance(observation_space, spaces.Dict):
        assert isinstance(observation_space, spaces.Box)
        return {"": observation_space}
    boxes = {
        key: space
        for key, space in observation_space.spaces.items()
        if isinstance(space, spaces.Box) and key != SENTENCE_KEY
    }
    images = {key: box for key, box in boxes.items() if len(box.shape) == 3}
    if not boxes:
        raise ValueError(
            f"The observation space {observation_space} has nothing to make a sentence from: "
            "expected an image, or vectors."
        )
    return images or boxes


def sample_vectors(demonstrations: Sequence[Any], rng: np.random.Generator) -> Obs:
    """Observations without images from some demonstrations, to take statistics from: (N, ...)."""
    n_demos = min(len(demonstrations), _N_FOR_STATISTICS)
    chosen = rng.choice(len(demonstrations), size=n_demos, replace=False)
    observations = [_unwrap(demonstrations[int(index)].obs) for index in np.sort(chosen)]
    if not isinstance(observations[0], Mapping):
        return np.concatenate([np.asarray(o) for o in observations])
    return {
        key: np.concatenate([np.asarray(o[key]) for o in observations])
        for key, value in observations[0].items()
        if value.ndim == 2
    }


def index_obs(obs: Any, index: Any) -> Obs:
    """Observations at some steps, from an array or a mapping (imitation's DictObs too); a copy."""
    obs = _unwrap(obs)
    if isinstance(obs, Mapping):
        return {key: np.asarray(value[index]) for key, value in obs.items()}
    return np.asarray(obs[index])


def group_by_task(demonstrations: Sequence[DemonstrationLike]) -> dict[str, list[int]]:
    """Indices of the demonstrations of each task.

    Raises:
        ValueError: A demonstration does not say its task.
    """
    of_task: dict[str, list[int]] = {}
    for index in range(len(demonstrations)):
        infos = demonstrations[index].infos
        if infos is None or len(infos) == 0 or "task_id" not in infos[0]:
            raise ValueError(
                f"Demonstration {index} does not say its task: expected 'task_id' in its infos "
                "(imitation's rollout.rollout keeps them with exclude_infos=False)."
            )
        of_task.setdefault(str(infos[0]["task_id"]), []).append(index)
    return of_task


def observed_steps(demo: DemonstrationLike) -> np.ndarray:
    """The time steps at which a demonstration has observations: all T + 1 where it does not say."""
    return np.asarray(getattr(demo, "steps", np.arange(len(demo.acts) + 1)))


def _take_parts(obs: Any, parts: Mapping[str, spaces.Box], name: str) -> dict[str, Any]:
    """Some entries of observations over time, checked; a bare array is the only entry there is."""
    obs = _unwrap(obs)
    if not isinstance(obs, Mapping):
        if len(parts) > 1:
            raise ValueError(f"{name} is a bare array, expected observations {sorted(parts)}.")
        obs = dict.fromkeys(parts, obs)
    missing = set(parts) - set(obs)
    if missing:
        raise ValueError(f"{name} has observations {sorted(obs)}, expected {sorted(parts)}.")
    for key, box in parts.items():
        _check_array(obs[key], box, name)
    return {key: obs[key] for key in parts}


def _unwrap(obs: Any) -> Any:
    """Imitation's DictObs as a mapping; everything else as it is."""
    return obs.unwrap() if hasattr(obs, "unwrap") else obs


def _check_obs(obs: Any, space: spaces.Space[Any], name: str) -> None:
    obs = _unwrap(obs)
    if not isinstance(space, spaces.Dict):
        _check_array(obs, space, name)
        return
    expected = set(space.spaces) - {SENTENCE_KEY}
    if len(expected) == 1 and not isinstance(obs, Mapping):
        _check_array(obs, space.spaces[expected.pop()], name)
        return
    missing = expected - set(obs if isinstance(obs, Mapping) else ())
    if missing:
        raise ValueError(f"{name} has no observation {sorted(missing)}, expected {space}.")
    for key, part in space.spaces.items():
        if key in obs:
            _check_array(obs[key], part, f"{name}, observation {key!r},")


def _check_times(demo: Any, n_acts: int, name: str) -> None:
    obs = _unwrap(demo.obs)
    n_times = len(demo.steps) if hasattr(demo, "steps") else n_acts + 1
    for part in obs.values() if isinstance(obs, Mapping) else [obs]:
        if len(part) != n_times:
            raise ValueError(
                f"{name} has {len(part)} observations and {n_acts} actions, expected {n_times} "
                "observations."
            )


def _check_array(array: Any, space: spaces.Space[Any], name: str) -> None:
    expected = f"expected (T, {', '.join(map(str, space.shape or ()))}) of {space.dtype}"
    shapes = {tuple(space.shape or ())}
    if space.shape is not None and len(space.shape) == 3:  # an image, in either order of its axes
        shapes = {to_hwc(space.shape), to_chw(space.shape)}
    if not hasattr(array, "shape") or tuple(array.shape[1:]) not in shapes or not len(array):
        raise ValueError(f"{name} has shape {getattr(array, 'shape', None)}, {expected}.")
    if space.dtype == np.uint8:
        if array.dtype != np.uint8:
            raise ValueError(f"{name} has dtype {array.dtype}, {expected}.")
    elif not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} has dtype {array.dtype}, {expected}.")
    elif not np.isfinite(array).all():
        raise ValueError(f"{name} has NaN or infinite observations.")
