"""Demonstrations as a Minari data set, and a policy that learns from one.

Below MINARI_DATASETS_PATH, or in the home directory; `pip install 'metapusher[minari]'` before:

    python examples/minari_datasets.py
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import minari

import meta_pusher_env  # noqa: F401  (registers MetaPusher-v0)
from ent_bc import EntBC
from meta_pusher_env.minari_datasets import from_minari, to_minari


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--id", default="metapusher/train-expert-v0", help="its name in Minari")
    parser.add_argument("--n-tasks", type=int, default=40, help="where there is no such data set")
    parser.add_argument("--quick", action="store_true", help="four tasks, a few steps of training")
    args = parser.parse_args()

    if args.id not in minari.list_local_datasets():
        env = gym.make("MetaPusher-v0", n_tasks=4 if args.quick else args.n_tasks)
        expert = env.unwrapped.get_demonstrations
        demos = [demo for task in env.unwrapped.tasks for demo in expert(task, 2, seed=0)]
        to_minari(demos, args.id, env=env, author="me")
    dataset = minari.load_dataset(args.id)
    print(f"{dataset.spec.dataset_id}: {dataset.total_episodes} episodes")
    env = dataset.recover_environment()  # the same split and tasks
    model = EntBC(env=env, demonstrations=from_minari(dataset), batch_size=4, seed=0)
    model.learn(5 if args.quick else 500, log_interval=100)


if __name__ == "__main__":
    main()
