"""Fine-tuning with PPO: from a model that learned from demonstrations, by reward from then on.

python examples/ppo.py --model runs/state/seed-0/model.safetensors
"""

import argparse
import dataclasses

from ent_bc import EntBC
from ent_bc.evaluation import EvaluationConfig, evaluate_k_shot
from ent_bc.fine_tuning import FineTuneConfig, ProgressReward, fine_tune
from ent_bc.vec_env import VectorEnvAdapter
from meta_pusher_env import make_vec


def success(model: EntBC, n_tasks: int | None) -> float:
    trials = evaluate_k_shot(model, EvaluationConfig(obs_type="state", n_trials=2, n_tasks=n_tasks))
    return sum(trial.strict for trial in trials) / len(trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="where it starts (`make state` trains one)")
    parser.add_argument("--out", default="runs/ppo.safetensors")
    parser.add_argument("--quick", action="store_true", help="one short rollout")
    args = parser.parse_args()
    model, n_tasks = EntBC.load(args.model), 2 if args.quick else None
    before = success(model, n_tasks)
    config = FineTuneConfig()
    if args.quick:
        config = dataclasses.replace(config, total_timesteps=100, critic_timesteps=0, batch_size=50)
    venv = ProgressReward(VectorEnvAdapter(make_vec(1 if args.quick else 128)))
    fine_tune(model, venv, config, seed=0)  # returns SB3's PPO, to go on with
    print(f"strict success on new objects: {before:.2f}, then {success(model, n_tasks):.2f}")
    model.save(args.out)


if __name__ == "__main__":
    main()
