"""The expert's demonstrations: one record, how it is made, and how it is drawn again.

`meta_pusher_env.recording` records the episodes, `meta_pusher_env.datasets` keeps many on disk.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import mujoco
import numpy as np

from meta_pusher_env import rendering, scene
from meta_pusher_env.env import EPISODE_STEPS, OBS_TYPES
from meta_pusher_env.recording import Attempt, Episode, record_episodes
from meta_pusher_env.tasks import PusherTask

DEMONSTRATION_SEEDS = 2**31  # demonstrations start from seeds below, evaluation trials from above
DOWN_HEIGHT = 0.105  # m above the table: a tip below it has come down beside an object
OBJECT_MIDDLE = 0.03  # m above the table: where on an object the attention target lies
CLOSING_STEPS = 8  # after the tip came down, in which the scoop closes in on the object
PUSHED_BEHIND = 0.03  # m behind the tip: where an object lies that a finger of the scoop pushes
SHORTEST_CARRY = 0.05  # m: a shorter way has no clear direction
_MAX_DROPPED = 50


@dataclasses.dataclass(frozen=True)
class Demonstration:
    """A demonstration with the field names of imitation's ``Trajectory``, in numpy alone.

    Attributes:
        obs: Observations at `steps`: (len(steps), ...) or a dict of such.
        acts: (T, 7) float32 torques, N m.
        infos: T dicts with task_id, pair_id, demo_id, step and attention_target.
        terminal: False: episodes are cut off after a fixed number of steps.
        steps: Ascending time steps of `obs`; all of 0 ... T, or a sample with the first and last.
        states: (T + 1, 26) float64 MuJoCo states: what `render_states` needs.
    """

    obs: np.ndarray | dict[str, np.ndarray]
    acts: np.ndarray
    infos: Sequence[dict[str, Any]]
    terminal: bool
    steps: np.ndarray
    states: np.ndarray

    def __len__(self) -> int:
        return len(self.acts)

    @property
    def task_id(self) -> str:
        """The demonstrated task's name."""
        return str(self.infos[0]["task_id"])


class StepInfos(Sequence[dict[str, Any]]):
    """The infos of a demonstration, made when they are asked for."""

    def __init__(self, task: PusherTask, demo_id: str, agent_pos: np.ndarray) -> None:
        self._common = {"task_id": task.task_id, "pair_id": task.pair_id, "demo_id": demo_id}
        self._agent_pos = agent_pos

    @cached_property
    def _targets(self) -> np.ndarray:
        return attention_targets(self._agent_pos)

    def __len__(self) -> int:
        return len(self._agent_pos) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        step = range(len(self))[index]
        return {**self._common, "step": step, "attention_target": self._targets[step]}


@dataclasses.dataclass(frozen=True)
class Order:
    """Successful episodes of a task, each from another start.

    Attributes:
        task: What to do.
        n: How many.
        seed: Fixes them.
        noise: Each start's level is drawn between 0 and this; see `Attempt`.
    """

    task: PusherTask
    n: int
    seed: int
    noise: float = 0.0


Start = tuple[Episode | None, Episode]
"""The episode if the start is kept, and the first episode from there."""


def successful_episodes(orders: Sequence[Order]) -> list[list[Start]]:
    """Each order's starts, until as many as it asks for are kept; recorded for all orders at once.

    Where noise made the expert fail, the same start is tried again with half of it, at last with
    none: a start is dropped only if the expert fails undisturbed.

    Raises:
        RuntimeError: 50 of a task's starts in a row were dropped.
    """
    fillers = {number: _fill(order) for number, order in enumerate(orders) if order.n}
    filled: list[list[Start]] = [[] for _ in orders]
    asked = {number: next(filler) for number, filler in fillers.items()}
    while asked:
        episodes = iter(record_episodes([each for some in asked.values() for each in some]))
        replies = {number: list(islice(episodes, len(some))) for number, some in asked.items()}
        asked = {}
        for number, reply in replies.items():
            try:
                asked[number] = fillers[number].send(reply)
            except StopIteration as end:
                filled[number] = end.value
    return filled


def _fill(order: Order) -> Generator[list[Attempt], list[Episode], list[Start]]:
    """Asks for attempts, is sent their episodes, and returns the order's starts."""
    rng = np.random.default_rng([order.seed, int(order.noise > 0), *order.task.task_id.encode()])
    starts: list[Start] = []
    n_missing, n_dropped = order.n, 0
    while n_missing:
        attempts = [_draw_attempt(order, rng) for _ in range(n_missing)]
        firsts = yield attempts
        best = list(firsts)
        for factor in (0.5, 0.0):
            again = [i for i, it in enumerate(best) if not it.success and attempts[i].noise]
            calmer = [
                dataclasses.replace(attempts[i], noise=factor * attempts[i].noise) for i in again
            ]
            episodes = yield calmer
            for i, episode in zip(again, episodes, strict=True):
                best[i] = episode
        for episode, first in zip(best, firsts, strict=True):
            starts.append((episode if episode.success else None, first))
            n_missing -= episode.success
            n_dropped = 0 if episode.success else n_dropped + 1
            if n_dropped == _MAX_DROPPED:
                raise RuntimeError(
                    f"The expert failed at {_MAX_DROPPED} starts in a row of task "
                    f"{order.task.task_id!r}: the task cannot be demonstrated; take another."
                )
    return starts


