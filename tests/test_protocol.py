"""The protocol of multi-task environments: what is required is enough, what is missing is said."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from imitation.data.types import Trajectory

from ent_bc import BatchConfig, EntBC
from ent_bc.evaluation import ENV_ID, EvaluationConfig, Trial, evaluate_k_shot
from ent_bc.protocol import ExpertEnv, MultiTaskEnv, Task, TwinTask, as_multi_task, pair_of
from ent_bc.statistics import summarise

N_STEPS = 5


@dataclasses.dataclass(frozen=True)
class BareTask:
    place: float

    @property
    def task_id(self) -> str:
        return f"place {self.place:.2f}"


class BareEnv(gym.Env[np.ndarray, np.ndarray]):
    """Go to a place on a line that nothing but a demonstration tells; only what is required."""

    def __init__(self, split: str, n_tasks: int | None = None, split_seed: int = 0) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self.tasks = [BareTask(float(place)) for place in np.linspace(-1, 1, n_tasks or 10)]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.task: BareTask = options["task"]
        self.position, self.left, self.success = self.np_random.uniform(-1, 1), N_STEPS, False
        return self.observe(), {"task_id": self.task.task_id, "is_success": False}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.position += float(np.clip(action[0], -1, 1))
        self.left -= 1
        self.success = self.success or abs(self.position - self.task.place) < 0.25
        info = {"task_id": self.task.task_id, "is_success": self.success}
        return self.observe(), 0.0, False, self.left == 0, info

    def observe(self) -> np.ndarray:
        return np.array([self.position], np.float32)

    def get_demonstrations(self, task: BareTask, n: int, *, seed: int) -> list[Trajectory]:
        starts = np.random.default_rng(seed).uniform(-1, 1, n)
        return [demonstration(start, task) for start in starts]


def demonstration(start: float, task: BareTask) -> Trajectory:
    places = [start]
    for _ in range(N_STEPS):
        places.append(places[-1] + np.clip(task.place - places[-1], -1, 1))
    obs = np.array(places, np.float32)[:, None]
    return Trajectory(obs, np.diff(obs, axis=0), np.array([{"task_id": task.task_id}] * N_STEPS), 0)


@pytest.fixture
def bare() -> Iterator[str]:
    gym.register("Bare-v0", BareEnv)
    yield "Bare-v0"
    del gym.registry["Bare-v0"]


class Reader:
    """Goes where the demonstration ended."""

    def embed(self, demonstrations: Any) -> np.ndarray:
        return np.array([demos[0].obs[-1] for demos in demonstrations])

    def predict(
        self, observation: Any, state: Any = None, *_: Any, **__: Any
    ) -> tuple[np.ndarray, Any]:
        return np.clip(state - observation, -1, 1), state


CONFIG = EvaluationConfig(n_trials=2, obs_type=None, image_size=None)


def evaluate(bare: str, **changes: Any) -> list[Trial]:
    return evaluate_k_shot(Reader(), dataclasses.replace(CONFIG, **changes), env_id=bare)


def test_what_is_required_is_enough_to_evaluate(bare: str) -> None:
    own, shuffled = evaluate(bare), evaluate(bare, demonstrated="shuffled")
    assert {trial.outcome for trial in own} == {"shown only"}
    assert {trial.outcome for trial in shuffled} == {"shown only", "neither"}
    assert len(own) == 20 and [t.seed for t in own] == [t.seed for t in shuffled]


def test_what_an_environment_does_not_say_has_its_default(bare: str) -> None:
    for trial in evaluate(bare, demonstrated="shuffled"):
        assert trial.pair_id == trial.task_id
        assert not trial.success_other and trial.strict == trial.success
        assert math.isnan(trial.target_moved) and math.isnan(trial.target_distance)
        assert trial.failure is None
    summary = summarise(evaluate(bare))
    assert summary["shown"]["value"] == summary["strict"]["value"] == 1.0
    assert summary["n_pairs"] == 10 and summary["other"]["value"] == 0.0


def test_what_is_required_is_enough_to_learn_from(bare: str) -> None:
    env = as_multi_task(gym.make(bare, split="train"))
    demos = [demo for task in env.tasks for demo in env.get_demonstrations(task, 4, seed=0)]
    model = EntBC(
        env=gym.make(bare, split="train"),
        demonstrations=demos,
        policy_kwargs={"architecture": "tiled", "net_arch": [64]},
        batch_size=10,
        batches=BatchConfig(n_steps=4),
        seed=0,
    )
    model.train(n_batches=300, progress_bar=False)
    shown = evaluate_k_shot(model, CONFIG, env_id=bare)
    shuffled = evaluate_k_shot(
        model, dataclasses.replace(CONFIG, demonstrated="shuffled"), env_id=bare
    )
    rates = [np.mean([trial.success for trial in trials]) for trials in (shown, shuffled)]
    assert rates[0] >= 0.8 and rates[0] > rates[1] + 0.2


def test_a_condition_that_the_environment_cannot_serve_is_refused(bare: str) -> None:
    with pytest.raises(ValueError, match="'place -1.00' has no twin, expected a condition other"):
        evaluate(bare, demonstrated="twin")
    with pytest.raises(TypeError, match="BareEnv has no expert_action, expected a condition other"):
        evaluate(bare, demonstrated="expert")
    with pytest.raises(ValueError, match="has 1 tasks, expected at least 2: a shuffled"):
        evaluate(bare, n_tasks=1, demonstrated="shuffled")


def test_an_environment_without_tasks_is_refused() -> None:
    with pytest.raises(TypeError, match="CartPoleEnv has no tasks and no get_demonstrations"):
        as_multi_task(gym.make("CartPole-v1"))


def test_metapusher_has_all_of_the_protocol(bare: str) -> None:
    env = gym.make(ENV_ID, n_tasks=4).unwrapped
    assert isinstance(env, ExpertEnv)
    task = env.tasks[0]
    assert isinstance(task, TwinTask) and task.twin == env.tasks[1]
    assert pair_of(task) == pair_of(task.twin) == task.pair_id
    least = gym.make(bare, split="train").unwrapped
    assert isinstance(least, MultiTaskEnv) and not isinstance(least, ExpertEnv)
    assert isinstance(least.tasks[0], Task) and not isinstance(least.tasks[0], TwinTask)
