"""One demonstration as Minari keeps an episode: infos by key, not by step, and one row longer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """An episode of any environment, with the field names of imitation's ``TrajectoryWithRew``.

    Attributes:
        obs: Observations (T + 1, ...) or a dict of such.
        acts: Actions (T, A).
        rews: (T,) rewards.
        infos: T dicts, of the observations that the actions were taken at, with task_id.
        terminal: Whether it ended by itself, not by a time limit.
    """

    obs: np.ndarray | dict[str, np.ndarray]
    acts: np.ndarray
    rews: np.ndarray
    infos: Sequence[dict[str, Any]]
    terminal: bool

    def __len__(self) -> int:
        return len(self.acts)


def check_demonstration(demo: Any, index: int, env: gym.Env[Any, Any]) -> None:
    """Raises a ValueError if the task or observations are missing or not the environment's."""
    if not demo.infos or "task_id" not in demo.infos[0]:
        raise ValueError(
            f"Demonstration {index} does not say its task: expected 'task_id' in its infos."
        )
    n_times = len(demo.acts) + 1
    parts = list(demo.obs.values()) if isinstance(demo.obs, Mapping) else [demo.obs]
    if any(len(part) != n_times for part in parts):
        raise ValueError(
            f"Demonstration {index} has observations at {len(parts[0])} of {n_times} time steps, "
            "and Minari needs all of them: pass a DemonstrationSet whole, or take its full(index)."
        )
    first = {k: v[0] for k, v in demo.obs.items()} if isinstance(demo.obs, Mapping) else demo.obs[0]
    for what, value, space in (
        ("observations", first, env.observation_space),
        ("actions", demo.acts[0], env.action_space),
    ):
        if not space.contains(value):
            raise ValueError(
                f"Demonstration {index} has {what} that are not of the environment's {space}: "
                "make the environment with the same obs_type and image_size."
            )


def columns_of(infos: Sequence[dict[str, Any]], index: int) -> dict[str, Any]:
    """Infos by key, with a last row for the last observation."""
    rows = list(infos)
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError(f"Demonstration {index} has infos whose keys differ between steps.")
    columns: dict[str, Any] = {}
    for key in rows[0]:
        values = [row[key] for row in [*rows, rows[-1]]]
        if not all(isinstance(value, str) for value in values):
            values = np.asarray(values)  # type: ignore[assignment]
            if values.dtype.kind not in "biuf":  # type: ignore[attr-defined]
                raise ValueError(
                    f"Demonstration {index} has infos[{key!r}] of {type(rows[0][key]).__name__}, "
                    "expected strings, numbers or arrays of one shape."
                )
        columns[key] = values
    return columns


def decoded(column: Any) -> Any:
    """A column as `columns_of` made it: lists of strings, arrays, or a dict of such."""
    if isinstance(column, Mapping):
        return {key: decoded(part) for key, part in column.items()}
    if column.dtype.kind in "OSU":
        return [value.decode() if isinstance(value, bytes) else str(value) for value in column]
    return column


def row_of(columns: Mapping[str, Any], step: int) -> dict[str, Any]:
    """The infos of a step; numbers are Python's."""
    row: dict[str, Any] = {}
    for key, column in columns.items():
        value = row_of(column, step) if isinstance(column, Mapping) else column[step]
        row[key] = value.item() if isinstance(value, np.generic) else value
    return row


def update_digest(digest: Any, content: Any) -> None:
    """Takes in arrays and lists of strings, below keys; dtypes and shapes count."""
    if isinstance(content, Mapping):
        for key in sorted(content):
            digest.update(key.encode())
            update_digest(digest, content[key])
    elif isinstance(content, list):
        digest.update("\0".join(content).encode())
    else:
        array = np.ascontiguousarray(content)
        digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
