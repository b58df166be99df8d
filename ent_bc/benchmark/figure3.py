"""The paper's figure 3, and what it hides: ``ent-bc benchmark figure3``.

Each variant and seed is a run in a file of its own, ``VARIANT-seedK.json``; what is there is not
run again. Then both figures and the numbers are written beside them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import torch as th

from ent_bc.benchmark.figure3_claims import Verdict, verdicts
from ent_bc.benchmark.figure3_curves import curves_of
from ent_bc.benchmark.figure3_plots import plot_figure3, plot_hidden
from ent_bc.benchmark.figure3_report import markdown
from ent_bc.benchmark.figure3_runs import SEEDS, VARIANTS, RunConfig, run
from ent_bc.evaluation import worker_pool
from meta_pusher_env.collection import collect
from meta_pusher_env.dataset_layout import read_json, write_json
from meta_pusher_env.datasets import DemonstrationSet

FIRST = ("ent-bc", "original")
PAPERS_RUNS = RunConfig()
ON_A_GPU = RunConfig(n_demos=5, demos_per_task=10, device="cuda")
OnRun = Callable[[str, int, dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Figure3Options:
    """What of figure 3 is run."""

    data: Path = Path("runs/figure3/demonstrations")
    """Directory of the demonstrations; collected where runs are missing and they are too."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Readings of the paper; the first two are its figure."""
    seeds: tuple[int, ...] = SEEDS
    """Runs of each."""
    jobs: int = 1
    """Runs at once, each on one thread."""

    def __post_init__(self) -> None:
        unknown = set(self.variants) - set(VARIANTS)
        if unknown:
            raise ValueError(f"Unknown variants {sorted(unknown)}: expected some of {[*VARIANTS]}.")
        if self.jobs < 1:
            raise ValueError(f"jobs is {self.jobs}, expected at least 1.")

    def runs(self) -> list[tuple[str, int]]:
        """Variants and seeds in order: the paper's own two for all seeds, then the others."""
        groups = [[v for v in self.variants if (v in FIRST) is first] for first in (True, False)]
        return [(v, seed) for group in groups for seed in self.seeds for v in group]


def figure3(
    out: Path,
    options: Figure3Options,
    config: RunConfig = PAPERS_RUNS,
    *,
    on_run: OnRun | None = None,
) -> list[Verdict]:
    """Does the runs that are missing, and draws and writes all that are there.

    Args:
        out: Directory of runs, figures and figure3.md.
        options: What is run.
        config: What all runs have in common.
        on_run: Told variant, seed and record of each run when it is done.

    Raises:
        ValueError: The directory has a run of another configuration, or a GPU is asked for where
            torch finds none.
    """
    _read(out, config)  # a run of another configuration is told before hours are spent
    run_missing(out, options, config, on_run or (lambda *_: None))
    records = _read(out, config)
    if not records:
        raise ValueError(
            f"There is no run in {out}, and none is asked for: give variants and seeds."
        )
    curves = curves_of(records)
    plot_figure3(curves, out / "figure3.png")
    plot_hidden(curves, out / "figure3_hidden.png")
    (out / "figure3.md").write_text(markdown(curves, records), "utf-8")
    return verdicts(curves)


def run_missing(out: Path, options: Figure3Options, config: RunConfig, on_run: OnRun) -> None:
    """Does the runs without a file, each of which appears whole or not at all."""
    missing = [which for which in options.runs() if not _path(out, *which).exists()]
    if not missing:
        return
    if th.device(config.device).type == "cuda" and not th.cuda.is_available():
        raise ValueError(
            f"The runs are to be on {config.device!r}, and torch finds no GPU: install a build of "
            "torch with CUDA, or leave out --gpu."
        )
    out.mkdir(parents=True, exist_ok=True)
    collect(options.data, config.demonstrations(), n_workers=options.jobs)
    if options.jobs == 1:
        for which in missing:
            on_run(*which, _run_to_file(out, *which, config, options.data))
        return
    with worker_pool(options.jobs) as pool:
        jobs = {
            pool.submit(_run_to_file, out, *which, config, options.data): which for which in missing
        }
        for job in as_completed(jobs):
            on_run(*jobs[job], job.result())


def _run_to_file(out: Path, variant: str, seed: int, config: RunConfig, data: Path) -> Any:
    record = run(variant, seed, config, DemonstrationSet(data))
    write_json(_path(out, variant, seed), record)
    return record


def _read(out: Path, config: RunConfig) -> list[Any]:
    """The records of all runs there are, by variant and seed.

    Raises:
        ValueError: One is of another configuration.
    """
    records = []
    for variant in VARIANTS:
        for path in out.glob(f"{variant}-seed*.json"):
            record = read_json(path)
            # A run that is older than a setting had what is now its default.
            record["config"] = {**dataclasses.asdict(PAPERS_RUNS), **record["config"]}
            if record["config"] != dataclasses.asdict(config):
                raise ValueError(
                    f"{path} was run with {record['config']}, and {dataclasses.asdict(config)} is "
                    "asked for: choose another --out, or delete it."
                )
            records.append(record)
    return sorted(records, key=lambda r: (list(VARIANTS).index(r["variant"]), r["seed"]))


def _path(out: Path, variant: str, seed: int) -> Path:
    return out / f"{variant}-seed{seed}.json"
