"""From a task to a compiled MuJoCo scene: Gymnasium's own Pusher arm and the task's two objects.

The scene knows nothing of the roles: a task and its twin share one compiled model.
"""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from pathlib import Path

import gymnasium
import mujoco
import numpy as np

from meta_pusher_env import objects
from meta_pusher_env.objects import ObjectSpec
from meta_pusher_env.rendering import set_quality
from meta_pusher_env.tasks import PusherTask

N_JOINTS = 7
TABLE_HEIGHT = -0.325  # m, world z of the table's top
OBJECT_HEIGHT = TABLE_HEIGHT + 0.001  # m, world z of an object's base
GOAL = np.array([0.45, -0.05])  # m, world xy; fixed, as in MIL's benchmark
GOAL.setflags(write=False)
TIP_OFFSET = (0.07, 0.0, 0.0)  # m, in the wrist's frame: the middle of the U-shaped scoop
TABLE_RGBA = (0.55, 0.47, 0.38, 1.0)
ARENA_BYTES = 2**20  # of MjData, for a few contacts; MuJoCo's default takes 1 ms to make
# The lights sum to less than 1, so that no colour clips, and that MuJoCo's shadow pass, which adds
# the lamp after the others, gives the same picture.
AMBIENT_LIGHT, HEADLIGHT, LAMP = ((x, x, x) for x in (0.45, 0.28, 0.25))
ANGULAR_DAMPING = 0.05  # N m s, of the hinge that lets an object turn

# Contacts: the wrist touches table and objects. Objects are carried by their joints, so they need
# no contact with the table; as in MIL's task files they do not collide with each other.
_WRIST_BITS, _OBJECT_BIT = 0b11, 0b10


def build_model(task: PusherTask) -> mujoco.MjModel:
    """Compiles the task's scene; twins get the very same model.

    Joint order: 7 arm joints, then x, y and yaw of ``task.objects[0]``, then of ``[1]``:
    nq = nv = 13. Sites: ``tip``. Bodies: ``object_0``, ``object_1``. Geoms: these and ``goal``.
    """
    return _compile(task.objects)


@lru_cache(maxsize=4)
def build_arms(n: int) -> mujoco.MjModel:
    """So many of the arm alone, for their kinematics at once; qpos and sites follow their order."""
    spec, arm = mujoco.MjSpec(), _arm_spec()
    spec.compiler.fusestatic = True
    spec.memory = arm.memory
    for option in ("timestep", "iterations", "gravity", "disableflags"):
        setattr(spec.option, option, getattr(arm.option, option))
    for index in range(n):
        spec.attach(_arm_spec(), prefix=f"{index}/", frame=spec.worldbody.add_frame())
    return spec.compile()


@lru_cache(maxsize=512)
def _compile(pair: tuple[ObjectSpec, ObjectSpec]) -> mujoco.MjModel:
    spec = _arm_spec()
    for slot, spec_of_object in enumerate(pair):
        _add_object(spec, slot, spec_of_object)
    return spec.compile()


def _arm_spec() -> mujoco.MjSpec:
    """Gymnasium's pusher.xml without its object, with a fixed goal and a tip site."""
    assets = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    spec = mujoco.MjSpec.from_file(str(assets / "pusher.xml"))
    spec.compiler.fusestatic = True  # fewer bodies, where MuJoCo does it (4.0): the same physics
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_MIDPHASE.value  # few geoms: it costs
    _delete(spec, spec.body("object"))
    for joint in ("goal_slidex", "goal_slidey"):
        _delete(spec, spec.joint(joint))
    spec.body("goal").geoms[0].name = "goal"
    set_quality(spec)
    spec.memory = ARENA_BYTES
    spec.visual.headlight.ambient = AMBIENT_LIGHT  # else the sides of objects are nearly black
    spec.visual.headlight.diffuse = HEADLIGHT
    for light in spec.lights:
        light.diffuse = LAMP
    spec.geom("table").rgba = TABLE_RGBA
    wrist = spec.body("r_wrist_roll_link")
    wrist.add_site(name="tip", pos=TIP_OFFSET, rgba=(0, 0, 0, 0))
    for geom in wrist.geoms:
        geom.conaffinity = _WRIST_BITS
    return spec


