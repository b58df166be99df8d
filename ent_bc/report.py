"""From trials to what is read: results.json, trials.csv, plots, one HTML file, a terminal table."""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import importlib.metadata
import io
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from rich.table import Table

from ent_bc.evaluation import Trial
from ent_bc.plots import plot_curves, plot_embedding, read_curves
from ent_bc.statistics import (
    FAILURES,
    N_RESAMPLES,
    Rate,
    Sentences,
    by_quartile,
    embedding_metrics,
    summarise,
)
from ent_bc.storage import flatten

Results = dict[str, Any]
FORMAT_VERSION = 1
COLUMNS = ("shown", "other", "shown_only", "other_only", "both", "neither", "strict")
TERMINAL_COLUMNS = ("shown", "other", "other_only", "both", "neither", "strict")
_BAR = (("shown_only", "shown"), ("both", "both"), ("other_only", "other"), ("neither", "neither"))
_TERMINAL_CAPTION = (
    "Second line: 95% interval, bootstrap over pairs. Named by the environment's\n"
    "task: with the twin's demonstration, “other” is what was demonstrated."
)
_UNDER = {
    "Video": "Left what the policy is shown, right what it does from one and the same start. Above "
    "the task's own demonstration, below its twin's: the arm should push the other object.",
    "Training": "By optimiser step; retrieval among the tasks of a training batch.",
    "Sentences": "Each mark is the sentence of one demonstration of an evaluated task, in the two "
    "directions in which they differ most. Circle and square of one hue are twins, linked.",
}
_PACKAGES = ("torch", "stable-baselines3", "imitation", "gymnasium", "mujoco", "numpy")


def write_report(
    directory: Path,
    conditions: Mapping[str, Sequence[Trial]],
    config: Any,
    *,
    curves_csv: Path | None = None,
    sentences: Sentences | None = None,
    pair_distance: Mapping[str, float] | None = None,
    video: Path | None = None,
    commands: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
) -> Results:
    """Writes results.json, trials.csv, curves.png, embedding.png and report.html.

    Args:
        directory: Where to; made if need be. Each file appears whole or not at all.
        conditions: Trials by condition, in the order to show. Names that begin with "twin" had the
            twin's demonstration; the first one is the headline.
        config: Dataclass or mapping of what was run.
        curves_csv: The training log, ``progress.csv`` of `EntBC`'s logger.
        sentences: Of the evaluated tasks; see `embed_tasks`.
        pair_distance: Likeness of the pairs; see `pair_distances`.
        video: MP4 or GIF to put in.
        commands: What to type to get this again.
        extra: Anything else worth a line, such as minutes of training.

    Returns:
        The results, as in results.json.

    Raises:
        ValueError: There are no conditions, or one has no trials.
    """
    results = make_results(
        conditions,
        config,
        sentences=sentences,
        pair_distance=pair_distance,
        commands=commands,
        extra=extra,
    )
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    _write_trials(directory / "trials.csv", conditions)
    pictures = {}
    if curves_csv is not None and (curves := read_curves(curves_csv)):
        pictures["Training"] = directory / "curves.png"
        plot_curves(curves, pictures["Training"])
    if sentences is not None:
        pictures["Sentences"] = directory / "embedding.png"
        plot_embedding(sentences, pictures["Sentences"])
    if video is not None:
        pictures = {"Video": video, **pictures}
    _write(directory / "report.html", render_html(results, pictures))
    return results


def make_results(
    conditions: Mapping[str, Sequence[Trial]],
    config: Any,
    *,
    sentences: Sentences | None = None,
    pair_distance: Mapping[str, float] | None = None,
    commands: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
) -> Results:
    """The plain record that results.json holds; arguments as in `write_report`."""
    if not conditions or not all(conditions.values()):
        raise ValueError(f"The conditions are {dict(conditions)!r}, expected trials in each.")
    return {
        "format_version": FORMAT_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": _plain(config),
        "conditions": {name: summarise(trials) for name, trials in conditions.items()},
        "quartiles": {
            name: by_quartile(trials, pair_distance) for name, trials in conditions.items()
        }
        if pair_distance
        else {},
        "embedding": None if sentences is None else embedding_metrics(sentences),
        "commands": list(commands),
        "extra": _plain(extra or {}),
        "versions": _versions(),
    }


