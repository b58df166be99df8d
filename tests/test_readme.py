"""What the README's first screen says runs as it is printed."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

from ent_bc import EntBC

ROOT = Path(__file__).parents[1]
MODEL = "runs/quickstart/model/model.safetensors"
README = (ROOT / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model, in the place of the quickstart's."""
    path = tmp_path_factory.mktemp("readme") / "model.safetensors"
    env = "meta_pusher_env:MetaPusher-v0"
    EntBC(env=gym.make(env, obs_type="pixels_agent_pos", image_size=96), seed=0).save(path)
    return path


def test_the_ten_lines_of_python_run(model_file: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert MODEL in code
    done = run("-c", code.replace(MODEL, str(model_file)))
    assert done.stdout.strip() in ("True", "False")


@pytest.mark.parametrize("options", [[], ["--twin", "--task", "1"]])
def test_the_example_runs(model_file: Path, options: list[str]) -> None:
    done = run("examples/one_shot.py", "--model", str(model_file), *options)
    assert "shown object at the goal: " in done.stdout


def test_targets_and_files_that_it_names_exist() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert target in targets, f"make {target}"
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", ["README.md", "docs/benchmark.md"])
def test_the_figures_of_every_system_are_the_benchmarks(page: str) -> None:
    of_benchmark = rows_by_system((ROOT / "benchmarks" / "table.md").read_text("utf-8"))
    told = rows_by_system((ROOT / page).read_text("utf-8"))
    assert set(told) == set(of_benchmark)
    for system, cells in told.items():
        assert set(cells) <= set(of_benchmark[system]), system


@pytest.mark.parametrize("title", ["Systems at equal samples", "Training tasks"])
def test_the_page_has_the_benchmarks_table(title: str) -> None:
    tables = (ROOT / "benchmarks" / "table.md").read_text("utf-8")
    _, _, section = tables.partition(f"### {title}\n\n")
    table, _, _ = section.partition("\n\n")
    assert table.startswith("|")
    assert table in (ROOT / "docs" / "benchmark.md").read_text("utf-8")


def rows_by_system(text: str) -> dict[str, list[str]]:
    """The cells of each row of the tables of systems."""
    rows = {}
    for table in text.split("| system | shown |")[1:]:
        lines = itertools.takewhile(lambda line: line.startswith("|"), table.splitlines()[1:])
        cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
        rows |= {row[0]: row for row in cells[1:]}
    return rows


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done
