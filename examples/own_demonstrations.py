"""Your own demonstrations: what you recorded, as imitation's trajectories, and a model of them.

Observations are one more than actions; infos name the task. Here the expert is what is recorded:

python examples/own_demonstrations.py --out runs/own.safetensors
"""

import argparse

import gymnasium as gym
import numpy as np
from imitation.data.types import Trajectory

import meta_pusher_env  # noqa: F401  (registers MetaPusher-v0)
from ent_bc import EntBC


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/own.safetensors", help="where the model is put")
    parser.add_argument("--quick", action="store_true", help="four tasks, a few steps of training")
    args = parser.parse_args()
    env = gym.make("MetaPusher-v0", n_tasks=4 if args.quick else 200)
    demonstrations = []
    for episode in range(3 * len(env.unwrapped.tasks)):
        obs, info = env.reset(seed=episode, options={"task": episode // 3})
        observations, actions = [obs], []
        for _ in range(100):
            actions.append(env.unwrapped.expert_action())
            observations.append(env.step(actions[-1])[0])
        infos = [{"task_id": info["task_id"]}] * 100
        steps = np.stack(observations), np.stack(actions)
        demonstrations.append(Trajectory(*steps, infos, terminal=False))
    model = EntBC(env=env, demonstrations=demonstrations, seed=0)
    model.train(n_batches=5 if args.quick else 1000)
    model.save(args.out)


if __name__ == "__main__":
    main()
