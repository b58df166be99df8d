"""The benchmark's cells and their plan, and the runner that fills in what is missing."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import os
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from ent_bc.baselines import DAggerConfig
from ent_bc.batches import BatchConfig, TaskBatches
from ent_bc.benchmark import costs as costs_module
from ent_bc.benchmark import plan as plan_module
from ent_bc.benchmark import run, systems
from ent_bc.benchmark.cells import Cell
from ent_bc.benchmark.costs import MEASURED, measure_costs, seconds_per_batch
from ent_bc.benchmark.oracle import MarkedDemonstrations
from ent_bc.benchmark.plan import GROUPS, N_SAMPLES, SECONDS, plan, read_costs
from ent_bc.benchmark.plan import SYSTEMS as CORE
from ent_bc.benchmark.results import Condition, Result, Training, read_results
from ent_bc.benchmark.rows import NAMES
from ent_bc.benchmark.run import OneOfTwins, data_for, fill, missing, result_path, run_cell
from ent_bc.benchmark.systems import SYSTEMS, merge, train_cell
from ent_bc.benchmark.tuning import GRIDS, best_run, tuning_cells
from ent_bc.cli import main
from ent_bc.evaluation import ENV_ID
from ent_bc.losses import LossConfig
from ent_bc.policies import TaskConditionedPolicy
from ent_bc.presets import PRESETS
from ent_bc.protocol import as_multi_task, pair_of
from meta_pusher_env.collection import collect

COSTS: dict[str, dict[str, Any]] = {
    name: {
        "seconds_per_batch": 0.07 + 0.01 * place,
        "samples_per_batch": 144.0 + 16 * place,
        "batch_size": system.settings["batch_size"],
    }
    for place, (name, system) in enumerate(SYSTEMS.items())
}
TINY = Cell(
    group="systems",
    system="ours",
    n_batches=2,
    n_tasks=8,
    demos_per_task=2,
    image_size=32,
    trials_per_task=1,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of data sets, with the one of `TINY`."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets are made in this process, cells evaluated on one pair, DAgger in short rounds."""
    evaluation_config = run.evaluation_config

    def on_one_pair(cell: Cell) -> Any:
        return dataclasses.replace(evaluation_config(cell), n_tasks=2)

    monkeypatch.setattr(run, "evaluation_config", on_one_pair)
    monkeypatch.setattr(run, "collect", functools.partial(collect, n_workers=1))
    monkeypatch.setattr(systems, "DAggerConfig", functools.partial(DAggerConfig, steps_per_round=9))


# --- cells ---


def test_a_cells_hash_is_the_one_that_its_file_has_had_from_the_beginning() -> None:
    cell = Cell(group="systems", system="ours", options={"losses": {"margin": 0.2}}, seed=1)
    assert cell.hash == "9964d197bbd53104"
    assert result_path(Path("results"), cell) == Path("results/9964d197bbd53104.json")


@pytest.mark.parametrize("field", dataclasses.fields(Cell), ids=lambda field: field.name)
def test_a_cell_with_another_setting_is_another_cell(field: dataclasses.Field[Any]) -> None:
    before = getattr(TINY, field.name)
    after = {str: f"{before}x", bool: not before, dict: {"a": 1}}.get(type(before))
    changed = dataclasses.replace(TINY, **{field.name: before + 1 if after is None else after})
    assert changed.hash != TINY.hash


def test_a_cell_comes_back_from_json_with_its_hash() -> None:
    for cell in (TINY, *plan(COSTS), *tuning_cells(COSTS, "ours")):
        back = Cell(**json.loads(json.dumps(cell.to_json())))
        assert back == cell and back.hash == cell.hash