def terminal_table(results: Results) -> Table:
    """The outcomes as a table for the terminal, 80 columns wide."""
    table = Table("condition", title="How trials ended, %", caption=_TERMINAL_CAPTION)
    table.add_column("n", justify="right")
    for column in TERMINAL_COLUMNS:
        table.add_column(column.replace("_", " "), justify="right")
    for name, summary in results["conditions"].items():
        rates = {column: Rate(**summary[column]) for column in TERMINAL_COLUMNS}
        cells = []
        for column, rate in rates.items():
            value = f"{100 * rate.value:.1f}"
            value = f"[bold]{value}[/bold]" if column == _key_column(name) else value
            cells.append(f"{value}\n[dim]{100 * rate.low:.0f}–{100 * rate.high:.0f}[/dim]")
        table.add_row(name, str(summary["n_trials"]), *cells)
    return table


def render_html(results: Results, pictures: Mapping[str, Path]) -> str:
    """The results as one self-contained page.

    Args:
        results: See `make_results`.
        pictures: PNG, GIF or MP4 files by headline; put in whole.
    """
    n_pairs = next(iter(results["conditions"].values()))["n_pairs"]
    created = results["created"][:16].replace("T", ", ")
    sections = [
        _section("Why trials failed", _failures(results)),
        _section("By likeness of the two objects", _quartiles(results)),
        *(_section(name, _picture(path) + _under(name)) for name, path in pictures.items()),
        _section("Commands", _typed(results["commands"])),
        _section("What was run", _facts({**results["extra"], **results["config"]})),
        _section("Versions", _facts(results["versions"])),
    ]
    template = resources.files("ent_bc").joinpath("report.html.in").read_text("utf-8")
    return Template(template).substitute(
        subtitle=html.escape(f"{n_pairs} pairs of objects; {created} UTC"),
        cards=_cards(results),
        outcomes=_outcomes(results),
        sections="\n".join(sections),
        n_resamples=f"{N_RESAMPLES:,}",
    )


def _key_column(condition: str) -> str:
    """Which column says that the arm did what it was shown."""
    return "other" if condition.startswith("twin") else "shown"


def _cards(results: Results) -> str:
    """The few numbers that matter most."""
    conditions = results["conditions"]
    headline = next(iter(conditions))
    twin = next((name for name in conditions if name.startswith("twin")), None)
    numbers = [
        ("shown object at the goal", headline, conditions[headline]["shown"]),
        ("both objects at the goal", headline, conditions[headline]["both"]),
        ("strict", headline, conditions[headline]["strict"]),
    ]
    if twin is not None:
        numbers.append(("twin control holds", twin, conditions[twin]["other"]))
    embedding = results["embedding"]
    if embedding is not None:
        chance = f"chance {100 * embedding['embedding_chance']:.1f}%"
        numbers.append(("embedding accuracy", chance, embedding["embedding_accuracy"]))
        if embedding["twin_accuracy"] is not None:
            numbers.append(("twin accuracy", "chance 50%", embedding["twin_accuracy"]))
    return "".join(
        f'<div class="card"><span>{label}</span><b>{Rate(**record).percent}</b>'
        f"<small>{Rate(**record).interval}, n={record['n']} &middot; {html.escape(source)}"
        "</small></div>"
        for label, source, record in numbers
    )


def _outcomes(results: Results) -> str:
    head = ["condition", "", "trials", *(column.replace("_", " ") for column in COLUMNS)]
    rows = []
    for name, summary in results["conditions"].items():
        parts = "".join(
            f'<i class="{style}" style="width:{100 * summary[key]["value"]:.2f}%"></i>'
            for key, style in _BAR
        )
        cells = [f"<td>{html.escape(name)}</td>", f'<td><div class="bar">{parts}</div></td>']
        cells.append(f"<td>{summary['n_trials']}</td>")
        key = _key_column(name)
        cells += [_cell(summary[column], key=column == key) for column in COLUMNS]
        rows.append("".join(cells))
    return _table(head, rows)


