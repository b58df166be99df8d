"""One-shot imitation on Meta-World's ML10, from its scripted policies; nothing here is MetaPusher.

Meta-World wants a stack of its own, `make setup STACK=-latest`:
.venv-latest/bin/python examples/meta_world.py
"""

import argparse

import gymnasium as gym

from ent_bc import BatchConfig, EntBC
from ent_bc.evaluation import EvaluationConfig, evaluate_k_shot
from ent_bc.schedule import ScheduleConfig
from ent_bc.statistics import rate

ENV = "ent_bc.meta_world:MetaWorldML10-v0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two tasks, ten batches")
    quick = parser.parse_args().quick
    n_tasks, n_batches, n_trials = (2, 10, 1) if quick else (200, 2000, 50)
    env = gym.make(ENV, split="train", n_tasks=n_tasks).unwrapped
    show = env.get_demonstrations
    demos = [d for t in env.tasks for d in show(t, 1, seed=0) + show(t, 2, seed=1, noise=0.5)]
    batches, schedule = BatchConfig(n_steps=16), ScheduleConfig(horizon=n_batches)
    options = {"policy_kwargs": {"architecture": "tiled"}, "batches": batches, "seed": 0}
    model = EntBC(env=env, demonstrations=demos, schedule=schedule, **options)
    model.train(n_batches=n_batches)
    for split in ("val", "test"):  # held-out goals of the train tasks, and the five test tasks
        config = EvaluationConfig(split, 1, n_tasks=n_trials, obs_type=None, image_size=None)
        trials = evaluate_k_shot(model, config, env_id=ENV)
        for name in ("", *sorted({trial.task_id.split("/")[0] for trial in trials})):
            some = {t.task_id: t.success for t in trials if t.task_id.startswith(name)}
            print(split, name or "all", rate(list(some.values()), list(some)), flush=True)


if __name__ == "__main__":
    main()
