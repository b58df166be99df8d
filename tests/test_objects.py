"""Objects: families, meshes, textures, sampling and descriptors."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import mujoco
import numpy as np
import pytest
import trimesh

from meta_pusher_env import objects
from meta_pusher_env.objects import ObjectSpec, build_mesh, build_texture, describe, sample_object

SEEDS = range(6)


def draw(seed: int, shape: str | None = None, texture: str | None = None) -> ObjectSpec:
    return sample_object(
        np.random.default_rng(seed),
        [shape] if shape else objects.SHAPE_FAMILIES,
        [texture] if texture else objects.TEXTURE_FAMILIES,
    )


def corner_specs(shape: str) -> list[ObjectSpec]:
    """Specs at the extremes of the family's parameters, and some drawn ones."""
    spec = draw(0, shape)
    corners = [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.0, 0.0, 1.0)]
    return [dataclasses.replace(spec, shape_params=c) for c in corners] + [
        draw(seed, shape) for seed in SEEDS
    ]


# --- families -------------------------------------------------------------------------------------


def test_test_families_occur_in_no_other_split() -> None:
    assert len(set(objects.TRAIN_SHAPES)) >= 14
    assert len(set(objects.TEST_SHAPES)) >= 6
    assert len(set(objects.TRAIN_TEXTURES)) >= 12
    assert len(set(objects.TEST_TEXTURES)) >= 5
    assert not set(objects.TRAIN_SHAPES) & set(objects.TEST_SHAPES)
    assert not set(objects.TRAIN_TEXTURES) & set(objects.TEST_TEXTURES)
    assert objects.SHAPE_FAMILIES == objects.TRAIN_SHAPES + objects.TEST_SHAPES
    assert objects.TEXTURE_FAMILIES == objects.TRAIN_TEXTURES + objects.TEST_TEXTURES


def is_connected(faces: np.ndarray[Any, Any]) -> bool:
    """Whether every vertex is reached from the first (trimesh's own count needs SciPy)."""
    reached = {int(faces[0, 0])}
    grown = True
    while grown:
        touched = np.isin(faces, list(reached)).any(axis=1)
        grown = len(found := set(faces[touched].ravel().tolist())) > len(reached)
        reached |= found
    return len(reached) == len(np.unique(faces))


# --- meshes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", objects.SHAPE_FAMILIES)
def test_mesh_is_closed_outward_small_and_of_the_stated_size(shape: str) -> None:
    for spec in corner_specs(shape):
        mesh = build_mesh(spec)
        assert len(mesh.faces) <= 600
        body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)
        assert body.is_watertight, spec
        assert body.is_winding_consistent, spec
        assert body.volume > 0.02 * np.pi * spec.radius**2 * spec.height, spec
        assert is_connected(body.faces), spec
        assert mesh.vertices[:, 2].min() == 0
        assert mesh.vertices[:, 2].max() == pytest.approx(spec.height, rel=1e-5)
        reach = np.hypot(mesh.vertices[:, 0], mesh.vertices[:, 1]).max()
        assert reach == pytest.approx(spec.radius, rel=2e-3)


@pytest.mark.parametrize("shape", objects.SHAPE_FAMILIES)
def test_faces_are_flat_shaded_and_textured(shape: str) -> None:
    for spec in corner_specs(shape):
        mesh = build_mesh(spec)
        corners = mesh.vertices.reshape(-1, 3, 3).astype(np.float64)
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        np.testing.assert_allclose(mesh.normals, np.repeat(normals, 3, axis=0), atol=2e-2)
        np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-5)
        assert mesh.texcoords.shape == (len(mesh.vertices), 2)
        assert np.isfinite(mesh.texcoords).all()
        assert np.ptp(mesh.texcoords, axis=0).min() > 0.3
        for array, dtype in (
            (mesh.vertices, np.float32),
            (mesh.normals, np.float32),
            (mesh.texcoords, np.float32),
            (mesh.faces, np.int32),
        ):
            assert array.dtype == dtype


@pytest.mark.parametrize("shape", objects.SHAPE_FAMILIES)
def test_mesh_compiles_in_mujoco_where_it_was_put(shape: str) -> None:
    for spec in corner_specs(shape):
        mesh, texture = build_mesh(spec), build_texture(spec)
        scene = mujoco.MjSpec()
        scene.add_mesh(
            name="object",
            uservert=mesh.vertices.ravel(),
            usernormal=mesh.normals.ravel(),
            usertexcoord=mesh.texcoords.ravel(),
            userface=mesh.faces.ravel(),
        )
        image = scene.add_texture(
            name="object", type=mujoco.mjtTexture.mjTEXTURE_2D, width=64, height=64, nchannel=3
        )
        # As an attribute: MuJoCo 4 takes no bytes in `add_texture` itself.
        image.data = texture.tobytes()
        material = scene.add_material(name="object")
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "object"
        body = scene.worldbody.add_body(name="object")
        body.add_freejoint()
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH, meshname="object", material="object", mass=spec.mass
        )
        model = scene.compile()
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        assert model.body("object").mass == pytest.approx(spec.mass)
        assert (model.body("object").inertia > 0).all()
        # MuJoCo stores a mesh around its centre of mass; the geom's pose must put it back.
        placed = model.mesh_vert @ data.geom_xmat[0].reshape(3, 3).T + data.geom_xpos[0]
        assert placed[:, 2].min() == pytest.approx(0, abs=1e-5)
        assert placed[:, 2].max() == pytest.approx(spec.height, abs=1e-5)


