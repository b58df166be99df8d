"""imitation's BC and DAgger as baselines: fed with tasks' batches, told a sentence or nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from reach import DEMONSTRATIONS, PLACES, ReachEnv, reacher
from toys import ACTION_SPACE, DICT_SPACE, PIXELS_SPACE, Demo, make_demonstrations, same

from ent_bc import EntBC
from ent_bc.baselines import BCConfig, Clone, DAggerConfig, train_bc, train_dagger
from ent_bc.baselines.behavioural_cloning import _drive, _Transitions
from ent_bc.baselines.dagger import _first_round
from ent_bc.demonstrations import group_by_task
from ent_bc.layers import Convolutions
from ent_bc.schedule import ScheduleConfig
from ent_bc.wrappers import SentenceObservation

SMALL = BCConfig(n_batches=3, batch_size=4, learning_rate=1e-3)
DEMOS = make_demonstrations("pixels_agent_pos")


class Numbers:
    """A sentence is the number of the task, and that of the demonstration."""

    def __init__(self) -> None:
        self.policy = type("Policy", (), {"sentence_dim": 2})
        self.asked: list[int] = []

    def embed(self, demonstrations: Any) -> np.ndarray:
        if isinstance(demonstrations, list):
            return np.stack([self.embed(demo) for (demo,) in demonstrations])
        index = next(i for i, demo in enumerate(DEMOS) if demo is demonstrations)
        self.asked.append(index)
        return np.array([index // 3, index], np.float32)


def clone(config: BCConfig = SMALL, **kwargs: Any) -> Clone:
    kwargs.setdefault("policy_kwargs", {"net_arch": [32]})
    return train_bc(DEMOS, DICT_SPACE, ACTION_SPACE, config, **kwargs)


def parameters(trained: Clone) -> dict[str, np.ndarray]:
    return {key: value.numpy().copy() for key, value in trained.policy.state_dict().items()}


def batch_obs(n: int) -> dict[str, np.ndarray]:
    return {key: leaf[:n] for key, leaf in DEMOS[0].obs.items()}


# --- what it is trained on ---


def test_a_batch_is_the_tasks_batch_in_a_row() -> None:
    transitions = _Transitions(DEMOS, SMALL, None)
    batch, tasks = transitions.make(1), transitions._batches.batch(1)
    assert len(batch["obs"]) == len(batch["acts"]) == 4 * 2 * 4  # tasks, demonstrations, steps
    np.testing.assert_array_equal(batch["acts"][9], tasks["acts"][1, 0, 1])
    obs: Any = batch["obs"]
    np.testing.assert_array_equal(obs.get("pixels")[9], tasks["obs"]["obs"]["pixels"][1, 0, 1])


def test_a_step_is_told_by_another_demonstration_of_its_task() -> None:
    obs: Any = _Transitions(DEMOS, SMALL, Numbers()).make(0)["obs"]
    for agent_pos, (task, told) in zip(obs.get("agent_pos"), obs.get("sentence"), strict=True):
        shown = next(
            i for i, d in enumerate(DEMOS) if (d.obs["agent_pos"] == agent_pos).all(1).any()
        )
        assert shown // 3 == task == told // 3
        assert shown != told


def test_each_demonstration_is_embedded_once() -> None:
    numbers = Numbers()
    clone(sentences=numbers)
    assert numbers.asked == list(range(len(DEMOS)))


# --- how ---


@pytest.mark.parametrize("told", [False, True])
def test_a_seeded_run_is_reproducible(told: bool) -> None:
    first, again, other = (
        parameters(clone(dataclasses.replace(SMALL, seed=s), sentences=Numbers() if told else None))
        for s in (0, 0, 1)
    )
    assert same(first, again) and not same(first, other)


@pytest.mark.parametrize(
    "change", [{"ent_weight": 1.0}, {"l2_weight": 1.0}, {"low_precision": True}], ids=str
)
def test_an_option_changes_what_is_learned(change: dict[str, Any]) -> None:
    trained = clone(dataclasses.replace(SMALL, **change))
    assert not same(parameters(trained), parameters(clone()))
    modules = [m for m in trained.policy.modules() if isinstance(m, Convolutions)]
    assert modules and not any(module.low_precision for module in modules)  # only to train


def test_each_optimiser_step_is_told_of() -> None:
    steps: list[int] = []
    clone(on_batch_end=steps.append)
    assert steps == [1, 2, 3]


def test_the_step_follows_the_schedule_and_the_gradient_is_clipped() -> None:
    weight = th.nn.Parameter(th.zeros(1))
    optimizer = th.optim.SGD([weight], lr=9.0)
    _drive(optimizer, SMALL)
    schedule, before = ScheduleConfig(horizon=SMALL.n_batches), 0.0
    for step, grad in enumerate([-1e6, -2.0]):
        weight.grad = th.tensor([grad])
        optimizer.step()
        expected = SMALL.learning_rate * schedule.factor(step) * min(-grad, schedule.max_grad_norm)
        assert weight.item() - before == pytest.approx(expected, rel=1e-4)
        before = weight.item()
    weight.grad = th.tensor([np.nan])
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        optimizer.step()


# --- what comes out ---


def test_without_the_demonstration_nothing_shown_matters() -> None:
    blind = clone()
    state = blind.embed([[DEMOS[0]], [DEMOS[5]]])
    assert state.shape == (2, 20) and blind.embed(DEMOS[0]).shape == (20,)
    acts, after = blind.predict(batch_obs(2), state, deterministic=True)
    np.testing.assert_array_equal(after, state)
    others, _ = blind.predict(batch_obs(2), state + 1, deterministic=True)
    np.testing.assert_array_equal(acts, others)


def test_with_the_sentence_it_matters() -> None:
    told = clone(sentences=Numbers())
    state = told.embed([[DEMOS[0]], [DEMOS[5]]])
    np.testing.assert_array_equal(state, [[0, 0], [1, 5]])
    ours, _ = told.predict(batch_obs(2), state, deterministic=True)
    others, _ = told.predict(batch_obs(2), state[::-1].copy(), deterministic=True)
    assert np.abs(ours - others).max() > 1e-4


def test_a_sentence_needs_a_dict_observation() -> None:
    demos = make_demonstrations("pixels")
    with pytest.raises(ValueError, match="expected a Dict for the sentence"):
        train_bc(demos, PIXELS_SPACE, ACTION_SPACE, SMALL, sentences=Numbers())
    blind = train_bc(demos, PIXELS_SPACE, ACTION_SPACE, SMALL)
    assert blind.predict(demos[0].obs, blind.embed(demos[0]))[0].shape == (13, 3)


# --- that it learns: four places, and the sentence says which ---


def named(demonstrations: Sequence[Any]) -> list[Demo]:
    return [Demo({"state": np.asarray(d.obs)}, d.acts, list(d.infos)) for d in demonstrations]


class Places:
    """Makes sentences without learning: the direction of the place where a demonstration ended."""

    policy = type("Policy", (), {"sentence_dim": 2})

    def embed(self, demonstrations: Any) -> np.ndarray:
        place = demonstrations.obs["state"][-1]
        return (place / np.linalg.norm(place)).astype(np.float32)


def success_rate(trained: Clone | EntBC, name: str | None = None, n: int = 5) -> float:
    """Over all places, each after one demonstration that was not trained on."""
    env, succeeded = ReachEnv(), []
    for place in PLACES:
        for seed in range(n):
            (demo,) = env.get_demonstrations(place, 1, seed=100 + seed)
            state = trained.embed(demo if name is None else named([demo])[0])[None]
            obs, info = env.reset(seed=200 + seed, options={"task": place})
            for _ in range(6):
                seen: Any = obs[None] if name is None else {name: obs[None]}
                acts, state = trained.predict(seen, state, deterministic=True)
                obs, _, _, _, info = env.step(acts[0])
            succeeded.append(info["is_success"])
    return float(np.mean(succeeded))


def test_told_by_the_sentence_it_learns_and_told_by_nothing_it_cannot() -> None:
    config = BCConfig(n_batches=250, batch_size=4, learning_rate=1e-2)
    space = spaces.Dict({"state": ReachEnv.observation_space})
    rates = []
    for sentences in (Places(), None):
        trained = train_bc(
            named(DEMONSTRATIONS),
            space,
            ReachEnv.action_space,
            config,
            sentences=sentences,
            policy_kwargs={"net_arch": [32]},
        )
        rates.append(success_rate(trained, "state"))
    assert rates[0] >= 0.9
    assert rates[1] <= 0.5


# --- DAgger ---


@pytest.fixture(scope="module")
def beginner() -> EntBC:
    """Stopped long before it can."""
    model = reacher(demonstrations=DEMONSTRATIONS, batch_size=4)
    model.train(n_batches=25, progress_bar=False)
    return model


DAGGER = DAggerConfig(n_steps=360, steps_per_round=60, batch_size=32, learning_rate=5e-3)


def test_dagger_mends_what_cloning_left(beginner: EntBC) -> None:
    before = beginner.policy.state_dict()
    kept = {key: value.clone() for key, value in before.items()}
    mended = train_dagger(beginner, ReachEnv, DAGGER, DEMONSTRATIONS)
    assert success_rate(mended) >= 0.9
    assert success_rate(mended) > success_rate(beginner)
    assert all(th.equal(value, kept[key]) for key, value in beginner.policy.state_dict().items())


def test_dagger_is_reproducible(beginner: EntBC) -> None:
    short = dataclasses.replace(DAGGER, n_steps=60)
    first, again, other = (
        parameters(
            train_dagger(beginner, ReachEnv, dataclasses.replace(short, seed=seed), DEMONSTRATIONS)
        )
        for seed in (0, 0, 1)
    )
    assert same(first, again) and not same(first, other)


def test_daggers_first_round_are_demonstrations_told_by_another_of_their_task(
    beginner: EntBC,
) -> None:
    told = SentenceObservation(ReachEnv(), beginner)
    sparse = [_Sparse(demo) for demo in DEMONSTRATIONS]
    config = dataclasses.replace(DAGGER, n_tasks=2)
    trajectories = _first_round(sparse, beginner, told, config)
    assert len(trajectories) == 2 * 2
    sentences = np.array([beginner.embed(demo) for demo in sparse])
    shown = set()
    for trajectory in trajectories:
        assert (len(trajectory.obs), len(trajectory.acts)) == (3, 2)
        observations = [spaces.unflatten(told.observation_space, obs) for obs in trajectory.obs]
        [own] = [
            index
            for index, demo in enumerate(sparse)
            if np.allclose([obs["state"] for obs in observations], demo.obs)
        ]
        assert np.array_equal(trajectory.acts, sparse[own].acts[sparse[own].steps[:-1]])
        distance = np.abs(sentences - observations[0]["sentence"]).max(axis=1)
        (other,) = np.flatnonzero(distance < 1e-6)
        assert other != own
        assert sparse[other].infos[0]["task_id"] == sparse[own].infos[0]["task_id"]
        shown.add(int(own))
    assert len(shown) == 4


def test_dagger_needs_two_demonstrations_of_each_task(beginner: EntBC) -> None:
    [alone, *_] = group_by_task(DEMONSTRATIONS).values()
    with pytest.raises(ValueError, match=r"Task '.+' has a single demonstration: expected two"):
        train_dagger(beginner, ReachEnv, DAGGER, [DEMONSTRATIONS[alone[0]]])


class _Sparse:
    """A demonstration of which three observations are stored."""

    def __init__(self, demo: Any) -> None:
        self.steps = np.array([0, 2, len(demo.acts)])
        self.obs = np.asarray(demo.obs)[self.steps]
        self.acts, self.infos, self.terminal = demo.acts, demo.infos, demo.terminal
