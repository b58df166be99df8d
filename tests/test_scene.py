"""The compiled scene: shared by twins, with objects that can be pushed, and MIL's placement."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import pytest

from meta_pusher_env import objects, scene
from meta_pusher_env.tasks import PusherTask, make_tasks

JOINTS = [
    "r_shoulder_pan_joint",
    "r_shoulder_lift_joint",
    "r_upper_arm_roll_joint",
    "r_elbow_flex_joint",
    "r_forearm_roll_joint",
    "r_wrist_flex_joint",
    "r_wrist_roll_joint",
]
LOW_POSTURE = (1.226, 0.637, 1.465, -1.173, 0.537, -0.988, -1.486)
"""Joint angles with the scoop level, 4 cm above the table, around (0.5, -0.25)."""
FAR_AWAY = (5.0, 5.0, 0.0)


def scene_of(task: PusherTask) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = scene.build_model(task)
    return model, mujoco.MjData(model)


def push(
    task: PusherTask, torque: float, n_steps: int = 16
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turns the shoulder, the other joints held, with object 0 inside the scoop.

    Returns:
        The object's way on the table, the tip's, and the object's last position in the wrist.
    """
    model, data = scene_of(task)
    joints = slice(scene.N_JOINTS)
    data.qpos[joints] = LOW_POSTURE
    mujoco.mj_kinematics(model, data)
    tip = data.site("tip").xpos[:2].copy()
    data.qpos[scene.N_JOINTS :] = (*tip, 0.0, *FAR_AWAY)
    mujoco.mj_forward(model, data)
    for _ in range(n_steps):
        data.ctrl[:] = np.clip(20 * (LOW_POSTURE - data.qpos[joints]) - data.qvel[joints], -2, 2)
        data.ctrl[0] = torque
        scene.advance(model, data, 5)
    wrist = data.body("r_wrist_roll_link")
    inside = wrist.xmat.reshape(3, 3).T @ (data.body("object_0").xpos - wrist.xpos)
    return scene.object_xy(data)[0] - tip, data.site("tip").xpos[:2] - tip, inside


def with_physics(task: PusherTask, **changes: float) -> PusherTask:
    first, second = task.objects
    return dataclasses.replace(task, objects=(dataclasses.replace(first, **changes), second))


# --- the model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_twins_share_one_compiled_model(split: str) -> None:
    for task in make_tasks(split)[:4]:
        assert scene.build_model(task) is scene.build_model(task.twin)


def test_the_arm_is_gymnasiums_pusher_and_two_objects() -> None:
    model, _ = scene_of(make_tasks("train")[0])
    assert (model.nq, model.nv, model.nu) == (13, 13, 7)
    names = [model.joint(i).name for i in range(model.njnt)]
    objects_joints = [f"object_{i}_{part}" for i in (0, 1) for part in ("x", "y", "yaw")]
    assert names == JOINTS + objects_joints
    assert model.actuator_ctrlrange.tolist() == [[-2.0, 2.0]] * 7
    assert model.opt.timestep == 0.01


def test_the_goal_lies_flat_on_the_table_and_cannot_move() -> None:
    model, data = scene_of(make_tasks("train")[0])
    mujoco.mj_forward(model, data)
    goal = data.geom("goal").xpos
    assert goal[:2] == pytest.approx([0.45, -0.05])
    assert goal[2] == pytest.approx(scene.TABLE_HEIGHT, abs=0.005)
    assert model.body_weldid[model.geom("goal").bodyid[0]] == 0  # it is one with the world
    assert model.geom("table").pos[2] == pytest.approx(scene.TABLE_HEIGHT)


def test_objects_have_the_masses_and_dampings_of_their_specs() -> None:
    for task in make_tasks("test")[:20:2]:
        model = scene.build_model(task)
        for i, spec in enumerate(task.objects):
            assert model.body(f"object_{i}").mass == pytest.approx(spec.mass)
            for part in ("x", "y"):
                assert model.joint(f"object_{i}_{part}").damping == pytest.approx(spec.damping)


def test_objects_stand_on_the_table() -> None:
    for task in (*make_tasks("train")[:20:2], *make_tasks("test")[:20:2]):
        model, data = scene_of(task)
        mujoco.mj_forward(model, data)
        for i, spec in enumerate(task.objects):
            geom = model.geom(f"object_{i}")
            start = model.mesh_vertadr[geom.dataid[0]]
            vertices = model.mesh_vert[start : start + model.mesh_vertnum[geom.dataid[0]]]
            placed = data.geom(geom.id)
            heights = (vertices @ placed.xmat.reshape(3, 3).T + placed.xpos)[:, 2]
            assert scene.TABLE_HEIGHT < heights.min() < scene.TABLE_HEIGHT + 0.003
            assert heights.max() - heights.min() == pytest.approx(spec.height, abs=1e-4)


# --- contacts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", objects.SHAPE_FAMILIES)
def test_a_push_moves_an_object_of_any_shape(shape: str) -> None:
    task = make_tasks("train")[0]
    shaped = objects.sample_object(np.random.default_rng(0), [shape], ["stripes"])
    task = dataclasses.replace(task, objects=(shaped, task.objects[1]))
    moved, tip_moved, inside = push(with_physics(task, mass=0.5, damping=1.0), torque=-1.0)
    assert np.linalg.norm(moved) > 0.1
    assert np.linalg.norm(moved - tip_moved) < 0.05
    # It was neither passed through nor flung away: it is still between the scoop's two arms.
    assert 0 < inside[0] < 0.1
    assert abs(inside[1]) < 0.1


