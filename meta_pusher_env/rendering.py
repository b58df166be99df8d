"""Fast offscreen pictures of pushing scenes, and the observation camera's geometry.

MuJoCo draws for beauty by default; here pictures are observations, so `set_quality` turns all that
off. One OpenGL context serves every `Renderer` of a thread. Between scenes of one structure only
meshes and textures are uploaded anew (0.1 ms each), no context is made (4 ms). OpenGL starts at
the first picture, never at import: state observations need none.
"""

from __future__ import annotations

import _ctypes
import atexit
import ctypes
import functools
import importlib
import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_HELP = (
    "On Debian, `apt-get install -y libegl1 libgl1-mesa-dri` brings EGL and `apt-get install -y "
    "libosmesa6` OSMesa; state observations need neither."
)
_BACKENDS = ("egl", "osmesa", "glfw")


def _asked_backends() -> tuple[str, ...]:
    """Returns the backends to try: the one MUJOCO_GL names, else those that need no display."""
    asked = os.environ.get("MUJOCO_GL", "").strip().lower()
    if asked in ("", "enable", "enabled", "on", "true", "1"):
        display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        return _BACKENDS if display else _BACKENDS[:2]  # glfw is last: it wants the main thread
    if asked in _BACKENDS:
        return (asked,)
    raise RuntimeError(
        f"MUJOCO_GL={asked!r} is no OpenGL backend for rendering: expected one of "
        f"{', '.join(_BACKENDS)}, or leave it unset to have one chosen. {_HELP}"
    )


def _no_gl(failures: dict[str, Exception]) -> RuntimeError:
    tried = "; ".join(f"{name}: {type(e).__name__}: {e}" for name, e in failures.items())
    return RuntimeError(f"No offscreen OpenGL works here ({tried}). {_HELP}")


try:
    import mujoco
except Exception as _error:
    if "MUJOCO_GL" not in os.environ:
        raise  # with it, mujoco loads that backend on import, and fails cryptically
    raise _no_gl(dict.fromkeys(_asked_backends(), _error)) from _error

# The observation camera, a free one, as in MIL.
LOOKAT = (0.4, -0.1, 0.0)  # world point in the middle of the picture, metres
DISTANCE = 0.75  # from the camera to LOOKAT, metres
ELEVATION = -50.0  # of the line of sight above the horizon, degrees
AZIMUTH = -90.0  # heading of the line of sight, degrees from world x towards y
FOVY = 45.0  # vertical field of view, degrees: the default of vis.global_.fovy

QUALITY = {"shadowsize": 0, "offsamples": 0, "numslices": 8, "numstacks": 4, "numquads": 1}
"""`vis.quality` for observations: no shadow map, no multisampling, coarse round geoms."""

_ENVIRONMENT = {"LP_NUM_THREADS": "0", "MESA_SHADER_CACHE_DISABLE": "true"}
"""Set where unset: Mesa draws small pictures fastest without threads, and a forked child would
wait at its exit for Mesa's threads (rasteriser, shader cache), which did not fork with it."""

_FLAGS_OFF = [
    int(getattr(mujoco.mjtRndFlag, f"mjRND_{name}"))
    for name in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE", "FOG")
]
_EVERYTHING = mujoco.mjtCatBit.mjCAT_ALL.value


def observation_camera() -> mujoco.MjvCamera:
    """Returns a new free camera at the observations' fixed pose."""
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = LOOKAT
    camera.distance, camera.elevation, camera.azimuth = DISTANCE, ELEVATION, AZIMUTH
    return camera


def project(
    points: npt.ArrayLike, width: int, height: int, *, fovy: float = FOVY
) -> npt.NDArray[np.float64]:
    """Projects world points into the observation camera's picture, without OpenGL.

    Args:
        points: World positions, (..., 3), metres.
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        fovy: Vertical field of view, degrees.

    Returns:
        (..., 2) pixel coordinates, x to the right and y down from the picture's upper left corner:
        the pixel in row r and column c covers x in [c, c + 1) and y in [r, r + 1). They may lie
        outside the picture; points not in front of the camera give NaN.
    """
    axes = _camera_axes()
    seen = (np.asarray(points, np.float64) - (np.array(LOOKAT) - DISTANCE * axes[:, 2])) @ axes
    depth = np.where(seen[..., 2:] > 0, seen[..., 2:], np.nan)
    focal = 0.5 * height / math.tan(0.5 * math.radians(fovy))
    pixels: npt.NDArray[np.float64] = focal * seen[..., :2] / depth + (0.5 * width, 0.5 * height)
    return pixels


