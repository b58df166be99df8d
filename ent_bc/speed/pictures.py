"""Rows of the pictures, on one core: drawing them, and switching what is drawn."""

from __future__ import annotations

import copy
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

from ent_bc.speed.rows import Row, in_turn, rate, use_one_core
from meta_pusher_env import MetaPusherEnv, rendering, scene
from meta_pusher_env.env import EPISODE_STEPS, FRAME_SKIP, TORQUE_LIMIT

SIZES = (64, 125)
N_TASKS = 32
DEFAULT_QUALITY = {n: getattr(mujoco.MjSpec().visual.quality, n) for n in rendering.QUALITY}
"""MuJoCo's own: a shadow map of 4096, 4 samples a pixel, fine round geoms."""


def measure(*, quick: bool) -> list[Row]:
    """Observations a second and switches a second, with their peers' and the limit."""
    use_one_core()
    # A peer that makes a context anew may keep its shaders, as it does unless we say otherwise.
    os.environ.setdefault("MESA_SHADER_CACHE_DISABLE", "false")
    rows = [_contexts(n_envs=4 if quick else 64)]
    for size in SIZES[:1] if quick else SIZES:
        rows += _against_gymnasium(size, repetitions=1 if quick else 7)
        rows.append(_against_limit(size, repetitions=1 if quick else 31))
        rows.append(_switching(size, repetitions=1 if quick else 7))
    return rows


class _Episode:
    """The same episode, its torques given, on each side of a comparison."""

    def __init__(self, size: int) -> None:
        self.size, self.seed = size, 0
        self.env = MetaPusherEnv(obs_type="pixels", image_size=size, task=0, n_tasks=N_TASKS)
        self.env.reset(seed=self.seed)
        self.start = self.env.data.qpos.copy(), self.env.data.qvel.copy()
        torques = np.random.default_rng(0).uniform(-TORQUE_LIMIT, TORQUE_LIMIT, (EPISODE_STEPS, 7))
        self.torques = torques.astype(np.float32)

    def observe(self) -> None:
        """Ours: the environment itself, which besides draws its start and tells its infos."""
        self.env.reset(seed=self.seed)
        for torques in self.torques:
            self.env.step(torques)

    def simulate(
        self, model: mujoco.MjModel, data: mujoco.MjData, draw: Callable[[], object], n_steps: int
    ) -> None:
        """Theirs: the same physics, and a picture after every step by ``draw``."""
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:] = self.start
        mujoco.mj_forward(model, data)
        draw()
        for torques in self.torques[:n_steps]:
            data.ctrl[:] = torques
            mujoco.mj_step(model, data, nstep=FRAME_SKIP)
            draw()


def _against_gymnasium(size: int, *, repetitions: int) -> list[Row]:
    """Beside Gymnasium's renderer in MuJoCo's default quality, and in ours."""
    episode = _Episode(size)
    slow, fast = copy.copy(episode.env.model), copy.copy(episode.env.model)
    rendering.set_quality(slow, DEFAULT_QUALITY)
    observing = rate(episode.observe, EPISODE_STEPS + 1)
    with (
        _drawn_by_gymnasium(episode, slow, n_steps=4) as in_default_quality,
        _drawn_by_gymnasium(episode, fast, n_steps=EPISODE_STEPS) as in_ours,
    ):
        ours, theirs, theirs_fast = in_turn(repetitions, observing, in_default_quality, in_ours)
    name, peer = f"pixel observations, {size}x{size}", "Gymnasium's MujocoRenderer"
    return [
        Row(name, f"{peer}, MuJoCo's default quality", "obs/s", ours, theirs, at_least=40),
        Row(name, f"{peer}, our quality", "obs/s", ours, theirs_fast),
    ]


@contextmanager
def _drawn_by_gymnasium(
    episode: _Episode, model: mujoco.MjModel, *, n_steps: int
) -> Iterator[Callable[[], float]]:
    """A side that simulates and draws so many steps with Gymnasium's renderer."""
    data = mujoco.MjData(model)
    renderer = _gymnasium_renderer(model, data, episode.size)

    def run() -> None:
        renderer.viewer.make_context_current()  # which it leaves to its user
        episode.simulate(model, data, lambda: renderer.render("rgb_array"), n_steps)

    renderer.render("rgb_array")
    yield rate(run, n_steps + 1)
    _close(renderer)


