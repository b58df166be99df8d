"""``ent-bc benchmark speed | figure3 | table | tuning | costs``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from ent_bc import speed
from ent_bc.benchmark import plots
from ent_bc.benchmark.cells import Cell
from ent_bc.benchmark.costs import measure_costs
from ent_bc.benchmark.figure3 import ON_A_GPU, PAPERS_RUNS, Figure3Options, figure3
from ent_bc.benchmark.plan import GROUPS, plan, read_costs
from ent_bc.benchmark.results import read_results
from ent_bc.benchmark.run import fill, missing
from ent_bc.benchmark.tables import benchmark_tables
from ent_bc.benchmark.tuning import GRIDS, tuning_cells, tuning_tables
from ent_bc.evaluation import ENV_ID
from ent_bc.statistics import pair_distances

console = Console()


@dataclasses.dataclass(frozen=True)
class Speed:
    """How fast all is beside its peers and its limits; prints a table and writes every figure."""

    out: Path = Path("runs/speed")
    """Directory for speed.json."""
    groups: tuple[str, ...] = speed.GROUPS
    """What to measure."""
    quick: bool = False
    """Show that it runs, not how fast."""


@dataclasses.dataclass(frozen=True)
class Figure3:
    """The paper's figure 3 and what it hides; runs that are there are not run again."""

    out: Path = Path("benchmarks/figure3")
    """Directory of the runs' files, the figures and figure3.md."""
    gpu: bool = False
    """Five support and five query demonstrations of a task instead of one each, on a GPU; these
    runs need an --out and a --data of their own."""
    options: tyro.conf.OmitArgPrefixes[Figure3Options] = Figure3Options()
    """What is run."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Every system beside ours: runs the cells that are missing, writes the table and plots."""

    out: Path = Path("benchmarks")
    """Directory of results/, table.md and the plots."""
    data: Path = Path("runs/benchmark")
    """Directory of the data sets; collected where they are missing."""
    groups: tuple[str, ...] = GROUPS
    """Parts of the benchmark to run, in their order; the table has all."""
    jobs: int = 1
    """Cells at once, each on one thread."""
    limit: int | None = None
    """Run at most so many cells; 0 writes the table of what is there."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Eight validation runs of each system: runs those that are missing, writes tables."""

    out: Path = Path("benchmarks")
    """Directory of tuning/ and tuning.md."""
    data: Path = Path("runs/benchmark")
    """Directory of the data sets; collected where they are missing."""
    systems: tuple[str, ...] = tuple(GRIDS)
    """Systems to run; the tables have all."""
    jobs: int = 1
    """Cells at once, each on one thread."""
    limit: int | None = None
    """Run at most so many cells; 0 writes the tables of what is there."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """Times a training step of every system, side by side, on one core.

    That says what equal wall-clock is: cells of that budget are other ones afterwards. Writes into
    the package's folder, so this is for a checkout.
    """

    data: Path = Path("runs/benchmark")
    """Directory of the data sets."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Compares: speed, the paper's figure, and the table of all systems."""

    what: (
        Annotated[Speed, tyro.conf.subcommand("speed")]
        | Annotated[Figure3, tyro.conf.subcommand("figure3")]
        | Annotated[Table, tyro.conf.subcommand("table")]
        | Annotated[Tuning, tyro.conf.subcommand("tuning")]
        | Annotated[Costs, tyro.conf.subcommand("costs")]
    )


def benchmark(command: Benchmark) -> None:
    """``ent-bc benchmark``."""
    what = command.what
    if isinstance(what, Speed):
        benchmark_speed(what)
    elif isinstance(what, Figure3):
        benchmark_figure3(what)
    elif isinstance(what, Table):
        benchmark_table(what)
    elif isinstance(what, Tuning):
        benchmark_tuning(what)
    else:
        measure_costs(what.data, on_row=_say_cost)


def benchmark_speed(command: Speed) -> None:
    """``ent-bc benchmark speed``."""
    rows = []
    for row in speed.measure(command.groups, quick=command.quick):
        rows.append(row)
        speed.write_json(command.out / "speed.json", rows)
        console.print(f"{row.name} / {row.against}: {row.ratio:.3g}", highlight=False)
    console.print(speed.terminal_table(rows))
    console.print(f"All figures: {command.out / 'speed.json'}")


def benchmark_figure3(command: Figure3) -> None:
    """``ent-bc benchmark figure3``."""

    def say(variant: str, seed: int, record: dict[str, Any]) -> None:
        console.print(f"{variant}, seed {seed}: {sum(record['seconds'].values()):.0f} s")

    config = ON_A_GPU if command.gpu else PAPERS_RUNS
    for verdict in figure3(command.out, command.options, config, on_run=say):
        console.print(str(verdict), highlight=False)
    console.print(f"Figures and numbers: {command.out / 'figure3.md'}")


def benchmark_table(command: Table) -> None:
    """``ent-bc benchmark table``."""
    costs, results = read_costs(), command.out / "results"
    todo = missing(plan(costs, command.groups), results)[: command.limit]
    fill(todo, results, command.data, jobs=command.jobs, on_cell=_say_cell)
    planned = [cell.to_json() for cell in plan(costs)]
    found = read_results(results)
    distances = pair_distances(ENV_ID, {"split": "test", "obs_type": "pixels"})
    text = benchmark_tables(found, planned, pair_distance=distances)
    (command.out / "table.md").write_text(text, encoding="utf-8")
    plots.draw_plots(found, planned, command.out, pair_distance=distances)
    console.print(f"{len(found)} results of {len(planned)} cells: {command.out / 'table.md'}")


def benchmark_tuning(command: Tuning) -> None:
    """``ent-bc benchmark tuning``."""
    costs, results = read_costs(), command.out / "tuning"
    cells = [cell for system in command.systems for cell in tuning_cells(costs, system)]
    todo = missing(cells, results)[: command.limit]
    fill(todo, results, command.data, jobs=command.jobs, on_cell=_say_cell)
    (command.out / "tuning.md").write_text(tuning_tables(read_results(results)), encoding="utf-8")
    console.print(f"Tables: {command.out / 'tuning.md'}")


def _say_cell(cell: Cell, seconds: float) -> None:
    console.print(f"{cell.name}: {seconds:.0f} s", highlight=False)


def _say_cost(system: str, row: dict[str, Any]) -> None:
    low, high = row["range"]
    milliseconds = f"{1000 * row['seconds_per_batch']:.0f} ms [{1000 * low:.0f}, {1000 * high:.0f}]"
    console.print(f"{system}: {milliseconds} a step of {row['samples_per_batch']:.0f} samples")
