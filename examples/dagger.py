"""DAgger with `EntBC` as its trainer; it takes arrays, so the observation is flattened.

python examples/dagger.py --model runs/state/seed-0/model.safetensors
"""

import argparse

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FlattenObservation
from imitation.algorithms.dagger import SimpleDAggerTrainer
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from ent_bc import EntBC, ExpertPolicy, SentenceObservation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="where it starts (`make state` trains one)")
    parser.add_argument("--out", default="runs/dagger", help="demonstrations and the model")
    parser.add_argument("--quick", action="store_true", help="one short round")
    args = parser.parse_args()
    model = EntBC.load(args.model)
    told = SentenceObservation(gym.make("meta_pusher_env:MetaPusher-v0"), model)
    venv = DummyVecEnv([lambda: FlattenObservation(told)])
    options = {**model.policy.options, "dict_space": told.observation_space}
    trainer = EntBC(env=venv, policy_kwargs=options, batch_size=256, seed=0)
    trainer.policy.load_state_dict(model.policy.state_dict())
    who = {"expert_policy": ExpertPolicy(venv), "bc_trainer": trainer}
    rng = np.random.default_rng(0)
    dagger = SimpleDAggerTrainer(venv=venv, scratch_dir=args.out, rng=rng, **who)
    dagger.train(total_timesteps=500 if args.quick else 10_000)
    mean, std = evaluate_policy(trainer, venv, 2 if args.quick else 50)
    print(f"return: {mean:.1f} +- {std:.1f}")
    trainer.save(f"{args.out}/model.safetensors")


if __name__ == "__main__":
    main()
