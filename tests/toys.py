"""Small make-believe demonstrations and spaces, for tests of `ent_bc` that need no simulator.

Records are of another make than MetaPusher's: `ent_bc` serves any multi-task environment.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from gymnasium import spaces

from ent_bc import BatchConfig, EntBC

N_STEPS = 12
N_ACTIONS = 3
IMAGE_SIZE = 24
START, SLOT_DIM = 4, 5
SLOTS = {"start": START, "count": 2}
STATE_DIM = START + 2 * SLOT_DIM

ACTION_SPACE = spaces.Box(-2, 2, (N_ACTIONS,), np.float32)
STATE_SPACE = spaces.Box(-np.inf, np.inf, (STATE_DIM,), np.float32)
PIXELS_SPACE = spaces.Box(0, 255, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
AGENT_SPACE = spaces.Box(-np.inf, np.inf, (START,), np.float32)
SENTENCE_SPACE = spaces.Box(-1, 1, (20,), np.float32)
DICT_SPACE = spaces.Dict({"pixels": PIXELS_SPACE, "agent_pos": AGENT_SPACE})
SPACES: dict[str, spaces.Space[Any]] = {
    "state": STATE_SPACE,
    "pixels": PIXELS_SPACE,
    "pixels_agent_pos": DICT_SPACE,
}


@dataclasses.dataclass(frozen=True)
class Demo:
    """A demonstration with the fields that `ent_bc` asks for, and no others."""

    obs: Any
    acts: np.ndarray
    infos: list[dict[str, Any]]
    terminal: bool = False


def make_demonstrations(
    obs_type: str = "state", *, n_pairs: int = 3, n_demos: int = 3, seed: int = 0
) -> list[Demo]:
    """Demonstrations of twins: task "0a" and "0b" are a pair, and so on."""
    rng = np.random.default_rng(seed)
    return [
        _make_demonstration(rng, obs_type, pair, target)
        for pair in range(n_pairs)
        for target in range(2)
        for _ in range(n_demos)
    ]


def _make_demonstration(rng: np.random.Generator, obs_type: str, pair: int, target: int) -> Demo:
    looks = np.random.default_rng([7, pair]).normal(size=(2, SLOT_DIM - 2))
    order = rng.permutation(2)
    start = rng.uniform(-1, 1, size=(2, 2))
    states = np.empty((N_STEPS + 1, STATE_DIM), np.float32)
    for step, state in enumerate(states):
        where = start.copy()
        where[target] *= 1 - step / N_STEPS
        state[:START] = rng.normal(size=START)
        state[START:] = np.hstack([where, looks])[order].ravel()
    acts = np.tanh(states[:-1, :N_ACTIONS]) + 0.1 * start[target].sum()
    common = {"task_id": f"{pair}{'ab'[target]}", "pair_id": str(pair)}
    place = rng.uniform(-1, 1, size=2).astype(np.float32)
    infos = [{**common, "step": step, "attention_target": place} for step in range(N_STEPS)]
    obs: Any = states
    if obs_type != "state":
        pixels = rng.integers(256, size=(N_STEPS + 1, *PIXELS_SPACE.shape), dtype=np.uint8)
        obs = pixels if obs_type == "pixels" else {"pixels": pixels, "agent_pos": states[:, :START]}
    return Demo(obs, acts.astype(np.float32), infos)


def make_model(obs_type: str = "state", **kwargs: Any) -> EntBC:
    """A small `EntBC` on make-believe demonstrations; keywords are `EntBC`'s."""
    policy_kwargs: dict[str, Any] = {"net_arch": [32], **kwargs.pop("policy_kwargs", {})}
    if obs_type == "state":
        policy_kwargs.setdefault("slots", SLOTS)
    arguments: dict[str, Any] = {
        "observation_space": SPACES[obs_type],
        "action_space": ACTION_SPACE,
        "policy_kwargs": policy_kwargs,
        "batch_size": 4,
        "batches": BatchConfig(n_steps=2),
        "seed": 0,
        **kwargs,
    }
    if "demonstrations" not in arguments:
        arguments["demonstrations"] = make_demonstrations(obs_type)
    return EntBC(**arguments)


def parameters_of(model: EntBC) -> dict[str, np.ndarray]:
    """Copies of all parameters and buffers of a model's policy."""
    return {key: value.numpy().copy() for key, value in model.policy.state_dict().items()}


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    """Whether two results of `parameters_of` are equal bit for bit."""
    assert first.keys() == second.keys()
    return all(np.array_equal(first[key], second[key]) for key in first)
