"""Acting: `predict` beside the bare net; one torch thread each."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch as th

from ent_bc import EntBC
from ent_bc.presets import PRESETS
from ent_bc.speed.rows import Row, in_turn, rate


def measure(*, quick: bool) -> list[Row]:
    """One image of one environment, by preset `pixels`' net."""
    n, n_calls = (1, 5) if quick else (101, 20)  # short turns: what else runs hits both sides
    th.set_num_threads(1)
    preset = PRESETS["pixels"]
    env = gym.make(
        "meta_pusher_env:MetaPusher-v0", obs_type=preset.obs_type, image_size=preset.image_size
    )
    model = EntBC(env=env, seed=0, device="cpu", policy_kwargs=preset.policy_kwargs)
    env.observation_space.seed(0)
    space = env.observation_space
    assert isinstance(space, gym.spaces.Dict)
    obs = {key: np.asarray(value) for key, value in space.sample().items()}
    sentence = np.full(20, 20**-0.5, np.float32)
    tensors = {key: th.as_tensor(value)[None] for key, value in obs.items()}
    tensors_of_sentence = th.as_tensor(sentence)[None]

    def ours() -> None:
        for _ in range(n_calls):
            model.predict(obs, state=sentence, deterministic=True)

    @th.no_grad()
    def bare() -> None:
        for _ in range(n_calls):
            model.policy.control(tensors, tensors_of_sentence)

    def milliseconds(side: Callable[[], None]) -> Callable[[], float]:
        return lambda: 1e3 / rate(side, n_calls)()

    predicted, called = in_turn(n, milliseconds(ours), milliseconds(bare))
    name = f"predict, one {preset.image_size}x{preset.image_size} image"
    return [Row(name, "the same net called raw in torch", "ms", predicted, called, at_most=1.3)]
