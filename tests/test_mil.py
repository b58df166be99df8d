"""MIL's task files: what is read, that tasks stand on their own, and that the expert does them."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import trimesh

from ent_bc.evaluation import EvaluationConfig, evaluate_k_shot
from meta_pusher_env import MetaPusherEnv, objects, scene
from meta_pusher_env.mil import load_mil_tasks
from meta_pusher_env.tasks import PusherTask, hash_tasks

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data" / "mil_sim_push"
BOX = {"mesh": "meshes/box.stl", "scale": "0.001 0.001 0.001", "density": "2000.5"}
BOX |= {"damping": "1.25", "texture": "textures/dotted_0001.png"}
PLATE = {"mesh": "meshes/plate.stl", "scale": "0.01 0.01 0.01", "density": "600"}
PLATE |= {"damping": "2.5", "texture": "textures/grid_0002.png"}

TASK = """<mujoco model="arm3d">
  <default><joint armature="0.04" damping="1"/><geom density="300"/></default>
  <worldbody>{bodies}</worldbody>
  <asset>{assets}</asset>
</mujoco>"""
BODY = """<body pos="0.45 -0.05 -0.324" name="{name}"><light castshadow="false"/>
  <geom type="mesh" density="{density}" material="{name}" mesh="{name}_mesh"/>
  <joint type="slide" damping="{damping}" axis="0 1 0"/>
  <joint type="slide" damping="{damping}" axis="1 0 0"/></body>"""
ASSETS = """<texture file="{texture}" name="{name}"/><material texture="{name}" name="{name}"/>
  <mesh scale="{scale}" file="{mesh}" name="{name}_mesh"/>"""


def write_task(folder: Path, name: str, target: dict[str, str], other: dict[str, str]) -> Path:
    both = {"distractor": other, "object": target}.items()
    file = folder / f"{name}.xml"
    bodies = "".join(BODY.format(name=body, **values) for body, values in both)
    assets = "".join(ASSETS.format(name=body, **values) for body, values in both)
    file.write_text(TASK.format(bodies=bodies, assets=assets))
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files with a small box, in mm and off the origin, and a plate wider than the scoop."""
    (tmp_path / "meshes").mkdir()
    box = trimesh.creation.box((40.0, 60.0, 70.0)).apply_translation((500.0, 0.0, -20.0))
    box.export(tmp_path / "meshes/box.stl")
    trimesh.creation.cylinder(10.0, 6.0, sections=12).export(tmp_path / "meshes/plate.stl")
    write_task(tmp_path, "pusher1", BOX, PLATE)
    write_task(tmp_path, "pusher2", PLATE, BOX | {"damping": "3"})
    return tmp_path


@pytest.fixture
def tasks(folder: Path) -> list[PusherTask]:
    with pytest.warns(UserWarning, match="replaced by procedural ones"):
        return load_mil_tasks(folder)


# --- what is read ---------------------------------------------------------------------------------


def test_each_file_is_a_task_with_its_twin_after_it(tasks: list[PusherTask]) -> None:
    assert [task.task_id for task in tasks] == ["pusher1a", "pusher1b", "pusher2a", "pusher2b"]
    assert tasks[1] == tasks[0].twin
    for task in tasks[::2]:
        targets, others = task.objects[task.target], task.objects[1 - task.target]
        assert (targets.damping, others.damping) in {(1.25, 2.5), (2.5, 3.0)}


def test_files_that_swap_the_roles_of_the_same_objects_are_twins(folder: Path) -> None:
    write_task(folder, "pusher3", PLATE, BOX)
    with pytest.warns(UserWarning):
        tasks = load_mil_tasks(folder)
    assert len(tasks) == 4
    assert tasks[0].objects[tasks[1].target].damping == 2.5


