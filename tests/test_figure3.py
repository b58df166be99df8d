"""Figure 3: runs that resume, figures, and verdicts that follow the numbers."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

from ent_bc import cli
from ent_bc.benchmark import figure3 as program
from ent_bc.benchmark.figure3 import ON_A_GPU, PAPERS_RUNS, Figure3Options, figure3
from ent_bc.benchmark.figure3_claims import (
    Verdict,
    costs_nothing,
    demonstration_decides,
    rises_while_maintained,
)
from ent_bc.benchmark.figure3_curves import Curves
from ent_bc.benchmark.figure3_held_out import HeldOut
from ent_bc.benchmark.figure3_runs import VARIANTS, RunConfig, _BatchMetrics, make_model
from ent_bc.statistics import Sentences, embedding_metrics

TINY = RunConfig(
    n_tasks=4,
    demos_per_task=2,
    n_val_tasks=4,
    image_size=32,
    batch_size=4,
    n_batches=4,
    measure_every=2,
    roll_out_every=4,
)
PAIRS = tuple(str(pair) for pair in range(20) for _ in range(2))


# --- the program, once, on very little ---


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figure3")
    options = Figure3Options(data=folder / "data", variants=("ent-bc",), seeds=(0,))
    figure3(folder, options, TINY)
    return folder


def read(folder: Path, name: str = "ent-bc-seed0") -> Any:
    return json.loads((folder / f"{name}.json").read_text())


def test_a_run_is_a_file_that_says_what_was_run_and_measured(out: Path) -> None:
    record = read(out)
    assert (record["variant"], record["seed"]) == ("ent-bc", 0)
    assert record["config"] == dataclasses.asdict(TINY)
    assert len(record["data_sha256"]) == 64
    assert [point["step"] for point in record["points"]] == [0, 2, 4]
    assert record["points"][0]["entropy"] == pytest.approx(7 * 0.5 * np.log(2 * np.pi * np.e))
    assert record["points"][-1]["entropy"] > record["points"][0]["entropy"]
    for point in record["points"]:
        assert len(point["found"]) == len(point["told_apart"]) == 4
        assert set(point["found"] + point["told_apart"]) <= set("012")
        assert 0 <= point["batch"]["embedding_accuracy"] <= 1
    assert ["rollouts" in point for point in record["points"]] == [False, False, True]
    for trials in (record["points"][-1]["rollouts"], record["points"][-1]["sampled"]):
        assert {shown: len(letters) for shown, letters in trials.items()} == {"own": 4, "twin": 4}
        assert set(trials["own"] + trials["twin"]) <= set("sobn")
    assert min(record["seconds"].values()) > 0


def test_what_is_there_is_not_run_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("it was run again")

    monkeypatch.setattr(program, "run", never)
    monkeypatch.setattr(program, "collect", never)
    before = (out / "figure3.md").read_text()
    figure3(out, Figure3Options(data=out / "data", variants=("ent-bc",), seeds=(0,)), TINY)
    assert (out / "figure3.md").read_text() == before


def test_what_is_missing_is_run_and_appears_whole(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, int]] = []

    def run(variant: str, seed: int, config: RunConfig, _: Any) -> Any:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append((variant, seed))
        return {**read(out), "variant": variant, "seed": seed}

    monkeypatch.setattr(program, "run", run)
    options = Figure3Options(data=out / "data", variants=("nll", "original", "ent-bc"))
    with pytest.raises(KeyboardInterrupt):
        figure3(tmp_path, options, TINY)
    assert ran == [("original", 0), ("ent-bc", 0), ("original", 1)]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"{variant}-seed{seed}.json" for variant, seed in ran}
    assert options.runs()[len(ran)] == ("ent-bc", 1)


def test_several_runs_at_once_are_the_same_runs(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(variant: str, seed: int, config: RunConfig, _: Any) -> Any:
        return {**read(out), "variant": variant, "seed": seed}

    monkeypatch.setattr(program, "run", run)
    monkeypatch.setattr(program, "worker_pool", ThreadPoolExecutor)
    told: list[tuple[str, int]] = []
    options = Figure3Options(data=out / "data", variants=("nll", "original"), seeds=(0, 3), jobs=2)
    figure3(tmp_path, options, TINY, on_run=lambda variant, seed, _: told.append((variant, seed)))
    assert sorted(told) == [("nll", 0), ("nll", 3), ("original", 0), ("original", 3)]
    assert all((tmp_path / f"{variant}-seed{seed}.json").exists() for variant, seed in told)


def test_both_figures_and_the_numbers_are_written_and_say_what_was_not_run(
    out: Path, tmp_path: Path
) -> None:
    for variant in VARIANTS:
        for seed in (0, 1):
            record = {**copy.deepcopy(read(out)), "variant": variant, "seed": seed}
            (tmp_path / f"{variant}-seed{seed}.json").write_text(json.dumps(record))
    figure3(tmp_path, Figure3Options(seeds=(0, 1)), TINY)
    for name in ("figure3.png", "figure3_hidden.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / name).stat().st_size > 20_000
    text = (tmp_path / "figure3.md").read_text()
    assert text.count("`nll`") == 3  # a row of accuracies, two of trials
    not_run = ", ".join(f"{variant} seed 2" for variant in VARIANTS)
    assert text.endswith(f"Not run: {not_run}.\n")


def test_runs_of_another_configuration_are_not_mixed_in(out: Path) -> None:
    other = dataclasses.replace(TINY, n_batches=8)
    with pytest.raises(
        ValueError, match=r"ent-bc-seed0.json was run with .*'n_batches': 8.* --out"
    ):
        figure3(out, Figure3Options(data=out / "data"), other)


def test_a_run_has_as_many_support_and_query_demonstrations_as_are_asked_for(
    tmp_path: Path,
) -> None:
    two = dataclasses.replace(TINY, n_demos=2, demos_per_task=4)
    figure3(tmp_path, Figure3Options(tmp_path / "data", ("ent-bc",), (0,)), two)
    assert read(tmp_path)["config"]["n_demos"] == 2
    assert "2 support and 2 query demonstrations" in (tmp_path / "figure3.md").read_text()
    batches = make_model(VARIANTS["ent-bc"], 0, two, _BatchMetrics()).batches
    assert (batches.n_support, batches.n_query) == (2, 2)


def test_a_run_from_before_a_setting_has_its_default(out: Path, tmp_path: Path) -> None:
    record = read(out)
    del record["config"]["n_demos"], record["config"]["device"]
    (tmp_path / "ent-bc-seed0.json").write_text(json.dumps(record))
    figure3(tmp_path, Figure3Options(variants=("ent-bc",), seeds=(0,)), TINY)
    assert (tmp_path / "figure3.md").read_text() == (out / "figure3.md").read_text()


@pytest.mark.skipif(th.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_before_anything_is_collected(tmp_path: Path) -> None:
    on_a_gpu = dataclasses.replace(TINY, device="cuda")
    with pytest.raises(ValueError, match="on 'cuda', and torch finds no GPU.* --gpu"):
        figure3(tmp_path / "out", Figure3Options(data=tmp_path / "data"), on_a_gpu)
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(not th.cuda.is_available(), reason="there is no GPU")
def test_a_run_on_a_gpu_measures_the_same_things(out: Path, tmp_path: Path) -> None:
    on_a_gpu = dataclasses.replace(TINY, device="cuda")
    figure3(tmp_path, Figure3Options(tmp_path / "data", ("ent-bc",), (0,)), on_a_gpu)
    assert [set(point) for point in read(tmp_path)["points"]] == [
        set(point) for point in read(out)["points"]
    ]


def test_bad_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Unknown variants \['ours'\]"):
        Figure3Options(variants=("ours",))
    with pytest.raises(ValueError, match="jobs is 0, expected at least 1"):
        Figure3Options(jobs=0)
    with pytest.raises(ValueError, match="n_batches is 10, .* expected each a multiple"):
        RunConfig(n_batches=10)
    with pytest.raises(ValueError, match="demos_per_task is 4, expected at least 10: 5 support"):
        RunConfig(n_demos=5)
    with pytest.raises(ValueError, match="no run in .* give variants and seeds"):
        figure3(tmp_path, Figure3Options(seeds=()), TINY)


def test_the_command_line_says_what_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def draw(*arguments: Any, **_: Any) -> list[Verdict]:
        asked.extend(arguments)
        return [Verdict("It is drawn", "holds", "")]

    monkeypatch.setattr("ent_bc.benchmark.cli.figure3", draw)
    words = f"--out {tmp_path} --data data --variants nll original --seeds 1 --jobs 2"
    monkeypatch.setattr("sys.argv", ["ent-bc", "benchmark", "figure3", *words.split()])
    cli.main()
    options = Figure3Options(Path("data"), ("nll", "original"), (1,), 2)
    assert asked == [tmp_path, options, PAPERS_RUNS]
    assert "It is drawn" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["ent-bc", "benchmark", "figure3", "--gpu"])
    cli.main()
    assert asked[3:] == [Path("benchmarks/figure3"), Figure3Options(), ON_A_GPU]


def test_accuracies_are_those_of_the_evaluation() -> None:
    trials = TINY.trials("own")
    held_out = HeldOut.of(trials)
    vectors = np.random.default_rng(0).normal(size=(4, 2, 20)).astype(np.float32)
    vectors[:3, 1] = vectors[:3, 0]
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    task_ids, pair_ids = (np.repeat(x, 2) for x in (held_out.task_ids, held_out.pair_ids))
    metrics = embedding_metrics(Sentences(vectors.reshape(8, 20), tuple(task_ids), tuple(pair_ids)))
    found = held_out._recognised(vectors)
    assert found["found"].sum() / 8 == metrics["embedding_accuracy"]["value"] < 1
    assert found["told_apart"].sum() / 8 == metrics["twin_accuracy"]["value"]


# --- verdicts, on made-up curves ---


def made_up(
    *,
    accuracy: tuple[float, float] = (0.0, 0.9),
    entropy: tuple[float, float, float] = (10.0, 10.0, 10.0),
    other_after_twin: float = 0.9,
    other_after_own: float = 0.1,
    seeds: tuple[int, ...] = (0, 1, 2),
    seed_of_noise: int = 0,
) -> Curves:
    """Curves whose tasks are hits at given rates."""
    rng = np.random.default_rng(seed_of_noise)
    shape = (len(seeds), len(PAIRS))

    def hits(rate: float) -> np.ndarray:
        return (rng.random(shape) < rate).astype(float)

    def letters(rate: float) -> np.ndarray:
        return np.where(hits(rate) > 0, "o", "s")[:, None]

    accuracies = np.stack([hits(accuracy[0]), hits(accuracy[1]), hits(accuracy[1])], axis=1)
    trials = {"own": letters(other_after_own), "twin": letters(other_after_twin)}
    return Curves(
        seeds=seeds,
        pair_ids=PAIRS,
        n_actions=7,
        steps=np.array([0, 50, 100]),
        entropy=np.tile(entropy, (len(seeds), 1)),
        batch_accuracy=accuracies.mean(axis=2),
        embedding_accuracy=accuracies,
        twin_accuracy=accuracies,
        trial_steps=np.array([100]),
        trials=trials,
        sampled=trials,
    )


@pytest.mark.parametrize(
    ("curves", "answer", "words"),
    [
        (made_up(), "holds", "rises.*entropy is maintained"),
        (made_up(accuracy=(0.5, 0.5)), "fails", "does not rise.*is maintained"),
        (made_up(entropy=(10, 3, 10)), "fails", "rises.*falls: .*lowest 3.00"),
        (made_up(entropy=(10, 20, 24)), "holds in part", "rises.*grows: from 10.00 to 24.00"),
        (made_up(accuracy=(0.5, 0.5), entropy=(10, 20, 24)), "fails", "does not rise.*grows"),
    ],
)
def test_the_first_claim_needs_a_rise_and_an_entropy_that_stays(
    curves: Curves, answer: str, words: str
) -> None:
    verdict = rises_while_maintained({"ent-bc": curves})
    assert verdict.answer == answer
    assert re.search(words, verdict.why)


@pytest.mark.parametrize(
    ("with_term", "without", "answer"),
    [(1.0, 0.99, "holds"), (0.9, 0.5, "holds"), (0.5, 0.9, "fails"), (0.5, 0.5, "not settled")],
)
def test_the_second_claim_compares_both_with_an_interval(
    with_term: float, without: float, answer: str
) -> None:
    ours, original = (
        made_up(accuracy=(0, with_term)),
        made_up(accuracy=(0, without), seed_of_noise=1),
    )
    assert costs_nothing({"ent-bc": ours, "original": original}).answer == answer


def test_the_second_claim_compares_the_same_seeds() -> None:
    ours, original = made_up(), made_up(seeds=(2, 5))
    verdict = costs_nothing({"ent-bc": ours, "original": original})
    assert "n = 1 seed x 40 tasks" in verdict.why
    assert costs_nothing({"ent-bc": ours}).answer == "not run"
    assert costs_nothing({"ent-bc": ours, "original": made_up(seeds=(5,))}).answer == "not run"


@pytest.mark.parametrize(
    ("own", "twin", "answer"),
    [(0.1, 0.9, "holds"), (0.4, 0.4, "fails"), (0.3, 0.6, "holds in part")],
)
def test_an_accurate_embedding_does_not_say_that_the_demonstration_decides(
    own: float, twin: float, answer: str
) -> None:
    curves = made_up(other_after_own=own, other_after_twin=twin)
    assert demonstration_decides({"ent-bc": curves}).answer == answer


def test_too_few_trials_settle_nothing() -> None:
    few = dataclasses.replace(made_up(seeds=(0,)), pair_ids=("0",) * 20 + ("1",) * 20)
    few.trials["own"][:], few.trials["twin"][:] = "s", "s"
    few.trials["twin"][..., :20] = "o"  # of two pairs one follows its demonstration
    assert demonstration_decides({"ent-bc": few}).answer == "not settled"


def test_an_interval_counts_seeds_and_pairs_not_tasks() -> None:
    alike = np.repeat(np.arange(20) % 2, 2)[None].repeat(3, axis=0).astype(float)
    curves = made_up()
    each_alone = dataclasses.replace(curves, pair_ids=tuple(str(task) for task in range(40)))
    by_pair, by_task = curves.estimate(alike), each_alone.estimate(alike)
    assert by_pair.value == by_task.value == 0.5
    assert by_pair.high - by_pair.low > 1.2 * (by_task.high - by_task.low)
    seeds_differ = curves.estimate(np.repeat([[0.0], [0.5], [1.0]], 40, axis=1))
    assert (seeds_differ.low, seeds_differ.high) == (0, 1)
