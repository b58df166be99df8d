"""The fast renderer: right side up, equal to MuJoCo's own, and safe to share, switch and fork."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from meta_pusher_env import rendering, scene
from meta_pusher_env.rendering import Renderer, project, set_quality
from meta_pusher_env.tasks import make_tasks

PUSHER = Path(gymnasium.__file__).parent / "envs/mujoco/assets/pusher.xml"
GOLDEN = Path(__file__).parent / "golden" / "rendering.npz"
GOAL = (0.45, -0.05, -0.323)
RENDERING = Path(rendering.__file__)
MUJOCOS_QUALITY = {n: getattr(mujoco.MjSpec().visual.quality, n) for n in rendering.QUALITY}


def _bumpy(rng: np.random.Generator, rings: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a closed mesh: vertices (n, 3), 36 * (rings - 1) faces (m, 3) and UVs (n, 2)."""
    u, v = np.meshgrid(np.linspace(0, 1, 19), np.linspace(0, 1, rings + 1), indexing="ij")
    wave = 1 + 0.25 * np.sin(2 * np.pi * u * rng.integers(2, 6)) * np.sin(np.pi * v)
    radius = 0.06 * wave * np.sin(np.pi * v)
    x, y = radius * np.cos(2 * np.pi * u), radius * np.sin(2 * np.pi * u)
    vertices = np.stack([x, y, 0.045 * np.cos(np.pi * v)], axis=-1)
    i, j = (a.ravel() for a in np.meshgrid(np.arange(18), np.arange(rings), indexing="ij"))
    a, b = i * (rings + 1) + j, (i + 1) * (rings + 1) + j
    upper, lower = (
        np.stack([a, a + 1, b], -1)[j > 0],
        np.stack([b, a + 1, b + 1], -1)[j < rings - 1],
    )
    return (
        vertices.reshape(-1, 3),
        np.concatenate([upper, lower]),
        np.stack([u, v], -1).reshape(-1, 2),
    )


def _scene(
    seed: int, *, rings: int = 17, pixels: int = 64, marker: tuple[float, ...] | None = None
) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """Returns Gymnasium's pusher with two textured meshes beside the goal."""
    rng = np.random.default_rng(seed)
    spec = mujoco.MjSpec.from_file(str(PUSHER))
    for k, xy in enumerate([(0.3, -0.2), (0.55, -0.25)]):
        vertices, faces, uv = _bumpy(rng, rings + k)
        spec.add_mesh(
            name=f"mesh{k}",
            uservert=vertices.ravel(),
            userface=faces.ravel(),
            usertexcoord=uv.ravel(),
        )
        texture = spec.add_texture(
            name=f"texture{k}",
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            width=pixels,
            height=pixels,
            nchannel=3,
        )
        coarse = rng.integers(100, 256, (4, 4, 3), dtype=np.uint8)  # pale: only the goal is red
        texture.data = coarse.repeat(pixels // 4, 0).repeat(pixels // 4, 1).tobytes()
        material = spec.add_material(name=f"material{k}")
        textures = list(material.textures)
        textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = f"texture{k}"
        material.textures = textures
        body = spec.worldbody.add_body(name=f"thing{k}", pos=[*xy, -0.28])
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=f"mesh{k}", material=f"material{k}")
    if marker is not None:
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.01, 0, 0], pos=marker, rgba=[0, 1, 0, 1]
        )
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.fixture(scope="module")
def scenes() -> list[tuple[mujoco.MjModel, mujoco.MjData]]:
    """Scenes of one structure with meshes and textures of different content and size."""
    sizes = ((17, 64), (5, 64), (30, 32), (17, 128))
    return [_scene(seed, rings=r, pixels=p) for seed, (r, p) in enumerate(sizes)]


@pytest.fixture(scope="module")
def task_scenes() -> list[tuple[mujoco.MjModel, mujoco.MjData]]:
    """Starts of some tasks; the models are copies."""
    return _starts(6)


def _starts(n_tasks: int) -> list[tuple[mujoco.MjModel, mujoco.MjData]]:
    """A start of each pair of objects, as the environment draws them."""
    found = []
    for seed, task in enumerate(make_tasks("test", n_tasks, 0)[::2]):
        model = copy.copy(scene.build_model(task))
        data = mujoco.MjData(model)
        scene.place(model, data, scene.draw_placement(np.random.default_rng(seed)))
        found.append((model, data))
    return found


