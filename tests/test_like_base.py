"""What imitation promises of every trainer that learns from demonstrations, of `EntBC`."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from imitation.data import types
from reach import (
    DEMONSTRATIONS,
    TRANSITIONS,
    Batches,
    Lines,
    reacher,
    told_model,
    told_transitions,
)
from toys import make_model, parameters_of, same

# --- what may be learned from ---


@pytest.mark.parametrize("seed", range(4))
def test_a_few_transitions_that_follow_each_other_by_chance_are_no_episodes(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(TRANSITIONS))
    names = [field.name for field in dataclasses.fields(TRANSITIONS)]
    shuffled = types.Transitions(**{name: getattr(TRANSITIONS, name)[order] for name in names})
    with pytest.raises(
        ValueError, match=r"Only \d of \d\d transitions begin .*: they are shuffled"
    ):
        reacher(demonstrations=shuffled)


def test_episodes_may_have_different_lengths() -> None:
    # BC does not look at rewards: imitation checks the horizon where these are learned only.
    short = [
        types.Trajectory(demo.obs[:-2], demo.acts[:-2], demo.infos[:-2], terminal=True)
        for demo in DEMONSTRATIONS[::2]
    ]
    model = reacher(demonstrations=[*DEMONSTRATIONS, *short])
    model.train(n_batches=2, progress_bar=False)
    assert model.num_timesteps == 2


@pytest.mark.parametrize("empty", [[], (), iter(()), Batches(TRANSITIONS, 8, n_passes=0)])
def test_nothing_at_all_is_refused(empty: Any) -> None:
    with pytest.raises(ValueError, match="is empty, expected at least one|had no elements"):
        reacher(demonstrations=empty, support_demonstrations=DEMONSTRATIONS)


@pytest.mark.parametrize("n_passes", [1, 2, 5])
def test_batches_that_come_to_an_end_are_an_error_and_no_endless_loop(n_passes: int) -> None:
    model = told_model()
    told = told_transitions(4)
    model.set_demonstrations(Batches(told, 8, n_passes=n_passes))
    with pytest.raises(ValueError, match="gave no batch in an epoch: expected an iterable that"):
        model.train(n_batches=100, progress_bar=False)
    assert model.num_timesteps == n_passes * -(-len(told) // 8)


# --- sizes of batches ---


@pytest.mark.parametrize("sizes", [{"batch_size": 0}, {"batch_size": -1}])
def test_a_batch_size_is_positive(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"batch_size is {sizes['batch_size']} .* at least 1"):
        reacher(**sizes)
    with pytest.raises(ValueError, match="minibatch_size -4, expected at least 1"):
        reacher(batch_size=8, minibatch_size=-4)


def test_a_batch_has_as_many_actions_as_observations() -> None:
    batch = next(iter(Batches(told_transitions(4), 8)))
    model = told_model(demonstrations=[{**batch, "acts": batch["acts"][:1]}])
    with pytest.raises(ValueError, match="A batch has 1 actions and 8 observations"):
        model.train(n_batches=1, progress_bar=False)


def test_minibatches_give_the_gradient_of_their_batch() -> None:
    told, trained = told_transitions(8), []
    for minibatch_size in (16, 8, 4):
        model = told_model(batch_size=16, minibatch_size=minibatch_size)
        model.policy.features_extractor.fit_normalisation(th.tensor(told.obs))
        model.set_demonstrations(Batches(told, minibatch_size))
        model.train(n_epochs=2, progress_bar=False)
        trained.append(model.policy.state_dict())
    assert model.num_timesteps == 2 * len(told) / 16
    for other in trained[1:]:
        th.testing.assert_close(trained[0], other, atol=1e-4, rtol=1e-3)


def test_a_batch_may_be_a_single_transition() -> None:
    model = told_model(batch_size=1, demonstrations=Batches(told_transitions(4), 1))
    model.train(n_batches=2, progress_bar=False)
    assert all(np.isfinite(value).all() for value in parameters_of(model).values())


# --- what is logged, and where ---


def test_the_logger_may_be_given_or_replaced() -> None:
    first, second, third = Lines(), Lines(), Lines()
    model = make_model(custom_logger=first.logger())
    model.train(n_batches=2, log_interval=1, progress_bar=False)
    model.logger = replaced = second.logger()
    assert model.logger is replaced
    model.train(n_batches=1, progress_bar=False)
    model.set_logger(third.logger())
    model.train(n_batches=1, progress_bar=False)
    assert [[step for step, _ in each.lines] for each in (first, second, third)] == [
        [1, 2],
        [3],
        [4],
    ]
    assert all("bc/loss" in values for _, values in second.lines)


def test_the_logs_may_begin_again_at_zero_while_training_goes_on() -> None:
    lines = Lines()
    model = make_model(custom_logger=lines.logger())
    model.train(n_batches=3, log_interval=1, progress_bar=False)
    model.train(n_batches=2, log_interval=1, progress_bar=False, reset_tensorboard=True)
    assert [step for step, _ in lines.lines] == [1, 2, 3, 1, 2]
    assert model.num_timesteps == 5
    whole = make_model()
    whole.train(n_batches=5, progress_bar=False)
    assert same(parameters_of(model), parameters_of(whole))


def test_a_trainer_survives_pickle_without_its_logger_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    lines = Lines()
    model = make_model(custom_logger=lines.logger())
    model.train(n_batches=2, progress_bar=False)
    copied = pickle.loads(pickle.dumps(model))
    assert "_logger" not in model.__getstate__() and copied.logger is not model.logger
    assert copied.get_env() is None
    for trainer in (model, copied):
        trainer.train(n_batches=2, progress_bar=False)
    assert same(parameters_of(model), parameters_of(copied))
    assert [step for step, _ in lines.lines] == [2, 4], "the copy logs elsewhere, here nowhere"
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_batches_of_tasks_need_not_divide_the_tasks() -> None:
    model = make_model(batch_size=4)  # of six tasks
    ends: list[int] = []
    model.train(
        n_epochs=3, on_epoch_end=lambda: ends.append(model.num_timesteps), progress_bar=False
    )
    assert ends == [1, 2, 3]
