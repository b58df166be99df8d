"""Draws figure 3 and what it hides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from ent_bc.benchmark.figure3_curves import Curves, happened
from ent_bc.benchmark.results import LETTERS
from ent_bc.plots import save_figure

_COLOURS = colormaps["tab10"]
_PAPERS = ("ent-bc", "original")


def plot_figure3(curves: Mapping[str, Curves], path: Path) -> None:
    """The paper's figure 3, entropy above embedding accuracy; beside it the other readings.

    Lines are means over seeds, shades their range; dashed is the accuracy in training batches.
    """
    columns = {
        "The paper's two algorithms": [name for name in curves if name in _PAPERS],
        "Other readings of the paper": [name for name in curves if name not in _PAPERS],
    }
    columns = {title: names for title, names in columns.items() if names}
    figure = Figure(figsize=(1.5 + 4.5 * len(columns), 6.4), layout="constrained")
    grid = figure.subplots(2, len(columns), sharex=True, sharey="row", squeeze=False)
    for (title, names), (above, below) in zip(columns.items(), grid.T, strict=True):
        for name in names:
            some, colour = curves[name], _COLOURS(list(curves).index(name))
            _band(above, some.steps, some.entropy, color=colour, label=name)
            held_out = 100 * some.embedding_accuracy.mean(axis=2)
            _band(below, some.steps, held_out, color=colour, label=f"{name}, held-out")
            batch = 100 * some.batch_accuracy
            _band(below, some.steps, batch, color=colour, label=f"{name}, training", ls="--")
        _finish(above, title, "entropy of the policy [nats]")
        _finish(below, "", "embedding accuracy [%]")
        below.set_xlabel("optimiser step")
    save_figure(figure, path)


def plot_hidden(curves: Mapping[str, Curves], path: Path) -> None:
    """For each variant how well sentences tell tasks apart, above what its policy then does."""
    figure = Figure(figsize=(1 + 3.6 * len(curves), 6.4), layout="constrained")
    grid = figure.subplots(2, len(curves), sharex=True, sharey=True, squeeze=False)
    for (name, some), (above, below) in zip(curves.items(), grid.T, strict=True):
        accuracies = {"embedding": some.embedding_accuracy, "twin": some.twin_accuracy}
        for place, (label, values) in enumerate(accuracies.items()):
            _band(above, some.steps, 100 * values.mean(axis=2), color=_COLOURS(place), label=label)
        rates = {label: happened(some.trials["own"], key) for label, key in LETTERS.items()}
        rates["twin control"] = happened(some.trials["twin"], "ob")
        for place, (label, hits) in enumerate(rates.items(), start=2):
            style = {"color": _COLOURS(place), "label": label, "marker": "o", "ms": 3}
            _band(below, some.trial_steps, 100 * hits.mean(axis=2), **style)
        _finish(above, name, "accuracy of the sentence [%]")
        _finish(below, "", "trials, mean action [%]")
        below.set_xlabel("optimiser step")
    grid[0, 0].set_ylim(-3, 103)
    save_figure(figure, path)


def _band(axes: Any, steps: np.ndarray, values: np.ndarray, *, color: Any, **style: Any) -> None:
    """The mean over seeds and their range, of (S, P)."""
    axes.plot(steps, values.mean(axis=0), color=color, lw=1.4, **style)
    axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.18, lw=0)


def _finish(axes: Any, title: str, y_label: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_ylabel(y_label if axes.get_subplotspec().is_first_col() else "", fontsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
