"""Frames a second of observations on one core: `make rendering`."""

from __future__ import annotations

import argparse
import os
import statistics
import time

from meta_pusher_env import MetaPusherEnv


def main() -> None:
    """Prints medians over repetitions, for one scene and for a new scene with every frame."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--repetitions", type=int, default=7)
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for size in (64, 96, 125):
        envs = [
            MetaPusherEnv(obs_type="pixels", image_size=size, n_tasks=32, task=2 * scene)
            for scene in range(16)
        ]
        for env in envs:
            env.reset(seed=0)
        for name, some in (("one scene", envs[:1]), ("a new scene every frame", envs)):
            rates = [frames_per_second(some, args.frames) for _ in range(args.repetitions)]
            low, high = min(rates), max(rates)
            median = statistics.median(rates)
            print(f"{size}x{size}, {name}: {median:,.0f} frames/s ({low:,.0f} to {high:,.0f})")


def frames_per_second(envs: list[MetaPusherEnv], n_frames: int) -> float:
    """How fast the environments, in turn, draw what they would observe."""
    start = time.perf_counter()
    for index in range(n_frames):
        envs[index % len(envs)]._observation()
    return n_frames / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