def test_a_heavy_object_is_harder_to_push() -> None:
    task = make_tasks("train")[0]
    light, light_tip, _ = push(with_physics(task, mass=0.1, damping=0.2), torque=-1.0)
    heavy, heavy_tip, _ = push(with_physics(task, mass=1.0, damping=5.0), torque=-1.0)
    assert np.linalg.norm(light) > 1.5 * np.linalg.norm(heavy)
    assert np.linalg.norm(light_tip) > 1.5 * np.linalg.norm(heavy_tip)
    assert np.linalg.norm(heavy) > 0.05


def test_objects_do_not_collide_with_each_other() -> None:
    task = make_tasks("train")[0]
    model, data = scene_of(task)
    data.qpos[scene.N_JOINTS :] = (0.3, -0.2, 0.0) * 2
    data.qvel[scene.N_JOINTS] = 0.5
    mujoco.mj_forward(model, data)
    assert not any(
        {model.geom(g).name for g in pair} == {"object_0", "object_1"} for pair in data.contact.geom
    )
    for _ in range(20):
        scene.advance(model, data, 5)
    assert scene.object_xy(data)[0, 0] > 0.33
    assert scene.object_xy(data)[1] == pytest.approx([0.3, -0.2])


def test_objects_lie_still_until_pushed() -> None:
    for task in make_tasks("val")[:10:2]:
        model, data = scene_of(task)
        placement = scene.draw_placement(np.random.default_rng(0))
        data.qpos[scene.N_JOINTS :] = placement.object_qpos.ravel()
        mujoco.mj_forward(model, data)
        for _ in range(100):
            scene.advance(model, data, 5)
        assert np.array_equal(data.qpos[scene.N_JOINTS :], placement.object_qpos.ravel())


def test_positions_and_velocities_are_the_whole_state() -> None:
    """No warm start, no clock: so a recorded state can be continued, bit for bit."""
    model, data = scene_of(make_tasks("train")[2])
    data.qpos[: scene.N_JOINTS] = LOW_POSTURE
    mujoco.mj_kinematics(model, data)
    data.qpos[scene.N_JOINTS :] = (*data.site("tip").xpos[:2], 0.3, *FAR_AWAY)
    torques = np.random.default_rng(0).uniform(-2, 2, (20, scene.N_JOINTS))
    for torque in torques:
        other = mujoco.MjData(model)
        other.qpos[:], other.qvel[:] = data.qpos, data.qvel
        for each in (data, other):
            each.ctrl[:] = torque
            scene.advance(model, each, 5)
        assert np.array_equal(data.qpos, other.qpos)
        assert np.array_equal(data.qvel, other.qvel)
        assert np.array_equal(data.site("tip").xpos, other.site("tip").xpos)


# --- placement ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def placements() -> list[scene.Placement]:
    rng = np.random.default_rng(0)
    return [scene.draw_placement(rng) for _ in range(4000)]


@pytest.fixture(scope="module")
def offsets(placements: list[scene.Placement]) -> np.ndarray:
    """Of both objects from the goal, (4000, 2, 2), m."""
    return np.stack([p.object_qpos[:, :2] for p in placements]) - (0.45, -0.05)


def test_placement_keeps_mils_ranges(offsets: np.ndarray) -> None:
    assert offsets[..., 0].min() >= -0.2
    assert offsets[..., 0].max() <= 0.2
    assert offsets[..., 1].min() >= -0.3
    assert offsets[..., 1].max() <= 0.0
    assert np.linalg.norm(offsets, axis=-1).min() > 0.17
    assert np.linalg.norm(offsets[:, 0] - offsets[:, 1], axis=-1).min() > 0.1
    assert ((offsets[:, 0, 0] < 0) != (offsets[:, 1, 0] < 0)).all()


def test_placement_uses_the_whole_of_them(offsets: np.ndarray) -> None:
    assert offsets[..., 0].min() < -0.195
    assert offsets[..., 0].max() > 0.195
    assert offsets[..., 1].min() < -0.295
    assert offsets[..., 1].max() > -0.005


def test_placement_is_symmetric_in_the_two_objects(offsets: np.ndarray) -> None:
    """Else where an object lies would say whether it is the target."""
    for measure in (
        offsets[..., 0],
        offsets[..., 1],
        np.linalg.norm(offsets, axis=-1),
        np.abs(offsets[..., 0]),
        offsets[..., 0] < 0,
    ):
        first, second = measure[:, 0].astype(float), measure[:, 1].astype(float)
        error = np.sqrt((first.var() + second.var()) / len(first))
        assert abs(first.mean() - second.mean()) < 4 * error


def test_slots_and_yaws_say_nothing_of_the_roles(placements: list[scene.Placement]) -> None:
    slots = np.stack([p.slots for p in placements])
    assert (np.sort(slots, axis=1) == (0, 1)).all()
    assert abs(slots[:, 0].mean() - 0.5) < 0.04
    left = np.array([p.object_qpos[0, 0] < p.object_qpos[1, 0] for p in placements])
    assert abs(np.mean(left == slots[:, 0]) - 0.5) < 0.04
    yaws = np.stack([p.object_qpos[:, 2] for p in placements])
    assert np.abs(yaws).max() <= np.pi
    assert np.abs(yaws.mean(axis=0)).max() < 0.15


def test_joint_velocities_are_mils(placements: list[scene.Placement]) -> None:
    velocities = np.stack([p.joint_velocities for p in placements])
    assert 0.0049 < np.abs(velocities).max() <= 0.005
