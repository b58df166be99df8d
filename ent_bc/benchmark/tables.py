"""The benchmark's tables, in Markdown, from result files alone; what was not run is listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ent_bc.benchmark.estimates import Estimate
from ent_bc.benchmark.results import Result, cell_key
from ent_bc.benchmark.rows import (
    NAMES,
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

RIVALS = ("tecnets", "mil", "lstm")  # those that ours is asked to beat clearly
NONE = "–"
_FIGURES = {
    "shown": ("own_1shot", "shown"),
    "strict": ("own_1shot", "strict"),
    "wrong object": ("own_1shot", "other_only"),
    "both": ("own_1shot", "both"),
    "neither": ("own_1shot", "neither"),
    "twin control": ("twin", "other"),
    "5-shot shown": ("own_5shot", "shown"),
}
_FEW_FIGURES = ("shown", "strict", "wrong object", "twin control")
_HOW = (
    "Per cent, with 95% intervals. Over seeds it is the interquartile mean (as rliable's; of three "
    "seeds or fewer it is their mean), with a bootstrap over seeds and pairs of objects: a draw "
    "takes seeds, and pairs with all of their trials, the same in every seed. Of so few seeds it "
    "tells little of how they differ: their least and greatest *shown* stand beside n, which is "
    "seeds x trials of each. For one seed it is `ent_bc.statistics.rate`. *Wrong object*: the "
    "other one only. *Twin control*: with the twin's demonstration the other object goes. "
    "*Influence*: how much oftener than with the task's own; 0 is a policy that ignores what it is "
    "shown. *Samples/s* and *inference* are of the machines that the cells ran on, and these "
    "differ; `ent-bc benchmark costs` compares them side by side."
)
_Planned = Sequence[Mapping[str, Any]]


def benchmark_tables(
    results: Sequence[Result],
    planned: _Planned,
    *,
    pair_distance: Mapping[str, float] | None = None,
) -> str:
    """All tables.

    Args:
        results: What was run; what is not planned is left out.
        planned: Every cell that the benchmark has, as `Result.cell`.
        pair_distance: By pair, as `statistics.pair_distances`; None for no table by look-alikes.

    Returns:
        Markdown. A section has no table where nothing of it was run.
    """
    rows = rows_of(results, planned)
    timed, sampled = (by_shown(group(rows, "systems", b)) for b in ("wall-clock", "samples"))
    ours = find(timed, "ours")
    ingredients, grid = group(rows, "ingredients"), group(rows, "entropy")
    more = group(rows, "modern")
    data, sizes = (with_reference(group(rows, name), ours) for name in ("data", "sizes"))
    by_looks = quartile_table(by_shown([*timed, *more]), pair_distance) if pair_distance else ""
    sections = (
        ("Systems at equal wall-clock", verdict(timed), system_table(timed), _cost(timed)),
        ("More systems", system_table(by_shown(with_reference(more, ours))), _cost(more)),
        ("Systems at equal samples", few_figures(sampled), _cost(sampled)),
        ("Shown, from the most alike pairs to the least, at equal wall-clock", by_looks),
        ("Ingredients, each switched off or changed alone", ingredient_table(ingredients, ours)),
        ("Weight of the entropy x control loss", entropy_grid(grid), _cost(grid)),
        ("Training tasks", data_table(data)),
        ("Sizes", few_figures(sizes)),
        ("Not run", not_run(results, planned)),
    )
    parts = [f"{_HOW} {_origin(rows)}"]
    for title, *texts in sections:
        if any(texts):
            parts += [f"### {title}", *(text for text in texts if text)]
    return "\n\n".join(parts) + "\n"


def system_table(rows: Sequence[Row]) -> str:
    """Everything about each system, in the order given; "" for none."""
    costs = {"samples_per_second": ",.0f", "n_parameters": ",.0f", "inference_ms": ".1f"}
    body = []
    for row in rows:
        numbers = [_number(row.mean(name), how) for name, how in costs.items()]
        body.append([label(row.cell), *_figures(row, tuple(_FIGURES)), *numbers, *_sizes(row)])
    head = ["system", *_FIGURES, "influence", "samples/s", "parameters", "inference, ms"]
    return _markdown([*head, "n", "seeds"], body)


def few_figures(rows: Sequence[Row]) -> str:
    """The figures that matter most, the best row first; "" for none."""
    return _markdown(
        ["", *_FEW_FIGURES, "influence", "n", "seeds"],
        [[label(row.cell), *_figures(row, _FEW_FIGURES), *_sizes(row)] for row in by_shown(rows)],
    )


def verdict(rows: Sequence[Row]) -> str:
    """Whether ours is first, and outside the intervals of `RIVALS`; "" without rows.

    The oracle is told which object it is, so it is no rival.
    """
    ours, oracle = find(rows, "ours"), find(rows, "oracle")
    if ours is None:
        return "Ours was not run." if rows else ""
    others = by_shown([row for row in rows if row.cell["system"] not in ("ours", "oracle")])
    place = 1 + sum(row.shown.value > ours.shown.value for row in others)
    level = [label(row.cell) for row in others if row.shown.value == ours.shown.value]
    ahead = _list([f"{label(row.cell)} ({row.shown})" for row in others[: place - 1]])
    rank = "first" if place == 1 else f"number {place}, behind {ahead},"
    text = f"Ours is {rank} of {1 + len(others)} systems by *shown*: {_with_n(ours.shown)}"
    text += f", level with {_list(level)}" if level else ""
    text += f"; the oracle, told the object, has {oracle.shown}." if oracle else "."
    return f"{text} {_beside_rivals(ours, rows)}"


def _beside_rivals(ours: Row, rows: Sequence[Row]) -> str:
    places: dict[str, list[str]] = {}
    for system in RIVALS:
        rival, mine = find(rows, system), ours.shown
        if rival is None:
            places.setdefault("Not run", []).append(NAMES[system])
            continue
        where = "overlaps with"
        if mine.low > rival.shown.high:
            where = "lies above"
        elif mine.high < rival.shown.low:
            where = "lies below"
        found = f"{NAMES[system]} ({rival.shown})"
        places.setdefault(f"Its interval {where} those of", []).append(found)
    return " ".join(
        f"{where}{':' * (where == 'Not run')} {_list(names)}." for where, names in places.items()
    )


def quartile_table(rows: Sequence[Row], pair_distance: Mapping[str, float]) -> str:
    """Shown by quarters of the pairs, told by how far their objects' looks are apart."""
    if not rows:
        return ""
    parts = quartiles_of(rows, pair_distance)
    ends = [f"{pair_distance[p[0]]:.3f} to {pair_distance[p[-1]]:.3f}" for p in parts]
    body = []
    for row in rows:
        found = [row.estimate("own_1shot", "shown", pairs=part) for part in parts]
        counts = {f"{e.n_seeds} x {e.n_trials}": 0 for e in found if e}
        body.append([label(row.cell), *map(_text, found), " or ".join(counts)])
    return _markdown(["distance of looks", *ends, "n"], body)


