"""Training on several cores: the same parameters as in one process, up to rounding."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch as th
from torch.utils._pytree import tree_map
from toys import make_demonstrations, make_model, parameters_of, same

from ent_bc import BatchConfig, EntBC, ScheduleConfig
from ent_bc.batches import TaskBatches

TWO = ScheduleConfig(n_workers=2)


def train(model: EntBC, n_batches: int) -> EntBC:
    model.train(n_batches=n_batches, progress_bar=False)
    return model


def test_shares_of_a_batch_are_the_batch() -> None:
    batches = TaskBatches(make_demonstrations(n_pairs=3), 6, BatchConfig(), seed=0)
    whole = batches.batch(5)
    shares = [batches.share(index, 4).batch(5) for index in range(4)]
    assert [len(share["acts"]) for share in shares] == [1, 2, 1, 2]
    joined = tree_map(lambda *leaves: np.concatenate(leaves), *shares)
    th.testing.assert_close(joined, whole, rtol=0, atol=0, equal_nan=True)


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    options = {"batch_size": 6, "minibatch_size": 3, "l2_weight": 0.1}  # 1 pair and 1 task alone
    alone = train(make_model("pixels", **options), 4)
    both = train(make_model("pixels", schedule=TWO, **options), 4)
    for name, values in parameters_of(alone).items():
        np.testing.assert_allclose(parameters_of(both)[name], values, rtol=1e-3, atol=1e-5)
    # Broken off, saved and gone on with: bit for bit what two processes train at once.
    train(make_model("pixels", schedule=TWO, **options), 2).save(tmp_path / "model")
    loaded = EntBC.load(tmp_path / "model", demonstrations=make_demonstrations("pixels"))
    assert same(parameters_of(train(loaded, 2)), parameters_of(both))


def test_a_process_that_was_killed_is_an_error_not_a_wait() -> None:
    model = make_model(schedule=TWO)

    def kill() -> None:
        assert model._workers is not None
        (process,) = model._workers._processes
        os.kill(process.pid, signal.SIGKILL)
        process.join()

    with pytest.raises(RuntimeError, match="A training process has ended"):
        model.train(n_batches=5, on_batch_end=kill, progress_bar=False)
    assert model.num_timesteps == 1


def test_more_processes_than_pairs_of_twins_are_not_started() -> None:
    # One pair in a batch: there is nothing to share, and a script needs no __main__ for it.
    model = make_model(batch_size=2, schedule=TWO)
    model.train(n_batches=1, on_batch_end=lambda: None, progress_bar=False)
    assert model._workers is None and model.num_timesteps == 1
