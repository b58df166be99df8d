"""What imitation's users rely on in `bc.BC`, of `EntBC`; and `bc.BC` with our policy class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from imitation.algorithms import bc
from imitation.util import util
from reach import (
    DEMONSTRATIONS,
    TRANSITIONS,
    Batches,
    Lines,
    loader,
    reacher,
    returns,
    told_model,
    told_policy,
    told_transitions,
    told_venv,
)
from stable_baselines3.common.evaluation import evaluate_policy


@pytest.mark.parametrize("batch_size", [32, 50])  # of 96 transitions, of 4 tasks
@pytest.mark.parametrize("form", ["trajectories", "transitions", "loader", "batches"])
def test_training_makes_a_better_policy_from_every_form(form: str, batch_size: int) -> None:
    data: Any = {
        "trajectories": DEMONSTRATIONS,
        "transitions": TRANSITIONS,
        "loader": loader(TRANSITIONS, batch_size, shuffle=True, drop_last=True),
        "batches": Batches(TRANSITIONS, batch_size),  # the last batch is smaller
    }[form]
    support = DEMONSTRATIONS if form in ("loader", "batches") else None
    model = reacher(demonstrations=data, support_demonstrations=support, batch_size=batch_size)
    before = returns(model)
    model.train(n_epochs=1, progress_bar=False)
    model.train(n_batches=60, progress_bar=False)
    after = returns(model)
    assert (after > before).mean() > 0.8 and after.mean() > before.mean() + 2


@pytest.mark.parametrize("length", [{"n_epochs": 2}, {"n_batches": 3}, {"n_batches": 7}])
@pytest.mark.parametrize("minibatch_size", [8, 4])
def test_callbacks_are_called_when_bc_calls_them(
    length: dict[str, int], minibatch_size: int
) -> None:
    data = Batches(told_transitions(4), minibatch_size)  # three batches
    ours = told_model(batch_size=8, minibatch_size=minibatch_size, demonstrations=data)
    theirs = bc.BC(
        observation_space=ours.observation_space,
        action_space=ours.action_space,
        policy=told_policy(),
        rng=np.random.default_rng(0),
        batch_size=8,
        minibatch_size=minibatch_size,
        demonstrations=data,
        custom_logger=Lines().logger(),
    )
    called: list[list[str]] = [[], []]
    for trainer, names in zip((ours, theirs), called, strict=True):
        trainer.train(
            on_epoch_end=lambda names=names: names.append("epoch"),
            on_batch_end=lambda names=names: names.append("batch"),
            progress_bar=False,
            **length,
        )
    assert called[0] == called[1]
    assert called[0].count("batch") == length.get("n_batches", 6)


def test_weight_decay_has_a_name_of_its_own() -> None:
    with pytest.raises(ValueError, match="Use the parameter l2_weight instead of weight_decay"):
        reacher(optimizer_kwargs={"weight_decay": 1e-4})


@pytest.mark.parametrize("n_episodes", [2, 0])
def test_rollouts_are_logged_during_training(n_episodes: int) -> None:
    lines = Lines()
    model = told_model(custom_logger=lines.logger(), demonstrations=loader(told_transitions(), 8))
    modes: list[bool] = []
    model.train(
        n_batches=4,
        log_interval=2,
        on_batch_end=lambda: modes.append(model.policy.training),
        log_rollouts_venv=told_venv(flat=True),
        log_rollouts_n_episodes=n_episodes,
        progress_bar=False,
    )
    assert modes == [True] * 4, "rollouts must not leave the policy in evaluation mode"
    for _, values in lines.lines:
        logged = {key for key in values if key.startswith("rollout/")}
        assert ({"rollout/return_mean", "rollout/len_mean"} <= logged) is bool(n_episodes)
        assert bool(logged) is bool(n_episodes)
    assert len(lines.lines) == 2


def test_imitation_saves_and_reconstructs_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `bc.reconstruct_policy` reads a pickle, which torch >= 2.6 must be told to trust.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    model = told_model(demonstrations=loader(told_transitions(), 8))
    model.train(n_batches=3, progress_bar=False)
    util.save_policy(model.policy, tmp_path / "policy.pt")
    policy = bc.reconstruct_policy(str(tmp_path / "policy.pt"), device="cpu")
    th.testing.assert_close(policy.state_dict(), model.policy.state_dict(), rtol=0, atol=0)
    obs: Any = told_venv(flat=True).reset()
    expected, _ = model.predict(obs, deterministic=True)
    assert np.array_equal(policy.predict(obs, deterministic=True)[0], expected)


# --- imitation's own trainer with our policy ---


def test_bc_trains_our_policy_with_an_entropy_that_depends_on_the_observation() -> None:
    policy, lines = told_policy(), Lines()
    venv = told_venv(4, flat=True)
    trainer = bc.BC(
        observation_space=venv.observation_space,
        action_space=venv.action_space,
        policy=policy,
        rng=np.random.default_rng(0),
        demonstrations=told_transitions(),
        optimizer_kwargs={"lr": 5e-3},
        custom_logger=lines.logger(),
    )
    before, _ = evaluate_policy(policy, venv, 12)
    trainer.train(n_batches=80, log_interval=20, log_rollouts_venv=venv, progress_bar=False)
    after, _ = evaluate_policy(policy, venv, 12)
    assert after > before + 2
    entropies = [values["bc/entropy"] for _, values in lines.lines]
    assert len(entropies) == 4 and entropies[-1] < entropies[0] - 0.1
    each = policy.get_distribution(th.as_tensor(venv.reset())).entropy()
    assert each.std() > 1e-3