@pytest.mark.parametrize("shape", objects.SHAPE_FAMILIES)
def test_parameters_change_the_shape(shape: str) -> None:
    low = dataclasses.replace(draw(0, shape), shape_params=(0.0,) * objects.N_SHAPE_PARAMS)
    for i in range(objects.N_SHAPE_PARAMS):
        params = [0.0] * objects.N_SHAPE_PARAMS
        params[i] = 1.0
        high = dataclasses.replace(low, shape_params=tuple(params))
        a, b = build_mesh(low).vertices, build_mesh(high).vertices
        assert a.shape != b.shape or np.abs(a - b).max() > 1e-3, i


# --- textures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("texture", objects.TEXTURE_FAMILIES)
def test_texture_shows_both_colours_and_tiles(texture: str) -> None:
    seams, lines = [], []
    for seed in range(20):
        spec = draw(seed, texture=texture)
        image = build_texture(spec)
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        axis = np.subtract(spec.accent, spec.color)
        share = (image / 255 - spec.color) @ axis / (axis @ axis)
        assert share.std() > 0.1, spec
        assert 0.05 < share.mean() < 0.85, spec
        for side in (share, share.T):
            seams.append(np.abs(side[0] - side[-1]).mean())
            lines.append(np.abs(np.diff(side, axis=0)).mean(axis=1).max())
    # On average the seam is no rougher than the roughest line inside.
    assert np.mean(seams) <= np.mean(lines) + 0.02


# --- sampling -------------------------------------------------------------------------------------


def test_everything_is_a_pure_function_of_the_seed_and_the_spec() -> None:
    for seed in SEEDS:
        spec = draw(seed)
        assert spec == draw(seed)
        uncached = build_mesh.__wrapped__(spec)
        for field in dataclasses.fields(uncached):
            left, right = (getattr(uncached, field.name), getattr(build_mesh(spec), field.name))
            assert left.tobytes() == right.tobytes()
        assert build_texture.__wrapped__(spec).tobytes() == build_texture(spec).tobytes()
        assert describe.__wrapped__(spec).tobytes() == describe(spec).tobytes()