def test_equal_cells_have_equal_hashes_and_equal_json() -> None:
    one, other = (
        dataclasses.replace(TINY, noise=noise, options=options)
        for noise, options in ((0, {"a": 1, "b": {"c": 2.0}}), (0.0, {"b": {"c": 2}, "a": 1.0}))
    )
    assert one == other
    assert one.hash == other.hash
    assert json.dumps(one.to_json(), sort_keys=True) == json.dumps(other.to_json(), sort_keys=True)


# --- the plan ---


def test_the_plan_has_the_groups_in_order_and_no_cell_twice() -> None:
    cells = plan(COSTS)
    assert tuple(dict.fromkeys(cell.group for cell in cells)) == GROUPS
    assert GROUPS == ("systems", "ingredients", "entropy", "data", "modern", "sizes")
    assert len({cell.hash for cell in cells}) == len(cells)
    assert {cell.split for cell in cells} == {"test"}


def test_a_seed_has_all_systems_before_the_next_one_begins() -> None:
    cells = plan(COSTS, ("systems",))
    assert [(c.budget, c.seed, c.system) for c in cells] == [
        (budget, seed, system)
        for budget in ("wall-clock", "samples")
        for seed in range(3)
        for system in CORE
    ]
    assert {cell.trials_per_task for cell in cells} == {6}
    assert all((c.trials_per_task_5shot > 0) == (c.budget == "wall-clock") for c in cells)


def test_ingredients_change_alone_with_two_seeds_and_as_many_demonstrations() -> None:
    ours, *_ = plan(COSTS, ("systems",))
    *cells, longer, on_more = plan(COSTS, ("ingredients",))
    assert [cell.seed for cell in cells] == [0] * 7 + [1] * 7
    tecnets = plan(COSTS, ("systems",))[1]
    for cell in (longer, on_more):
        assert (cell.system, cell.n_batches) == ("tecnets", 4 * tecnets.n_batches)
        assert cell.options == tecnets.options
    assert (longer.n_tasks, on_more.n_tasks) == (tecnets.n_tasks, 4000)
    for cell in cells:
        assert (cell.system, cell.n_batches) == ("ours", ours.n_batches)
        n_demos = cell.n_tasks * cell.demos_per_task / (1 if cell.twins else 2)
        assert n_demos == pytest.approx(694 * 8, rel=0.01)


def test_other_groups_have_what_the_benchmark_asks_for() -> None:
    entropy = [cell.options for cell in plan(COSTS, ("entropy",))]
    weights = {options["ent_weight"] for options in entropy}
    losses = {options["losses"]["control_loss"] for options in entropy}
    assert weights == {0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2} and losses >= {"mse", "sampled_mse", "nll"}
    assert len(entropy) == len(weights) * len(losses)
    assert {options["learning_rate"] for options in entropy} == {PRESETS["state"].learning_rate}
    assert [cell.n_tasks for cell in plan(COSTS, ("data",))] == [50, 100, 200, 400]
    assert {cell.system for cell in plan(COSTS, ("modern",))} >= {"duan", "dagger"}
    assert {cell.n_tasks for cell in plan(COSTS, ("sizes",))} == {694, 2000, 4000}
    assert {cell.frames_per_demo for cell in plan(COSTS, ("sizes",))} == {4, 8, 16}


def test_a_system_with_other_settings_has_other_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan(COSTS, ("systems",))
    lstm = SYSTEMS["lstm"]
    changed = dataclasses.replace(lstm, settings={**lstm.settings, "learning_rate": 0.5})
    monkeypatch.setitem(SYSTEMS, "lstm", changed)
    pairs = list(zip(before, plan(COSTS, ("systems",)), strict=True))
    assert all((cell.hash == other.hash) == (cell.system != "lstm") for cell, other in pairs)


@pytest.mark.parametrize("system", CORE)
def test_budgets_follow_from_the_costs(system: str) -> None:
    timed, sampled = (
        next(c for c in plan(COSTS) if (c.system, c.budget) == (system, budget))
        for budget in ("wall-clock", "samples")
    )
    cost = COSTS[system]
    assert timed.n_batches == math.floor(SECONDS / cost["seconds_per_batch"])
    n_samples = sampled.n_batches * cost["samples_per_batch"]
    assert abs(n_samples - N_SAMPLES) < cost["samples_per_batch"]


