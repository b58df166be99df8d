"""`SimpleDAggerTrainer` with `EntBC` inside and the environments' expert, on the flattened view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imitation.algorithms import bc, dagger
from imitation.data import rollout, serialize
from reach import N_STEPS, PLACES, Lines, reacher, told_model, told_venv
from stable_baselines3.common.vec_env import VecEnv
from toys import parameters_of, same

from ent_bc import EntBC
from ent_bc.expert_policy import ExpertPolicy

QUIET: dict[str, Any] = {"progress_bar": False, "log_rollouts_venv": None}


@pytest.fixture
def venv() -> VecEnv:
    return told_venv(flat=True)


def make_trainer(
    venv: VecEnv, folder: Path, bc_trainer: bc.BC | None = None, **kwargs: Any
) -> dagger.SimpleDAggerTrainer:
    return dagger.SimpleDAggerTrainer(
        venv=venv,
        scratch_dir=folder,
        expert_policy=kwargs.pop("expert_policy", None) or ExpertPolicy(venv),
        rng=np.random.default_rng(0),
        bc_trainer=bc_trainer or told_model(batch_size=8),
        custom_logger=kwargs.pop("custom_logger", None) or Lines().logger(),
        **kwargs,
    )


def train(trainer: dagger.SimpleDAggerTrainer, n_steps: int = 1, **kwargs: Any) -> None:
    """Rounds of two episodes each, until as many time steps are done."""
    trainer.train(
        n_steps,
        rollout_round_min_episodes=2,
        rollout_round_min_timesteps=1,
        bc_train_kwargs={**QUIET, "n_batches": 3, **kwargs},
    )


def rounds(folder: Path) -> list[list[Path]]:
    """The files of each round's demonstrations."""
    return [sorted(part.iterdir()) for part in sorted((folder / "demos").iterdir())]


@pytest.mark.parametrize(("n_episodes", "n_rounds"), [(1, 1), (4, 2)])
def test_a_round_records_its_episodes(
    n_episodes: int, n_rounds: int, venv: VecEnv, tmp_path: Path
) -> None:
    train(make_trainer(venv, tmp_path), n_episodes * N_STEPS)
    assert [len(files) for files in rounds(tmp_path)] == [2] * n_rounds


def test_what_is_recorded_is_what_the_expert_would_have_done(venv: VecEnv, tmp_path: Path) -> None:
    trainer = make_trainer(venv, tmp_path, beta_schedule=lambda _: 0.0)  # the robot acts alone
    train(trainer)
    for file in rounds(tmp_path)[0]:
        (demo,) = serialize.load(file)
        state = np.asarray(demo.obs)[:, 2:]  # behind the sentence
        goals = np.array([PLACES[info["task_id"]] for info in demo.infos])
        expert = np.clip((goals - state[:-1]) / 0.3, -1, 1)
        np.testing.assert_allclose(demo.acts, expert, atol=1e-5)
        done = np.diff(state, axis=0) / 0.3
        assert np.abs(done - expert).max() > 0.1
        assert len(set(info["task_id"] for info in demo.infos)) == 1


def test_without_demonstrations_there_is_nothing_to_update_on(venv: VecEnv, tmp_path: Path) -> None:
    trainer = make_trainer(venv, tmp_path)
    with pytest.raises(dagger.NeedsDemosException):
        trainer.extend_and_update({"n_epochs": 1, **QUIET})
    assert trainer.round_num == 0


def test_trajectories_that_are_there_serve_the_first_round(venv: VecEnv, tmp_path: Path) -> None:
    until = rollout.make_min_episodes(4)
    recorded = rollout.generate_trajectories(
        ExpertPolicy(venv), venv, until, np.random.default_rng(0)
    )
    trainer = make_trainer(venv, tmp_path, expert_trajs=recorded)
    before = parameters_of(trainer.bc_trainer)  # type: ignore[arg-type]
    assert trainer.extend_and_update({"n_epochs": 1, **QUIET}) == 1
    assert not same(parameters_of(trainer.bc_trainer), before)  # type: ignore[arg-type]
    with pytest.raises(dagger.NeedsDemosException):
        trainer.extend_and_update({"n_epochs": 1, **QUIET})


def test_the_length_of_an_update_may_be_left_out(venv: VecEnv, tmp_path: Path) -> None:
    lines = Lines()
    trainer = make_trainer(venv, tmp_path, custom_logger=lines.logger())
    assert trainer.bc_trainer.logger is trainer.logger
    collector = trainer.create_trajectory_collector()
    rollout.generate_trajectories(
        trainer.expert_policy, collector, rollout.make_min_episodes(4), collector.rng
    )
    trainer.extend_and_update({"progress_bar": False})
    n_demos = len(rounds(tmp_path)[0])
    per_epoch = n_demos * N_STEPS // trainer.batch_size
    ours = trainer.bc_trainer
    assert isinstance(ours, EntBC)
    assert ours.num_timesteps == per_epoch * trainer.DEFAULT_N_EPOCHS
    assert "rollout/return_mean" in lines.lines[-1][1], "imitation logs rollouts by default"


def test_a_seed_fixes_what_is_collected(venv: VecEnv, tmp_path: Path) -> None:
    collector = make_trainer(venv, tmp_path).create_trajectory_collector()
    collector.seed(42)
    first = collector.reset()
    collector.seed(42)
    assert np.array_equal(first, collector.reset())


def test_a_saved_trainer_goes_on(
    venv: VecEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # imitation's loaders read a pickle, which torch >= 2.6 must be told to trust.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    trainer = make_trainer(venv, tmp_path)
    train(trainer)
    _, policy_path = trainer.save_trainer()
    loaded = dagger.reconstruct_trainer(tmp_path, venv, device="cpu")
    assert loaded.round_num == 1 and loaded.policy is loaded.bc_trainer.policy
    saved = parameters_of(trainer.bc_trainer)  # type: ignore[arg-type]
    assert same(parameters_of(loaded.bc_trainer), saved)
    obs: Any = venv.reset()
    policy = bc.reconstruct_policy(str(policy_path), device="cpu")
    expected, _ = trainer.policy.predict(obs, deterministic=True)
    assert np.array_equal(policy.predict(obs, deterministic=True)[0], expected)
    # An expert that was saved has no environments to ask; it says so, and is made anew.
    assert isinstance(loaded, dagger.SimpleDAggerTrainer)
    with pytest.raises(
        ValueError, match=r"without its environments: make a new one, Exp.*\(venv\)"
    ):
        train(loaded)
    loaded.expert_policy = ExpertPolicy(venv)
    train(loaded)
    assert loaded.round_num == 2
    assert not same(parameters_of(loaded.bc_trainer), saved)


def test_spaces_that_do_not_match_are_named(venv: VecEnv, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Mismatched observation space"):
        make_trainer(venv, tmp_path, expert_policy=ExpertPolicy(told_venv()))
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        make_trainer(venv, tmp_path, reacher())


def test_a_batch_of_more_transitions_than_there_are_is_refused(
    venv: VecEnv, tmp_path: Path
) -> None:
    trainer = make_trainer(venv, tmp_path, told_model(batch_size=100_000))
    collector = trainer.create_trajectory_collector()
    rollout.generate_trajectories(
        trainer.expert_policy, collector, rollout.make_min_episodes(1), collector.rng
    )
    with pytest.raises(ValueError, match="Not enough transitions"):
        trainer.extend_and_update(QUIET)
