"""How fast the whole is beside its peers and its limits: ``ent-bc benchmark speed``.

A program, not library code: it knows the environment by name. Each group of rows is measured in a
process of its own, so that threads, affinity and OpenGL of one do not touch another.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rich.table import Table

from ent_bc.speed.rows import Row

GROUPS = ("simulation", "pictures", "experts", "training", "prediction", "quickstart")
"""Modules beside this one, each with ``measure(*, quick: bool) -> list[Row]``."""


def measure(groups: Sequence[str] = GROUPS, *, quick: bool = False) -> Iterator[Row]:
    """Measures groups of rows, one after the other.

    Args:
        groups: Of `GROUPS`.
        quick: A repetition or two of very little: shows that it runs, not how fast.

    Raises:
        ValueError: A group that there is not.
    """
    unknown = set(groups) - set(GROUPS)
    if unknown:
        raise ValueError(f"Unknown groups {sorted(unknown)}: expected some of {[*GROUPS]}.")
    for group in groups:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            yield from pool.submit(_measure_group, group, quick).result()


def _measure_group(group: str, quick: bool) -> list[Row]:
    module = importlib.import_module(f"ent_bc.speed.{group}")
    rows: list[Row] = module.measure(quick=quick)
    return rows


def write_json(path: Path, rows: Sequence[Row]) -> None:
    """Writes all figures to a file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps([row.to_json() for row in rows], indent=1))
    os.replace(temporary, path)


def terminal_table(rows: Sequence[Row]) -> Table:
    """The rows as a table: medians, the ratio with its range, and what was asked."""
    table = Table("what", "against", "ours", "theirs", "ratio", "range", "n", "asked")
    for row in rows:
        low, high = min(row.ratios), max(row.ratios)
        asked = "" if row.at_least is None else f">= {row.at_least:g}"
        asked = asked if row.at_most is None else f"<= {row.at_most:g}"
        colour = {None: "", True: "[green]", False: "[red]"}[row.is_met]
        table.add_row(
            row.name,
            row.against,
            f"{statistics.median(row.ours):,.4g} {row.unit}",
            f"{statistics.median(row.theirs):,.4g}",
            f"{colour}{row.ratio:.3g}",
            f"{low:.3g} - {high:.3g}",
            str(len(row.ours)),
            asked,
        )
    return table