def test_a_budget_is_as_much_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    def budgets() -> dict[str, int]:
        cells = plan(COSTS, ("systems",))
        return {cell.budget: cell.n_batches for cell in cells if cell.system == "lstm"}

    before, tuned = budgets(), [cell.n_batches for cell in tuning_cells(COSTS, "lstm")]
    lstm = SYSTEMS["lstm"]
    settings = {**lstm.settings, "batch_size": lstm.settings["batch_size"] // 2}
    monkeypatch.setitem(SYSTEMS, "lstm", dataclasses.replace(lstm, settings=settings))
    for name, n_batches in budgets().items():
        assert abs(n_batches - 2 * before[name]) <= 1
    halved = [cell.n_batches for cell in tuning_cells(COSTS, "lstm")]
    assert all(abs(after - 2 * whole) <= 1 for after, whole in zip(halved, tuned, strict=True))


def test_dagger_begins_with_what_ours_has_learnt() -> None:
    costs = {name: cost for name, cost in COSTS.items() if name != "dagger"}
    [dagger] = [cell for cell in plan(costs) if cell.system == "dagger"]
    assert dagger.n_batches == plan(costs)[0].n_batches
    assert set(MEASURED) == set(SYSTEMS) - {"dagger"}


def test_an_unknown_group_is_named() -> None:
    with pytest.raises(ValueError, match=r"Unknown groups \['luck'\]: expected some of"):
        plan(COSTS, ("systems", "luck"))


def test_a_system_without_costs_is_named_with_what_to_do() -> None:
    costs = {name: cost for name, cost in COSTS.items() if name != "mil"}
    with pytest.raises(ValueError, match=r"no costs of 'mil'.*run `ent-bc benchmark costs`"):
        plan(costs)
    with pytest.raises(ValueError, match=r"no costs of 'mil'.*run `ent-bc benchmark costs`"):
        list(tuning_cells(costs, "mil"))


def test_costs_that_were_not_measured_are_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan_module, "COSTS", tmp_path / "costs.json")
    with pytest.raises(FileNotFoundError, match="run `ent-bc benchmark costs`"):
        read_costs()
    with pytest.raises(SystemExit):
        benchmark("table", "--limit", "0", "--out", str(tmp_path), monkeypatch=monkeypatch)
    assert "`ent-bc benchmark costs`" in " ".join(capsys.readouterr().out.split())


# --- settings and tuning ---


def test_changes_reach_into_mappings_and_leave_the_settings_as_they_were() -> None:
    settings = {"rate": 1, "net": {"a": 1, "b": 2}}
    assert merge(settings, {"net": {"b": 3}}) == {"rate": 1, "net": {"a": 1, "b": 3}}
    assert settings == {"rate": 1, "net": {"a": 1, "b": 2}}


def test_a_misspelt_setting_is_named() -> None:
    with pytest.raises(ValueError, match=r"Unknown settings \['learning_rat'\].*'learning_rate'"):
        train_cell(dataclasses.replace(TINY, options={"learning_rat": 1e-3}), [])


@pytest.mark.parametrize("system", GRIDS)
def test_a_system_has_eight_tuning_runs_on_val_with_a_quarter_of_the_time(system: str) -> None:
    cells = list(tuning_cells(COSTS, system))
    assert len({cell.hash for cell in cells}) == len({cell.variant for cell in cells}) == 8
    for cell in cells:
        assert (cell.group, cell.system, cell.split) == ("tuning", system, "val")
        size = merge(SYSTEMS[system].settings, cell.options)["batch_size"]
        steps_of = "ours" if system == "dagger" else system
        share = size / COSTS[steps_of]["batch_size"]
        seconds = cell.n_batches * share * COSTS[steps_of]["seconds_per_batch"]
        assert seconds == pytest.approx(SECONDS / 4, rel=0.01)


