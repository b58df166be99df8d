"""Eight validation runs for each system, ours too, from which `systems.SYSTEMS` has its settings.

All on a quarter of the budget of wall-clock, and evaluated on val. The oracle, which is ours and is
told more, has the settings of ours. A system's are those of its `best_run`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ent_bc.benchmark.cells import Cell
from ent_bc.benchmark.plan import SECONDS, cost_of
from ent_bc.benchmark.results import Result
from ent_bc.benchmark.rows import NAMES, Row
from ent_bc.benchmark.systems import SYSTEMS, merge, resolved
from ent_bc.benchmark.tables import few_figures

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
    "ours": _grid(learning_rate=_RATES, losses__attention_weight=(0.3, 1.0)),
    "tecnets": _grid(learning_rate=_RATES, losses__query_weight=(0.1, 1.0)),
    "mil": _grid(learning_rate=_RATES, net__video_only=(False, True)),
    "lstm": _grid(learning_rate=_RATES, net__pooling=_POOLINGS),
    "contextual": _grid(learning_rate=_RATES, net__pooling=_POOLINGS),
    "bc": _grid(learning_rate=_RATES, ent_weight=(1e-3, 1e-1)),
    "bc_sentence": _grid(learning_rate=_RATES, policy_kwargs__architecture=("tiled", "attention")),
    "duan": _grid(learning_rate=_RATES, net__pooling=_POOLINGS),
    # What comes after ours, which has its own settings here too.
    "dagger": _grid(dagger__learning_rate=(1e-5, 5e-5, 2e-4, 1e-3), dagger__n_tasks=(200, 694)),
    "mixture": _grid(learning_rate=_RATES, batch_size=(16, 32)),
    "chunks": _grid(learning_rate=_RATES, batch_size=(16, 32)),
}


def tuning_cells(costs: Mapping[str, Any], system: str) -> Iterator[Cell]:
    """The eight runs of a system.

    Raises:
        ValueError: A system that is not tuned, or that has no costs.
    """
    if system not in GRIDS:
        raise ValueError(f"{system!r} is not tuned, expected one of {[*GRIDS]}.")
    for options in GRIDS[system]:
        settings = merge(SYSTEMS[system].settings, options)
        cost = cost_of(costs, system, settings["batch_size"])
        cell = Cell(
            group="tuning",
            system=system,
            variant=", ".join(f"{k} {v}" for k, v in _flat(options)),
            options=options,
            n_batches=math.floor(SECONDS / 4 / cost["seconds_per_batch"]),
            split="val",
            trials_per_task=1,
        )
        yield resolved(cell)


def _flat(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield key, value


def best_run(results: Sequence[Result], system: str) -> Result:
    """A system's run with the most *shown* and *twin control* together; of equals, *strict*.

    Raises:
        ValueError: There is no run of it.
    """

    def quality(result: Result) -> tuple[float, float]:
        own, twin = result.conditions["own_1shot"], result.conditions["twin"]
        chosen = own.hits("shown").mean() + twin.hits("other").mean()
        return float(chosen), float(own.hits("strict").mean())

    found = [result for result in results if result.cell["system"] == system]
    if not found:
        raise ValueError(f"No run of {system!r} is among the {len(results)} results.")
    return max(found, key=quality)


def tuning_tables(results: Sequence[Result]) -> str:
    """A table for each system in Markdown, the most *shown* first; chosen settings are in bold."""
    parts = [
        "One seed on val; per cent, with 95% intervals by bootstrap over pairs of objects. In bold "
        "the settings that the benchmark has: the most *shown* and *twin control* together."
    ]
    for system in GRIDS:
        found = [_marked(result) for result in results if result.cell["system"] == system]
        parts.append(f"### {NAMES[system]}")
        parts.append(few_figures([Row((result,)) for result in found]) or "Not run.")
    return "\n\n".join(parts) + "\n"


def _marked(result: Result) -> Result:
    """With its number of steps in the variant, and that in bold where the settings were chosen."""
    cell = result.cell
    text = f"{cell['variant']}; {cell['n_batches']} steps"
    if cell["options"] == SYSTEMS[cell["system"]].settings:
        text = f"**{text}**"
    return dataclasses.replace(result, cell={**cell, "variant": text})
