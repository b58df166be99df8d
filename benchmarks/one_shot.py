"""Trains some seeds of a preset and reports the median over them, on the test split.

    python benchmarks/one_shot.py --preset state --out runs/state

A run that was stopped goes on: data, models and trials that are there are not made again.
"""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import tyro

from ent_bc.cli import (
    Evaluate,
    PresetName,
    Train,
    collect_demonstrations,
    console,
    demonstrations_for,
    evaluate,
    train,
)

MEASURES = {
    "shown": ("own_1shot", "shown"),
    "both": ("own_1shot", "both"),
    "strict": ("own_1shot", "strict"),
    "wrong object": ("own_1shot", "wrong_object"),
    "twin control": ("twin", "other"),
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is trained and how it is evaluated."""

    out: Path
    """Directory for data, models and reports."""
    preset: PresetName = "state"
    """Settings of the training."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the trainings."""
    n_tasks: int = 694
    """Training tasks."""
    demos_per_task: int = 8
    """Demonstrations of each."""
    n_batches: int | None = None
    """Optimiser steps; by default the preset's."""
    conditions: tuple[str, ...] = ("own_1shot", "twin")
    """As `ent-bc evaluate` names them."""
    n_trials: int = 6
    """Trials of each test task."""


def main() -> None:
    """Entry point."""
    command = tyro.cli(Benchmark, description=__doc__)
    data = command.out / "demonstrations"
    config = demonstrations_for(command.preset, command.n_tasks, command.demos_per_task)
    collect_demonstrations(data, config)
    results: dict[int, dict[str, Any]] = {}
    for seed in command.seeds:
        folder = command.out / f"seed-{seed}"
        model = train(Train(data, folder, command.preset, command.n_batches, seed))
        results[seed] = evaluate(
            Evaluate(
                model,
                folder / "report",
                n_trials=command.n_trials,
                conditions=command.conditions,
            )
        )
    for name, (condition, measure) in MEASURES.items():
        rates = {seed: r["conditions"][condition][measure] for seed, r in results.items()}
        each = ", ".join(
            f"seed {seed}: {100 * r['value']:.1f} [{100 * r['low']:.1f}, {100 * r['high']:.1f}]"
            for seed, r in rates.items()
        )
        median = statistics.median(rate["value"] for rate in rates.values())
        n_trials = next(iter(rates.values()))["n"]
        console.print(f"{name}: median {100 * median:.1f}% (n = {n_trials} each; {each})")


if __name__ == "__main__":
    main()
