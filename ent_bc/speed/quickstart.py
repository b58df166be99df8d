"""Rows of the whole quickstart: its time, and where it fails, beside its first version."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ent_bc.speed.history import ROOT, code_at
from ent_bc.speed.rows import Row

FIRST_VERSION = "e4d95a26174d646c624f22d1564cf42819a26876"
"""The commit whose quickstart is the peer."""
_PROGRAM = "from ent_bc.cli import main; main()"
_QUICK = ("--n-tasks", "4", "--demos-per-task", "2", "--n-batches", "2", "--n-trials", "1")


def measure(*, quick: bool) -> list[Row]:
    """Runs both once, ours first; without git there is no peer and no row."""
    with code_at(FIRST_VERSION, "ent_bc", "meta_pusher_env") as first:
        if first is None:
            return []
        options = _QUICK if quick else ()
        (seconds, failed), (seconds_then, failed_then) = _run(ROOT, options), _run(first, options)
    against = f"as it was at {FIRST_VERSION[:7]}, in turn"
    return [
        Row("whole quickstart", against, "s", (seconds,), (seconds_then,), at_most=0.5),
        Row("trials that fail after it", against, "%", (failed,), (failed_then,)),
    ]


def _run(code: Path, options: tuple[str, ...]) -> tuple[float, float]:
    """Seconds of a quickstart with the code of a folder, and per cent not brought as shown.

    Raises:
        RuntimeError: It failed.
    """
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", _PROGRAM, "quickstart", "--out", out, *options]
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=code, capture_output=True, text=True
        )  # imported from cwd
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(f"The quickstart of {code} failed:\n{done.stderr[-2000:]}")
        results = json.loads((Path(out) / "report" / "results.json").read_text("utf-8"))
    return seconds, 100 * (1 - results["conditions"]["own_1shot"]["shown"]["value"])