def _failures(results: Results) -> str:
    """Counts and rates; not where another task was demonstrated, for there failing is right."""
    rows = []
    for name, summary in results["conditions"].items():
        if not name.startswith(("twin", "shuffled")):
            cells = [f"<td>{html.escape(name)}</td>", f"<td>{summary['n_trials']}</td>"]
            cells += [_cell(summary["failures"][kind], count=True) for kind in FAILURES]
            rows.append("".join(cells))
    return _table(["condition", "trials", *FAILURES], rows)


def _quartiles(results: Results) -> str:
    """Empty where the likeness was not measured."""
    rows = []
    for condition, quarters in results["quartiles"].items():
        key = _key_column(condition)
        cells = "".join(_cell(quarter[key], n=True) for quarter in quarters)
        rows.append(f"<td>{html.escape(condition)}: {key}</td>{cells}")
    if not rows:
        return ""
    quarters = next(iter(results["quartiles"].values()))
    head = [f"{low:.3f} to {high:.3f}" for low, high in (q["distance"] for q in quarters)]
    head[0], head[-1] = f"most alike<br>{head[0]}", f"least alike<br>{head[-1]}"
    return _table(["condition", *head], rows)


def _cell(
    record: Mapping[str, Any], *, key: bool = False, n: bool = False, count: bool = False
) -> str:
    """A rate with its interval; Wilson's and n show when it is pointed at."""
    rate = Rate(**record)
    wilson = f"Wilson [{100 * rate.wilson_low:.1f}, {100 * rate.wilson_high:.1f}], n={rate.n}"
    number = f"{round(rate.value * rate.n)}: {rate.percent}" if count else rate.percent
    below = f"{rate.interval}, n={rate.n}" if n else rate.interval
    style = ' class="key"' if key else ""
    return f'<td{style} title="{wilson}">{number}<small>{below}</small></td>'


def _table(head: Iterable[str], rows: Iterable[str]) -> str:
    """A table from headings and rows of ready cells."""
    headings = "".join(f"<th>{heading}</th>" for heading in head)
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return f"<table><thead><tr>{headings}</tr></thead>\n<tbody>{body}</tbody></table>"


def _section(headline: str, body: str) -> str:
    return f"<section>\n<h2>{html.escape(headline)}</h2>\n{body}\n</section>" if body else ""


def _facts(record: Mapping[str, Any]) -> str:
    """A plain table of names and values; nested records get dotted names."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>"
        for name, value in flatten(record)
    )
    return f'<table class="plain">{rows}</table>'


def _picture(path: Path) -> str:
    """The file itself, as a data URI: the page needs nothing beside it."""
    kind = {".mp4": "video/mp4", ".gif": "image/gif", ".png": "image/png"}[path.suffix]
    data = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    if kind == "video/mp4":
        return f'<video src="{data}" controls autoplay muted loop playsinline></video>'
    return f'<img src="{data}" alt="{html.escape(path.stem)}">'


def _typed(commands: Sequence[str]) -> str:
    return f"<pre>{html.escape(chr(10).join(commands))}</pre>" if commands else ""


def _under(name: str) -> str:
    text = _UNDER.get(name, "")
    return f'<p class="soft under">{html.escape(text)}</p>' if text else ""


def _write_trials(path: Path, conditions: Mapping[str, Sequence[Trial]]) -> None:
    """One line for each trial."""
    fields = [field.name for field in dataclasses.fields(Trial)]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["condition", "outcome", "failure", *fields])
    for name, trials in conditions.items():
        for trial in trials:
            values = [getattr(trial, field) for field in fields]
            writer.writerow([name, trial.outcome, trial.failure or "", *values])
    _write(path, text.getvalue())


def _write(path: Path, content: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(content, "utf-8")
    os.replace(temporary, path)


def _plain(value: Any) -> Any:
    """JSON-ready: dataclasses, paths and numpy's numbers too; what is not finite becomes None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "machine": platform.platform()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