def test_what_is_not_tuned_is_named() -> None:
    with pytest.raises(ValueError, match="'oracle' is not tuned, expected one of"):
        list(tuning_cells(COSTS, "oracle"))


def test_the_best_run_has_the_most_shown_and_twin_control_together() -> None:
    def tuned(rate: float, own: str, twin: str, strict: str = "0000") -> Result:
        conditions = {
            name: Condition(2, ("a", "b"), ("p", "p"), outcomes, strict)
            for name, outcomes in (("own_1shot", own), ("twin", twin))
        }
        cell = dataclasses.replace(TINY, options={"learning_rate": rate}, group="tuning")
        return dataclasses.replace(made_up(cell), conditions=conditions)

    runs = [
        tuned(1, "sssn", "nnnn"),  # pushes one and the same
        tuned(2, "ssnn", "oonn", "0010"),
        tuned(3, "ssnn", "oonn", "0110"),
        tuned(4, "bnnn", "obnn", "1111"),
    ]
    assert best_run(runs, "ours").cell["options"] == {"learning_rate": 3}
    assert best_run(runs[::-1], "ours").cell["options"] == {"learning_rate": 3}
    with pytest.raises(ValueError, match="No run of 'mil' is among the 4 results"):
        best_run(runs, "mil")


TUNED = Path(__file__).parents[1] / "benchmarks" / "tuning"


@pytest.mark.skipif(not TUNED.exists(), reason="not in a checkout")
@pytest.mark.parametrize("system", GRIDS)
def test_a_system_has_the_settings_of_its_best_run(system: str) -> None:
    results = read_results(TUNED)
    if missing(tuning_cells(read_costs(), system), TUNED):
        pytest.skip("not all of its runs are there")
    assert best_run(results, system).cell["options"] == SYSTEMS[system].settings


def test_planned_and_tuned_settings_are_known_to_losses_and_policy() -> None:
    known = set(inspect.signature(TaskConditionedPolicy).parameters)
    tuned = [cell for system in GRIDS for cell in tuning_cells(COSTS, system)]
    for cell in (*plan(COSTS), *tuned):
        settings = merge(SYSTEMS[cell.system].settings, cell.options)
        dataclasses.replace(LossConfig(), **settings.get("losses", {}))
        assert set(settings.get("policy_kwargs", {})) <= known


# --- one of twins ---


@pytest.mark.parametrize("view", [lambda demos: demos, MarkedDemonstrations])
def test_one_task_of_each_pair_is_left_with_the_same_pictures(data: Path, view: Any) -> None:
    all_of_them = view(data_for(TINY, data))
    half = OneOfTwins(all_of_them, TINY.demos_per_task)
    assert len(half) == len(all_of_them) / 2
    tasks = {demo.task_id: demo.infos[0]["pair_id"] for demo in half}
    assert len(tasks) == len(set(tasks.values())) == TINY.n_tasks / 2
    place = {demo.infos[0]["demo_id"]: index for index, demo in enumerate(all_of_them)}
    half.will_read([(0, [0, -1])])
    for index, demo in enumerate(half):
        theirs = all_of_them.read_obs(place[demo.infos[0]["demo_id"]], [0, 3, -1])
        ours = half.read_obs(index, [0, 3, -1])
        np.testing.assert_array_equal(ours["pixels"], theirs["pixels"])
        np.testing.assert_array_equal(ours["pixels"], demo.obs["pixels"][[0, 3, -1]])


def test_a_batch_without_twins_has_as_many_tasks_and_none_has_its_twin(data: Path) -> None:
    half = OneOfTwins(data_for(TINY, data), TINY.demos_per_task)
    batch = TaskBatches(half, 4, BatchConfig(), 0).batch(0)
    assert batch["obs"]["twin_of"].tolist() == [-1] * 4