@functools.lru_cache(maxsize=1)
def _camera_axes() -> npt.NDArray[np.float64]:
    """The camera's axes, in columns: to the right, down and forward; unit vectors."""
    heading, pitch = math.radians(AZIMUTH), math.radians(ELEVATION)
    right = np.array([math.sin(heading), -math.cos(heading), 0.0])
    forward = np.array([-right[1] * math.cos(pitch), right[0] * math.cos(pitch), math.sin(pitch)])
    return np.stack([right, np.cross(forward, right), forward], axis=-1)


def set_quality(
    target: mujoco.MjSpec | mujoco.MjModel, quality: Mapping[str, int] = QUALITY
) -> None:
    """Sets `vis.quality` of a spec or a model, in place; physics never reads these fields."""
    visual = target.visual if isinstance(target, mujoco.MjSpec) else target.vis
    for name, value in quality.items():
        setattr(visual.quality, name, value)


def ensure_gl() -> str:
    """Starts OpenGL in this thread if it has not yet, and returns the backend's name.

    Sets `MUJOCO_GL` to it, for MuJoCo's C library and child processes read that variable.

    Raises:
        RuntimeError: If no backend works, naming what to install, or if `MUJOCO_GL` is unknown.
    """
    return _stage().backend


class Renderer:
    """Draws offscreen pictures, fastest of scenes that share one structure.

    The constructor touches no OpenGL. Any thread or process may use it, also after a fork: what it
    needs of OpenGL belongs to the thread, serves all Renderers there, and is freed at exit.

    Args:
        width: Pixels, at least 1.
        height: Pixels, at least 1.
        camera: The view; `observation_camera()` by default.
    """

    def __init__(self, width: int, height: int, *, camera: mujoco.MjvCamera | None = None) -> None:
        if width < 1 or height < 1:
            raise ValueError(f"a picture has at least 1 x 1 pixels, got {width} x {height}")
        self.width, self.height = int(width), int(height)
        self.camera = observation_camera() if camera is None else camera
        self._option, self._perturb = mujoco.MjvOption(), mujoco.MjvPerturb()
        self._rect = mujoco.MjrRect(0, 0, self.width, self.height)
        self._bottom_up = np.empty((self.height, self.width, 3), np.uint8)
        self._scene: mujoco.MjvScene | None = None
        self._closed = False

    def render(self, model: mujoco.MjModel, data: mujoco.MjData) -> npt.NDArray[np.uint8]:
        """Draws `data`, whose kinematics must be up to date (`mj_forward` or `mj_step`).

        Args:
            model: The scene. Meshes and textures are uploaded when it is another object than last
                time; editing them in place has no effect.
            data: Its state.

        Returns:
            (height, width, 3) uint8 RGB, the upper row first: a fresh C-contiguous array.

        Raises:
            RuntimeError: After `close`, or where no OpenGL works.
        """
        if self._closed:
            raise RuntimeError("this Renderer is closed: make another")
        context = _stage().show(model, self.width, self.height)
        scene = self._scene
        if scene is None or scene.maxgeom < model.ngeom:
            scene = self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 32)
            scene.flags[_FLAGS_OFF] = 0
        mujoco.mjv_updateScene(
            model, data, self._option, self._perturb, self.camera, _EVERYTHING, scene
        )
        mujoco.mjr_render(self._rect, scene, context)
        mujoco.mjr_readPixels(self._bottom_up, None, self._rect, context)
        return self._bottom_up[::-1].copy()

    def close(self) -> None:
        """Ends this Renderer; calling it again is fine. The shared context stays for the others."""
        self._closed, self._scene = True, None


