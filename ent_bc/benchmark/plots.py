"""The benchmark's plots, from result files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from ent_bc.benchmark.estimates import Estimate
from ent_bc.benchmark.results import Result
from ent_bc.benchmark.rows import (
    Row,
    by_shown,
    entropy_of,
    find,
    group,
    label,
    quartiles_of,
    rows_of,
    with_reference,
)
from ent_bc.plots import save_figure

_MEASURES = {
    "shown": ("own_1shot", "shown"),
    "strict": ("own_1shot", "strict"),
    "twin control": ("twin", "other"),
}
_TONES = colormaps["tab10"]
_MARKS = "osD^vP*X<>"


def draw_plots(
    results: Sequence[Result],
    planned: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    pair_distance: Mapping[str, float] | None = None,
) -> list[Path]:
    """Draws every plot that there are results for.

    Args:
        results: What was run; what is not planned is left out.
        planned: Every cell that the benchmark has, as `Result.cell`.
        folder: Made where it is not there.
        pair_distance: By pair, as `statistics.pair_distances`; None for no plot by look-alikes.

    Returns:
        The PNG files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows_of(results, planned)
    systems = by_shown(group(rows, "systems", "wall-clock"))
    ours = find(systems, "ours")
    ingredients = with_reference(by_shown(group(rows, "ingredients")), ours)
    sizes = with_reference(group(rows, "data"), ours)
    grid = group(rows, "entropy")
    plots = {
        "systems": (systems, lambda path: plot_systems(systems, path)),
        "look_alikes": (
            systems if pair_distance else [],
            lambda path: plot_quartiles(systems, pair_distance or {}, path),
        ),
        "ingredients": (ingredients, lambda path: plot_systems(ingredients, path)),
        "data_size": (sizes, lambda path: plot_data_size(sizes, path)),
        "entropy": (grid, lambda path: plot_entropy(grid, path)),
    }
    drawn = []
    for name, (some, draw) in plots.items():
        if some:
            drawn.append(folder / f"{name}.png")
            draw(drawn[-1])
    return drawn