def test_objects_keep_mesh_scale_mass_and_damping(tasks: list[PusherTask]) -> None:
    model = scene.build_model(tasks[0])
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    sizes = ((0.04, 0.06, 0.07), (0.2, 0.2, 0.06))
    volumes = (0.04 * 0.06 * 0.07, 12 / 2 * np.sin(np.pi / 6) * 0.1**2 * 0.06)
    for slot, (size, volume, density) in enumerate(zip(sizes, volumes, (2000.5, 600), strict=True)):
        geom = model.geom(f"object_{slot}")
        first = model.mesh_vertadr[geom.dataid[0]]
        vertices = model.mesh_vert[first : first + model.mesh_vertnum[geom.dataid[0]]]
        placed = vertices @ data.geom(geom.id).xmat.reshape(3, 3).T + data.geom(geom.id).xpos
        np.testing.assert_allclose(np.ptp(placed, axis=0), size, atol=1e-5)
        # It lies on the table, around its joints' place.
        assert placed[:, 2].min() == pytest.approx(scene.TABLE_HEIGHT + 0.001, abs=1e-5)
        np.testing.assert_allclose(placed[:, :2].max(0) + placed[:, :2].min(0), 0, atol=1e-5)
        assert model.body(f"object_{slot}").mass == pytest.approx(density * volume, abs=1e-5)
    assert model.joint("object_0_x").damping == model.joint("object_0_y").damping == 1.25
    assert model.joint("object_1_x").damping == 2.5


def test_textures_are_seeded_by_their_names_with_one_warning(folder: Path) -> None:
    write_task(folder, "pusher3", BOX | {"texture": "textures/lined_0003.png"}, PLATE)
    with pytest.warns(UserWarning) as caught:
        tasks = load_mil_tasks(folder)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    dotted, also_dotted, lined = tasks[0].objects[0], tasks[2].objects[1], tasks[4].objects[0]
    pictures = [objects.build_texture(spec).tobytes() for spec in (dotted, also_dotted, lined)]
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_name_s_texture_is_the_same_for_ever(tasks: list[PusherTask]) -> None:
    assert tasks[0].objects[0].texture == "camouflage"
    assert tasks[0].objects[0].color[0] == pytest.approx(0.763062, abs=1e-6)


# --- a task stands on its own ---------------------------------------------------------------------


def test_tasks_are_their_content_and_need_no_file(folder: Path, tasks: list[PusherTask]) -> None:
    elsewhere = folder / "moved"
    shutil.copytree(folder / "meshes", elsewhere / "meshes")
    shutil.copy(folder / "pusher1.xml", elsewhere)
    with pytest.warns(UserWarning):
        assert load_mil_tasks(elsewhere) == tasks[:2]
    shutil.rmtree(folder)
    for task in tasks:
        text = json.dumps(task.to_dict())
        assert PusherTask.from_dict(json.loads(text)) == pickle.loads(pickle.dumps(task)) == task
        assert str(folder) not in text
        assert len(repr(task)) < 2_000
        scene.build_model(task)


def test_another_mesh_of_the_same_name_is_another_task(
    folder: Path, tasks: list[PusherTask]
) -> None:
    # As high, as wide, as heavy: the corners differ alone.
    cylinder = trimesh.creation.cylinder(10.0, 6.0, sections=12)
    cylinder.apply_transform(trimesh.transformations.rotation_matrix(0.1, (0, 0, 1)))
    cylinder.export(folder / "meshes/plate.stl")
    with pytest.warns(UserWarning):
        assert hash_tasks(tuple(load_mil_tasks(folder))) != hash_tasks(tuple(tasks))


