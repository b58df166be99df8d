"""k-shot evaluation: four outcomes, whose demonstration is shown, and scores that stay the same."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from toys import Task

from ent_bc import EntBC
from ent_bc.evaluation import (
    CHUNK,
    ENV_ID,
    OUTCOMES,
    TRIAL_SEEDS,
    EvaluationConfig,
    Trial,
    _chunks,
    evaluate_file,
    evaluate_k_shot,
    run_chunk,
    stack_observations,
    worker_pool,
)

# --- a toy with the protocol of MetaPusherEnv: nothing of MetaPusher's is needed ---


@dataclasses.dataclass(frozen=True)
class ToyDemo:
    """Shows the pair and the target; says which seed it was made with, and its number."""

    obs: np.ndarray
    seed: int
    number: int


class ToyOneShotEnv(gym.Env[np.ndarray, np.ndarray]):
    """An action above 0.5 brings that one of two objects to the goal; one sees the pair alone."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, split: str, n_tasks: int | None, **_: Any) -> None:
        pairs = range((n_tasks or 8) // 2)
        self.tasks = [Task(pair, target) for pair in pairs for target in range(2)]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._task, self._left = options["task"], 4
        self._observation = np.array([self._task.pair, self.np_random.random()], np.float32)
        self._done = np.zeros(2, bool)
        return self._observation, {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._left -= 1
        self._done |= action > 0.5
        success, other = (bool(self._done[o]) for o in (self._task.target, 1 - self._task.target))
        info = {
            "task_id": self._task.task_id,
            "is_success": success,
            "is_success_other": other,
            "is_success_strict": success and not other,
            "target_moved": float(success) * 0.3,
            "distractor_moved": float(other) * 0.3,
            "target_distance": float(self._observation[1]),
            "distractor_distance": 0.0,
        }
        return self._observation, 0.0, False, self._left == 0, info

    def get_demonstrations(self, task: Task, n: int, *, seed: int) -> list[ToyDemo]:
        obs = np.array([[task.pair, task.target]])
        return [ToyDemo(obs, seed, number) for number in range(n)]

    def expert_action(self) -> np.ndarray:
        return np.eye(2)[self._task.target]


class Listener:
    """Does what was shown, if it was shown for the pair at hand; notes what it was shown."""

    def __init__(self) -> None:
        self.shown: list[list[ToyDemo]] = []
        self.deterministic: set[bool] = set()

    def embed(self, demonstrations: Any) -> np.ndarray:
        self.shown += demonstrations
        return np.stack([demos[0].obs[0] for demos in demonstrations])

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        self.deterministic.add(deterministic)
        told = observation[:, 0] == state[:, 0]
        return np.eye(2)[state[:, 1].astype(int)] * told[:, None], state


class Deaf(Listener):
    """Does always the same."""

    def __init__(self, action: tuple[int, int]) -> None:
        super().__init__()
        self.action = action

    def predict(self, observation: Any, *_: Any, **__: Any) -> tuple[np.ndarray, Any]:
        return np.tile(self.action, (len(observation), 1)), None


@pytest.fixture
def toy() -> Iterator[str]:
    gym.register("OneShotToy-v0", ToyOneShotEnv)
    yield "OneShotToy-v0"
    del gym.registry["OneShotToy-v0"]


def outcomes(trials: list[Trial]) -> set[str]:
    return {trial.outcome for trial in trials}


def starts(trials: list[Trial]) -> list[tuple[str, int, float]]:
    """Task, seed, and what only the start decides."""
    return [(trial.task_id, trial.seed, trial.target_distance) for trial in trials]


@pytest.mark.parametrize(
    ("demonstrated", "outcome"),
    [
        ("own", "shown only"),
        ("twin", "other only"),
        ("shuffled", "neither"),
        ("expert", "shown only"),
    ],
)
def test_whose_demonstration_is_shown_decides(demonstrated: Any, outcome: str, toy: str) -> None:
    model = Listener()
    config = EvaluationConfig(n_trials=2, demonstrated=demonstrated)
    trials = evaluate_k_shot(model, config, env_id=toy)
    assert outcomes(trials) == {outcome}
    assert len(trials) == 8 * 2
    assert [t.task_id for t in trials] == [f"{p}{x}" for p in range(4) for x in "ab" for _ in "12"]
    assert all(trial.pair_id == trial.task_id[:-1] for trial in trials)
    shown = [(demos[0].obs[0, 0], demos[0].obs[0, 1]) for demos in model.shown]
    for trial, (pair, _) in zip(trials, shown, strict=False):
        assert (str(int(pair)) == trial.pair_id) is (demonstrated != "shuffled")
    assert bool(shown) is (demonstrated != "expert")


def test_conditions_share_their_trials(toy: str) -> None:
    # What is compared differs in the demonstration alone.
    runs = [
        evaluate_k_shot(Listener(), EvaluationConfig(demonstrated=shown), env_id=toy)
        for shown in ("own", "twin", "shuffled", "expert")
    ]
    assert all(starts(run) == starts(runs[0]) for run in runs)
    assert len({trial.seed for trial in runs[0]}) == len(runs[0]) == 8 * 6
    other = evaluate_k_shot(Listener(), EvaluationConfig(seed=1), env_id=toy)
    assert not {trial.seed for trial in other} & {trial.seed for trial in runs[0]}


def test_shots_are_distinct_demonstrations_of_one_task(toy: str) -> None:
    model = Listener()
    trials = evaluate_k_shot(model, EvaluationConfig(n_shots=5), env_id=toy)
    assert len(model.shown) == len(trials)
    for demos in model.shown:
        assert [demo.number for demo in demos] == [0, 1, 2, 3, 4]
        assert len({demo.seed for demo in demos}) == 1
    # Each trial has demonstrations of its own, so that the score is over demonstrations as well.
    assert len({demos[0].seed for demos in model.shown}) == len(trials)


def test_the_mean_action_is_taken_unless_samples_are_asked_for(toy: str) -> None:
    for sample in (False, True):
        model = Listener()
        evaluate_k_shot(model, EvaluationConfig(sample=sample, n_trials=1), env_id=toy)
        assert model.deterministic == {not sample}


@pytest.mark.parametrize("action", list(itertools.product([0, 1], repeat=2)))
def test_every_trial_ends_in_one_of_four_outcomes(action: tuple[int, int], toy: str) -> None:
    trials = evaluate_k_shot(Deaf(action), EvaluationConfig(n_trials=1), env_id=toy)
    found = {trial.task_id[-1]: trial.outcome for trial in trials}
    assert set(found.values()) <= set(OUTCOMES)
    assert (
        found
        == {
            (0, 0): {"a": "neither", "b": "neither"},
            (1, 0): {"a": "shown only", "b": "other only"},
            (0, 1): {"a": "other only", "b": "shown only"},
            (1, 1): {"a": "both", "b": "both"},
        }[action]
    )


def trial(**changes: Any) -> Trial:
    values = {"success": False, "success_other": False, "target_moved": 0.0}
    return Trial(
        "0a",
        "0",
        0,
        strict=False,
        distractor_moved=0.0,
        target_distance=0.3,
        distractor_distance=0.3,
        **{**values, **changes},
    )


def test_outcomes_and_failures_are_exhaustive_and_exclusive() -> None:
    table = {
        (success, other): (made.outcome, made.failure)
        for success, other in itertools.product([False, True], repeat=2)
        for made in [trial(success=success, success_other=other)]
    }
    assert table == {
        (True, False): ("shown only", None),
        (True, True): ("both", None),
        (False, True): ("other only", "wrong object"),
        (False, False): ("neither", "never reached"),
    }
    assert {outcome for outcome, _ in table.values()} == set(OUTCOMES)
    assert trial(target_moved=0.05).failure == "last centimetres"


def test_progress_is_told_by_chunks(toy: str) -> None:
    told: list[tuple[int, int]] = []
    evaluate_k_shot(
        Listener(),
        EvaluationConfig(),
        env_id=toy,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(CHUNK, 48), (48, 48)]


def test_one_pair_alone_can_be_evaluated_but_not_shuffled(toy: str) -> None:
    config = EvaluationConfig(n_tasks=2, demonstrated="twin")
    assert outcomes(evaluate_k_shot(Listener(), config, env_id=toy)) == {"other only"}
    config = dataclasses.replace(config, demonstrated="shuffled")
    with pytest.raises(ValueError, match="has 2 tasks, expected at least 4: a shuffled"):
        evaluate_k_shot(Listener(), config, env_id=toy)


def test_observations_are_stacked_by_key() -> None:
    stacked = stack_observations([{"x": np.zeros(2), "y": np.ones(3)}] * 4)
    assert {key: value.shape for key, value in stacked.items()} == {"x": (4, 2), "y": (4, 3)}
    assert stack_observations([np.zeros(2)] * 4).shape == (4, 2)


# --- the real environment ---


STATE = EvaluationConfig(split="val", obs_type="state", n_tasks=4, n_trials=2)


class Spy:
    """An EntBC whose demonstrations are noted."""

    def __init__(self, model: EntBC) -> None:
        self.model, self.demos = model, list[Any]()

    def embed(self, demonstrations: Any) -> np.ndarray:
        self.demos += [demo for demos in demonstrations for demo in demos]
        return self.model.embed(demonstrations)

    def predict(self, *args: Any, **kwargs: Any) -> tuple[np.ndarray, Any]:
        return self.model.predict(*args, **kwargs)


@pytest.fixture(scope="module")
def model() -> EntBC:
    """Untrained: it need not do anything well."""
    env = gym.make(ENV_ID, obs_type="state", n_tasks=2)
    return EntBC("TaskPolicy", env, seed=0, policy_kwargs={"net_arch": [32]})


def test_the_expert_does_nearly_every_trial(model: EntBC) -> None:
    config = dataclasses.replace(STATE, n_tasks=8, demonstrated="expert")
    trials = evaluate_k_shot(model, config)
    assert np.mean([trial.success for trial in trials]) >= 15 / 16
    assert np.mean([trial.strict for trial in trials]) >= 0.8
    assert np.mean([trial.success_other for trial in trials]) <= 0.2
    done = [trial for trial in trials if trial.strict]
    assert all(trial.target_moved > 0.1 and trial.target_distance < 0.05 for trial in done)


def test_demonstrations_never_start_where_trials_do(model: EntBC) -> None:
    spy = Spy(model)
    trials = evaluate_k_shot(spy, dataclasses.replace(STATE, n_shots=2))
    # A demonstration's id ends in the seed of its start.
    shown = [int(demo.infos[0]["demo_id"].split("/")[1]) for demo in spy.demos]
    assert len(shown) == 2 * len(trials) == len(set(shown))
    assert max(shown) < TRIAL_SEEDS <= min(trial.seed for trial in trials)


def test_trials_can_be_repeated_one_by_one(model: EntBC) -> None:
    trials = evaluate_k_shot(model, STATE)
    assert trials == evaluate_k_shot(model, STATE)
    env = gym.make(ENV_ID, split="val", n_tasks=4)
    _, info = env.reset(seed=trials[3].seed, options={"task": trials[3].task_id})
    assert info["task_id"] == trials[3].task_id
    # It moved the target by this much from that very start.
    assert abs(trials[3].target_distance - info["target_distance"]) <= trials[3].target_moved + 1e-9


def test_samples_are_repeatable_too(model: EntBC) -> None:
    config = dataclasses.replace(STATE, n_tasks=2, sample=True)
    trials = evaluate_k_shot(model, config)
    assert trials == evaluate_k_shot(model, config)
    assert trials != evaluate_k_shot(model, dataclasses.replace(config, sample=False))


def test_scores_do_not_depend_on_the_number_of_workers(
    model: EntBC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ent_bc.evaluation.CHUNK", 3)  # several, of few trials
    path = tmp_path / "model.safetensors"
    model.save(path)
    config = dataclasses.replace(STATE, n_tasks=2, n_trials=4)
    told: list[tuple[int, int]] = []
    with worker_pool(2) as pool:
        in_two_processes = evaluate_file(
            path, config, pool=pool, on_progress=lambda *progress: told.append(progress)
        )
    assert len(in_two_processes) == 8 and told == [(3, 8), (6, 8), (8, 8)]
    assert in_two_processes == evaluate_k_shot(EntBC.load(path), config)


def test_a_chunk_of_trials_does_not_depend_on_the_others(model: EntBC) -> None:
    chunks = list(_chunks(dataclasses.replace(STATE, n_trials=7), ENV_ID))
    forwards, backwards = (
        [run_chunk(model, STATE, chunk, ENV_ID) for chunk in some]
        for some in (chunks, chunks[::-1])
    )
    assert [len(trials) for trials in forwards] == [CHUNK, 4]
    assert forwards == backwards[::-1]
