"""The multi-task Pusher: ``gymnasium.make("MetaPusher-v0")`` after ``import meta_pusher_env``."""

import gymnasium

from meta_pusher_env.env import EPISODE_STEPS, MetaPusherEnv
from meta_pusher_env.objects import ObjectSpec
from meta_pusher_env.tasks import PusherTask, make_tasks

__all__ = ["MetaPusherEnv", "ObjectSpec", "PusherTask", "make_tasks"]

if "MetaPusher-v0" not in gymnasium.registry:
    gymnasium.register(
        id="MetaPusher-v0",
        entry_point="meta_pusher_env.env:MetaPusherEnv",
        max_episode_steps=EPISODE_STEPS,
    )