@pytest.fixture
def by_mujoco(monkeypatch: pytest.MonkeyPatch) -> Callable[..., mujoco.Renderer]:
    """Gives a `mujoco.Renderer` with a scene from our camera; by default without what we omit."""
    module = sys.modules[mujoco.Renderer.__module__]
    # mujoco binds its backend on import, perhaps before ours was chosen.
    chosen = sys.modules[f"mujoco.{rendering.ensure_gl()}"].GLContext
    monkeypatch.setattr(module.gl_context, "GLContext", chosen)

    ours = ("SHADOW", "REFLECTION", "SKYBOX", "HAZE", "FOG")

    def make(
        model: mujoco.MjModel,
        data: mujoco.MjData,
        width: int,
        height: int,
        flags_off: Sequence[str] = ours,
    ) -> Any:
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        renderer = mujoco.Renderer(model, height=height, width=width)
        renderer.update_scene(data, camera=rendering.observation_camera())
        for name in flags_off:
            renderer.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{name}")] = 0
        return renderer

    return make


def _fresh(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a new interpreter, with rendering.py loaded by itself as `R`."""
    load = (
        "import importlib.util as u, sys\n"
        f"s = u.spec_from_file_location('rendering', {str(RENDERING)!r})\n"
        "R = u.module_from_spec(s); sys.modules['rendering'] = R; s.loader.exec_module(R)\n"
    )
    env = {**os.environ, **environment}
    command = [sys.executable, "-c", load + code]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_picture_is_a_fresh_contiguous_array(scenes):
    renderer = Renderer(80, 60)
    first = renderer.render(*scenes[0])
    kept = first.copy()
    renderer.render(*scenes[1])
    assert first.shape == (60, 80, 3)
    assert first.dtype == np.uint8
    assert first.flags.c_contiguous
    assert first.flags.owndata
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("size", [64, 125])
def test_golden_picture(size):
    """Drivers differ by rounding, and at edges by a pixel; a flip or a lost texture is far off."""
    picture = Renderer(size, size).render(*_scene(0)).astype(int)
    golden = np.load(GOLDEN, allow_pickle=False)[f"size{size}"].astype(int)
    difference = np.abs(picture - golden).max(-1)
    assert difference.mean() < 1.0
    assert (difference > 8).mean() < 0.01
    assert np.abs(picture[::-1] - golden).mean() > 10
    assert np.abs(picture[:, ::-1] - golden).mean() > 10


def test_right_side_up_and_not_mirrored():
    """The goal, at larger x than the picture's centre and nearer to the camera, is low and left."""
    picture = Renderer(100, 100).render(*_scene(0)).astype(int)
    red = (picture[..., 0] > 150) & (picture[..., 1:].max(-1) < 50)
    rows, columns = np.nonzero(red)
    assert len(rows) > 50
    assert rows.min() > 60
    assert columns.max() < 60
    assert np.abs([columns.mean() + 0.5, rows.mean() + 0.5] - project(GOAL, 100, 100)).max() < 4


@pytest.mark.parametrize(
    "point", [(0.4, -0.1, 0.0), (0.25, -0.3, -0.3), (0.6, -0.25, -0.2), (0.5, 0.05, -0.25)]
)
@pytest.mark.parametrize("size", [(64, 64), (125, 125), (160, 90)])
def test_project_finds_a_rendered_marker(point, size):
    pictures = [Renderer(*size).render(*_scene(0, marker=at)) for at in (point, None)]
    rows, columns = np.nonzero((pictures[0] != pictures[1]).any(-1))
    centre = np.array([columns.mean(), rows.mean()]) + 0.5
    assert np.abs(centre - project(point, *size)).max() < 1.0


def test_project_takes_any_leading_shape():
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (5, 2, 3)) + rendering.LOOKAT
    pixels = project(points, 64, 48)
    assert pixels.shape == (5, 2, 2)
    assert np.allclose(pixels[3, 1], project(points[3, 1], 64, 48))
    assert np.allclose(project(rendering.LOOKAT, 64, 48), (32, 24))
    assert np.isnan(project((0.4, 5.0, 5.0), 64, 48)).all()  # behind the camera


def test_equals_mujocos_renderer_of_equal_quality(scenes, task_scenes, by_mujoco):
    ours = Renderer(96, 64)
    for model, data in (*scenes, *task_scenes):
        got = ours.render(model, data)
        set_quality(model)
        theirs = by_mujoco(model, data, 96, 64)
        expected = theirs.render()
        again = ours.render(model, data)  # while theirs still has a context
        theirs.close()
        assert np.abs(got.astype(int) - expected).max() <= 2
        assert np.array_equal(got, again)
        assert np.array_equal(got, ours.render(model, data))


