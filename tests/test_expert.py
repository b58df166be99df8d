"""The scripted expert: bounded, Markov, successful, and after the object it was told to push."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest
import trimesh

from meta_pusher_env import env, measures, objects, scene
from meta_pusher_env.arm import Arms
from meta_pusher_env.expert import Expert, Experts
from meta_pusher_env.tasks import SPLITS, PusherTask, make_tasks

GOLDEN = Path(__file__).parent / "golden" / "expert.npz"
FIRST_SEED = 50_000  # apart from the placements that the expert was tuned on
EPISODES_PER_SPLIT = 30


def start(task: PusherTask, seed: int) -> mujoco.MjData:
    model = scene.build_model(task)
    data = mujoco.MjData(model)
    placement = scene.draw_placement(np.random.default_rng(seed))
    data.qpos[scene.N_JOINTS :] = placement.object_qpos.ravel()
    data.qvel[: scene.N_JOINTS] = placement.joint_velocities
    mujoco.mj_forward(model, data)
    return data


def demonstrate(task: PusherTask, seed: int) -> tuple[mujoco.MjData, np.ndarray, np.ndarray]:
    """The end of an episode, its torques (100, 7), and the steps (2,) objects were at the goal."""
    data = start(task, seed)
    expert = Expert(data.model, task.target)
    torques, steps_at_goal = [], np.zeros(2, dtype=int)
    for _ in range(env.EPISODE_STEPS):
        torques.append(expert.act(data))
        data.ctrl[:] = torques[-1]
        scene.advance(data.model, data, env.FRAME_SKIP)
        steps_at_goal += scene.goal_distances(data) ** 2 < measures.GOAL_RADIUS_SQUARED
    return data, np.array(torques), steps_at_goal


def widen(task: PusherTask) -> PusherTask:
    """The task with objects from files that the scoop cannot enclose, both of them high."""
    stl = trimesh.creation.cylinder(0.1, 0.06, sections=12).export(file_type="stl")
    wide = dataclasses.replace(
        task.objects[0],
        shape=objects.FILE_SHAPE,
        shape_params=(),
        radius=0.1,
        height=0.06,
        mesh=base64.b64encode(stl).decode(),
    )
    return dataclasses.replace(task, objects=(wide, dataclasses.replace(wide, damping=1.5)))


@pytest.fixture(scope="module")
def task() -> PusherTask:
    return make_tasks("train")[0]


def test_nearly_every_episode_succeeds_strictly_and_leaves_the_distractor_alone() -> None:
    # Lower lines than the benchmark's bars (99%, 95%, 75%, 3%), by the noise of 90 episodes.
    outcomes = []
    for i in range(EPISODES_PER_SPLIT):
        for number, split in enumerate(SPLITS):
            tasks = make_tasks(split)
            task = tasks[7 * i % len(tasks)]
            seed = FIRST_SEED + 1_000 * number + i
            before = scene.object_xy(start(task, seed))
            data, _, steps_at_goal = demonstrate(task, seed)
            target, other = task.target, 1 - task.target
            distances = scene.goal_distances(data)
            moved = np.linalg.norm(scene.object_xy(data) - before, axis=1)
            at_goal = steps_at_goal >= measures.GOAL_STEPS
            outcomes.append(
                [
                    at_goal[target],
                    distances[target] < min(measures.STRICT_RADIUS, distances[other]),
                    moved[other] < 0.03,
                    at_goal.all(),
                ]
            )
    success, strict, clean, both = np.mean(outcomes, axis=0)
    assert success >= 0.96
    assert strict >= 0.88
    assert clean >= 0.80
    assert both <= 0.08


def test_told_to_push_the_other_object_it_pushes_the_other_one(task: PusherTask) -> None:
    pushed = []
    for seed in range(FIRST_SEED, FIRST_SEED + 5):
        for told in (task, task.twin):
            _, _, steps_at_goal = demonstrate(told, seed)
            pushed.append(np.argmax(steps_at_goal) == told.target)
    assert np.mean(pushed) >= 0.9


def test_the_torques_are_those_of_the_first_law_written_for_one_scene(task: PusherTask) -> None:
    # The file: states along noisy episodes, and the torques of the expert as it was tuned.
    golden = np.load(GOLDEN)
    for name, told in (("drawn", task), ("twin", task.twin), ("wide", widen(task))):
        data = start(told, FIRST_SEED)
        expert = Expert(data.model, told.target)
        for state, torques in zip(golden[f"{name}_states"], golden[f"{name}_torques"], strict=True):
            data.qpos[:], data.qvel[:] = np.split(state, [data.model.nq])
            np.testing.assert_allclose(expert.act(data), torques, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 5, 16, 33])
def test_in_a_batch_each_expert_acts_as_it_does_alone_to_the_last_bit(n: int) -> None:
    tasks = make_tasks("train")
    told = [widen(task) if i % 5 == 4 else task for i, task in enumerate(tasks[:n])]
    scenes = [start(task, FIRST_SEED + i) for i, task in enumerate(told)]
    rng = np.random.default_rng(n)
    for data in scenes:
        data.qpos[: scene.N_JOINTS] = rng.uniform(*data.model.jnt_range[: scene.N_JOINTS].T)
        data.qpos[scene.N_JOINTS :] += rng.normal(scale=0.1, size=6)
        data.qvel[:] = rng.normal(scale=0.5, size=data.qvel.shape)
        mujoco.mj_step1(data.model, data)
    arms = Arms(scenes)
    for lane in range(n):
        arms.look(lane)
    together = Experts(arms, [it.model for it in scenes], [task.target for task in told]).act()
    alone = [Expert(it.model, task.target).act(it) for it, task in zip(scenes, told, strict=True)]
    np.testing.assert_array_equal(together, alone)


def test_torques_are_seven_finite_numbers_within_the_limits(task: PusherTask) -> None:
    _, torques, _ = demonstrate(task, FIRST_SEED)
    assert torques.shape == (env.EPISODE_STEPS, scene.N_JOINTS)
    assert torques.dtype == np.float64
    assert np.abs(torques).max() <= env.TORQUE_LIMIT


def test_torques_stay_bounded_in_states_no_demonstration_visits(task: PusherTask) -> None:
    rng = np.random.default_rng(0)
    data = start(task, FIRST_SEED)
    low, high = data.model.jnt_range[: scene.N_JOINTS].T
    expert = Expert(data.model, 0)
    for _ in range(50):
        data.qpos[: scene.N_JOINTS] = rng.uniform(low - 0.1, high + 0.1)
        data.qpos[scene.N_JOINTS :] = rng.uniform(-1, 1, size=6)
        data.qvel[:] = rng.normal(scale=3, size=data.qvel.shape)
        torques = expert.act(data)
        assert np.isfinite(torques).all()
        assert np.abs(torques).max() <= env.TORQUE_LIMIT


def test_acting_does_not_touch_the_data(task: PusherTask) -> None:
    data = start(task, FIRST_SEED)
    spec = mujoco.mjtState.mjSTATE_INTEGRATION
    before, after = (np.zeros(mujoco.mj_stateSize(data.model, spec)) for _ in range(2))
    mujoco.mj_getState(data.model, data, before, spec)
    derived = data.xpos.copy(), data.qfrc_bias.copy(), data.ctrl.copy()
    Expert(data.model, 0).act(data)
    mujoco.mj_getState(data.model, data, after, spec)
    np.testing.assert_array_equal(before, after)
    for old, new in zip(derived, (data.xpos, data.qfrc_bias, data.ctrl), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_torques_are_a_function_of_the_state_alone(task: PusherTask) -> None:
    # An expert in mid-episode and one that has seen nothing agree: no phase, no memory.
    data = start(task, FIRST_SEED)
    seasoned = Expert(data.model, task.target)
    for step in range(60):
        torques = seasoned.act(data)
        if step % 10 == 9:
            copy = mujoco.MjData(data.model)
            copy.qpos[:], copy.qvel[:] = data.qpos, data.qvel
            np.testing.assert_array_equal(torques, Expert(data.model, task.target).act(copy))
            np.testing.assert_array_equal(torques, seasoned.act(data))
        data.ctrl[:] = torques
        scene.advance(data.model, data, env.FRAME_SKIP)


def test_the_torques_are_continuous_in_the_state(task: PusherTask) -> None:
    # Behaviour cloning needs it: nudged by 1 um, an object must not flip a decision.
    data = start(task, FIRST_SEED)
    expert = Expert(data.model, task.target)
    for _ in range(env.EPISODE_STEPS):
        torques = expert.act(data)
        data.qpos[scene.N_JOINTS :] += 1e-6
        assert np.abs(expert.act(data) - torques).max() < 1e-3
        data.qpos[scene.N_JOINTS :] -= 1e-6
        data.ctrl[:] = torques
        scene.advance(data.model, data, env.FRAME_SKIP)


@pytest.mark.parametrize("target", [2, -1])
def test_a_target_that_is_none_is_refused(task: PusherTask, target: int) -> None:
    with pytest.raises(ValueError, match=f"target is {target}, expected 0 or 1"):
        Expert(scene.build_model(task), target)
