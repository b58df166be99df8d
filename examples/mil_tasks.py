"""MIL's own task files: the expert's success, or a model's after one demonstration, or the twin's.

python examples/mil_tasks.py FOLDER [--model runs/quickstart/model/model.safetensors]
"""

from __future__ import annotations

import argparse

import gymnasium as gym

from ent_bc import EntBC
from ent_bc.evaluation import EvaluationConfig, evaluate_k_shot
from ent_bc.statistics import rate
from meta_pusher_env.mil import load_mil_tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="of the XMLs")
    parser.add_argument("--model", help="a trained one; without, the scripted expert acts")
    parser.add_argument("--trials", type=int, default=6, help="of each task and of its twin")
    parser.add_argument("--quick", action="store_true", help="one trial")
    args = parser.parse_args()

    tasks = {"tasks": load_mil_tasks(args.folder)}
    gym.register("Mil-v0", "meta_pusher_env:MetaPusherEnv", max_episode_steps=100, kwargs=tasks)
    model = EntBC.load(args.model) if args.model else None
    for shown in ("own", "twin") if model else ("expert",):
        config = EvaluationConfig(demonstrated=shown, n_trials=1 if args.quick else args.trials)
        done = evaluate_k_shot(model, config, env_id="Mil-v0")
        print(f"demonstration: {shown}, n = {len(done)}; 95% intervals (Wilson)")
        for name in ("success", "success_other", "strict"):
            share = rate([getattr(trial, name) for trial in done], [t.pair_id for t in done])
            print(f"{name:>14} {share.value:.3f} [{share.wilson_low:.3f}, {share.wilson_high:.3f}]")


if __name__ == "__main__":
    main()
