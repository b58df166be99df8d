"""The task files of MIL's sim-push benchmark, as tasks for ``MetaPusher-v0``.

Such a file is a whole MuJoCo scene in XML: always the same arm, table and goal, and two bodies that
differ from file to file, ``object`` (the target) and ``distractor``. Each has one mesh geom with a
density, and slide joints with a damping; the mesh is an STL file with a scale, beside the XML.

Objects keep mesh, scale, mass (the density times the mesh's volume, as the benchmark's generator
had it) and damping; all else is `MetaPusherEnv`'s, with its limits. So an object also turns, its
position is the middle of its footprint's bounding circle, and where the XML puts it is not read:
episodes place it anew, as MIL did. These objects are larger than drawn ones, and many are wider
than the scoop, whose inner width is 16 cm.
"""

from __future__ import annotations

import base64
import hashlib
import os
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from meta_pusher_env.objects import (
    FILE_SHAPE,
    TEXTURE_FAMILIES,
    TRAIN_SHAPES,
    ObjectSpec,
    sample_object,
)
from meta_pusher_env.shapes import bounding_circle, read_stl
from meta_pusher_env.tasks import PusherTask

__all__ = ["load_mil_tasks"]

_DECIMALS = 6  # um, mg: last bits differ between libraries' versions, and tasks are hashed


def load_mil_tasks(folder: str | os.PathLike[str]) -> list[PusherTask]:
    """Reads a folder of MIL's sim-push task files.

    Textures are not read (the benchmark's are not at hand where its XMLs are): each is replaced by
    a procedural one, seeded by its name, with one warning for all of them.

    Args:
        folder: Holds ``*.xml``, and the STL files that they name relative to it.

    Returns:
        Each file's task and its twin, side by side, in the order of the files' names;
        ``task.pair_id`` is the file's name without its ending. Two files that swap the roles of
        the same two objects are one pair, twins of each other.

    Raises:
        ValueError: There are no XML files, or a file is not as expected; the message names it.
    """
    files = sorted(Path(folder).glob("*.xml"))
    if not files:
        raise ValueError(f"No *.xml in {os.fspath(folder)!r}; expected MIL's sim-push task files.")
    pairs: dict[frozenset[ObjectSpec], PusherTask] = {}
    for file in files:
        try:
            objects = _read_pair(file)
        except (ValueError, OSError, ET.ParseError) as error:
            raise ValueError(f"{file}: {error}") from error
        pairs.setdefault(frozenset(objects), PusherTask(file.stem, objects, target=0))
    warnings.warn(
        f"The textures of {len(files)} task files were replaced by procedural ones, seeded by "
        "their names: image files are not read.",
        stacklevel=2,
    )
    return [role for task in pairs.values() for role in (task, task.twin)]


def _read_pair(file: Path) -> tuple[ObjectSpec, ObjectSpec]:
    """The target and the distractor of a file."""
    root = ET.parse(file).getroot()
    return _read_object(root, "object", file.parent), _read_object(root, "distractor", file.parent)


def _read_object(root: ET.Element, body_name: str, folder: Path) -> ObjectSpec:
    body = _find(root, "body", body_name)
    geom = body.find("geom[@type='mesh']")
    if geom is None:
        raise ValueError(f"body {body_name!r} has no geom; expected one of type 'mesh'.")
    dampings = {_number(joint, "damping") for joint in body.findall("joint[@type='slide']")}
    if len(dampings) != 1:
        raise ValueError(
            f"The slide joints of body {body_name!r} have the dampings {sorted(dampings)}; "
            "expected one damping for all of them."
        )
    mesh = _find(root, "mesh", _attribute(geom, "mesh"))
    material = _find(root, "material", _attribute(geom, "material"))
    texture = _find(root, "texture", _attribute(material, "texture"))
    content = (folder / _attribute(mesh, "file")).read_bytes()
    try:
        body_mesh = read_stl(content)
    except ValueError as error:
        raise ValueError(f"{_attribute(mesh, 'file')}: {error}") from error
    scale = _scale(mesh)
    _, radius = bounding_circle(body_mesh.vertices)
    look = _look(_attribute(texture, "file"))
    return ObjectSpec(
        shape=FILE_SHAPE,
        shape_params=(),
        mesh=base64.b64encode(content).decode(),
        radius=round(scale * radius, _DECIMALS),
        height=round(scale * float(np.ptp(body_mesh.vertices[:, 2])), _DECIMALS),
        mass=round(_number(geom, "density") * scale**3 * float(body_mesh.volume), _DECIMALS),
        damping=dampings.pop(),
        texture=look.texture,
        texture_params=look.texture_params,
        color=look.color,
        accent=look.accent,
    )


def _look(texture_name: str) -> ObjectSpec:
    """A drawn object whose texture and colours are a function of the name alone."""
    seed = int.from_bytes(hashlib.sha256(texture_name.encode()).digest()[:8], "little")
    return sample_object(np.random.default_rng(seed), TRAIN_SHAPES, TEXTURE_FAMILIES)


def _find(root: ET.Element, tag: str, name: str) -> ET.Element:
    for element in root.iter(tag):
        if element.get("name") == name:
            return element
    raise ValueError(f"There is no {tag} named {name!r}; expected one, as MIL's task files have.")


def _attribute(element: ET.Element, key: str) -> str:
    value = element.get(key)
    if value is None:
        raise ValueError(f"A {element.tag} has no {key!r}, but only {sorted(element.keys())}.")
    return value


def _number(element: ET.Element, key: str) -> float:
    text = _attribute(element, key)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{key}={text!r} of a {element.tag}; expected a number.") from None


def _scale(mesh: ET.Element) -> float:
    """The factor from the file's unit to m, the same along all axes."""
    text = _attribute(mesh, "scale")
    if len(scales := set(text.split())) != 1:
        raise ValueError(f"scale={text!r} of a mesh; expected the same number for all three axes.")
    try:
        return float(scales.pop())
    except ValueError:
        raise ValueError(f"scale={text!r} of a mesh; expected three numbers.") from None
