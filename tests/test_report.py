"""From trials to what is read."""

from __future__ import annotations

import csv
import dataclasses
import fnmatch
import io
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ent_bc.evaluation import EvaluationConfig, Trial
from ent_bc.plots import read_curves
from ent_bc.report import Results, make_results, terminal_table, write_report
from ent_bc.statistics import Rate, Sentences

ROOT = Path(__file__).parent.parent
COMMANDS = ("ent-bc evaluate --model <model>",)
FILES = {"results.json", "trials.csv", "curves.png", "embedding.png", "report.html"}


def trials(rate: float, n_pairs: int = 8, n_trials: int = 3) -> list[Trial]:
    rng = np.random.default_rng(0)
    return [
        Trial(
            task_id=f"test-{pair}{role}",
            pair_id=f"test-{pair}",
            seed=seed,
            success=bool(rng.random() < rate),
            success_other=bool(rng.random() < 0.2),
            strict=False,
            target_moved=0.1,
            distractor_moved=0.0,
            target_distance=0.1,
            distractor_distance=0.1,
        )
        for pair in range(n_pairs)
        for role in "ab"
        for seed in range(n_trials)
    ]


CONDITIONS = {
    "own_1shot": trials(0.9),
    "own_5shot": trials(0.95),
    "twin": trials(0.1),
    "shuffled": trials(0.4),
    "expert": trials(1.0, n_trials=2),
    "blind <b>": trials(0.4, n_pairs=7),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    folder = tmp_path_factory.mktemp("report")
    log = folder / "progress.csv"
    log.write_text(
        "bc/loss,bc/entropy,bc/twin_accuracy,rollout/return,time/steps\n"
        "2.0,5,,,100\n1.0,4,0.5,,200\n0.5,3,0.9,,300\n"
    )
    video = folder / "video.mp4"
    video.write_bytes(b"not really a video")
    rng = np.random.default_rng(0)
    names = [f"test-{pair}{role}" for pair in range(8) for role in "ab" for _ in range(2)]
    vectors = rng.normal(size=(len(names), 20)).astype(np.float32)
    results = write_report(
        folder / "out",
        CONDITIONS,
        EvaluationConfig(),
        curves_csv=log,
        sentences=Sentences(vectors, tuple(names), tuple(name[:-1] for name in names)),
        pair_distance={f"test-{pair}": pair / 10 for pair in range(8)},
        video=video,
        commands=COMMANDS,
        extra={"minutes": np.float32(9.5), "path": Path("runs/1"), "loss": float("nan")},
    )
    return folder / "out", results


def page(written: tuple[Path, Results]) -> str:
    return (written[0] / "report.html").read_text("utf-8")


def test_all_files_are_written_and_no_others(written: tuple[Path, Results]) -> None:
    assert {path.name for path in written[0].iterdir()} == FILES


def test_results_survive_json(written: tuple[Path, Results]) -> None:
    folder, results = written
    assert json.loads((folder / "results.json").read_text("utf-8")) == results


def test_every_condition_and_every_n_is_in_the_results(written: tuple[Path, Results]) -> None:
    _, results = written
    assert list(results["conditions"]) == list(CONDITIONS)
    for name, summary in results["conditions"].items():
        assert summary["n_trials"] == len(CONDITIONS[name])
        assert summary["shown"]["n"] == len(CONDITIONS[name])
    assert [len(quarters) for quarters in results["quartiles"].values()] == [4] * len(CONDITIONS)
    assert results["embedding"]["embedding_accuracy"]["n"] == 32
    assert results["config"] == dataclasses.asdict(EvaluationConfig())
    assert results["extra"] == {"minutes": 9.5, "path": "runs/1", "loss": None}


def test_trials_are_kept_one_by_one(written: tuple[Path, Results]) -> None:
    with open(written[0] / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(some) for some in CONDITIONS.values())
    assert rows[0]["condition"] == "own_1shot"
    assert {row["outcome"] for row in rows} <= {"shown only", "other only", "both", "neither"}
    assert [row["success"] for row in rows[:48]] == [str(t.success) for t in trials(0.9)]


def test_the_page_needs_nothing_beside_it(written: tuple[Path, Results]) -> None:
    text = page(written)
    assert "http" not in text and "file:" not in text and "<script" not in text
    sources = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^">]{0,30})', text)
    assert len(sources) == 3
    assert {source.split(";")[0] for source in sources} == {"data:video/mp4", "data:image/png"}


def test_the_page_shows_every_condition_with_rate_interval_and_n(
    written: tuple[Path, Results],
) -> None:
    text = page(written)
    for name, summary in written[1]["conditions"].items():
        rate = Rate(**summary["shown"])
        escaped = name.replace("<", "&lt;").replace(">", "&gt;")
        row = re.search(rf"<tr><td>{re.escape(escaped)}</td>.*?</tr>", text)
        assert row is not None
        assert f"<td>{rate.n}</td>" in row[0]
        assert f"{rate.percent}<small>{rate.interval}</small>" in row[0]
        assert "Wilson [" in row[0]
    assert "blind <b>" not in text


def test_the_page_shows_failures_quartiles_settings_and_commands(
    written: tuple[Path, Results],
) -> None:
    text = page(written)
    for words in (
        "never reached",
        "wrong object",
        "last centimetres",
        "least alike",
        "n_shots",
        "ent-bc evaluate --model &lt;model&gt;",
        "How each number is defined",
        "torch",
    ):
        assert words in text
    assert "$" not in text


def test_plots_are_pictures(written: tuple[Path, Results]) -> None:
    for name in ("curves.png", "embedding.png"):
        with Image.open(written[0] / name) as picture:
            assert picture.format == "PNG"
            pixels = np.asarray(picture.convert("RGB"))
        assert min(pixels.shape[:2]) > 200 and pixels.std() > 5


def test_a_report_of_trials_alone_is_complete(tmp_path: Path) -> None:
    results = write_report(tmp_path, {"own": trials(0.5)}, {"a": {"b": 1}})
    assert {path.name for path in tmp_path.iterdir()} == {
        "results.json",
        "trials.csv",
        "report.html",
    }
    assert results["quartiles"] == {} and results["embedding"] is None
    assert "a.b" in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize("conditions", [{}, {"own": []}])
def test_a_report_of_nothing_is_refused(conditions: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected trials in each"):
        write_report(tmp_path, conditions, {})
    assert not list(tmp_path.iterdir())


def test_a_log_without_a_column_or_a_row_is_read_all_the_same(tmp_path: Path) -> None:
    log = tmp_path / "progress.csv"
    log.write_text("bc/loss,text\n1.5,a\n,b\n")
    curves = read_curves(log)
    assert list(curves) == ["bc/loss"]
    np.testing.assert_array_equal(curves["bc/loss"], [1.5, np.nan])
    log.write_text("")
    assert read_curves(log) == {}


def test_the_terminal_shows_the_same_table_in_eighty_columns() -> None:
    results = make_results(CONDITIONS, {})
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal_table(results))
    text = console.export_text()
    for name, summary in results["conditions"].items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"│ {name} ")]
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        assert cells[1] == str(summary["n_trials"])
        assert cells[2] == f"{100 * summary['shown']['value']:.1f}"
    assert "…" not in text


def test_the_template_is_shipped() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]["ent_bc"]
    assert any(fnmatch.fnmatch("report.html.in", pattern) for pattern in patterns)
