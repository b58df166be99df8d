"""The result of a cell: a JSON file with every outcome, so that all statistics can be had anew."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ent_bc.evaluation import OUTCOMES, Trial

LETTERS = {name: name[0] for name in OUTCOMES}  # "shown only" is "s", and so on
_LETTERS_OF = {
    "shown": "sb",
    "shown_only": "s",
    "other": "ob",
    "other_only": "o",
    "both": "b",
    "neither": "n",
}
MEASURES = (*_LETTERS_OF, "strict")
"""What can be counted among trials; named as in `statistics.summarise`."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """How all trials of one condition ended, by task and then by trial.

    Attributes:
        trials_per_task: As many of each task.
        task_ids: The tasks.
        pair_ids: Their pairs.
        outcomes: One letter for each trial: s(hown only), o(ther only), b(oth), n(either), named by
            the environment's task, whichever demonstration was shown.
        strict: 0 or 1 for each trial.
    """

    trials_per_task: int
    task_ids: tuple[str, ...]
    pair_ids: tuple[str, ...]
    outcomes: str
    strict: str

    def __post_init__(self) -> None:
        n = self.trials_per_task * len(self.task_ids)
        lengths = {len(self.outcomes), len(self.strict)}
        if n < 1 or lengths != {n} or len(self.pair_ids) != len(self.task_ids):
            raise ValueError(
                f"There are {len(self.task_ids)} task_ids, {len(self.pair_ids)} pair_ids, "
                f"{len(self.outcomes)} outcomes and {len(self.strict)} of strict, expected "
                f"{self.trials_per_task} trials of each task, at least one."
            )
        for field, letters in (("outcomes", "sobn"), ("strict", "01")):
            unknown = set(getattr(self, field)) - set(letters)
            if unknown:
                raise ValueError(f"{field} has {sorted(unknown)}, expected letters of {letters!r}.")

    @classmethod
    def of_trials(cls, trials: Sequence[Trial]) -> Condition:
        """Packs trials, in the order in which `evaluate_k_shot` returns them.

        Raises:
            ValueError: There are none, or not as many of each task, one task after the other.
        """
        pair_of = {trial.task_id: trial.pair_id for trial in trials}
        n = len(trials) // max(1, len(pair_of))
        if [trial.task_id for trial in trials] != [task for task in pair_of for _ in range(n)]:
            raise ValueError(
                f"{len(trials)} trials of {len(pair_of)} tasks are not in order, expected as many "
                "of each task, one task after the other."
            )
        return cls(
            trials_per_task=n,
            task_ids=tuple(pair_of),
            pair_ids=tuple(pair_of.values()),
            outcomes="".join(LETTERS[trial.outcome] for trial in trials),
            strict="".join(str(int(trial.strict)) for trial in trials),
        )

    @property
    def groups(self) -> np.ndarray:
        """(N,) str: each trial's pair."""
        return np.repeat(np.array(self.pair_ids), self.trials_per_task)

    def hits(self, measure: str) -> np.ndarray:
        """(N,) bool: in which trials it happened.

        Args:
            measure: One of `MEASURES`.
        """
        letters, wanted = (
            (self.strict, "1") if measure == "strict" else (self.outcomes, _LETTERS_OF[measure])
        )
        return np.isin(np.array(list(letters)), list(wanted))

    def of_pairs(self, pairs: Collection[str]) -> Condition:
        """The trials of some pairs alone."""
        n = self.trials_per_task
        kept = [place for place, pair in enumerate(self.pair_ids) if pair in pairs]
        return Condition(
            trials_per_task=n,
            task_ids=tuple(self.task_ids[place] for place in kept),
            pair_ids=tuple(self.pair_ids[place] for place in kept),
            outcomes="".join(self.outcomes[n * place : n * (place + 1)] for place in kept),
            strict="".join(self.strict[n * place : n * (place + 1)] for place in kept),
        )


@dataclasses.dataclass(frozen=True)
class Training:
    """What training took and gave.

    Attributes:
        n_batches: Optimiser steps.
        n_samples: Pairs of observation and action that it was trained on.
        seconds: Of one core.
        samples_per_second: In training.
        n_parameters: Numbers that were trained.
        inference_ms: One action, milliseconds.
        entropy: Of the trained policy, nats, where it was measured.
    """

    n_batches: int
    n_samples: int
    seconds: float
    samples_per_second: float
    n_parameters: int
    inference_ms: float
    entropy: float | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "entropy" and value is None:
                continue
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"training has {field.name} {value!r}, expected a finite number.")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a cell gave.

    Attributes:
        cell: What was run, as JSON; its "seed" and all else that the outcome depends on.
        data_sha256: Of the training data.
        code: Commit that it was run with.
        package_version: Version that it was run with.
        training: What training took.
        conditions: By name: "own_1shot" always, "twin" and "own_5shot" where they were run.
        embedding: "embedding_accuracy" and "twin_accuracy"; None where there is no embedding.
    """

    cell: dict[str, Any]
    data_sha256: str
    code: str
    package_version: str
    training: Training
    conditions: dict[str, Condition]
    embedding: dict[str, float] | None = None

    def __post_init__(self) -> None:
        missing = {"group", "system", "variant", "budget", "seed"} - set(self.cell)
        if missing:
            raise ValueError(f"cell lacks {sorted(missing)}.")
        if "own_1shot" not in self.conditions:
            raise ValueError(f"conditions are {sorted(self.conditions)}, expected 'own_1shot'.")

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        record: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Result:
        """The result of a `to_json` record.

        Raises:
            KeyError: It lacks something.
            TypeError: It has something that no result has.
            ValueError: Something in it cannot be.
        """
        conditions = {
            name: Condition(
                **{
                    **condition,
                    "task_ids": tuple(condition["task_ids"]),
                    "pair_ids": tuple(condition["pair_ids"]),
                }
            )
            for name, condition in record["conditions"].items()
        }
        training = Training(**record["training"])
        return cls(**{**record, "training": training, "conditions": conditions})

    def write(self, path: Path) -> None:
        """Writes a file, whole or not at all; one line for each part, so that Git shows changes."""
        lines = [f"{json.dumps(key)}: {json.dumps(part)}" for key, part in self.to_json().items()]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")  # no *.json, if it stays
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        os.replace(temporary, path)

    @classmethod
    def read(cls, path: Path) -> Result:
        """Reads a file of `write`.

        Raises:
            ValueError: It is none; the message says why.
        """
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is no result of a cell ({type(error).__name__}: {error}). "
                "Remove it, and the cell is run again."
            ) from error


def cell_key(cell: Mapping[str, Any]) -> str:
    """A name that equal cells share, whatever the order of their settings."""
    return json.dumps(cell, sort_keys=True)


def read_results(folder: Path) -> list[Result]:
    """All results of a folder, by file name; none where there is no folder.

    Raises:
        ValueError: A file is no result, or two are of one cell.
    """
    path_of: dict[str, Path] = {}
    results = []
    for path in sorted(folder.glob("*.json")):
        result = Result.read(path)
        first = path_of.setdefault(cell_key(result.cell), path)
        if first != path:
            raise ValueError(
                f"{first} and {path} are of one cell, expected one result: remove one."
            )
        results.append(result)
    return results
