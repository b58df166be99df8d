"""The benchmark's result files, and the tables and plots that are made from them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ent_bc.benchmark.estimates import difference, estimate
from ent_bc.benchmark.plan import plan, read_costs
from ent_bc.benchmark.plots import draw_plots
from ent_bc.benchmark.results import MEASURES, Condition, Result, Training, read_results
from ent_bc.benchmark.rows import NAMES, by_shown, rows_of
from ent_bc.benchmark.tables import (
    benchmark_tables,
    data_table,
    entropy_grid,
    few_figures,
    ingredient_table,
    quartile_table,
    system_table,
    verdict,
)
from ent_bc.benchmark.tuning import tuning_tables
from ent_bc.evaluation import ENV_ID, Trial
from ent_bc.statistics import pair_distances, rate

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

N_PAIRS = 5


def condition(outcomes: str, strict: str | None = None, n_pairs: int = N_PAIRS) -> Condition:
    """Trials of twins, as many of each task, from letters by task and then by trial."""
    pairs = [f"p{index}" for index in range(n_pairs)]
    return Condition(
        trials_per_task=len(outcomes) // (2 * n_pairs),
        task_ids=tuple(pair + role for pair in pairs for role in "ab"),
        pair_ids=tuple(pair for pair in pairs for _ in "ab"),
        outcomes=outcomes,
        strict=strict or "0" * len(outcomes),
    )


def share(hits: int, n: int = 20) -> Condition:
    """So many trials of n brought what was shown, spread over the pairs; the others nothing."""
    marks = np.full(n, "n")
    marks[np.arange(hits) * 7 % n] = "s"
    return condition("".join(marks))


def result(system: str = "ours", hits: int = 10, seed: int = 0, **changes: Any) -> Result:
    cell = {
        "group": "systems",
        "system": system,
        "variant": "",
        "options": {},
        "budget": "wall-clock",
        "n_tasks": 694,
        "demos_per_task": 8,
        "obs_type": "state",
        "seed": seed,
    }
    conditions = changes.pop("conditions", {"own_1shot": share(hits)})
    training = Training(4000, 1_024_000, 480.0, 2133.3, 123_456, 1.94)
    training = dataclasses.replace(training, **changes.pop("training", {}))
    embedding = changes.pop("embedding", None)
    code = changes.pop("code", "c0de")
    return Result({**cell, **changes}, "da7a", code, "0.1.0", training, conditions, embedding)


def lines(table: str) -> list[list[str]]:
    """A Markdown table's cells without its head."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


def cells(*results: Result) -> list[dict[str, Any]]:
    return [one.cell for one in results]


def rows(*results: Result) -> list[Any]:
    return rows_of(results, cells(*results))


def value(text: str) -> float:
    return float(text.split()[0])


# Result files


def test_a_result_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    written = result(embedding={"embedding_accuracy": 0.7, "twin_accuracy": 0.98})
    written.write(tmp_path / "results" / "a.json")
    assert Result.read(tmp_path / "results" / "a.json") == written
    assert read_results(tmp_path / "results") == [written]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["a.json"]


def test_no_folder_holds_no_results(tmp_path: Path) -> None:
    assert read_results(tmp_path / "nowhere") == []


def test_trials_are_packed_by_task_and_keep_their_outcomes() -> None:
    ends = [(True, False), (False, True), (True, True), (False, False)]
    trials = [
        Trial(task, "p0", 0, success, other, success, 0.1, 0.0, 0.1, 0.2)
        for task in ("p0a", "p0b")
        for success, other in ends
    ]
    packed = Condition.of_trials(trials)
    assert packed == Condition(4, ("p0a", "p0b"), ("p0", "p0"), "sobnsobn", "10101010")
    for measure, name in (("shown", "success"), ("other", "success_other"), ("strict", "strict")):
        assert packed.hits(measure).tolist() == [getattr(trial, name) for trial in trials]
    for measure in ("shown_only", "other_only", "both", "neither"):
        expected = [trial.outcome == measure.replace("_", " ") for trial in trials]
        assert packed.hits(measure).tolist() == expected
    assert len(MEASURES) == 7


