"""One-shot imitation: show a video of a new object being pushed, and let the arm do it.

Needs a trained model, which `make quickstart` leaves behind:

    python examples/one_shot.py --task 3
"""

from __future__ import annotations

import argparse

import gymnasium as gym

import meta_pusher_env  # noqa: F401  (registers MetaPusher-v0)
from ent_bc import EntBC


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="runs/quickstart/model/model.safetensors")
    parser.add_argument("--task", type=int, default=0, help="index of a test task, 0 to 73")
    parser.add_argument("--twin", action="store_true", help="show the twin's demonstration instead")
    args = parser.parse_args()

    model = EntBC.load(args.model)
    env = gym.make("MetaPusher-v0", split="test", obs_type="pixels_agent_pos", image_size=96)
    task = env.unwrapped.tasks[args.task]
    shown = task.twin if args.twin else task
    video = env.unwrapped.get_demonstrations(shown, 1, seed=0)[0].obs["pixels"]
    sentence = model.embed(video)  # frames alone: no states, no actions
    obs, info = env.reset(seed=1, options={"task": task})
    for _ in range(100):
        action, _ = model.predict(obs, state=sentence, deterministic=True)
        obs, reward, terminated, truncated, info = env.step(action)
    success = info["is_success_other" if args.twin else "is_success"]
    print(f"shown object at the goal: {success}")


if __name__ == "__main__":
    main()