def test_the_descriptor_measures_the_mesh_and_names_nothing(
    folder: Path, tasks: list[PusherTask]
) -> None:
    box, plate = (objects.describe(spec) for spec in tasks[0].objects)
    for vector in (box, plate):
        assert vector.shape == (objects.DESCRIPTOR_DIM,)
        assert np.abs(vector).max() <= 1
    fields = dict(zip(objects.DESCRIPTOR_FIELDS, box, strict=True))
    long, short = np.cos(np.arctan(40 / 60)), np.sin(np.arctan(40 / 60))
    assert fields["short_extent"] == pytest.approx(2 * short - 1, abs=0.01)
    assert fields["slice1_fill"] == pytest.approx(8 * long * short / np.pi - 1, abs=0.01)
    drawn = {"shape": "prism", "shape_params": (0.0,) * 3, "mesh": None, "radius": 0.05}
    look = tasks[0].objects[0].to_dict() | drawn
    of_prism = objects.describe(objects.ObjectSpec(**look))
    assert not np.allclose(box[13:45], of_prism[13:45], atol=0.1)  # the shape's numbers
    np.testing.assert_array_equal(box[-8:], of_prism[-8:])  # the texture's
    shutil.copy(folder / "meshes/box.stl", folder / "meshes/other.stl")
    write_task(folder, "pusher1", BOX | {"mesh": "meshes/other.stl", "density": "999"}, PLATE)
    with pytest.warns(UserWarning):
        renamed = load_mil_tasks(folder)[0].objects[0]
    assert objects.describe(renamed).tobytes() == box.tobytes()


# --- use ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("obs_type", ["state", "pixels"])
def test_twins_look_alike_to_the_byte(tasks: list[PusherTask], obs_type: str) -> None:
    env = MetaPusherEnv(tasks=tasks, obs_type=obs_type, image_size=32)
    seen = []
    for task in tasks[:2]:
        frames = [env.reset(seed=3, options={"task": task})[0]]
        frames += [env.step(np.full(7, 0.5))[0] for _ in range(5)]
        seen.append(np.stack(frames).tobytes())
    assert seen[0] == seen[1]
    env.close()


def test_a_split_s_environment_takes_such_a_task(tasks: list[PusherTask]) -> None:
    env = gym.make("meta_pusher_env:MetaPusher-v0", task=tasks[2])
    obs, info = env.reset(seed=0)
    assert info["task_id"] == "pusher2a"
    assert obs in env.observation_space
    crops = env.unwrapped.object_crops(tasks[2])  # type: ignore[attr-defined]
    assert crops[0].std() > 10  # the camera is not inside the wide plate
    env.close()


def test_the_expert_demonstrates_small_and_wide_objects(tasks: list[PusherTask]) -> None:
    for task in tasks[:2]:
        demonstration = MetaPusherEnv(tasks=tasks).get_demonstrations(task, 1, seed=0)[0]
        moved = demonstration.states[-1, 7:13].reshape(2, 3)[:, :2] - scene.GOAL
        assert np.argmin(np.linalg.norm(moved, axis=1)) == task.target


def test_the_expert_nearly_always_succeeds_evaluated_as_a_model_is(
    tasks: list[PusherTask],
) -> None:
    kwargs = {"tasks": tasks}
    gym.register(
        "MilTest-v0", "meta_pusher_env:MetaPusherEnv", max_episode_steps=100, kwargs=kwargs
    )
    config = EvaluationConfig(demonstrated="expert", n_trials=3, obs_type="state")
    trials = evaluate_k_shot(None, config, env_id="MilTest-v0")  # type: ignore[arg-type]
    assert len(trials) == 12
    assert sum(trial.success for trial in trials) >= 11
    assert sum(trial.success_other for trial in trials) <= 2


