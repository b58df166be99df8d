"""The report's plots: training curves, and the sentences of a few twins in the plane."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from ent_bc.statistics import Sentences

_PANELS = {
    "Losses": (
        "bc/loss",
        "bc/query_loss",
        "bc/support_loss",
        "bc/embedding_loss",
        "bc/attention_loss",
    ),
    "Retrieval within a training batch": ("bc/embedding_accuracy", "bc/twin_accuracy"),
    "Entropy of the policy": ("bc/entropy",),
    "Mean sigma": ("bc/mean_sigma",),
    "Norm of the gradient": ("bc/gradient_norm",),
    "Learning rate": ("bc/learning_rate",),
}
_LOGARITHMIC = ("Losses",)
_TONES = colormaps["tab20"]


def read_curves(path: Path) -> dict[str, np.ndarray]:
    """The columns of a training log with numbers in them; what is not there is NaN.

    Args:
        path: CSV as Stable-Baselines3's and imitation's loggers write it.

    Returns:
        Arrays of equal length by column; empty where nothing was logged.
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    curves = {}
    for key in rows[0] if rows else ():
        values = np.array([_number(row[key]) for row in rows])
        if np.isfinite(values).any():
            curves[key] = values
    return curves


def plot_curves(curves: Mapping[str, np.ndarray], path: Path) -> None:
    """Draws `_PANELS` of a training log, over optimiser steps, to a PNG file."""
    panels = {title: [c for c in columns if c in curves] for title, columns in _PANELS.items()}
    panels = {title: columns for title, columns in panels.items() if columns}
    n_rows = max(1, math.ceil(len(panels) / 3))
    figure = Figure(figsize=(12, 2.9 * n_rows), layout="constrained")
    n_points = len(next(iter(curves.values())))
    steps = curves.get("time/steps", np.arange(n_points))
    for place, (title, columns) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(n_rows, 3, place)
        for column in columns:
            known = np.isfinite(curves[column])  # one point alone makes no line: mark it
            label = column.partition("/")[2].replace("_", " ")
            marker = "o" if known.sum() == 1 else None
            axes.plot(steps[known], curves[column][known], label=label, lw=1.4, marker=marker)
        positive = all(np.nanmin(curves[column]) > 0 for column in columns)
        if title in _LOGARITHMIC and positive:
            axes.set_yscale("log")
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("optimiser step", fontsize=9)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if len(columns) > 1:
            axes.legend(fontsize=8, frameon=False)
    save_figure(figure, path)


def plot_embedding(sentences: Sentences, path: Path, *, n_pairs: int = 10) -> None:
    """Draws the sentences of some pairs' tasks in two dimensions (PCA) to a PNG file.

    A pair has one hue; twins are its dark and its light tone, linked by a line.
    """
    pairs = list(dict.fromkeys(sentences.pair_ids))[:n_pairs]
    chosen = np.isin(sentences.pair_ids, pairs)
    vectors = np.asarray(sentences.vectors, np.float64)[chosen]
    task_ids = np.asarray(sentences.task_ids)[chosen]
    pair_ids = np.asarray(sentences.pair_ids)[chosen]
    centred = vectors - vectors.mean(axis=0)
    _, scales, axes_of_space = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes_of_space[:2].T
    explained = scales**2 / max(float((scales**2).sum()), 1e-12)
    figure = Figure(figsize=(7.5, 5.6), layout="constrained")
    axes = figure.add_subplot()
    for index, pair in enumerate(pairs):
        tasks = sorted(set(task_ids[pair_ids == pair]))
        middles = np.stack([flat[task_ids == task].mean(axis=0) for task in tasks])
        axes.plot(*middles.T, color=_TONES(2 * index % 20), lw=0.8, alpha=0.6, zorder=1)
        for tone, task in enumerate(tasks):
            points = flat[task_ids == task]
            colour = _TONES((2 * index + tone % 2) % 20)
            marker = "os"[tone % 2]
            axes.scatter(points[:, 0], points[:, 1], s=34, color=colour, marker=marker, label=task)
    axes.set_xlabel(f"first component ({100 * explained[0]:.0f}% of the variance)")
    axes.set_ylabel(f"second component ({100 * explained[1]:.0f}%)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """A PNG, whole or not at all."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    figure.savefig(temporary, dpi=110, format="png")
    os.replace(temporary, path)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
