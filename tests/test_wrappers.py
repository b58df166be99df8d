"""The sentence in the observation: what trainers without a notion of tasks are told."""

from __future__ import annotations

import copy
from functools import partial
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FlattenObservation
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecMonitor
from toys import TaskEnv, make_model

from ent_bc import EntBC
from ent_bc.wrappers import SentenceObservation, VecSentenceObservation


@pytest.fixture(scope="module", params=["state", "pixels", "pixels_agent_pos"])
def model(request: pytest.FixtureRequest) -> EntBC:
    return make_model(request.param)


def obs_type_of(model: EntBC) -> str:
    if isinstance(model.observation_space, spaces.Dict):
        return "pixels_agent_pos"
    return "state" if len(model.observation_space.shape or ()) == 1 else "pixels"


def told(model: EntBC, **kwargs: Any) -> SentenceObservation:
    return SentenceObservation(TaskEnv(obs_type_of(model)), model, **kwargs)


def test_the_observation_becomes_a_dict_with_the_sentence(model: EntBC) -> None:
    env = told(model)
    names = {"state": {"state"}, "pixels": {"pixels"}, "pixels_agent_pos": {"pixels", "agent_pos"}}
    obs, info = env.reset(seed=0)
    assert set(obs) == names[obs_type_of(model)] | {"sentence"}
    assert obs["sentence"].shape == (20,) and obs["sentence"].dtype == np.float32
    assert np.linalg.norm(obs["sentence"]) == pytest.approx(1, abs=1e-5)
    assert env.observation_space.contains(obs)
    assert env.observation_space.contains(env.step(env.action_space.sample())[0])
    assert info["task_id"]


def test_it_passes_gymnasiums_checker(model: EntBC) -> None:
    check_env(told(model), skip_render_check=True)


def test_the_sentence_is_renewed_when_the_task_changes_and_only_then(model: EntBC) -> None:
    env = told(model)
    first = env.reset(seed=0, options={"task": 0})[0]["sentence"]
    again = env.reset()[0]["sentence"]
    other = env.reset(options={"task": 1})[0]["sentence"]
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(other, env.step(env.action_space.sample())[0]["sentence"])


def test_a_seeded_reset_fixes_the_sentence(model: EntBC) -> None:
    env, other = told(model), told(model)
    other.reset(seed=5, options={"task": 0})
    for seed in (3, 3):
        mine, theirs = (
            e.reset(seed=seed, options={"task": 0})[0]["sentence"] for e in (env, other)
        )
        assert np.array_equal(mine, theirs)


def test_recorded_demonstrations_may_be_shown_instead(model: EntBC) -> None:
    recorded = TaskEnv(obs_type_of(model)).get_demonstrations(2, 3, seed=9)
    env = told(model, demonstrations=recorded, n_shots=3)
    sentence = env.reset(options={"task": 2})[0]["sentence"]
    np.testing.assert_allclose(sentence, model.embed(recorded), atol=1e-6)
    with pytest.raises(ValueError, match="There are 0 demonstrations of task '0b', expected at le"):
        env.reset(options={"task": 1})


def test_what_cannot_be_told_is_said() -> None:
    class Silent(TaskEnv):
        def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
            return super().reset(**kwargs)[0], {}

    model = make_model()
    with pytest.raises(ValueError, match="does not tell its task: expected 'task_id' in its reset"):
        SentenceObservation(Silent("state"), model).reset()
    with pytest.raises(ValueError, match="n_shots is 0, expected at least 1"):
        SentenceObservation(TaskEnv("state"), model, n_shots=0)

    class Undemonstrated(TaskEnv):
        get_demonstrations = None  # type: ignore[assignment]

    with pytest.raises(ValueError, match="has no get_demonstrations.*pass demonstrations="):
        SentenceObservation(Undemonstrated("state"), model).reset()


# --- many environments ---


def make_venv(model: EntBC, tasks: list[Any], kind: Any = DummyVecEnv) -> VecSentenceObservation:
    obs_type = obs_type_of(model)
    venv = kind([partial(TaskEnv, obs_type, task) for task in tasks])
    return VecSentenceObservation(venv, model, seed=0)


