"""Fine-tunes under-trained models with PPO and reports success before and after, on the test split.

    python benchmarks/fine_tuning.py --out runs/fine_tuning

A run that was stopped goes on: data, models and trials that are there are not made again.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from ent_bc import EntBC
from ent_bc.cli import (
    Evaluate,
    Train,
    collect_demonstrations,
    console,
    demonstrations_for,
    evaluate,
    train,
)
from ent_bc.fine_tuning import FineTuneConfig, ProgressReward, fine_tune
from ent_bc.vec_env import VectorEnvAdapter
from meta_pusher_env import make_vec
from meta_pusher_env.datasets import DemonstrationSet

MEASURES = {"shown": "shown", "strict": "strict", "wrong object": "wrong_object"}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is trained, fine-tuned and evaluated."""

    out: Path
    """Directory for data, models and reports."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the trainings and of PPO."""
    n_batches: int = 150
    """Optimiser steps of behavioural cloning: too few."""
    n_envs: int = 128
    """Environments that PPO steps together."""
    ppo: tyro.conf.OmitArgPrefixes[FineTuneConfig] = FineTuneConfig()
    """How PPO is run."""
    n_trials: int = 6
    """Trials of each test task."""


def main() -> None:
    """Entry point."""
    command = tyro.cli(Benchmark, description=__doc__)
    data = command.out / "demonstrations"
    collect_demonstrations(data, demonstrations_for("state", 694, 8))
    for seed in command.seeds:
        folder = command.out / f"seed-{seed}"
        before = train(Train(data, folder / "before", "state", command.n_batches, seed))
        after = folder / "after" / "model.safetensors"
        if not after.exists():
            model = EntBC.load(before, device="cpu")
            venv = ProgressReward(VectorEnvAdapter(make_vec(command.n_envs)))
            fine_tune(model, venv, command.ppo, demonstrations=DemonstrationSet(data), seed=seed)
            venv.close()
            after.parent.mkdir(exist_ok=True)
            model.save(after)
        for name, path in {"before": before, "after": after}.items():
            results = evaluate(
                Evaluate(
                    path,
                    path.parent / "report",
                    n_trials=command.n_trials,
                    conditions=("own_1shot", "twin"),
                )
            )
            console.print(f"seed {seed}, {name}: {_told(results)}", highlight=False)


def _told(results: dict[str, Any]) -> str:
    """The measures with their intervals."""
    own, twin = (results["conditions"][name] for name in ("own_1shot", "twin"))
    rates = {name: own[measure] for name, measure in MEASURES.items()}
    rates["twin control"] = twin["other"]
    return ", ".join(
        f"{name} {100 * r['value']:.1f} [{100 * r['low']:.1f}, {100 * r['high']:.1f}] (n {r['n']})"
        for name, r in rates.items()
    )


if __name__ == "__main__":
    main()
