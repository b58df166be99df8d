"""Meta-World's ML10 follows the protocol; without Meta-World there is one clear error."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ent_bc import EntBC
from ent_bc.evaluation import EvaluationConfig, evaluate_k_shot
from ent_bc.protocol import ExpertEnv, TwinTask

if TYPE_CHECKING:
    from ent_bc.meta_world import MetaWorldEnv

ROOT = Path(__file__).parent.parent
ENV = "ent_bc.meta_world:MetaWorldML10-v0"
GOAL = slice(36, 39)
needs_meta_world = pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None,
    reason="metaworld is not installed: it wants gymnasium >= 1.1 and mujoco 3.3.0 (`make "
    "test-latest` has them)",
)


@pytest.fixture(scope="module")
def env() -> Iterator[MetaWorldEnv]:
    made = gym.make(ENV)
    yield made.unwrapped  # type: ignore[misc]
    made.close()


def play(env: Any, task: Any, seed: int, n_steps: int = 20) -> np.ndarray:
    """Observations of the expert's first steps."""
    obs = [env.reset(seed=seed, options={"task": task})[0]]
    for _ in range(n_steps):
        obs.append(env.step(env.expert_action())[0])
    return np.stack(obs)


def test_without_meta_world_one_error_says_what_to_install() -> None:
    code = f"import sys, gymnasium; sys.modules['metaworld'] = None; gymnasium.make({ENV!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ent_bc.meta_world needs Meta-World, and metaworld 3.1.1 ")
    assert "install 'metapusher[ent-bc-latest,meta-world]'" in last


@needs_meta_world
def test_splits_are_ml10s() -> None:
    splits = {split: gym.make(ENV, split=split).unwrapped for split in ("train", "val", "test")}
    tasks: dict[str, Any] = {split: env.tasks for split, env in splits.items()}
    assert {split: len(some) for split, some in tasks.items()} == {
        "train": 300,
        "val": 300,
        "test": 150,
    }
    names = {split: {task.env_name for task in some} for split, some in tasks.items()}
    assert names["train"] == names["val"] and len(names["train"]) == 10
    assert names["test"] == {
        "drawer-open-v3",
        "door-close-v3",
        "shelf-place-v3",
        "sweep-into-v3",
        "lever-pull-v3",
    }
    assert len({task.task_id for some in tasks.values() for task in some}) == 750


@needs_meta_world
def test_held_out_goals_are_others(env: MetaWorldEnv) -> None:
    val: Any = gym.make(ENV, split="val", n_tasks=1).unwrapped
    ends = [make.get_demonstrations(0, 1, seed=0)[0].obs[-1, :3] for make in (env, val)]
    assert np.linalg.norm(ends[0] - ends[1]) > 0.05  # reach: the hand ends at the goal


@needs_meta_world
def test_it_follows_the_protocol_and_gymnasiums(env: MetaWorldEnv) -> None:
    assert isinstance(env, ExpertEnv) and not isinstance(env.tasks[0], TwinTask)
    check_env(gym.make(ENV, n_tasks=1).unwrapped, skip_render_check=True)


@needs_meta_world
def test_the_goal_is_hidden_from_the_policy_and_known_to_the_expert(env: MetaWorldEnv) -> None:
    obs = play(env, "reach-v3/0-1", seed=0, n_steps=149)
    assert obs.dtype == np.float32 and not obs[:, GOAL].any()
    env.step(env.expert_action())
    assert env._success


@needs_meta_world
def test_the_seed_fixes_an_episode_and_moves_its_start(env: MetaWorldEnv) -> None:
    first = play(env, 1, seed=5)
    play(env, 0, seed=6)
    assert np.array_equal(first, play(env, 1, seed=5))
    hand = play(env, 1, seed=6, n_steps=0)[0, :3] - first[0, :3]
    assert 0.001 < np.abs(hand).max() < 0.07
    assert np.allclose(first[0, 4:7], play(env, 1, seed=6, n_steps=0)[0, 4:7], atol=1e-3)


@needs_meta_world
def test_a_pinned_task_stays_until_another(env: MetaWorldEnv) -> None:
    assert env.reset(options={"task": 0})[1]["task_id"] == "reach-v3/0-0"
    assert env.reset(seed=1)[1]["task_id"] == "reach-v3/0-0"
    assert env.reset(options={"task": env.tasks[10]})[1]["task_id"] == "reach-v3/0-1"
    env.reset(options={"task": None})
    assert env._pinned is None


@needs_meta_world
@pytest.mark.parametrize("task", [-1, 300, "reach-v3", 1.5])
def test_an_unknown_task_is_named(env: MetaWorldEnv, task: Any) -> None:
    with pytest.raises(ValueError, match=f"There is no task {task!r}: expected a MetaWorldTask"):
        env.reset(options={"task": task})


@needs_meta_world
def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="split is 'dev', expected 'train', 'val' or 'test'"):
        gym.make(ENV, split="dev")
    with pytest.raises(ValueError, match="n_tasks is 0, expected 1 to 150 for 'test'"):
        gym.make(ENV, split="test", n_tasks=0)


@needs_meta_world
def test_demonstrations_succeed_start_apart_and_leave_the_episode_alone(env: MetaWorldEnv) -> None:
    before = play(env, 0, seed=0, n_steps=3)
    demos = env.get_demonstrations(0, 2, seed=3)
    assert np.array_equal(before[-1, :18], env.step(env.expert_action())[0][18:36])
    again, disturbed = (env.get_demonstrations(0, 2, seed=3, noise=noise) for noise in (0, 0.5))
    assert [demo.obs.shape for demo in demos] == [(151, 39)] * 2
    assert not np.allclose(demos[0].obs[0, :3], demos[1].obs[0, :3], atol=1e-3)
    assert all(np.array_equal(a.obs, b.obs) for a, b in zip(demos, again, strict=True))
    assert not np.allclose(demos[0].obs[5], disturbed[0].obs[5])
    assert all(np.abs(demo.acts).max() <= 1 for demo in disturbed)
    assert demos[0].infos[0]["task_id"] == "reach-v3/0-0"


@needs_meta_world
def test_entbc_trains_and_is_evaluated_on_it(env: MetaWorldEnv) -> None:
    demos = [demo for task in (0, 10) for demo in env.get_demonstrations(task, 2, seed=0)]
    model = EntBC(env=gym.make(ENV), demonstrations=demos, seed=0, batch_size=2)
    model.train(n_batches=2, progress_bar=False)
    config = EvaluationConfig(split="val", n_tasks=1, n_trials=2, obs_type=None, image_size=None)
    trials = evaluate_k_shot(model, config, env_id=ENV)
    assert [trial.task_id for trial in trials] == ["reach-v3/1-0"] * 2


@needs_meta_world
def test_the_example_runs() -> None:
    command = [sys.executable, "examples/meta_world.py", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = [line.split()[:2] for line in done.stdout.splitlines() if line[:4] in ("val ", "test")]
    assert lines == [
        ["val", "all"],
        ["val", "reach-v3"],
        ["test", "all"],
        ["test", "drawer-open-v3"],
    ]