# --- systems ---


def _options(system: str) -> dict[str, Any]:
    """Settings other than the system's own, of all that tuning changes."""
    changed = GRIDS[system][-1] if system in GRIDS else {}
    return {**changed, "batch_size": 4}


def parameters(model: Any) -> np.ndarray:
    net = getattr(model, "policy", model)
    return np.concatenate([each.detach().numpy().ravel() for each in net.parameters()])


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_is_trained_evaluated_and_written_and_again_the_same(
    system: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, models = dataclasses.replace(TINY, system=system, options=_options(system)), []

    def remember(*arguments: Any) -> Any:
        models.append(train_cell(*arguments))
        return models[-1]

    monkeypatch.setattr(run, "train_cell", remember)
    first, again = (run_and_read(cell, tmp_path / name, data) for name in ("first", "again"))
    assert Cell(**first.cell) == cell
    n_trials = {name: len(c.outcomes) for name, c in first.conditions.items()}
    assert n_trials == {"own_1shot": 2, "twin": 2}
    n_tasks, n_demos = 4, 2
    n_steps = first.training.n_samples / (cell.n_batches * n_tasks * n_demos)
    assert n_steps in (4, 9)  # drawn ones, or all that are stored
    assert (first.embedding is None) == (first.training.entropy is None)
    assert 0 < first.training.inference_ms < 1000
    np.testing.assert_array_equal(*(parameters(each.model) for each in models))
    assert again.training.entropy == first.training.entropy
    assert (again.conditions, again.embedding) == (first.conditions, first.embedding)


def run_and_read(cell: Cell, results: Path, data: Path) -> Result:
    assert run_cell(cell, results, data) > 0
    return Result.read(result_path(results, cell))


def test_a_cell_without_twins_on_states_has_five_shots_where_asked(
    data: Path, tmp_path: Path
) -> None:
    cell = dataclasses.replace(
        TINY, obs_type="state", twins=False, trials_per_task=2, trials_per_task_5shot=1
    )
    result = run_and_read(cell, tmp_path, data)
    n_trials = {name: len(c.outcomes) for name, c in result.conditions.items()}
    assert n_trials == {"own_1shot": 4, "twin": 4, "own_5shot": 2}
    assert result.training.n_samples == 2 * 4 * 2 * 16  # four of the eight tasks are left
    assert result.data_sha256 == run.data_hash(data_for(cell, data))


def test_every_setting_of_the_data_has_a_data_set_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "collect", lambda path, config: path)
    changes = ("n_tasks", 10), ("demos_per_task", 3), ("obs_type", "state"), ("noise", 0.0)
    cells = [TINY, *(dataclasses.replace(TINY, **dict([change])) for change in changes)]
    cells += [dataclasses.replace(TINY, **{name: 64}) for name in ("image_size", "frames_per_demo")]
    assert len({data_for(cell, tmp_path) for cell in cells}) == len(cells)


# --- fill ---

SEEDS = [dataclasses.replace(TINY, seed=seed) for seed in range(4)]


def made_up(cell: Cell, condition: Condition | None = None) -> Result:
    training = Training(cell.n_batches, 64, 1.0, 64.0, 1000, 1.0)
    condition = condition or Condition(1, ("a", "b"), ("p", "p"), "sn", "10")
    conditions = {"own_1shot": condition, "twin": condition}
    return Result(cell.to_json(), "da7a", "c0de", "0.1.0", training, conditions)


def write(cell: Cell, results: Path, data: Path) -> float:
    made_up(cell).write(result_path(results, cell))
    return 1.0