def test_objects_look_as_in_mujocos_default_quality(by_mujoco):
    """Each but for the arm's shadow, where it falls on one, and on average with shadows and all.

    At 480 pixels, where few lie on edges, which multisampling blurs.
    """
    ours, with_shadows = Renderer(480, 480), []
    for model, data in _starts(24):
        picture = ours.render(model, data).astype(int)
        away = mujoco.MjData(model)
        away.qpos[scene.N_JOINTS :] = 10
        mujoco.mj_forward(model, away)
        mask = (picture != ours.render(model, away)).any(-1)

        set_quality(model, MUJOCOS_QUALITY)
        theirs = by_mujoco(model, data, 480, 480, flags_off=())
        shadowed = theirs.render()
        theirs.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        plain = theirs.render()
        theirs.enable_segmentation_rendering()
        their_mask = np.isin(theirs.render()[..., 0], model.ngeom - np.array([1, 2]))
        theirs.close()
        assert (mask & their_mask).sum() >= 0.95 * (mask | their_mask).sum()
        assert np.abs(picture - plain)[their_mask].mean() <= 3
        with_shadows.append(np.abs(picture - shadowed)[their_mask].mean())
    assert np.mean(with_shadows) <= 3


def test_many_renderers_share_one_opengl_context(scenes):
    def contexts() -> int:
        gc.collect()
        return sum(type(thing).__name__ == "GLContext" for thing in gc.get_objects())

    Renderer(64, 64).render(*scenes[0])
    before = contexts()
    renderers = [Renderer(16 + n, 16) for n in range(20)]
    for n, renderer in enumerate(renderers):
        renderer.render(*scenes[n % 4])
    assert contexts() == before > 0


def test_switching_scenes_equals_a_fresh_context_exactly(scenes):
    def alone(index: int) -> np.ndarray:
        with ThreadPoolExecutor(1) as thread:  # a thread has its own context
            return thread.submit(Renderer(64, 64).render, *scenes[index]).result()

    expected = [alone(index) for index in range(len(scenes))]
    assert all((expected[0] != other).any() for other in expected[1:])
    renderer = Renderer(64, 64)
    for index in np.random.default_rng(0).integers(0, len(scenes), 40):
        assert np.array_equal(renderer.render(*scenes[index]), expected[index])


def test_scenes_of_another_structure_may_be_mixed_in(scenes):
    other = _scene(7, marker=(0.4, -0.1, 0.0))
    plain = mujoco.MjModel.from_xml_path(str(PUSHER))
    without_meshes = plain, mujoco.MjData(plain)
    mujoco.mj_forward(*without_meshes)
    renderer = Renderer(64, 64)
    first = [renderer.render(*pair) for pair in (scenes[0], other, without_meshes)]
    second = [renderer.render(*pair) for pair in (scenes[0], other, without_meshes)]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_two_renderers_interleaved_draw_as_each_alone(scenes):
    sizes = ((64, 64), (700, 500))  # the second is larger than MuJoCo's default framebuffer
    alone = [
        [Renderer(*size).render(*scenes[(k + n) % 4]) for n in range(6)]
        for k, size in enumerate(sizes)
    ]
    both = [Renderer(*size) for size in sizes]
    for n in range(6):
        for k, renderer in enumerate(both):
            assert np.array_equal(renderer.render(*scenes[(k + n) % 4]), alone[k][n])


def test_threads_draw_as_one_thread_does(scenes):
    expected = [Renderer(64, 64).render(*pair) for pair in scenes]

    def draw(_: int) -> bool:
        renderer = Renderer(64, 64)
        return all(
            np.array_equal(renderer.render(*scenes[k % 4]), expected[k % 4]) for k in range(20)
        )

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(draw, range(6)))


def test_close_twice_and_nothing_after(scenes):
    renderer, other = Renderer(64, 64), Renderer(64, 64)
    renderer.render(*scenes[0])
    renderer.close()
    renderer.close()
    Renderer(64, 64).close()
    with pytest.raises(RuntimeError, match="closed"):
        renderer.render(*scenes[0])
    other.render(*scenes[0])


def test_construction_starts_no_opengl():
    code = (
        "r = R.Renderer(64, 64); r.close(); R.project((0, 0, 0), 64, 64)\n"
        "print('OpenGL' in sys.modules, hasattr(R._LOCAL, 'stage'))"
    )
    environment = {"MUJOCO_GL": ""}
    assert _fresh(code, **environment).stdout.split() == ["False", "False"]