def test_cached_arrays_cannot_be_changed() -> None:
    spec = draw(0)
    for array in (build_mesh(spec).vertices, build_texture(spec), describe(spec)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_draws_cover_their_ranges() -> None:
    rng = np.random.default_rng(0)
    specs = [sample_object(rng, objects.TRAIN_SHAPES, objects.TRAIN_TEXTURES) for _ in range(1000)]
    assert {s.shape for s in specs} == set(objects.TRAIN_SHAPES)
    assert {s.texture for s in specs} == set(objects.TRAIN_TEXTURES)
    for name, (low, high) in objects.BOUNDS.items():
        values = np.array([getattr(s, name) for s in specs])
        if name == "damping":
            share = np.log(values / low) / np.log(high / low)
        else:
            share = (values - low) / (high - low)
        assert share.min() < 0.02
        assert share.max() > 0.98
        assert share.mean() == pytest.approx(0.5, abs=0.05)
    colours = np.array([s.color for s in specs])
    assert np.abs(np.corrcoef(colours.T) - np.eye(3)).max() < 0.15
    assert min(np.linalg.norm(np.subtract(s.color, s.accent)) for s in specs) >= 0.5


def test_look_alikes_copy_each_property_on_its_own_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    # Drawn from families the first object does not have: what is equal was copied.
    first = sample_object(rng, objects.TEST_SHAPES, objects.TEST_TEXTURES)
    drawn = [
        sample_object(rng, objects.TRAIN_SHAPES, objects.TRAIN_TEXTURES, like=first)
        for _ in range(2000)
    ]
    copied = np.array(
        [
            [s.shape == first.shape, s.texture == first.texture, s.color == first.color]
            for s in drawn
        ]
    )
    np.testing.assert_allclose(copied.mean(axis=0), objects.LOOK_ALIKE_PROBABILITY, atol=0.04)
    together = (copied.T.astype(float) @ copied) / len(copied)
    np.testing.assert_allclose(together[np.triu_indices(3, 1)], 0.04, atol=0.02)
    assert not {s.shape_params for s in drawn} & {first.shape_params}
    assert not {s.accent for s in drawn} & {first.accent}


def test_sampling_needs_families() -> None:
    with pytest.raises(ValueError, match="at least one"):
        sample_object(np.random.default_rng(0), [], objects.TRAIN_TEXTURES)
    with pytest.raises(ValueError, match=r"'sphere'.*shape family"):
        sample_object(np.random.default_rng(0), ["sphere"], objects.TRAIN_TEXTURES)


# --- records --------------------------------------------------------------------------------------


def test_json_round_trip() -> None:
    for seed in SEEDS:
        spec = draw(seed)
        again = ObjectSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
        assert again == spec
        assert hash(again) == hash(spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": "sphere"}, "shape='sphere'.*expected one of"),
        ({"shape": 3}, "shape=3.*expected one of"),
        ({"texture": "silk"}, "texture='silk'.*expected one of"),
        ({"shape_params": [0.5]}, r"shape_params=\[0.5\]; expected 3 numbers"),
        ({"shape_params": 0.5}, "shape_params=0.5; expected 3 numbers"),
        ({"texture_params": [0, 0, 0, 2]}, r"texture_params\[3\]=2; expected a number in \[0, 1\]"),
        ({"color": [0, float("nan"), 0]}, r"color\[1\]=nan; expected a number"),
        ({"accent": "red"}, r"accent\[0\]='r'|accent='red'; expected 3 numbers"),
        ({"radius": 0.5}, r"radius=0.5; expected a number in \[0.035, 0.055\]"),
        ({"height": "tall"}, "height='tall'; expected a number"),
        ({"mass": True}, "mass=True; expected a number"),
        ({"damping": None}, "damping=None; expected a number"),
        ({"weight": 1}, r"unknown field\(s\) \['weight'\]"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectSpec.from_dict(draw(0).to_dict() | change)


def test_a_missing_field_is_named() -> None:
    values = draw(0).to_dict()
    del values["mass"]
    with pytest.raises(ValueError, match=r"lacks field\(s\) \['mass'\]"):
        ObjectSpec.from_dict(values)
    with pytest.raises(ValueError, match="must be a mapping"):
        ObjectSpec.from_dict([values])  # type: ignore[arg-type]


# --- descriptors ----------------------------------------------------------------------------------


def described(spec: ObjectSpec) -> dict[str, float]:
    return dict(zip(objects.DESCRIPTOR_FIELDS, describe(spec).tolist(), strict=True))


def test_descriptor_is_bounded_and_uses_its_range() -> None:
    table = np.array([describe(draw(seed)) for seed in range(400)])
    assert table.shape == (400, objects.DESCRIPTOR_DIM)
    assert table.dtype == np.float32
    assert np.isfinite(table).all()
    assert np.abs(table).max() <= 1
    names = np.array(objects.DESCRIPTOR_FIELDS)
    assert not names[table.std(axis=0) < 0.02].tolist()
    distances = np.linalg.norm(table[:, None] - table[None], axis=-1)
    assert distances[np.triu_indices(400, 1)].min() > 0.3


def test_descriptor_holds_no_physics() -> None:
    spec = draw(0)
    other = dataclasses.replace(spec, mass=0.9, damping=4.0)
    assert (describe(spec) == describe(other)).all()


def test_descriptor_measures_geometry() -> None:
    still = dataclasses.replace(draw(0), shape_params=(0.0, 0.0, 1.0))
    oval = described(dataclasses.replace(still, shape="oval"))  # an ellipse, straight up
    assert oval["long_extent"] == pytest.approx(1, abs=0.01)
    assert oval["short_extent"] == pytest.approx(2 * 0.35 - 1, abs=0.01)
    assert oval["slice1_fill"] == pytest.approx(2 * 0.35 - 1, abs=0.03)
    assert oval["volume_fraction"] == pytest.approx(2 * 0.35 - 1, abs=0.03)
    assert oval["centre_of_volume"] == pytest.approx(0, abs=1e-3)
    assert oval["widening"] == pytest.approx(0, abs=1e-3)
    assert oval["hollowness"] == pytest.approx(0, abs=0.03)
    assert oval["slice1_harmonic2"] > 5 * oval["slice1_harmonic3"]
    star = described(dataclasses.replace(still, shape="star"))  # four points
    assert star["slice0_harmonic4"] > 5 * star["slice0_harmonic3"]
    assert described(dataclasses.replace(still, shape="ring"))["hollowness"] > 0.2
    assert described(dataclasses.replace(still, shape="pyramid"))["widening"] < -0.3


def test_descriptor_measures_the_texture() -> None:
    spec = dataclasses.replace(draw(0, texture="stripes"), texture_params=(0.5, 0.0, 0.5, 0.0))
    along = described(spec)
    across = described(dataclasses.replace(spec, texture_params=(0.5, 0.5, 0.5, 0.0)))
    assert along["direction_cos"] == pytest.approx(1, abs=1e-6)
    assert across["direction_cos"] == pytest.approx(-1, abs=1e-6)
    assert along["dominant_frequency"] == pytest.approx(2 / 5 - 1)
    assert along["accent_share"] == pytest.approx(2 * 0.425 - 1, abs=0.03)