def test_the_example_runs(folder: Path) -> None:
    command = [sys.executable, "-W", "ignore", "examples/mil_tasks.py", str(folder), "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "demonstration: expert, n = 4" in done.stdout
    assert re.search(r"success [01]\.\d{3} \[", done.stdout)


@pytest.mark.skipif(not SHARED.exists(), reason="MIL's files are not beside the checkout")
def test_mil_s_own_files_are_read() -> None:
    with pytest.warns(UserWarning, match="textures of 24 task files"):
        tasks = load_mil_tasks(SHARED)
    # King and sunglasses are in two files, once each as the target.
    assert len(tasks) == 2 * 23
    for task in tasks[::2]:
        model = scene.build_model(task)
        for slot, spec in enumerate(task.objects):
            assert 0.1 <= spec.mass <= 2  # what the benchmark's generator drew from
            assert model.body(f"object_{slot}").mass == pytest.approx(spec.mass)
            assert np.isfinite(objects.describe(spec)).all()


# --- bad files ------------------------------------------------------------------------------------


def test_a_folder_without_task_files_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=f"No \\*.xml in '{folder}'; expected MIL's"):
            load_mil_tasks(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mesh": "meshes/none.stl"}, "none.stl"),
        ({"mesh": "meshes/text.stl"}, "text.stl: .*expected an STL file"),
        ({"mesh": "meshes/cut.stl"}, "cut.stl: .*expected an STL file"),
        ({"mesh": "meshes/flat.stl"}, "flat.stl: .*no volume; expected an STL file of a closed"),
        ({"scale": "0.001 0.001 0.002"}, "scale='0.001 0.001 0.002'.*the same number"),
        ({"scale": "a a a"}, "scale='a a a'.*expected three numbers"),
        ({"scale": "1 1 1"}, r"radius=36.*expected a number in \[0.005, 0.2\]"),
        ({"density": "heavy"}, "density='heavy' of a geom; expected a number"),
        ({"density": "-1"}, r"mass=-0.000168; expected a number in \[0.01, 10\]"),
    ],
)
def test_a_bad_value_is_named_with_its_file(
    folder: Path, change: dict[str, str], message: str
) -> None:
    whole = (folder / "meshes/box.stl").read_bytes()
    (folder / "meshes/text.stl").write_text("not a mesh")
    (folder / "meshes/cut.stl").write_bytes(whole[:-30])
    flat = trimesh.Trimesh([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [(0, 1, 2)])
    flat.export(folder / "meshes/flat.stl")
    file = write_task(folder, "pusher0", BOX | change, PLATE)
    with pytest.raises(ValueError, match=f"{file}: .*{message}"):
        load_mil_tasks(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</mujoco>", "", "no element found"),
        ('name="object">', 'name="cube">', "no body named 'object'; expected one"),
        ('type="mesh"', 'type="box"', "'object' has no geom; expected one of type 'mesh'"),
        ('density="2000.5"', "", "A geom has no 'density', but only"),
        ('damping="1.25" axis="0 1 0"', 'damping="7" axis="0 1 0"', r"\[1.25, 7.0\]; expected one"),
        ('type="slide"', 'type="hinge"', r"dampings \[\]; expected one"),
        ('name="object_mesh"', 'name="mesh"', "no mesh named 'object_mesh'"),
        ('texture="object"', 'texture="none"', "no texture named 'none'"),
    ],
)
def test_a_file_of_another_format_is_named(folder: Path, old: str, new: str, message: str) -> None:
    file = folder / "pusher1.xml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=f"{file}: .*{message}"):
        load_mil_tasks(folder)


def test_a_spec_has_a_mesh_if_and_only_if_its_shape_says_so(tasks: list[PusherTask]) -> None:
    values: dict[str, Any] = tasks[0].objects[0].to_dict()
    with pytest.raises(ValueError, match="mesh=None; expected the base64 of an STL file"):
        objects.ObjectSpec(**values | {"mesh": None})
    with pytest.raises(ValueError, match="and None if not"):
        objects.ObjectSpec(**values | {"shape": "prism"})
    with pytest.raises(ValueError, match="lacks field.*mesh"):
        objects.ObjectSpec.from_dict({k: v for k, v in values.items() if k != "mesh"})
    broken = objects.ObjectSpec(**values | {"mesh": "bm8gbWVzaA=="})
    with pytest.raises(
        ValueError, match="7 bytes hold 0 triangles and no volume; expected an STL file"
    ):
        objects.build_mesh(broken)
