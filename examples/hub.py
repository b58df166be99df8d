"""A trained model by its name, tried once and shared; `hf auth login` goes before --push.

The default one is shipped, and touches no network:

    python examples/hub.py [--model somebody/my-pusher] [--push somebody/my-pusher]
"""

from __future__ import annotations

import argparse

import gymnasium as gym

import meta_pusher_env  # noqa: F401  (registers MetaPusher-v0)
from ent_bc import EntBC


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="metapusher", help="shipped name, folder or repository")
    parser.add_argument("--folder", default="runs/hub", help="where a copy and its card are put")
    parser.add_argument("--push", metavar="REPOSITORY", help="uploads the model")
    parser.add_argument("--quick", action="store_true", help="ten steps instead of an episode")
    args = parser.parse_args()

    model = EntBC.from_pretrained(args.model)
    env = gym.make("MetaPusher-v0", split="test", obs_type="pixels_agent_pos", image_size=96)
    sentence = model.embed(env.unwrapped.get_demonstrations(0, 1, seed=0))
    obs, info = env.reset(seed=1, options={"task": 0})
    for _ in range(10 if args.quick else 100):
        action, _ = model.predict(obs, state=sentence, deterministic=True)
        obs, reward, terminated, truncated, info = env.step(action)
    print(f"shown object at the goal: {info['is_success']}")
    model.save_pretrained(args.folder, model_card_kwargs={"name": args.folder, "license": "mit"})
    if args.push:
        print(model.push_to_hub(args.push))


if __name__ == "__main__":
    main()
