"""Measures the scripted expert, before any filtering: ``python benchmarks/expert.py``.

Episodes are spread over the tasks of all three splits, or of ``--mil FOLDER``; placement ``i`` is
drawn with seed ``--seed + i``, so a run can be repeated exactly.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import numpy.typing as npt

from meta_pusher_env import measures, scene
from meta_pusher_env.mil import load_mil_tasks
from meta_pusher_env.recording import Attempt, Episode, record_episodes
from meta_pusher_env.tasks import SPLITS, make_tasks

CLEAN_RADIUS = 0.03  # m: a distractor that moved less was left alone
BARS = {"mil": ">= 0.99", "strict": ">= 0.95", "clean": ">= 0.75", "both": "<= 0.03"}
MEANING = {
    "mil": "target within sqrt(0.017) m of the goal in 10 of 100 steps",
    "strict": "ends within 5 cm of the goal, nearer than the distractor",
    "clean": "distractor moved less than 3 cm",
    "both": "distractor at the goal too, by the criterion of mil",
}
FIRST_SEED = 1_000_000  # apart from the placements that the expert was tuned on
PRIME = 7919  # a step through the tasks that visits all of them before any comes again


def outcomes(episode: Episode) -> dict[str, float]:
    """The four outcomes (0 or 1) of an episode and where the target started."""
    task = episode.task
    places = episode.states[:, scene.N_JOINTS : scene.N_JOINTS + 6].reshape(-1, 2, 3)[..., :2]
    squared = np.square(places - scene.GOAL).sum(axis=2)
    at_goal = (squared[1:] < measures.GOAL_RADIUS_SQUARED).sum(axis=0) >= measures.GOAL_STEPS
    distances, moved = np.sqrt(squared[-1]), np.linalg.norm(places[-1] - places[0], axis=1)
    target, other = task.target, 1 - task.target
    return {
        "mil": at_goal[target],
        "strict": distances[target] < min(measures.STRICT_RADIUS, distances[other]),
        "clean": moved[other] < CLEAN_RADIUS,
        "both": at_goal.all(),
        "start": episode.start_distance,
        "radius": task.objects[target].radius,
        "damping": task.objects[target].damping,
        "gap": float(np.linalg.norm(places[0, 1] - places[0, 0])),
    }


def wilson(successes: float, n: int) -> tuple[float, float]:
    """95% Wilson interval of a proportion."""
    z, share = 1.96, successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def print_by(columns: dict[str, npt.NDArray[np.float64]], key: str, unit: str, title: str) -> None:
    """The outcomes in five bins of equal size."""
    print(f"\nBy {title}:\n{'':16}{'n':>6}" + "".join(f"{name:>8}" for name in BARS))
    edges = np.quantile(columns[key], np.linspace(0, 1, 6))
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        last = high == edges[-1]
        inside = (columns[key] >= low) & (columns[key] <= high if last else columns[key] < high)
        shares = "".join(f"{columns[name][inside].mean():8.3f}" for name in BARS)
        print(f"{f'{low:.2f} to {high:.2f} {unit}':16}{inside.sum():6d}{shares}")


def main() -> None:
    """Runs the episodes and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the first placement")
    parser.add_argument("--mil", metavar="FOLDER", help="MIL's task files, and not the splits")
    args = parser.parse_args()
    tasks = [task for split in SPLITS for task in make_tasks(split)]
    if args.mil:
        tasks = load_mil_tasks(args.mil)
    chosen = [tasks[i * PRIME % len(tasks)] for i in range(args.episodes)]
    for task in chosen:  # compiled beforehand: the speed is the expert's, not the compiler's
        scene.build_model(task)
    begun = time.process_time()
    episodes = record_episodes([Attempt(task, args.seed + i) for i, task in enumerate(chosen)])
    seconds = time.process_time() - begun
    rows = [outcomes(episode) for episode in episodes]
    columns = {key: np.array([row[key] for row in rows], dtype=float) for key in rows[0]}
    n = len(rows)
    print(f"{n} episodes, unfiltered\n\n{'':8}{'share':>7}   95% interval    bar")
    for name, bar in BARS.items():
        low, high = wilson(columns[name].sum(), n)
        interval = f"{low:.4f}-{high:.4f}"
        print(f"{name:8}{columns[name].mean():7.4f}   {interval}   {bar}  {MEANING[name]}")
    if args.mil:
        print_by(columns, "radius", "m", "the target's radius; the bars are those of the splits")
    print_by(columns, "start", "m", "the target's start distance (acceptance is mil)")
    print_by(columns, "gap", "m", "the objects' distance at the start")
    print_by(columns, "damping", "", "the target's damping, N s/m")
    print(f"\n{n / seconds:.1f} demonstrations/s of CPU time on one core (bar: 8)")


if __name__ == "__main__":
    main()
