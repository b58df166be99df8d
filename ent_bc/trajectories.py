"""Demonstrations as `imitation` knows them, so that its other algorithms take them too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from imitation.data import types

from ent_bc.demonstrations import observed_steps


def as_trajectories(demonstrations: Sequence[Any]) -> list[types.Trajectory]:
    """Converts demonstrations to `imitation` trajectories; arrays are not copied.

    Args:
        demonstrations: Records with ``obs`` (an array or a mapping), ``acts``, ``infos`` and
            ``terminal``; where there are such, ``rews``, and ``steps``, the time steps of ``obs``.

    Returns:
        Trajectories in the same order, `TrajectoryWithRew` of what has rewards; mappings become
        `DictObs`, and infos lists of dicts.

    Raises:
        ValueError: A demonstration has not all of its observations.
    """
    return [_as_trajectory(demo, index) for index, demo in enumerate(demonstrations)]


def _as_trajectory(demo: Any, index: int) -> types.Trajectory:
    n_times = len(demo.acts) + 1
    steps = observed_steps(demo)
    if not np.array_equal(steps, np.arange(n_times)):
        raise ValueError(
            f"Demonstration {index} has observations at {len(steps)} of {n_times} time steps, and "
            "a trajectory needs all of them: take DemonstrationSet.full(index)."
        )
    fields = {
        "obs": types.maybe_wrap_in_dictobs(demo.obs),
        "acts": np.asarray(demo.acts),
        "infos": list(demo.infos),
        "terminal": bool(demo.terminal),
    }
    if hasattr(demo, "rews"):
        return types.TrajectoryWithRew(**fields, rews=np.asarray(demo.rews))
    return types.Trajectory(**fields)
