"""Which cells the benchmark has, in the order in which they are run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from ent_bc.benchmark import systems
from ent_bc.benchmark.cells import Cell
from ent_bc.losses import ControlLoss
from ent_bc.presets import PRESETS

GROUPS = ("systems", "ingredients", "entropy", "data", "modern", "sizes")
"""In order; the first four are the core."""
SYSTEMS = ("ours", "tecnets", "mil", "lstm", "contextual", "bc", "bc_sentence", "oracle")
MODERN = ("duan", "dagger", "mixture", "chunks")
SECONDS = 480
"""Budget of wall-clock, of one core."""
N_SAMPLES = 512_000
"""Budget of samples, pairs of observation and action."""
ENT_WEIGHTS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
N_STATE_BATCHES = 3000
DATA_SIZES = (50, 100, 200, 400)
INGREDIENTS: dict[str, dict[str, Any]] = {
    "without twins": {"twins": False, "demos_per_task": 16},
    "without attention": {
        "options": {"policy_kwargs": {"architecture": "tiled"}, "losses": {"attention_weight": 0.0}}
    },
    "without hindsight cross-entropy": {"options": {"losses": {"attention_weight": 0.0}}},
    "without margin loss": {"options": {"losses": {"embedding_weight": 0.0}}},
    "without noise in demonstrations": {"noise": 0.0},
    "a quarter of the looks": {"n_tasks": 174, "demos_per_task": 32},
    "nll, sigma at least 0.1": {
        "options": {"policy_kwargs": {"min_sigma": 0.1}, "losses": {"control_loss": "nll"}}
    },
}
"""What is switched off or changed, each alone; all else, the number of steps too, is ours'."""
COSTS = Path(__file__).with_name("costs.json")
"""Beside the code, for it belongs to it: `costs` writes it into a checkout, to be committed."""


def read_costs() -> dict[str, Any]:
    """What a step of each system costs on one core, measured side by side; see `costs`.

    Raises:
        FileNotFoundError: It was not measured.
    """
    if not COSTS.exists():
        raise FileNotFoundError(
            f"There is no {COSTS}, expected what a step of each system costs: "
            "run `ent-bc benchmark costs`."
        )
    costs: dict[str, Any] = json.loads(COSTS.read_text("utf-8"))["systems"]
    return costs


def cost_of(costs: Mapping[str, Any], system: str, batch_size: int) -> Mapping[str, float]:
    """A system's part of `read_costs`, in proportion for batches of another size.

    DAgger goes on with ours as it is after all of its time: that is what its steps cost.

    Raises:
        ValueError: There is none.
    """
    system = "ours" if system == "dagger" else system
    if system not in costs:
        raise ValueError(
            f"There are no costs of {system!r}, only of {sorted(costs)}: "
            "run `ent-bc benchmark costs`."
        )
    measured = costs[system]
    share = batch_size / measured["batch_size"]
    return {name: share * measured[name] for name in ("seconds_per_batch", "samples_per_batch")}


def plan(costs: Mapping[str, Any], groups: tuple[str, ...] = GROUPS) -> list[Cell]:
    """All cells of some groups.

    Args:
        costs: Of each system "seconds_per_batch", "samples_per_batch", and the "batch_size" with
            which these were measured.
        groups: Of `GROUPS`.

    Raises:
        ValueError: A group that there is not, or a system without costs.
    """
    unknown = set(groups) - set(GROUPS)
    if unknown:
        raise ValueError(f"Unknown groups {sorted(unknown)}: expected some of {[*GROUPS]}.")
    makers = {
        "systems": _systems,
        "ingredients": _ingredients,
        "entropy": _entropy,
        "data": _data,
        "modern": _modern,
        "sizes": _sizes,
    }
    cells = [cell for group in GROUPS if group in groups for cell in makers[group](costs)]
    return [systems.resolved(cell) for cell in cells]


def _systems(costs: Mapping[str, Any]) -> Iterator[Cell]:
    for budget in ("wall-clock", "samples"):
        for seed in range(3):
            for system in SYSTEMS:
                yield _cell("systems", system, budget, costs, seed)


def _modern(costs: Mapping[str, Any]) -> Iterator[Cell]:
    for system in MODERN:
        yield _cell("modern", system, "wall-clock", costs, 0)


def _cell(group: str, system: str, budget: str, costs: Mapping[str, Any], seed: int) -> Cell:
    cost = cost_of(costs, system, systems.SYSTEMS[system].settings["batch_size"])
    if budget == "wall-clock":
        n_batches = math.floor(SECONDS / cost["seconds_per_batch"])
    else:
        n_batches = round(N_SAMPLES / cost["samples_per_batch"])
    n_5shot = 2 if budget == "wall-clock" else 0
    return Cell(
        group=group,
        system=system,
        budget=budget,
        n_batches=n_batches,
        trials_per_task_5shot=n_5shot,
        seed=seed,
    )


def _ours(costs: Mapping[str, Any]) -> Cell:
    return _cell("systems", "ours", "wall-clock", costs, 0)


def _ingredients(costs: Mapping[str, Any]) -> Iterator[Cell]:
    base = dataclasses.replace(_ours(costs), group="ingredients", trials_per_task_5shot=0)
    for seed in range(2):
        for variant, changes in INGREDIENTS.items():
            yield dataclasses.replace(base, variant=variant, seed=seed, **changes)
    # Whether the paper's net comes to use the sentence if it is trained for longer, or on more.
    paper = _cell("ingredients", "tecnets", "wall-clock", costs, 0)
    n_batches = 4 * paper.n_batches
    longer = dataclasses.replace(paper, n_batches=n_batches, trials_per_task_5shot=0)
    yield dataclasses.replace(longer, variant="four times as long")
    yield dataclasses.replace(longer, variant="four times as long, 4,000 tasks", n_tasks=4000)


def _entropy(_: Mapping[str, Any]) -> Iterator[Cell]:
    """On state observations: an answer takes minutes there, and pixels change nothing in it."""
    for control_loss in get_args(ControlLoss):
        for ent_weight in ENT_WEIGHTS:
            yield Cell(
                group="entropy",
                system="ours",
                variant=f"{control_loss}, {ent_weight:g}",
                options={
                    "ent_weight": ent_weight,
                    "learning_rate": PRESETS["state"].learning_rate,  # ours' is tuned on pixels
                    "losses": {"control_loss": control_loss},
                },
                budget="samples",
                n_batches=N_STATE_BATCHES,
                obs_type="state",
            )


def _data(costs: Mapping[str, Any]) -> Iterator[Cell]:
    base = dataclasses.replace(_ours(costs), group="data", trials_per_task_5shot=0)
    for n_tasks in DATA_SIZES:
        yield dataclasses.replace(base, variant=f"{n_tasks} tasks", n_tasks=n_tasks)


def _sizes(costs: Mapping[str, Any]) -> Iterator[Cell]:
    base = dataclasses.replace(_ours(costs), group="sizes", trials_per_task_5shot=0)
    for n_tasks in (2000, 4000):
        yield dataclasses.replace(base, variant=f"{n_tasks} tasks", n_tasks=n_tasks)
    for image_size in (64, 125):
        yield dataclasses.replace(base, variant=f"{image_size} pixels", image_size=image_size)
    for n_frames in (4, 16):
        variant = f"{n_frames} frames of each demonstration"
        yield dataclasses.replace(base, variant=variant, frames_per_demo=n_frames)
    for margin in (0.05, 0.2, 0.5):
        options = {"losses": {"margin": margin}}
        yield dataclasses.replace(base, variant=f"margin {margin}", options=options)