def ingredient_table(rows: Sequence[Row], ours: Row | None) -> str:
    """Each row, and its difference to ours over the seeds that both have; "" for none."""
    body = []
    for row in with_reference(by_shown(rows), ours):
        gaps = [NONE if row is ours else _gap(row, ours, name) for name in _FEW_FIGURES]
        accuracies = [
            _number(row.mean(name), ".1%") for name in ("embedding_accuracy", "twin_accuracy")
        ]
        is_change = row is not ours and row.cell["system"] == "ours"
        name = row.cell["variant"] if is_change else label(row.cell)
        body.append(
            [name, _text(row.shown), _text(row.influence), *gaps, *accuracies, *_sizes(row)]
        )
    gaps = [f"{name}, minus ours" for name in _FEW_FIGURES]
    head = ["", "shown", "influence", *gaps, "embedding acc.", "twin acc.", "n", "seeds"]
    return _markdown(head, body)


def _gap(row: Row, ours: Row | None, name: str) -> str:
    gap = row.minus(ours, *_FIGURES[name]) if ours else None
    if gap is None:
        return NONE
    return f"{100 * gap.value:+z.1f} [{100 * gap.low:+z.1f}, {100 * gap.high:+z.1f}]"


def entropy_grid(rows: Sequence[Row]) -> str:
    """Shown, strict, and the policy's entropy where it was measured; "" for no rows."""
    found = {entropy_of(row): row for row in rows}
    losses = list(dict.fromkeys(loss for _, loss in found))

    def text(row: Row | None) -> str:
        if row is None:
            return NONE
        text = f"{row.shown}, strict {row.estimate('own_1shot', 'strict')}"
        entropy = row.mean("entropy")
        return text if entropy is None else f"{text}, H = {entropy:z.1f}"

    body = [
        [f"{weight:g}", *(text(found.get((weight, loss))) for loss in losses)]
        for weight in sorted({weight for weight, _ in found})
    ]
    n = _list(sorted({_sizes(row)[0] for row in rows}))
    return _markdown(["ent_weight", *losses], body) + (f"\n\nn of each: {n}." if rows else "")