@pytest.mark.parametrize("order", ["p0a p0b p0a p0b", "p0a p0a p0b", ""])
def test_trials_that_are_not_in_order_cannot_be_packed(order: str) -> None:
    trials = [Trial(task, "p0", 0, True, False, True, 0.1, 0.0, 0.1, 0.2) for task in order.split()]
    with pytest.raises(ValueError, match="trials of"):
        Condition.of_trials(trials)


BROKEN = {
    "no JSON": lambda record: "{",
    "a list": lambda record: "[]",
    "no conditions": lambda record: record.pop("conditions"),
    "no 1-shot": lambda record: record["conditions"].pop("own_1shot"),
    "no system": lambda record: record["cell"].pop("system"),
    "a trial too few": lambda record: record["conditions"]["own_1shot"].update(strict="0"),
    "an unknown outcome": lambda record: record["conditions"]["own_1shot"].update(
        outcomes="x" * 20
    ),
    "outcomes as a number": lambda record: record["conditions"]["own_1shot"].update(outcomes=1),
    "no number of samples": lambda record: record["training"].update(n_samples=None),
    "what no result has": lambda record: record.update(colour="red"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_gives_one_error_that_names_it_and_says_what_to_do(
    what: str, tmp_path: Path
) -> None:
    record = result().to_json()
    changed = BROKEN[what](record)
    text = changed if what in ("no JSON", "a list") else json.dumps(record)
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(ValueError, match=r"broken\.json is no result .* Remove it"):
        read_results(tmp_path)


def test_two_files_of_one_cell_are_an_error(tmp_path: Path) -> None:
    result(hits=3).write(tmp_path / "a.json")
    result(hits=4).write(tmp_path / "b.json")
    with pytest.raises(ValueError, match=r"a\.json and .*b\.json are of one cell"):
        read_results(tmp_path)


# Statistics


def test_of_one_seed_the_estimate_is_the_rate() -> None:
    one = share(13)
    found, expected = estimate([one], "shown"), rate(one.hits("shown"), one.groups.tolist())
    assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)
    assert found.n_trials == expected.n == 20


@pytest.mark.parametrize(("hits", "expected"), [((2, 4, 12), 0.3), ((0, 10, 12, 20), 0.55)])
def test_over_seeds_it_is_the_mean_without_the_lowest_and_the_highest_quarter(
    hits: tuple[int, ...], expected: float
) -> None:
    found = estimate([share(some) for some in hits], "shown")
    assert found.value == pytest.approx(expected)
    assert found.low <= found.value <= found.high
    assert found.seed_values == tuple(some / 20 for some in hits)
    assert (found.n_seeds, found.n_trials) == (len(hits), 20)


def test_more_seeds_of_equal_outcomes_do_not_narrow_the_interval() -> None:
    one = estimate([share(13)], "shown")
    assert estimate([share(13)] * 3, "shown") == dataclasses.replace(
        one, seed_values=one.seed_values * 3
    )


def test_seeds_that_differ_widen_the_interval() -> None:
    found = estimate([share(0), share(10), share(20)], "shown")
    assert (found.low, found.value, found.high) == (0, 0.5, 1)


def test_a_pair_is_drawn_with_all_its_trials() -> None:
    by_pair = condition("ssss" * 2 + "nnnn" * 3)  # a pair's trials end alike
    mixed = condition("snsn" * 4 + "nnnn")
    assert by_pair.hits("shown").sum() == mixed.hits("shown").sum() == 8
    wide, narrow = estimate([by_pair], "shown"), estimate([mixed], "shown")
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_a_difference_is_taken_pair_by_pair() -> None:
    hard, harder = condition("ssss" * 2 + "nnnn" * 3), condition("sssn" * 2 + "nnnn" * 3)
    gap = difference([harder], [hard], "shown")
    assert gap.value == pytest.approx(-0.1)
    assert gap.low <= gap.value <= gap.high <= 0  # worse or equal in every pair, so in every draw
    nothing = difference([hard], [hard], "shown")
    assert (nothing.low, nothing.value, nothing.high) == (0, 0, 0)


def test_seeds_of_other_pairs_are_an_error() -> None:
    with pytest.raises(ValueError, match="same pairs"):
        estimate([share(3), condition("s" * 8, n_pairs=2)], "shown")
    with pytest.raises(ValueError, match="same pairs"):
        difference([share(3)], [condition("s" * 8, n_pairs=2)], "shown")
    with pytest.raises(ValueError, match="same pairs"):
        estimate([], "shown")


# Tables


def test_a_systems_row_has_the_numbers_counted_by_hand() -> None:
    own = condition("ssssssssssoobbbnnnnn", "11111000000000000000")
    twin = condition("ooooooooooooobbsnnnn")
    few = condition("s" * 9 + "n")
    [row] = lines(
        system_table(rows(result(conditions={"own_1shot": own, "twin": twin, "own_5shot": few})))
    )
    assert row[0] == "EntBC (ours)"
    expected = [65.0, 25.0, 10.0, 15.0, 25.0, 75.0, 90.0, 50.0]
    assert [value(text) for text in row[1:9]] == expected
    assert row[9:] == ["2,133", "123,456", "1.9", "1 x 20; 5shot 10", "–"]


def test_every_figure_stands_within_its_interval() -> None:
    some = [result(hits=hits, seed=seed) for seed, hits in enumerate((9, 14, 16))]
    [row] = lines(system_table(rows(*some)))
    for text in row[1:6]:
        middle, low, high = (float(part.strip("[],")) for part in text.split())
        assert low <= middle <= high


def test_seeds_are_one_row_with_their_least_and_greatest() -> None:
    some = [result(hits=hits, seed=seed) for seed, hits in enumerate((9, 14, 16))]
    [row] = lines(system_table(rows(*some)))
    assert value(row[1]) == 65.0
    assert row[-2:] == ["3 x 20", "45.0 to 80.0"]


def test_what_was_not_evaluated_has_a_dash() -> None:
    [row] = lines(system_table(rows(result())))
    assert row[6:9] == ["–", "–", "–"]


def test_a_demonstration_that_changes_nothing_has_no_influence() -> None:
    own = condition("sonb" * 5)
    [row] = lines(system_table(rows(result(conditions={"own_1shot": own, "twin": own}))))
    assert row[8] == "0.0 [0.0, 0.0]"


def test_systems_are_sorted_by_shown() -> None:
    some = rows(result("mil", 3), result("ours", 18), result("lstm", 7))
    table = lines(system_table(by_shown(some)))
    assert [line[0] for line in table] == ["EntBC (ours)", "LSTM", "MIL"]


def test_the_verdict_says_that_ours_is_first_where_it_is() -> None:
    some = (result("ours", 20), result("mil", 3), result("tecnets", 4), result("lstm", 5))
    text = verdict(rows(*some))
    assert text.startswith("Ours is first of 4 systems by *shown*: 100.0 [100.0, 100.0] (n = 1 x")
    assert "lies above those of TecNets (20.0" in text and "MIL (15.0" in text
    assert "overlaps" not in text and "below" not in text


def test_the_verdict_says_who_is_ahead_where_ours_is_not_first() -> None:
    some = (result("ours", 4), result("mil", 20), result("tecnets", 4), result("contextual", 5))
    text = verdict(rows(*some))
    assert text.startswith("Ours is number 3, behind MIL (100.0 [100.0, 100.0]) and contextual net")
    assert "level with TecNets" in text
    assert "overlaps with those of TecNets (20.0" in text
    assert "lies below those of MIL (100.0" in text
    assert "Not run: LSTM." in text


def test_the_oracle_is_no_rival_but_is_told() -> None:
    text = verdict(rows(result("ours", 10), result("oracle", 20)))
    assert "first of 1 systems" in text
    assert "the oracle, told the object, has 100.0" in text


def test_without_ours_the_verdict_says_so() -> None:
    assert verdict(rows(result("mil"))) == "Ours was not run."
    assert verdict([]) == ""


def test_quarters_go_from_the_most_alike_pairs_to_the_least() -> None:
    own = condition("".join("s" * k + "n" * (4 - k) for k in range(N_PAIRS)))  # pair p3 has 3 of 4
    distance = {f"p{index}": 0.1 * (N_PAIRS - index) for index in range(N_PAIRS)}
    table = quartile_table(rows(result(conditions={"own_1shot": own})), distance)
    assert table.splitlines()[0].startswith("| distance of looks | 0.100 to 0.200 | 0.300 to 0.300")
    [row] = lines(table)
    assert [value(text) for text in row[1:5]] == [87.5, 50.0, 25.0, 0.0]
    assert row[5] == "1 x 8 or 1 x 4"
    with pytest.raises(ValueError, match="'p4'"):
        quartile_table(rows(result()), {"p0": 0.1, "p1": 0.1, "p2": 0.1, "p3": 0.1})


def test_an_ingredient_is_held_against_ours_over_the_seeds_that_both_have() -> None:
    ours = rows(*(result(hits=hits, seed=seed) for seed, hits in enumerate((18, 16, 2))))[0]
    without = {"group": "ingredients", "variant": "without twins"}
    twin = condition("o" * 20)
    some = [
        result(conditions={"own_1shot": share(hits), "twin": twin}, seed=seed, **without)
        for seed, hits in enumerate((10, 12))
    ]
    first, second = lines(ingredient_table(rows(*some), ours))
    assert first[0] == "EntBC (ours)" and first[2] == first[3] == "–"
    assert second[0] == "without twins"
    assert value(second[1]) == 55.0
    assert value(second[2]) == 100.0  # the other object goes always, and never after the own
    assert value(second[3]) == -30.0
    assert second[-2:] == ["2 x 20", "50.0 to 60.0"]


def test_without_ours_ingredients_have_no_difference() -> None:
    [row] = lines(ingredient_table(rows(result(group="ingredients", variant="x")), None))
    assert row[0] == "x" and row[1] != "–" and row[3] == "–"


def test_a_row_of_another_system_among_the_ingredients_is_named_by_it() -> None:
    longer = result("tecnets", group="ingredients", variant="four times as long")
    [row] = lines(ingredient_table(rows(longer), None))
    assert row[0] == "TecNets, four times as long"


def grid_result(loss: str, weight: float, hits: int, entropy: float | None = None) -> Result:
    options = {"ent_weight": weight, "losses": {"control_loss": loss}}
    return result(hits=hits, group="entropy", options=options, training={"entropy": entropy})


def test_the_grid_has_weights_by_losses_and_the_entropy_where_it_was_measured() -> None:
    some = (grid_result("mse", 1e-5, 10), grid_result("mse", 0.0, 8), grid_result("nll", 0, 6, -3))
    first, second = lines(entropy_grid(rows(*some)))[:2]
    assert first[0] == "0" and value(first[1]) == 40.0
    assert value(first[2]) == 30.0 and first[2].endswith("H = -3.0")
    strict = estimate([some[0].conditions["own_1shot"]], "strict")
    assert second[1].endswith(f"strict {strict}")  # its entropy was not measured
    assert second[0] == "1e-05" and value(second[1]) == 50.0
    assert second[2] == "–"


def test_data_sizes_are_columns_in_order() -> None:
    some = rows(*(result(hits=n // 50, n_tasks=n) for n in (694, 50, 100)))
    table = data_table(some)
    assert table.splitlines()[0] == "| tasks | 50 | 100 | 694 |"
    assert [value(text) for text in lines(table)[0][1:]] == [5.0, 10.0, 65.0]


def test_short_tables_have_the_influence_of_the_demonstration_too() -> None:
    own, twin = condition("ssssooonnn" * N_PAIRS), condition("soooooosnn" * N_PAIRS)
    row = rows(result(conditions={"own_1shot": own, "twin": twin}))
    places = few_figures(row).splitlines()[0].split(" | ")
    assert value(lines(few_figures(row))[0][places.index("influence")]) == 30.0
    [influence] = [line for line in lines(data_table(row)) if line[0] == "influence"]
    assert value(influence[1]) == 30.0


def test_what_was_not_run_is_listed_by_name_and_seed() -> None:
    run = [result(), result("mil")]
    missing = [result("mil", seed=1), result("mil", seed=2), result(group="sizes", variant="64 px")]
    text = benchmark_tables(run, cells(*run, *missing))
    assert "2 of 5 planned cells were run." in text
    assert "- systems, equal wall-clock: MIL (seed 1, 2)" in text
    assert "- sizes, equal wall-clock: EntBC (ours), 64 px (seed 0)" in text


def test_where_all_was_run_nothing_is_listed() -> None:
    run = [result(), result("mil")]
    assert benchmark_tables(run, cells(*run)).rstrip().endswith("2 of 2 planned cells were run.")


def test_results_that_are_not_planned_are_left_out_and_counted() -> None:
    text = benchmark_tables([result(), result("mil")], cells(result()))
    assert "| MIL |" not in text and "| EntBC (ours) |" in text
    assert "1 results of cells that are not planned" in text


def test_code_with_changes_that_were_not_committed_is_marked() -> None:
    some = [result(code="0123456789abcdef"), result("mil", code="0123456789abcdef+")]
    text = benchmark_tables(some, cells(*some))
    assert "From 2 result files, of code `0123456789ab` and `0123456789ab+`." in text


def test_nothing_run_is_told_as_such() -> None:
    text = benchmark_tables([], cells(result()))
    assert "0 of 1 planned cells were run." in text and "|" not in text


def everything() -> list[Result]:
    systems = [
        result(system, hits, seed, budget=budget)
        for budget in ("wall-clock", "samples")
        for system, hits in (("ours", 18), ("mil", 8), ("oracle", 19))
        for seed in range(2)
    ]
    others = [
        result(group="ingredients", variant="without twins"),
        result(group="data", n_tasks=50, variant="50 tasks"),
        result("duan", group="modern"),
        result(group="sizes", variant="64 pixels"),
        grid_result("mse", 1e-5, 12),
    ]
    return systems + others


def test_each_part_of_the_benchmark_has_its_section() -> None:
    some = everything()
    distance = {f"p{index}": float(index) for index in range(N_PAIRS)}
    text = benchmark_tables(some, cells(*some), pair_distance=distance)
    titles = [line.removeprefix("### ") for line in text.splitlines() if line.startswith("###")]
    assert len(titles) == 9
    assert titles[:2] == ["Systems at equal wall-clock", "More systems"]
    assert titles[-1] == "Not run"
    for title in (titles[1], "Shown, from the most alike pairs to the least, at equal wall-clock"):
        section, *_ = text.partition(f"### {title}\n")[2].partition("###")
        assert NAMES["duan"] in section, title
    assert "480 s of one core" in text and "1,024,000 samples" in text and "`c0de`" in text


# Plots


def test_there_is_a_plot_of_each_thing_that_was_run(tmp_path: Path) -> None:
    some = everything()
    distance = {f"p{index}": float(index) for index in range(N_PAIRS)}
    drawn = draw_plots(some, cells(*some), tmp_path / "plots", pair_distance=distance)
    plots = ("systems", "look_alikes", "ingredients", "data_size", "entropy")
    names = {f"{plot}.png" for plot in plots}
    assert {path.name for path in drawn} == names
    assert {path.name for path in (tmp_path / "plots").iterdir()} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_what_was_not_run_is_not_drawn(tmp_path: Path) -> None:
    some = [result(), grid_result("mse", 0.0, 3, -2.0), grid_result("nll", 1e-5, 3)]
    drawn = draw_plots(some, cells(*some[1:]), tmp_path)
    assert [path.name for path in drawn] == ["entropy.png"]
    assert draw_plots(some, [], tmp_path) == []


# What is committed


def test_the_committed_tables_are_those_of_the_committed_results() -> None:
    planned = [cell.to_json() for cell in plan(read_costs())]
    distances = pair_distances(ENV_ID, {"split": "test", "obs_type": "pixels"})
    found = read_results(BENCHMARKS / "results")
    text = benchmark_tables(found, planned, pair_distance=distances)
    assert (BENCHMARKS / "table.md").read_text("utf-8") == text
    tuned = tuning_tables(read_results(BENCHMARKS / "tuning"))
    assert (BENCHMARKS / "tuning.md").read_text("utf-8") == tuned