def _add_object(spec: mujoco.MjSpec, slot: int, looks: ObjectSpec) -> None:
    name = f"object_{slot}"
    mesh = objects.build_mesh(looks)
    spec.add_mesh(
        name=name,
        uservert=mesh.vertices.ravel(),
        usernormal=mesh.normals.ravel(),
        usertexcoord=mesh.texcoords.ravel(),
        userface=mesh.faces.ravel(),
    )
    image = objects.build_texture(looks)
    texture = spec.add_texture(
        name=name,
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        width=image.shape[1],
        height=image.shape[0],
        nchannel=3,
    )
    texture.data = image.tobytes()
    material = spec.add_material(name=name, specular=0.1, shininess=0.1)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
    body = spec.worldbody.add_body(name=name, pos=(0, 0, OBJECT_HEIGHT))
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname=name,
        material=name,
        mass=looks.mass,
        contype=_OBJECT_BIT,
        conaffinity=0,
        condim=3,
    )
    slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
    for suffix, kind, axis, damping in (
        ("x", slide, (1, 0, 0), looks.damping),
        ("y", slide, (0, 1, 0), looks.damping),
        ("yaw", hinge, (0, 0, 1), ANGULAR_DAMPING),
    ):
        body.add_joint(
            name=f"{name}_{suffix}", type=kind, axis=axis, damping=damping, armature=0, limited=0
        )


def _delete(spec: mujoco.MjSpec, element: object) -> None:
    """Deletes an element of a spec; mujoco 3.3 and 4.0 name the function differently."""
    if hasattr(spec, "delete"):
        spec.delete(element)
    elif isinstance(element, mujoco.MjsBody):
        spec.detach_body(element)
    else:
        element.delete()  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where an episode starts; drawn without knowing the roles.

    Attributes:
        object_qpos: (2, 3) x, y [m] and yaw [rad] of ``task.objects[0]`` and ``[1]``.
        joint_velocities: (7,) rad/s.
        slots: (2,) order in which a state observation lists the objects.
    """

    object_qpos: np.ndarray
    joint_velocities: np.ndarray
    slots: np.ndarray


def draw_placement(rng: np.random.Generator) -> Placement:
    """Draws MIL's placement, made symmetric: a coin says which of the objects is placed first.

    Offsets from the goal: y in [-0.3, 0], x in [-0.2, 0.2], norm > 0.17; the second in the other
    half in x, norm > 0.17, > 0.1 from the first.
    """
    first = _draw_offset(rng, -0.2, 0.2)
    low, high = (0.0, 0.2) if first[0] < 0 else (-0.2, 0.0)
    second = _draw_offset(rng, low, high)
    while np.linalg.norm(second - first) <= 0.1:
        second = _draw_offset(rng, low, high)
    offsets = np.stack([first, second])[rng.permutation(2)]
    yaw = rng.uniform(-np.pi, np.pi, size=(2, 1))
    return Placement(
        object_qpos=np.concatenate([GOAL + offsets, yaw], axis=1),
        joint_velocities=rng.uniform(-0.005, 0.005, size=N_JOINTS),
        slots=rng.permutation(2),
    )


def _draw_offset(rng: np.random.Generator, x_low: float, x_high: float) -> np.ndarray:
    while True:
        x, y = rng.uniform(x_low, x_high), rng.uniform(-0.3, 0.0)
        if math.hypot(x, y) > 0.17:
            return np.array([x, y])


def place(model: mujoco.MjModel, data: mujoco.MjData, placement: Placement) -> None:
    """Puts a scene that was just reset to where an episode starts."""
    data.qpos[N_JOINTS:] = placement.object_qpos.ravel()
    data.qvel[:N_JOINTS] = placement.joint_velocities
    mujoco.mj_forward(model, data)


def advance(model: mujoco.MjModel, data: mujoco.MjData, n_substeps: int) -> None:
    """One control step: ``n_substeps`` of physics, then positions brought up to date.

    The warm start is zeroed, so that a trajectory depends on state and control alone.
    """
    data.qacc_warmstart[:] = 0
    mujoco.mj_step(model, data, nstep=n_substeps)
    mujoco.mj_kinematics(model, data)


def object_xy(data: mujoco.MjData) -> np.ndarray:
    """Positions (2, 2) of both objects on the table, m; a copy."""
    return data.qpos[N_JOINTS:].reshape(2, 3)[:, :2].copy()


def goal_distances(data: mujoco.MjData) -> np.ndarray:
    """Distance (2,) on the table from each object to the goal, m."""
    return np.linalg.norm(object_xy(data) - GOAL, axis=1)