def die_with_seed_0(cell: Cell, results: Path, data: Path) -> float:
    return write(cell, results, data) if cell.seed else os._exit(1)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_missing_is_run_in_order_and_what_is_there_is_skipped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_run_apart", write)
    write(SEEDS[1], tmp_path, data)
    told: list[int] = []
    fill(SEEDS, tmp_path, data, on_cell=lambda cell, seconds: told.append(cell.seed))
    assert sorted(told) == [0, 2, 3]
    assert names(tmp_path) == {f"{cell.hash}.json" for cell in SEEDS}
    assert missing(SEEDS, tmp_path) == []


def test_after_a_kill_only_what_was_lost_is_run_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_run_apart", write)
    fill(SEEDS, tmp_path, data)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    lost = result_path(tmp_path, SEEDS[2])
    lost.unlink()
    told: list[Cell] = []
    fill(SEEDS, tmp_path, data, on_cell=lambda cell, seconds: told.append(cell))
    assert told == [SEEDS[2]]
    after = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert [path for path in after if after[path] != before[path]] == [lost]


def test_data_are_collected_before_the_first_cell_runs_and_not_again_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [dataclasses.replace(TINY, obs_type="state", n_tasks=n) for n in (2, 4)]
    seen: list[list[str]] = []

    def look(cell: Cell, results: Path, data: Path) -> float:
        seen.append(sorted(path.parent.name for path in data.glob("*/manifest.json")))
        kept = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
        data_for(cell, data)
        assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == kept
        return 0.0

    monkeypatch.setattr(run, "_run_apart", look)
    fill(cells, tmp_path / "results", tmp_path / "data")
    assert seen == [["state-2x2x8-noise0.6", "state-4x2x8-noise0.6"]] * 2