@pytest.mark.parametrize("size", [(0, 64), (64, -1)])
def test_bad_size_is_refused(size):
    with pytest.raises(ValueError, match="at least 1 x 1 pixels, got"):
        Renderer(*size)


def test_quality_is_for_pictures_only(scenes):
    spec = mujoco.MjSpec.from_file(str(PUSHER))
    spec.visual.quality.numslices = 28
    model, changed = spec.compile(), spec.copy()
    set_quality(changed)
    low = changed.compile()
    assert all(getattr(low.vis.quality, k) == v for k, v in rendering.QUALITY.items())
    data = [mujoco.MjData(m) for m in (model, low)]
    for m, d in zip((model, low), data, strict=True):
        d.ctrl[:] = 0.3
        mujoco.mj_step(m, d, 50)
    assert np.array_equal(data[0].qpos, data[1].qpos)
    pictures = [Renderer(64, 64).render(m, d) for m, d in zip((model, low), data, strict=True)]
    assert np.array_equal(pictures[0], pictures[1])
    assert model.vis.quality.numslices == 28  # rendering left the caller's model as it was


def _in_child(queue: Any, renderer: Renderer | None) -> None:
    renderer = renderer or Renderer(64, 64)
    queue.put(renderer.render(*_scene(0)))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_child_process_draws_the_same(method, scenes):
    renderer = Renderer(64, 64)
    expected = renderer.render(*scenes[0])
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(
        target=_in_child, args=(queue, renderer if method == "fork" else None), daemon=True
    )
    child.start()
    got = queue.get(timeout=60)
    child.join(timeout=30)
    assert child.exitcode == 0
    assert np.array_equal(got, expected)
    assert np.array_equal(renderer.render(*scenes[0]), expected)


def test_forked_child_leaves_through_the_front_door():
    """An ordinary exit after a fork: Mesa's threads once made the child wait for ever."""
    code = (
        "import mujoco, os\n"
        f"m = mujoco.MjModel.from_xml_path({str(PUSHER)!r}); d = mujoco.MjData(m)\n"
        "mujoco.mj_forward(m, d); r = R.Renderer(64, 64); first = r.render(m, d)\n"
        "child = os.fork()\n"
        "assert (r.render(m, d) == first).all()\n"
        "if child: assert os.waitpid(child, 0)[1] == 0; print('fine')"
    )
    done = _fresh(code)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "fine", "")


@pytest.mark.parametrize("value", ["vulkan", "off"])
def test_unknown_backend_gives_one_clear_error(value):
    code = f"import os; os.environ['MUJOCO_GL'] = {value!r}; R.ensure_gl()"
    for done in (_fresh("R.ensure_gl()", MUJOCO_GL=value), _fresh(code)):
        assert done.returncode == 1
        error = done.stderr.strip().splitlines()[-1]
        assert error.startswith(f"RuntimeError: MUJOCO_GL={value!r} is no OpenGL backend")
        assert "expected one of egl, osmesa, glfw" in error


def test_without_opengl_the_error_names_the_packages():
    done = _fresh("R.ensure_gl()", MUJOCO_GL="egl", MUJOCO_EGL_DEVICE_ID="77")
    errors = [line for line in done.stderr.splitlines() if line.startswith("RuntimeError: No off")]
    assert len(errors) == 1
    assert "offscreen OpenGL works here (egl: " in errors[0]
    assert "libegl1 libgl1-mesa-dri" in errors[0]
    assert "libosmesa6" in errors[0]


def test_osmesa_is_tried_where_egl_fails():
    headless = {"MUJOCO_GL": "", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    code = "M = mujoco.MjModel.from_xml_string('<mujoco/>'); D = mujoco.MjData(M); "
    code += "mujoco.mj_forward(M, D); print(R.ensure_gl(), R.Renderer(64, 64).render(M, D).shape)"
    done = _fresh("import mujoco; " + code, MUJOCO_EGL_DEVICE_ID="77", **headless)
    tried_both = "here (egl: " in done.stderr and "; osmesa: " in done.stderr
    assert done.stdout.split() == ["osmesa", "(64, 64, 3)"] or tried_both


if __name__ == "__main__":  # draws the golden pictures anew: look at them before committing
    GOLDEN.parent.mkdir(exist_ok=True)
    drawn = {f"size{n}": Renderer(n, n).render(*_scene(0)) for n in (64, 125)}
    np.savez_compressed(GOLDEN, **drawn)
