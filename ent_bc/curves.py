"""Training curves of a run that was killed and went on: one file from several."""

from __future__ import annotations

import csv
from pathlib import Path


def set_log_aside(log: Path) -> list[Path]:
    """Keeps the killed run's curves, for a logger begins its file anew; all parts, in order."""
    parts = sorted(log.glob("part-*.csv"))
    current = log / "progress.csv"
    if current.exists():
        parts.append(current.rename(log / f"part-{len(parts):03d}.csv"))
    return parts


def join_logs(log: Path, earlier: list[Path]) -> None:
    """One file of curves from a run in parts; steps that were run again count once."""
    if not earlier:
        return
    rows: dict[float, dict[str, str]] = {}
    for part in (*earlier, log / "progress.csv"):
        with open(part, newline="", encoding="utf-8") as file:
            rows |= {float(row["time/steps"]): row for row in csv.DictReader(file)}
    columns = sorted({key for row in rows.values() for key in row})
    with open(log / "progress.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows[step] for step in sorted(rows))
    for part in earlier:
        part.unlink()
