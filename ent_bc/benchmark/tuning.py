"""Eight validation runs for each system, ours too, from which `systems.SYSTEMS` has its settings.

All on a quarter of the budget of wall-clock, and evaluated on val.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ent_bc.benchmark.cells import Cell
from ent_bc.benchmark.plan import SECONDS
from ent_bc.benchmark.systems import SYSTEMS

_RATES = (5e-4, 1e-3, 2e-3, 4e-3)
_POOLINGS = ("flatten", "spatial softmax")


def _grid(**choices: tuple[Any, ...]) -> list[dict[str, Any]]:
    """All combinations; a name with two underscores is one of a nested mapping."""
    found = []
    for values in itertools.product(*choices.values()):
        options: dict[str, Any] = {}
        for name, value in zip(choices, values, strict=True):
            outer, _, inner = name.partition("__")
            if inner:
                options[outer] = {**options.get(outer, {}), inner: value}
            else:
                options[outer] = value
        found.append(options)
    return found


GRIDS: dict[str, list[dict[str, Any]]] = {
    "ours": _grid(learning_rate=_RATES, batch_size=(16, 32)),
    "tecnets": _grid(learning_rate=_RATES, losses__query_weight=(0.1, 1.0)),
    "mil": _grid(learning_rate=_RATES, net__video_only=(False, True)),
    "lstm": _grid(learning_rate=_RATES, net__pooling=_POOLINGS),
    "contextual": _grid(learning_rate=_RATES, net__pooling=_POOLINGS),
    "bc": _grid(learning_rate=_RATES, ent_weight=(1e-3, 1e-1)),
    "bc_sentence": _grid(learning_rate=_RATES, policy_kwargs__architecture=("tiled", "attention")),
    "duan": _grid(learning_rate=_RATES, net__pooling=_POOLINGS),
}


def tuning_cells(costs: Mapping[str, Any], system: str) -> Iterator[Cell]:
    """The eight runs of a system."""
    seconds = SECONDS / 4
    for options in GRIDS[system]:
        batch_size = SYSTEMS[system].settings["batch_size"]
        share = options.get("batch_size", batch_size) / batch_size
        yield Cell(
            group="tuning",
            system=system,
            variant=", ".join(f"{k} {v}" for k, v in _flat(options)),
            options=options,
            n_batches=math.floor(seconds / (share * costs[system]["seconds_per_batch"])),
            split="val",
            trials_per_task=2,
        )


def _flat(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield key, value