def test_two_environments_with_different_tasks_go_through_an_autoreset(model: EntBC) -> None:
    # Environment 0 keeps its task, environment 1 is given another one at each reset.
    venv = make_venv(model, [0, "cycle"])
    obs = venv.reset()
    assert isinstance(obs, dict)
    start = copy.deepcopy(obs["sentence"])
    assert not np.array_equal(start[0], start[1])
    action = np.zeros((2, 3), np.float32)
    for _ in range(TaskEnv.n_steps - 1):
        obs, _, dones, _ = venv.step(action)
        assert not dones.any() and np.array_equal(obs["sentence"], start)
    before = obs["sentence"]
    obs, _, dones, infos = venv.step(action)
    assert dones.all()
    assert np.array_equal(obs["sentence"][0], start[0])
    assert not np.array_equal(obs["sentence"][1], start[1])
    for index in range(2):  # the last observation of the old episode is told the old task
        last = infos[index]["terminal_observation"]
        assert set(last) == set(obs) and np.array_equal(last["sentence"], start[index])
    assert np.array_equal(before, start), "what was given out before must not change"


class Names:
    """Makes a sentence that is the number of the shown task."""

    policy = SimpleNamespace(sentence_dim=1)

    def embed(self, demonstrations: Any) -> np.ndarray:
        if isinstance(demonstrations[0], list):
            return np.stack([self.embed(shown) for shown in demonstrations])
        (task_id,) = {demo.infos[0]["task_id"] for demo in demonstrations}
        return np.array([NUMBER_OF[task_id]], np.float32)


NUMBER_OF = {task.task_id: index for index, task in enumerate(TaskEnv().tasks)}


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
def test_the_sentence_is_always_of_the_task_that_the_environment_has(kind: Any) -> None:
    inner = kind([partial(TaskEnv, task=task) for task in ("cycle", 3)])
    venv = VecSentenceObservation(inner, Names(), n_shots=2)
    obs: Any = venv.reset()
    for episode in range(3):
        assert obs["sentence"].ravel().tolist() == [episode, 3]
        for _ in range(TaskEnv.n_steps):
            names = venv.env_method("current_task_id")
            assert obs["sentence"].ravel().tolist() == [NUMBER_OF[name] for name in names]
            obs, _, _, infos = venv.step(np.zeros((2, 3), np.float32))
        assert infos[0]["terminal_observation"]["sentence"] == [episode]
    venv.close()


def test_a_seed_fixes_the_sentences(model: EntBC) -> None:
    first, second = (make_venv(model, [0, 1]).reset() for _ in range(2))
    assert isinstance(first, dict) and isinstance(second, dict)
    assert np.array_equal(first["sentence"], second["sentence"])


def test_it_works_on_processes_and_through_other_wrappers() -> None:
    model = make_model()
    venv = SubprocVecEnv([TaskEnv, partial(TaskEnv, task=1)])
    told_venv = VecMonitor(VecSentenceObservation(VecMonitor(venv), model, seed=0))
    told_venv.reset()
    for _ in range(TaskEnv.n_steps):
        obs, _, dones, infos = told_venv.step(np.zeros((2, 3), np.float32))
    assert dones.all() and infos[0]["episode"]["l"] == TaskEnv.n_steps
    assert isinstance(obs, dict) and obs["sentence"].shape == (2, 20)
    told_venv.close()


# --- the flattened view ---


@pytest.mark.parametrize("architecture", ["attention", "tiled"])
def test_a_policy_acts_alike_on_the_flattened_view(model: EntBC, architecture: str) -> None:
    obs_type = obs_type_of(model)
    trained = make_model(obs_type, policy_kwargs={"architecture": architecture})
    env = told(trained)
    flat = FlattenObservation(env)
    policy_kwargs = {**trained.policy.options, "dict_space": env.observation_space}
    copy_ = EntBC(env=flat, policy_kwargs=policy_kwargs)
    copy_.policy.load_state_dict(trained.policy.state_dict())
    obs, _ = env.reset(seed=0, options={"task": 0})
    own = {key: value for key, value in obs.items() if key != "sentence"}
    expected, _ = trained.predict(
        own if obs_type == "pixels_agent_pos" else next(iter(own.values())),
        state=obs["sentence"],
        deterministic=True,
    )
    actual, _ = copy_.predict(flat.observation(obs), deterministic=True)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_a_flat_space_of_another_size_is_named() -> None:
    env = told(make_model())
    wrong = gym.spaces.Box(-1, 1, (7,), np.float32)
    with pytest.raises(ValueError, match="pass the space from before FlattenObservation as dict_s"):
        EntBC(
            observation_space=wrong,
            action_space=env.action_space,
            policy_kwargs={"dict_space": env.observation_space},
        )
