"""The multi-task Pusher: ``gymnasium.make("MetaPusher-v0")`` after ``import meta_pusher_env``."""

from typing import Any

import gymnasium

from meta_pusher_env.env import EPISODE_STEPS, MetaPusherEnv
from meta_pusher_env.objects import ObjectSpec
from meta_pusher_env.tasks import PusherTask, make_tasks
from meta_pusher_env.vector import MetaPusherVectorEnv

__all__ = [
    "MetaPusherEnv",
    "MetaPusherVectorEnv",
    "ObjectSpec",
    "PusherTask",
    "make_tasks",
    "make_vec",
]


def make_vec(num_envs: int, **kwargs: Any) -> MetaPusherVectorEnv:
    """Makes many environments that step together, on all cores; see `MetaPusherVectorEnv`.

    The same by ``gymnasium.make_vec("MetaPusher-v0", num_envs)`` from Gymnasium 1.0 on, and before
    by ``gymnasium.make_vec("MetaPusher-v0", num_envs, vectorization_mode="custom",
    vector_kwargs=kwargs)``: without that mode it makes a process for each environment there.
    """
    return MetaPusherVectorEnv(num_envs, **kwargs)


if "MetaPusher-v0" not in gymnasium.registry:
    gymnasium.register(
        id="MetaPusher-v0",
        entry_point="meta_pusher_env.env:MetaPusherEnv",
        vector_entry_point="meta_pusher_env.vector:MetaPusherVectorEnv",
        max_episode_steps=EPISODE_STEPS,
    )
