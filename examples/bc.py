"""imitation's own BC with our policy: the sentence is in the observation, so BC needs no tasks.

python examples/bc.py --model runs/state/seed-0/model.safetensors
"""

import argparse

import gymnasium as gym
import numpy as np
from imitation.algorithms import bc
from imitation.data import rollout
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from ent_bc import EntBC, ExpertPolicy, SentenceObservation, TaskConditionedPolicy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="what makes the sentences (`make state`)")
    parser.add_argument("--quick", action="store_true", help="two episodes, ten batches")
    args = parser.parse_args()

    model = EntBC.load(args.model)
    name = "meta_pusher_env:MetaPusher-v0"
    venv = DummyVecEnv([lambda: SentenceObservation(gym.make(name), model)] * 2)
    until = rollout.make_sample_until(min_episodes=2 if args.quick else 300)
    rng = np.random.default_rng(0)
    shown = rollout.generate_trajectories(ExpertPolicy(venv), venv, until, rng)
    spaces = {"observation_space": venv.observation_space, "action_space": venv.action_space}
    policy = TaskConditionedPolicy(**spaces, lr_schedule=lambda _: 1.0, **model.policy.options)
    trainer = bc.BC(**spaces, rng=rng, policy=policy, demonstrations=shown)
    trainer.train(n_batches=10 if args.quick else 5000)
    mean, std = evaluate_policy(trainer.policy, venv, 2 if args.quick else 50)
    print(f"return: {mean:.1f} +- {std:.1f}")


if __name__ == "__main__":
    main()