def test_a_cell_that_fails_is_named_after_all_others_are_done(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_with_odd_seed(cell: Cell, results: Path, data: Path) -> float:
        if cell.seed % 2:
            raise FloatingPointError("the loss is nan")
        return write(cell, results, data)

    monkeypatch.setattr(run, "_run_apart", fail_with_odd_seed)
    with pytest.raises(RuntimeError, match="2 of 4 cells failed") as error:
        fill(SEEDS, tmp_path, data)
    for part in ("ours wall-clock, seed 1", "seed 3", "FloatingPointError: the loss is nan"):
        assert part in str(error.value)
    assert missing(SEEDS, tmp_path) == [SEEDS[1], SEEDS[3]]


def test_a_cell_whose_process_dies_takes_no_other_along(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "run_cell", die_with_seed_0)
    with pytest.raises(RuntimeError, match="1 of 2 cells failed.*seed 0") as error:
        fill(SEEDS[:2], tmp_path, data)
    assert isinstance(error.value.__cause__, BrokenProcessPool)
    assert missing(SEEDS[:2], tmp_path) == [SEEDS[0]]


def test_what_a_stopped_run_had_not_begun_it_does_not_begin(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def begin(cell: Cell, results: Path, data: Path) -> float:
        begun.append(cell.seed)
        time.sleep(0.2)
        return 0.0

    def stop(cell: Cell, seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_run_apart", begin)
    with pytest.raises(KeyboardInterrupt):
        fill(SEEDS, tmp_path, data, on_cell=stop)
    assert begun in ([0], [0, 1])


def test_a_half_written_result_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        write(TINY, tmp_path, tmp_path)
    assert len(names(tmp_path)) == 1
    assert missing([TINY], tmp_path) == [TINY] and read_results(tmp_path) == []


# --- costs ---


def test_a_steps_cost_is_the_mean_of_both_halves_medians_after_their_first_steps() -> None:
    first, second = [9.0] * 4 + [1.0, 2.0, 100.0], [9.0] * 4 + [4.0, 4.0, 0.0]
    assert seconds_per_batch(first + second) == 3.0


def test_costs_of_systems_are_measured_and_the_plan_follows_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tiny(**settings: Any) -> Cell:
        options = {"batch_size": 4}
        return dataclasses.replace(TINY, **settings, options=options)

    for name, value in {"Cell": tiny, "N_ROUNDS": 2, "N_STEPS": 4, "N_FIRST": 1}.items():
        monkeypatch.setattr(costs_module, name, value)
    monkeypatch.setattr(plan_module, "COSTS", tmp_path / "costs.json")
    monkeypatch.setattr(plan_module, "MODERN", ("bc_sentence",))
    told: dict[str, Any] = {}
    measure_costs(
        data, tmp_path / "costs.json", systems=["bc_sentence", "lstm"], on_row=told.__setitem__
    )
    costs = read_costs()
    assert costs == told
    assert {name: cost["samples_per_batch"] for name, cost in costs.items()} == {
        "bc_sentence": 4 * 2 * 4,
        "lstm": 4 * 2 * 9,
    }
    low, high = costs["bc_sentence"]["range"]
    assert 0 < low <= costs["bc_sentence"]["seconds_per_batch"] <= high < 60
    [cell] = plan(costs, ("modern",))
    assert costs["bc_sentence"]["batch_size"] == 4
    share = SYSTEMS["bc_sentence"].settings["batch_size"] / 4
    seconds = share * costs["bc_sentence"]["seconds_per_batch"]
    assert cell.n_batches == math.floor(SECONDS / seconds)
    assert names(tmp_path) == {"costs.json"}


# --- the command ---


def benchmark(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["ent-bc", "benchmark", *arguments])
    main()


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "COSTS", tmp_path / "costs.json")
    (tmp_path / "costs.json").write_text(json.dumps({"systems": COSTS}))


@pytest.mark.usefixtures("measured")
def test_the_table_and_plots_are_made_of_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = as_multi_task(gym.make(ENV_ID, split="test")).tasks
    ids, pairs = tuple(t.task_id for t in tasks), tuple(pair_of(t) for t in tasks)
    condition = Condition(1, ids, pairs, "s" * len(ids), "1" * len(ids))
    results = tmp_path / "out" / "results"
    for cell in plan(COSTS)[:2]:
        made_up(cell, condition).write(result_path(results, cell))
    benchmark("table", "--limit", "0", "--out", str(tmp_path / "out"), monkeypatch=monkeypatch)
    text = (tmp_path / "out" / "table.md").read_text()
    assert f"2 of {len(plan(COSTS))} planned cells were run." in text
    assert "| TecNets | 100.0 [100.0, 100.0] |" in text
    assert list((tmp_path / "out").glob("*.png")) or list((tmp_path / "out").glob("*.svg"))
    assert len(names(results)) == 2


@pytest.mark.usefixtures("measured")
def test_tuning_runs_eight_cells_of_a_system_and_marks_the_chosen_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "data_for", lambda *_: None)
    monkeypatch.setattr(run, "_run_apart", write)
    chosen = dataclasses.replace(
        SYSTEMS["lstm"], settings=merge(SYSTEMS["lstm"].settings, GRIDS["lstm"][2])
    )
    monkeypatch.setitem(SYSTEMS, "lstm", chosen)
    out = ("--out", str(tmp_path))
    benchmark("tuning", "--systems", "lstm", "--limit", "3", *out, monkeypatch=monkeypatch)
    assert len(names(tmp_path / "tuning")) == 3
    benchmark("tuning", "--systems", "lstm", *out, monkeypatch=monkeypatch)
    assert len(names(tmp_path / "tuning")) == 8
    text = (tmp_path / "tuning.md").read_text()
    sections = dict(part.split("\n", 1) for part in text.split("### ")[1:])
    assert set(sections) == {NAMES[system] for system in GRIDS}
    rows = [line for line in sections["LSTM"].splitlines() if "learning_rate" in line]
    assert len(rows) == 8 and all("50.0 [" in row and "1 x 2" in row for row in rows)
    [marked] = [row for row in rows if "**" in row]
    assert "learning_rate 0.001, pooling flatten" in marked
    assert sections[NAMES["mil"]].strip() == "Not run."
