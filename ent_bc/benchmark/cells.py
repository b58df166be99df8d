"""What the benchmark consists of: cells, each one training and its evaluation.

A cell says everything that its outcome depends on, and its hash names the file of its result; so a
cell that is there is never run again, and one whose settings change is another cell.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run and its evaluation."""

    group: str
    """Part of the benchmark it belongs to."""
    system: str
    """One of `systems.SYSTEMS`."""
    variant: str = ""
    """What is changed of the system or its data, for readers; "" for nothing."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Settings of the system; those that are not named are its own. JSON: lists, no tuples."""
    budget: str = "wall-clock"
    """What is equal among systems: "wall-clock" or "samples"."""
    n_batches: int = 1
    """Optimiser steps."""
    n_tasks: int = 694
    """Training tasks."""
    demos_per_task: int = 8
    """Demonstrations of each."""
    frames_per_demo: int = 8
    """Observations of each that are stored and trained on, beside the first and the last."""
    obs_type: str = "pixels_agent_pos"
    """Observation type."""
    image_size: int = 96
    """Height and width of images, pixels."""
    noise: float = 0.6
    """Largest noise in demonstrations, N m; see `CollectConfig`."""
    twins: bool = True
    """Whether both tasks of a pair are trained on, or one alone."""
    split: str = "test"
    """Tasks to evaluate on."""
    trials_per_task: int = 6
    """With one demonstration, the task's own and the twin's."""
    trials_per_task_5shot: int = 0
    """With five."""
    seed: int = 0
    """Of the training."""

    @property
    def name(self) -> str:
        """For readers."""
        what = " ".join(part for part in (self.system, self.variant, self.budget) if part)
        return f"{self.group}: {what}, seed {self.seed}"

    @property
    def hash(self) -> str:
        """16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, the same for equal cells; ``Cell(**record)`` gives the equal cell back."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        record: dict[str, Any] = json.loads(
            json.dumps(fields, default=dict), parse_float=_parse_float
        )
        return record


def _parse_float(text: str) -> int | float:
    """1 for 1.0: Python takes them for equal, so their JSON is to be the same."""
    value = float(text)
    return int(value) if value.is_integer() else value
