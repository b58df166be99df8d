"""What a training step of each system costs on one core, all measured side by side in one run.

So "equal wall-clock" is a number of steps for each system, and a cell's outcome does not depend on
what else the machine does while it runs. Processor time is that of all threads together: reading
ahead is work of the one core too.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ent_bc.benchmark.cells import Cell
from ent_bc.benchmark.plan import COSTS
from ent_bc.benchmark.run import data_for
from ent_bc.benchmark.systems import SYSTEMS, resolved, train_cell

N_ROUNDS, N_STEPS, N_FIRST = 5, 24, 4
MEASURED = tuple(name for name in SYSTEMS if name != "dagger")  # whose steps are ours'


def measure_costs(
    data: Path,
    path: Path = COSTS,
    *,
    systems: Iterable[str] = MEASURED,
    on_row: Callable[[str, dict[str, Any]], None] | None = None,
) -> None:
    """Times steps of the systems in turn, several rounds, and writes medians to a file.

    Args:
        data: Folder of the data sets.
        path: The file; what `plan.read_costs` reads lies in the package's folder, so by default
            this is for a checkout.
        systems: What is timed.
        on_row: Told a system and its figures.
    """
    names = list(systems)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    samples: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for _ in range(N_ROUNDS):
        for name in names:
            cell = resolved(Cell(group="costs", system=name, n_batches=N_STEPS))
            sizes[name] = cell.options["batch_size"]
            samples[name], steps = _time_steps(cell, data)
            seconds[name].append(seconds_per_batch(steps))
    rows = {
        name: {
            "seconds_per_batch": statistics.median(seconds[name]),
            "range": [min(seconds[name]), max(seconds[name])],
            "samples_per_batch": samples[name],
            "batch_size": sizes[name],
        }
        for name in names
    }
    if on_row is not None:
        for name, row in rows.items():
            on_row(name, row)
    temporary = path.with_suffix(".part")
    record = {"rounds": N_ROUNDS, "steps": N_STEPS - 2 * N_FIRST, "systems": rows}
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def seconds_per_batch(steps: Sequence[float]) -> float:
    """The mean of both halves' medians, each without its first steps.

    A system may train one net in the first half of its steps and another one in the second.
    """
    middle = len(steps) // 2
    halves = steps[:middle], steps[middle:]
    return statistics.fmean(statistics.median(half[N_FIRST:]) for half in halves)


def _time_steps(cell: Cell, data: Path) -> tuple[float, list[float]]:
    """Samples of a batch, and the seconds of processor time of each step."""
    times = [time.process_time()]
    demonstrations = SYSTEMS[cell.system].view(data_for(cell, data))
    trained = train_cell(cell, demonstrations, lambda: times.append(time.process_time()))
    steps = [after - before for before, after in zip(times, times[1:], strict=False)]
    return trained.n_samples / cell.n_batches, steps
