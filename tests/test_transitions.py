"""Learning from transitions: ordered ones are episodes again, batches need to be told the task."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from imitation.algorithms.base import make_data_loader
from imitation.algorithms.dagger import SimpleDAggerTrainer
from imitation.data import rollout, types
from imitation.data.wrappers import RolloutInfoWrapper
from imitation.util import logger as imit_logger
from stable_baselines3.common.vec_env import DummyVecEnv
from toys import (
    N_STEPS,
    SENTENCE_SPACE,
    SLOTS,
    SPACES,
    STATE_SPACE,
    TaskEnv,
    make_demonstrations,
    make_model,
    parameters_of,
    same,
)

from ent_bc import BatchConfig, EntBC, LossConfig, as_trajectories
from ent_bc.evaluation import stack_observations
from ent_bc.expert_policy import ExpertPolicy
from ent_bc.losses import control_error
from ent_bc.transitions import split_episodes
from ent_bc.wrappers import SentenceObservation

TOLD_SPACE = spaces.Dict({"state": STATE_SPACE, "sentence": SENTENCE_SPACE})


def transitions_of(obs_type: str = "state") -> types.Transitions:
    return rollout.flatten_trajectories(as_trajectories(make_demonstrations(obs_type)))


def train(model: EntBC, **kwargs: Any) -> EntBC:
    model.train(**{"n_batches": 3, "progress_bar": False, **kwargs})
    return model


# --- ordered transitions ---


@pytest.mark.parametrize("obs_type", SPACES)
def test_ordered_transitions_train_as_their_trajectories_do(obs_type: str) -> None:
    whole = make_model(obs_type)
    from_transitions = make_model(obs_type, demonstrations=transitions_of(obs_type))
    assert same(parameters_of(train(whole)), parameters_of(train(from_transitions)))


def test_episodes_end_where_they_say_so_or_where_the_next_one_begins() -> None:
    transitions = transitions_of()
    lengths = [len(episode) for episode in split_episodes(transitions)]
    assert lengths == [N_STEPS] * (len(transitions) // N_STEPS)
    assert not any(episode.terminal for episode in split_episodes(transitions))
    dones = np.zeros(len(transitions), dtype=bool)
    dones[4] = True
    cut = split_episodes(dataclasses.replace(transitions, dones=dones))
    assert [len(episode) for episode in cut[:2]] == [5, N_STEPS - 5]
    assert cut[0].terminal and not cut[1].terminal


def test_shuffled_transitions_are_refused() -> None:
    transitions = transitions_of()
    order = np.random.default_rng(0).permutation(len(transitions))
    shuffled = dataclasses.replace(
        transitions,
        **{key: value[order] for key, value in vars(transitions).items()},
    )
    with pytest.raises(ValueError, match="transitions begin where the one before.*shuffled"):
        make_model(demonstrations=shuffled)


def test_transitions_without_what_came_next_are_refused() -> None:
    full = transitions_of()
    minimal = types.TransitionsMinimal(obs=full.obs, acts=full.acts, infos=full.infos)
    with pytest.raises(ValueError, match="TransitionsMinimal without next_obs, expected Transitio"):
        make_model(demonstrations=minimal)
    with pytest.raises(ValueError, match="list of demonstrations is empty"):
        make_model(demonstrations=full[:0])


def test_demonstrations_may_come_from_a_generator() -> None:
    def generate() -> Iterator[types.Trajectory]:
        yield from as_trajectories(make_demonstrations())

    one = train(make_model(demonstrations=generate()))
    assert same(parameters_of(one), parameters_of(train(make_model())))


# --- batches of transitions ---


def loader(batch_size: int = 4, n_steps: int | None = None) -> Any:
    return make_data_loader(transitions_of()[:n_steps], batch_size)


def told_batches(n: int = 5, size: int = 4) -> list[dict[str, Any]]:
    """Batches of steps whose observation holds a sentence."""
    rng = np.random.default_rng(0)
    transitions = transitions_of()
    sentences = rng.normal(size=(len(transitions), 20)).astype(np.float32)
    rows = rng.permutation(len(transitions))[: n * size].reshape(n, size)
    return [
        {
            "obs": {"state": transitions.obs[row], "sentence": sentences[row]},
            "acts": transitions.acts[row],
        }
        for row in rows
    ]


def test_batches_train_control_by_the_support_demonstrations() -> None:
    model = make_model(demonstrations=loader(), support_demonstrations=make_demonstrations())
    before = parameters_of(model)
    train(model, n_batches=20)
    moved = {key for key, value in parameters_of(model).items() if (value != before[key]).any()}
    assert "action_net.weight" in moved
    assert "features_extractor.net.looks.1.weight" in moved  # the sentences learn with control
    assert model.num_timesteps == 20


def test_a_step_is_told_the_sentence_of_its_tasks_demonstrations() -> None:
    support = make_demonstrations()
    model = make_model(
        demonstrations=loader(24), support_demonstrations=support, losses=LossConfig()
    )
    (batch,) = next(iter(model._batches.epoch(0, 1)))  # type: ignore[union-attr]
    tensors = model._to_tensors(batch)
    metrics = model.loss_calculator(model.policy, tensors["obs"], tensors["acts"])
    errors = []
    for row, act in enumerate(batch["acts"]):
        task_id = TASK_OF_ACTION[tuple(np.round(np.asarray(act), 5))]
        shown = [demo for demo in support if demo.infos[0]["task_id"] == task_id]
        sentence = th.as_tensor(model.embed(shown))[None]
        control = model.policy.control(tensors["obs"]["obs"][row : row + 1], sentence)
        kind = model.losses.control_loss
        errors.append(control_error(kind, control.mean, control.log_std, act[None], act[None]))
    th.testing.assert_close(metrics.control_loss, th.cat(errors).mean())


TASK_OF_ACTION = {
    tuple(np.round(act, 5)): demo.infos[0]["task_id"]
    for demo in make_demonstrations()
    for act in demo.acts
}


def test_batches_train_control_by_the_observations_own_sentence() -> None:
    model = make_model(observation_space=TOLD_SPACE, demonstrations=told_batches())
    before = parameters_of(model)
    train(model, n_batches=None, n_epochs=2)
    assert model.num_timesteps == 10
    after = parameters_of(model)
    assert (after["action_net.weight"] != before["action_net.weight"]).any()
    for key in after:  # no demonstration was embedded
        if key.startswith("encoder.score"):
            assert np.array_equal(after[key], before[key])


def test_batches_make_the_loss_smaller() -> None:
    (batch,) = told_batches(1, 32)
    model = make_model(
        observation_space=TOLD_SPACE,
        demonstrations=[batch],
        losses=LossConfig(control_loss="mse"),
        optimizer_kwargs={"lr": 3e-3},
    )

    def error() -> float:
        actions, _ = model.predict(batch["obs"], deterministic=True)
        return float(np.square(actions - batch["acts"]).mean())

    before = error()
    train(model, n_batches=100)
    assert error() < 0.2 * before


def test_batches_that_tell_no_task_need_to_be_told() -> None:
    with pytest.raises(ValueError, match=r"lost their episodes.*EntBC\(support_demonstrations"):
        make_model(demonstrations=loader())
    make_model(demonstrations=loader(), policy_kwargs={"blind": True})  # it needs none


def test_support_that_does_not_fit_is_named() -> None:
    support = make_demonstrations(n_pairs=2)
    with pytest.raises(ValueError, match="no support demonstration of 2 tasks, among them '2a'"):
        train(make_model(demonstrations=loader(72), support_demonstrations=support))
    batches = [{"obs": batch["obs"], "acts": batch["acts"]} for batch in loader()]
    with pytest.raises(ValueError, match="does not tell its tasks: expected its infos"):
        train(make_model(demonstrations=batches, support_demonstrations=support))
    with pytest.raises(ValueError, match="Demonstration 0 has shape"):
        make_model(demonstrations=loader(), support_demonstrations=make_demonstrations("pixels"))


def test_epochs_are_passes_over_the_loader_whose_last_step_may_be_smaller() -> None:
    ends: list[int] = []
    model = make_model(
        observation_space=TOLD_SPACE, batch_size=8, minibatch_size=4, demonstrations=told_batches(5)
    )
    train(model, n_batches=None, n_epochs=2, on_epoch_end=lambda: ends.append(model.num_timesteps))
    assert ends == [3, 6]  # 5 minibatches, 2 a step


def test_a_loader_that_is_empty_or_used_up_is_named() -> None:
    model = make_model(observation_space=TOLD_SPACE, demonstrations=iter(told_batches(2)))
    with pytest.raises(ValueError, match="gave no batch in an epoch: expected an iterable"):
        train(model, n_batches=5)
    assert model.num_timesteps == 2


# --- DAgger ---


def test_with_entbc_as_its_trainer_dagger_raises_success(tmp_path: Path) -> None:
    # A model that tells the tasks apart and hardly controls yet; its sentences tell the trainer.
    env = TaskEnv()
    model = make_model(
        demonstrations=[d for t in env.tasks for d in env.get_demonstrations(t, 8, seed=t.pair)],
        batch_size=8,
        batches=BatchConfig(n_steps=8),
        losses=LossConfig(embedding_weight=10.0),
        optimizer_kwargs={"lr": 5e-3},
        policy_kwargs={"slots": {**SLOTS, "pose": 2}, "net_arch": [64]},
    )
    train(model, n_batches=200)

    def make_env() -> Any:
        return RolloutInfoWrapper(FlattenObservation(SentenceObservation(TaskEnv(), model)))

    venv = DummyVecEnv([make_env] * 4)
    venv.seed(0)
    quiet = imit_logger.configure(tmp_path / "log", [])
    dict_space = SentenceObservation(env, model).observation_space
    trainer = EntBC(
        env=venv,
        policy_kwargs={**model.policy.options, "dict_space": dict_space},
        optimizer_kwargs={"lr": 2e-3},
        batch_size=64,
        custom_logger=quiet,
        seed=0,
    )
    trainer.policy.load_state_dict(model.policy.state_dict())
    dagger = SimpleDAggerTrainer(
        venv=venv,
        scratch_dir=tmp_path / "dagger",
        expert_policy=ExpertPolicy(venv),
        bc_trainer=trainer,
        rng=np.random.default_rng(0),
        custom_logger=quiet,
    )
    rates = [success_rate(trainer, make_env)]
    for _ in range(3):
        dagger.train(
            total_timesteps=1,  # one round
            rollout_round_min_episodes=32,
            rollout_round_min_timesteps=1,
            bc_train_kwargs={"n_batches": 400, "progress_bar": False, "log_rollouts_venv": None},
        )
        rates.append(success_rate(trainer, make_env))
    assert dagger.round_num == 3 and trainer.num_timesteps == 1200
    assert rates[1] > rates[0] and rates[3] > max(rates[0] + 0.3, rates[1]), rates


def success_rate(model: EntBC, make_env: Any, n_trials: int = 48) -> float:
    envs = [make_env() for _ in range(n_trials)]
    obs = [env.reset(seed=1000 + trial)[0] for trial, env in enumerate(envs)]
    for _ in range(TaskEnv.n_steps):
        actions, _ = model.predict(stack_observations(obs), deterministic=True)
        steps = [env.step(action) for env, action in zip(envs, actions, strict=True)]
        obs = [step[0] for step in steps]
    return float(np.mean([step[4]["is_success"] for step in steps]))
