"""Results by rows: a cell over its seeds is a row of a table, and a point of a plot."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ent_bc.benchmark.estimates import Estimate, difference, estimate
from ent_bc.benchmark.results import Condition, Result, cell_key

NAMES = {
    "ours": "EntBC (ours)",
    "tecnets": "TecNets",
    "mil": "MIL",
    "lstm": "LSTM",
    "contextual": "contextual net",
    "bc": "BC, no demonstration",
    "bc_sentence": "BC with the sentence",
    "oracle": "oracle, told the object",
    "duan": "attention over the demonstration",
    "dagger": "DAgger",
    "mixture": "mixture head",
    "chunks": "action chunks",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A cell's results over seeds: a row of a table, a point of a plot.

    Attributes:
        results: By seed, at least one.
    """

    results: tuple[Result, ...]

    @property
    def cell(self) -> dict[str, Any]:
        """The cell without its seed."""
        return without_seed(self.results[0].cell)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that were run."""
        return tuple(result.cell["seed"] for result in self.results)

    @property
    def shown(self) -> Estimate:
        """The share of trials that brought what was shown, after one demonstration."""
        found = self.estimate("own_1shot", "shown")
        assert found is not None  # every result has this condition
        return found

    @property
    def influence(self) -> Estimate | None:
        """How much oftener the other object goes after the twin's demonstration than after the own.

        0 is a policy that ignores the demonstration. None where the twin's was not shown.
        """
        own, twin = self.conditions("own_1shot"), self.conditions("twin")
        return difference(twin, own, "other") if own and twin else None

    def conditions(self, name: str) -> list[Condition] | None:
        """A condition of each seed; None where it was not run."""
        found = [result.conditions.get(name) for result in self.results]
        return [condition for condition in found if condition is not None] or None

    def estimate(
        self, condition: str, measure: str, *, pairs: Collection[str] | None = None
    ) -> Estimate | None:
        """A share of a condition's trials, of some pairs or of all; None where it was not run."""
        seeds = self.conditions(condition)
        if seeds is None:
            return None
        return estimate([s.of_pairs(pairs) if pairs else s for s in seeds], measure)

    def minus(self, other: Row, condition: str, measure: str) -> Estimate | None:
        """The difference to another row over the seeds that both have; None where it cannot be."""
        common = [seed for seed in self.seeds if seed in other.seeds]
        mine, others = (row.of_seeds(common).conditions(condition) for row in (self, other))
        if mine is None or others is None:
            return None
        return difference(mine, others, measure)

    def of_seeds(self, seeds: Collection[int]) -> Row:
        """The results of some seeds alone."""
        return Row(tuple(result for result in self.results if result.cell["seed"] in seeds))

    def mean(self, name: str) -> float | None:
        """The mean over seeds of a figure of training or embedding; None where it is not known."""
        values = [{**vars(r.training), **(r.embedding or {})}.get(name) for r in self.results]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None


def without_seed(cell: Any) -> dict[str, Any]:
    """What all seeds of a cell share."""
    return {key: value for key, value in cell.items() if key != "seed"}


def rows_of(results: Iterable[Result], planned: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The planned results, those that differ in the seed alone as one row; in their order.

    Args:
        results: What was run; what is not planned is left out.
        planned: Cells, as `Result.cell`.
    """
    keys = {cell_key(cell) for cell in planned}
    rows: dict[str, list[Result]] = {}
    for result in results:
        if cell_key(result.cell) in keys:
            rows.setdefault(cell_key(without_seed(result.cell)), []).append(result)
    return [Row(tuple(sorted(some, key=lambda r: r.cell["seed"]))) for some in rows.values()]


def group(rows: Sequence[Row], name: str, budget: str | None = None) -> list[Row]:
    """The rows of one group, and of one budget."""
    return [
        row for row in rows if row.cell["group"] == name and budget in (None, row.cell["budget"])
    ]


def by_shown(rows: Sequence[Row]) -> list[Row]:
    """The best first."""
    return sorted(rows, key=lambda row: -row.shown.value)


def find(rows: Sequence[Row], system: str) -> Row | None:
    """The first row of a system."""
    return next((row for row in rows if row.cell["system"] == system), None)


def with_reference(rows: Sequence[Row], ours: Row | None) -> list[Row]:
    """The rows with ours beside them; none where there are none."""
    return [*([ours] if ours else []), *rows] if rows else []


def label(cell: Mapping[str, Any]) -> str:
    """What readers call a cell, whatever its seed."""
    name = NAMES.get(cell["system"], cell["system"])
    return f"{name}, {cell['variant']}" if cell["variant"] else name


def quartiles_of(rows: Sequence[Row], pair_distance: Mapping[str, float]) -> list[list[str]]:
    """The pairs that were evaluated on, in four parts, the most alike first.

    Raises:
        ValueError: A pair has no distance.
    """
    pairs = sorted({p for row in rows for p in row.results[0].conditions["own_1shot"].pair_ids})
    unknown = [pair for pair in pairs if pair not in pair_distance]
    if unknown:
        raise ValueError(f"Expected a distance for each pair; there is none for {unknown[:5]}.")
    pairs.sort(key=lambda pair: pair_distance[pair])
    return [part.tolist() for part in np.array_split(np.array(pairs), min(4, len(pairs)))]


def entropy_of(row: Row) -> tuple[float, str]:
    """A row's weight of the entropy term and its control loss."""
    options = row.cell["options"]
    return float(options["ent_weight"]), str(options["losses"]["control_loss"])