def plot_systems(rows: Sequence[Row], path: Path) -> None:
    """Shown, strict and twin control of each row, the first on top; seeds as small dots."""
    figure = Figure(figsize=(8, 1.2 + 0.55 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    places = -np.arange(len(rows), dtype=float)
    for index, (name, asked) in enumerate(_MEASURES.items()):
        heights, tone = places + 0.24 * (1 - index), _TONES(index)
        found = [row.estimate(*asked) for row in rows]
        _error_bars(axes, found, heights, upright=False, color=tone, fmt=_MARKS[index], label=name)
        for one, height in zip(found, heights, strict=True):
            if one is not None and len(one.seed_values) > 1:
                seeds = 100 * np.array(one.seed_values)
                axes.plot(seeds, [height - 0.1] * len(seeds), ".", color=tone, ms=4)
    for border in places[1:] + 0.5:
        axes.axhline(border, color="black", lw=0.5, alpha=0.15)
    axes.set_yticks(places, [label(row.cell) for row in rows])
    axes.set_ylim(places[-1] - 0.5, 0.5)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("trials, % (95% intervals; small dots: seeds)", fontsize=9)
    _finish(figure, axes, path)


def plot_quartiles(rows: Sequence[Row], pair_distance: Mapping[str, float], path: Path) -> None:
    """Shown of each row by quarters of the pairs, from the most alike to the least."""
    parts = quartiles_of(rows, pair_distance)
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.add_subplot()
    shifts = np.linspace(-0.3, 0.3, len(rows)) if len(rows) > 1 else np.zeros(1)
    for index, row in enumerate(rows):
        found = [row.estimate("own_1shot", "shown", pairs=part) for part in parts]
        places = np.arange(len(parts)) + shifts[index]
        look: dict[str, Any] = {
            "color": _TONES(index % 10),
            "fmt": _MARKS[index % len(_MARKS)] + "-",
        }
        _error_bars(axes, found, places, label=label(row.cell), **look)
    names = [f"{pair_distance[p[0]]:.3f} to {pair_distance[p[-1]]:.3f}" for p in parts]
    axes.set_xticks(range(len(parts)), names)
    axes.set_xlim(-0.5, len(parts) - 0.5)
    for border in range(1, len(parts)):
        axes.axvline(border - 0.5, color="black", lw=0.5, alpha=0.3)
    axes.set_xlabel("distance of looks: a quarter of the pairs each, the most alike on the left")
    axes.set_ylabel("shown, %")
    axes.set_ylim(-2, 102)
    _finish(figure, axes, path)


def plot_data_size(rows: Sequence[Row], path: Path) -> None:
    """Shown and strict over the number of training tasks."""
    rows = sorted(rows, key=lambda row: int(row.cell["n_tasks"]))
    sizes = np.array([float(row.cell["n_tasks"]) for row in rows])
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    for index, name in enumerate(("shown", "strict")):
        found = [row.estimate(*_MEASURES[name]) for row in rows]
        places = sizes * (1.0, 1.02)[index]  # beside each other, for bars do not show through
        _error_bars(axes, found, places, color=_TONES(index), fmt=_MARKS[index] + "-", label=name)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("training tasks")
    axes.set_ylabel("trials, %")
    axes.set_ylim(-2, 102)
    _finish(figure, axes, path)


def plot_entropy(rows: Sequence[Row], path: Path) -> None:
    """Shown, and the entropy where it was measured, over the entropy's weight."""
    found = {entropy_of(row): row for row in rows}
    weights = sorted({weight for weight, _ in found})
    losses = list(dict.fromkeys(loss for _, loss in found))
    entropies = {key: row.mean("entropy") for key, row in found.items()}
    n_panels = 2 if any(entropy is not None for entropy in entropies.values()) else 1
    figure = Figure(figsize=(1.5 + 5 * n_panels, 4), layout="constrained")
    panels = [figure.add_subplot(1, n_panels, 1 + place) for place in range(n_panels)]
    shifts = np.linspace(-0.15, 0.15, len(losses)) if len(losses) > 1 else np.zeros(1)
    for index, loss in enumerate(losses):
        known = [place for place, weight in enumerate(weights) if (weight, loss) in found]
        look: dict[str, Any] = {"color": _TONES(index), "fmt": _MARKS[index] + "-"}
        keys = [(weights[place], loss) for place in known]
        places = np.array(known) + shifts[index]
        _error_bars(panels[0], [found[key].shown for key in keys], places, label=loss, **look)
        if n_panels == 2:
            values = np.array([entropies[key] for key in keys], dtype=float)  # None becomes NaN
            panels[1].errorbar(places, values, lw=1.2, ms=5, **look)
    panels[0].set_ylabel("shown, %")
    least = min(row.shown.low for row in rows)
    panels[0].set_ylim(max(-2, 10 * np.floor(10 * least)), 100.5)  # 0 is far: they differ by little
    if n_panels == 2:
        panels[1].set_ylabel("entropy of the policy, nats")
    for axes in panels:
        axes.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
        axes.set_xlabel("ent_weight")
        _plain(axes)
    _finish(figure, panels[0], path)


def _error_bars(
    axes: Any,
    found: Sequence[Estimate | None],
    places: np.ndarray,
    *,
    upright: bool = True,
    **look: Any,
) -> None:
    """Points with their intervals, in per cent; what was not run is left out."""
    known = [(one, place) for one, place in zip(found, places, strict=True) if one is not None]
    values = 100 * np.array([one.value for one, _ in known])
    ends = 100 * np.array([(one.value - one.low, one.high - one.value) for one, _ in known])
    bars = np.maximum(0, ends.reshape(-1, 2).T)
    at = [place for _, place in known]
    look = {"lw": 1.2, "ms": 5, "capsize": 2, **look}
    if upright:
        axes.errorbar(at, values, yerr=bars, **look)
    else:
        axes.errorbar(values, at, xerr=bars, **look)


def _plain(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _finish(figure: Figure, axes: Any, path: Path) -> None:
    _plain(axes)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside right upper",
        fontsize=9,
        frameon=False,
    )
    save_figure(figure, path)