def data_table(rows: Sequence[Row]) -> str:
    """One column for each number of training tasks; "" for no rows."""
    rows = sorted(rows, key=lambda row: int(row.cell["n_tasks"]))
    columns = [[*_figures(row, _FEW_FIGURES), _sizes(row)[0]] for row in rows]
    body = list(zip([*_FEW_FIGURES, "influence", "n"], *columns, strict=True)) if rows else []
    return _markdown(["tasks", *(f"{row.cell['n_tasks']:,}" for row in rows)], body)


def not_run(results: Sequence[Result], planned: _Planned) -> str:
    """The planned cells without a result, by group; and how many results are not planned."""
    done = {cell_key(result.cell) for result in results}
    seeds: dict[str, dict[str, list[str]]] = {}
    for cell in planned:
        if cell_key(cell) not in done:
            part = f"{cell['group']}, equal {cell['budget']}"
            of_part = seeds.setdefault(part, {})
            of_part.setdefault(label(cell), []).append(str(cell["seed"]))
    n_missing = sum(len(some) for part in seeds.values() for some in part.values())
    lines = [f"{len(planned) - n_missing} of {len(planned)} planned cells were run."]
    for part, of_part in seeds.items():
        named = (f"{name} (seed {', '.join(some)})" for name, some in of_part.items())
        lines.append(f"- {part}: {'; '.join(named)}")
    stale = done - {cell_key(cell) for cell in planned}
    if stale:
        lines.append(f"- Left out: {len(stale)} results of cells that are not planned.")
    return "\n".join(lines)


def _origin(rows: Sequence[Row]) -> str:
    """What the tables were made from; "+" marks code with changes that were not committed."""
    results = [result for row in rows for result in row.results]
    codes = sorted({r.code[:12] + "+" * r.code.endswith("+") for r in results})
    return (
        f"From {len(results)} result files, of code {_list([f'`{code}`' for code in codes])}."
        if results
        else ""
    )


def _cost(rows: Sequence[Row]) -> str:
    """What training was given and what it took, from the least to the greatest of all rows."""
    if not rows:
        return ""
    cells = [row.cell for row in rows]
    trainings = [result.training for row in rows for result in row.results]
    looks = sorted({f"`{cell['obs_type']}`" for cell in cells})
    given = (
        f"{_between([cell['n_tasks'] for cell in cells])} tasks with "
        f"{_between([cell['demos_per_task'] for cell in cells])} demonstrations of each, "
        f"observations {_list(looks)}"
    )
    return (
        f"Trained on {given}, in {_between([t.n_batches for t in trainings])} steps of "
        f"{_between([t.n_samples for t in trainings])} samples in all, "
        f"{_between([t.seconds for t in trainings])} s of one core."
    )


def _between(values: Sequence[float]) -> str:
    ends = dict.fromkeys(f"{value:,.0f}" for value in (min(values), max(values)))
    return " to ".join(ends)


def _figures(row: Row, names: Sequence[str]) -> list[str]:
    """Figures by name, and the influence of the demonstration behind them."""
    return [*(_text(row.estimate(*_FIGURES[name])) for name in names), _text(row.influence)]


def _sizes(row: Row) -> list[str]:
    """Seeds x trials, of conditions with fewer too, and the least and the greatest seed's shown."""
    values = sorted(row.shown.seed_values)
    between = f"{100 * values[0]:.1f} to {100 * values[-1]:.1f}" if len(values) > 1 else NONE
    n = {name: len(found.outcomes) for name, found in row.results[0].conditions.items()}
    others = [f"{name.removeprefix('own_')} {n[name]}" for name in n if n[name] != n["own_1shot"]]
    return ["; ".join([f"{len(values)} x {n['own_1shot']}", *others]), between]


def _text(found: Estimate | None) -> str:
    return NONE if found is None else str(found)


def _with_n(found: Estimate) -> str:
    return f"{found} (n = {found.n_seeds} x {found.n_trials})"


def _number(value: float | None, how: str) -> str:
    return NONE if value is None else format(value, how)


def _list(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table; "" without rows."""
    if not body:
        return ""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