class _Stage:
    """A thread's one OpenGL context, with one scene's meshes and textures on it."""

    def __init__(self) -> None:
        self._gl: Any = None
        self._context: mujoco.MjrContext | None = None
        self.pid = os.getpid()
        self.backend, self._gl = _open_gl()
        self._present = _present_context(self.backend)
        self._handle = self._present()
        self._structure: tuple[Any, ...] = ()
        self._shown: Callable[[], mujoco.MjModel | None] = lambda: None

    def show(self, model: mujoco.MjModel, width: int, height: int) -> mujoco.MjrContext:
        """Returns the context, current, holding `model`, and just width x height large."""
        # Other libraries have contexts too; made current again, ours would be flushed first.
        if self._handle is None or self._present() != self._handle:
            self._gl.make_current()
        context = self._context
        if context is None or self._shown() is not model:
            self._shown = lambda: None  # should loading fail half-way
            context = self._load(model)
            self._shown = weakref.ref(model)
        if width != context.offWidth or height != context.offHeight:
            # Also to a smaller one: MuJoCo clears and reads back through all of the framebuffer.
            mujoco.mjr_resizeOffscreen(width, height, context)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, context)
        return context

    def _load(self, model: mujoco.MjModel) -> mujoco.MjrContext:
        structure, context = _structure(model), self._context
        if context is None or structure != self._structure:
            self._context = context = None  # frees it
            self._context, self._structure = _make_context(model), structure
            return self._context
        for mesh in range(model.nmesh):
            mujoco.mjr_uploadMesh(model, context, mesh)
        for texture in range(model.ntex):
            mujoco.mjr_uploadTexture(model, context, texture)
        return context

    def free(self) -> None:
        gl, context, self._gl, self._context = self._gl, self._context, None, None
        if self.pid != os.getpid():  # forked: the parent's destructors would act on our context
            for kept in (gl, context):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
        elif gl is not None:
            gl.make_current()
            if context is not None:
                context.free()
            gl.free()

    def __del__(self) -> None:
        if not sys.is_finalizing():  # as its thread ends; the main thread's went at exit
            self.free()


_LOCAL = threading.local()


def _stage() -> _Stage:
    stage: _Stage | None = getattr(_LOCAL, "stage", None)
    if stage is None or stage.pid != os.getpid():
        stage = _LOCAL.stage = _Stage()
        if threading.current_thread() is threading.main_thread():
            # After mujoco.egl's handler, so run before that ends the display we free into.
            atexit.register(stage.free)
    return stage


def _open_gl() -> tuple[str, Any]:
    """Returns the first backend that works, with a current context of it."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    linux = sys.platform == "linux"  # elsewhere there is one way, and MuJoCo knows it
    failures: dict[str, Exception] = {}
    for backend in _asked_backends() if linux else ("native",):
        platform = os.environ.get("PYOPENGL_PLATFORM")
        try:
            module = importlib.import_module(f"mujoco.{backend}") if linux else mujoco
            context = module.GLContext(64, 64)
            context.make_current()
        except Exception as error:  # noqa: BLE001  (drivers fail in many ways)
            failures[backend] = error
            _unload(backend)
            if platform is None:
                os.environ.pop("PYOPENGL_PLATFORM", None)
        else:
            if linux:
                os.environ["MUJOCO_GL"] = backend
            return backend, context
    raise _no_gl(failures)


def _present_context(backend: str) -> Callable[[], int | None]:
    """Returns a quick function that tells the thread's current context; None if it cannot."""
    if backend != "egl":
        return lambda: None
    told: Callable[[], int | None]
    told = importlib.import_module("OpenGL.platform").PLATFORM.GetCurrentContext
    return told


def _unload(backend: str) -> None:
    """Forgets a backend that failed, so that another can be tried.

    PyOpenGL binds itself to one backend, mujoco 3.3's C library to whichever library is loaded.
    """
    egl = getattr(getattr(sys.modules.get("OpenGL.platform"), "PLATFORM", None), "EGL", None)
    display = getattr(sys.modules.get(f"mujoco.{backend}"), "EGL_DISPLAY", None)
    for name in list(sys.modules):
        if name.split(".")[0] == "OpenGL" or name.startswith(f"mujoco.{backend}"):
            del sys.modules[name]
    if egl is not None and not display:  # a display that was opened is closed at exit
        _ctypes.dlclose(egl._handle)


def _make_context(model: mujoco.MjModel) -> mujoco.MjrContext:
    """Returns a context for `model` in our quality; the model itself stays as it was."""
    before = {name: getattr(model.vis.quality, name) for name in QUALITY}
    try:
        set_quality(model)
        return mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
    finally:
        set_quality(model, before)


def _structure(model: mujoco.MjModel) -> tuple[Any, ...]:
    """Returns all that a context keeps of a model besides its meshes and textures."""
    planes = model.geom_size[model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE]
    arrays = (model.mat_texid, model.mat_texuniform, model.mat_texrepeat, model.tex_type, planes)
    counts = (model.nmesh, model.ntex, model.nhfield, model.nskin)
    return (*counts, *(array.tobytes() for array in arrays))