def _gymnasium_renderer(model: mujoco.MjModel, data: mujoco.MjData, size: int) -> Any:
    """Gymnasium's renderer of a scene, from the observations' camera."""
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    rendering.ensure_gl()  # else it tries a window first
    camera = {
        "lookat": np.array(rendering.LOOKAT),
        "distance": rendering.DISTANCE,
        "elevation": rendering.ELEVATION,
        "azimuth": rendering.AZIMUTH,
    }
    is_before_1_0 = gym.__version__.startswith("0.")  # the size is the model's only there
    given = {} if is_before_1_0 else {"width": size, "height": size}
    return MujocoRenderer(model, data, camera, **given)


def _close(renderer: Any) -> None:
    renderer.viewer.make_context_current()
    renderer.viewer.con.free()  # not later, in whichever context is then current
    renderer.close()


def _against_limit(size: int, *, repetitions: int) -> Row:
    """Beside nothing but the calls of MuJoCo that it takes to step a scene and to draw it."""
    episode = _Episode(size)
    model = copy.copy(episode.env.model)
    model.vis.global_.offwidth = model.vis.global_.offheight = size
    data, picture = mujoco.MjData(model), np.empty((size, size, 3), np.uint8)
    drawn, context = mujoco.MjvScene(model, maxgeom=100), mujoco.MjrContext(model, 50)
    view = mujoco.MjvOption(), mujoco.MjvPerturb(), rendering.observation_camera(), 7
    rect = mujoco.MjrRect(0, 0, size, size)

    def draw() -> None:
        mujoco.mjv_updateScene(model, data, *view, drawn)
        mujoco.mjr_render(rect, drawn, context)
        mujoco.mjr_readPixels(picture, None, rect, context)

    def run() -> None:
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        episode.simulate(model, data, draw, EPISODE_STEPS)

    sides = [rate(work, EPISODE_STEPS + 1) for work in (episode.observe, run)]
    ours, theirs = in_turn(repetitions, *sides)
    context.free()
    limit = "mj_step + mjv_updateScene + mjr_render + mjr_readPixels alone"
    return Row(f"pixel observations, {size}x{size}", limit, "obs/s", ours, theirs, at_least=0.85)


def _switching(size: int, *, repetitions: int) -> Row:
    """To tasks that were seen before, with the first picture, beside making everything anew."""
    env = MetaPusherEnv(obs_type="pixels", image_size=size, n_tasks=N_TASKS)
    indices = range(0, N_TASKS, 2)  # one of each pair of twins, which share a scene
    placement = scene.draw_placement(np.random.default_rng(0))

    def switch() -> None:
        for index in indices:
            env.reset(options={"task": index})

    def make_anew() -> None:
        for index in indices[:4]:
            model = scene._compile.__wrapped__(env.tasks[index].objects)
            data = mujoco.MjData(model)
            scene.place(model, data, placement)
            renderer = _gymnasium_renderer(model, data, size)
            renderer.render("rgb_array")
            _close(renderer)

    ours, theirs = in_turn(repetitions, rate(switch, len(indices)), rate(make_anew, 4))
    name, peer = f"task switches at reset, {size}x{size}", "compiling the scene, a new renderer"
    return Row(name, peer, "switches/s", ours, theirs, at_least=20)


def _contexts(*, n_envs: int) -> Row:
    """How many contexts of OpenGL there are after many environments switched tasks."""
    envs = [MetaPusherEnv(obs_type="pixels", n_tasks=N_TASKS) for _ in range(n_envs)]
    for start in range(3):
        for index, env in enumerate(envs):
            env.reset(options={"task": (start + index) % N_TASKS})
    alive = sum(type(thing).__name__ == "GLContext" for thing in gc.get_objects())
    name = f"OpenGL contexts of {n_envs} envs that switch tasks"
    return Row(name, "one", "contexts", (float(alive),), (1.0,), at_most=8)
