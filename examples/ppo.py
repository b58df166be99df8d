"""Fine-tuning with PPO: from a model that learned from demonstrations, by reward from then on.

python examples/ppo.py --model runs/state/seed-0/model.safetensors
"""

import argparse

import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import SubprocVecEnv

from ent_bc import EntBC, TaskConditionedPolicy, VecSentenceObservation


def make_env() -> gym.Env:
    return Monitor(gym.make("meta_pusher_env:MetaPusher-v0"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="where it starts (`make state` trains one)")
    parser.add_argument("--out", default="runs/ppo.zip")
    parser.add_argument("--quick", action="store_true", help="one short rollout")
    args = parser.parse_args()
    model = EntBC.load(args.model)
    n_envs, n_steps = (1, 100) if args.quick else (8, 400)
    venv = VecSentenceObservation(SubprocVecEnv([make_env] * n_envs), model, seed=0)
    options = {"n_steps": n_steps, "batch_size": 100 if args.quick else 800, "learning_rate": 3e-5}
    ppo = PPO(TaskConditionedPolicy, venv, policy_kwargs=model.policy.options, **options)
    ppo.policy.load_state_dict(model.policy.state_dict())
    ppo.learn(n_envs * n_steps if args.quick else 500_000)
    mean, std = evaluate_policy(ppo, venv, 2 if args.quick else 50)
    print(f"return: {mean:.1f} +- {std:.1f}")
    ppo.save(args.out)


if __name__ == "__main__":
    main()