def _draw_attempt(order: Order, rng: np.random.Generator) -> Attempt:
    seed = int(rng.integers(DEMONSTRATION_SEEDS))
    return Attempt(order.task, seed, float(rng.uniform(0, order.noise)) if order.noise else 0.0)


def record_demonstrations(
    task: PusherTask,
    n: int,
    *,
    seed: int,
    obs_type: str = "state",
    image_size: int = 64,
    noise: float = 0.0,
) -> list[Demonstration]:
    """Records n successful demonstrations of a task, with observations at every step.

    Args:
        task: What to demonstrate.
        n: How many, at least 1; each from another start.
        seed: Fixes them.
        obs_type: As the environment's.
        image_size: As the environment's.
        noise: See `Attempt.noise`; each demonstration's is drawn between 0 and this.

    Raises:
        ValueError: n is less than 1, or the obs_type is unknown.
    """
    if n < 1:
        raise ValueError(f"n is {n}, expected at least 1 demonstration.")
    if obs_type not in OBS_TYPES:
        raise ValueError(f"Unknown obs_type {obs_type!r}: expected one of {', '.join(OBS_TYPES)}.")
    [starts] = successful_episodes([Order(task, n, seed, noise)])
    kept = [episode for episode, _ in starts if episode is not None]
    steps = np.arange(EPISODE_STEPS + 1)
    return [_demonstration(episode, obs_type, image_size, steps) for episode in kept]


def record_sparse_demonstrations(
    orders: Sequence[Order], *, obs_type: str, image_size: int, n_obs: int
) -> list[list[Demonstration]]:
    """Records `record_demonstrations`' demonstrations with few observations.

    Args:
        orders: What to demonstrate; recorded for all at once.
        obs_type: As the environment's.
        image_size: As the environment's.
        n_obs: Observations of each, evenly spaced from the first to the last; at least 2.
    """
    if not 2 <= n_obs <= EPISODE_STEPS + 1:
        raise ValueError(f"n_obs is {n_obs}, expected 2 to {EPISODE_STEPS + 1} observations.")
    steps = np.linspace(0, EPISODE_STEPS, n_obs).round().astype(int)
    return [
        [
            _demonstration(kept, obs_type, image_size, steps)
            for kept, _ in starts
            if kept is not None
        ]
        for starts in successful_episodes(orders)
    ]


def render_states(task: PusherTask, states: np.ndarray, image_size: int) -> np.ndarray:
    """Draws recorded states, bit for bit as the environment drew them.

    Args:
        task: The task, for its objects.
        states: (N, 26) MuJoCo states.
        image_size: Height and width, pixels.

    Returns:
        (N, image_size, image_size, 3) uint8.
    """
    model = scene.build_model(task)
    data = mujoco.MjData(model)
    renderer = rendering.Renderer(image_size, image_size)
    frames = np.empty((len(states), image_size, image_size, 3), dtype=np.uint8)
    for frame, state in zip(frames, states, strict=True):
        data.qpos[:] = state[: model.nq]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        frame[:] = renderer.render(model, data)
    return frames


def attention_targets(agent_pos: np.ndarray) -> np.ndarray:
    """Where in the image the target lies, in hindsight from the arm's own path.

    No object's pose is needed. Until the tip comes down, the target lies where it will come down.
    Then the arm carries it: at first behind the tip, by the finger that pushes, and at the end, for
    the demonstration succeeded, at the goal; between, the offset from the tip changes evenly. While
    the scoop closes in on it the place is not known. On the expert's demonstrations it is 2 cm off
    at all times (median).

    Args:
        agent_pos: (T + 1, 20).

    Returns:
        (T + 1, 2) float32 as (x right, y down) in [-1, 1]; NaN where it is not known.
    """
    tip, goal = agent_pos[:, 14:16].astype(np.float64), agent_pos[0, 17:19].astype(np.float64)
    end = len(tip) - 1
    low = np.flatnonzero(agent_pos[:, 16] < scene.TABLE_HEIGHT + DOWN_HEIGHT)
    down = int(low[0]) if len(low) else end
    places = np.full((len(tip), 2), np.nan)
    way = tip[end] - tip[down]
    length = np.linalg.norm(way)
    if length > SHORTEST_CARRY:
        carry = np.arange(down + CLOSING_STEPS, end + 1)
        share = ((carry - down) / (end - down))[:, None]
        behind = -PUSHED_BEHIND * way / length
        places[carry] = tip[carry] + (1 - share) * behind + share * (goal - tip[end])
    places[: down + 1] = tip[down]
    height = np.full(len(tip), scene.TABLE_HEIGHT + OBJECT_MIDDLE)
    return (rendering.project(np.c_[places, height], 2, 2) - 1.0).astype(np.float32)


def _demonstration(
    episode: Episode, obs_type: str, image_size: int, steps: np.ndarray
) -> Demonstration:
    """A demonstration with observations at some steps."""
    obs: np.ndarray | dict[str, np.ndarray] = episode.state_obs[steps]
    if obs_type != "state":
        pixels = render_states(episode.task, episode.states[steps], image_size)
        agent_pos = episode.agent_pos[steps]
        obs = pixels if obs_type == "pixels" else {"pixels": pixels, "agent_pos": agent_pos}
    return Demonstration(
        obs=obs,
        acts=episode.acts,
        infos=StepInfos(episode.task, episode.demo_id, episode.agent_pos),
        terminal=False,
        steps=steps,
        states=episode.states,
    )
