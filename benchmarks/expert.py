"""Measures the scripted expert, before any filtering: ``python benchmarks/expert.py``.

Episodes are spread over the tasks of all three splits, or of ``--mil FOLDER``; placement ``i`` is
drawn with seed ``--seed + i``, so a run can be repeated exactly.
"""

from __future__ import annotations

import argparse
import time

import mujoco
import numpy as np
import numpy.typing as npt

from meta_pusher_env import env, scene
from meta_pusher_env.expert import Expert
from meta_pusher_env.mil import load_mil_tasks
from meta_pusher_env.tasks import SPLITS, PusherTask, make_tasks

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


def run_episode(task: PusherTask, seed: int) -> dict[str, float]:
    """One episode of the expert: the four outcomes (0 or 1) and where the target started."""
    model = scene.build_model(task)
    data = mujoco.MjData(model)
    placement = scene.draw_placement(np.random.default_rng(seed))
    data.qpos[scene.N_JOINTS :] = placement.object_qpos.ravel()
    data.qvel[: scene.N_JOINTS] = placement.joint_velocities
    mujoco.mj_forward(model, data)
    expert = Expert(model, task.target)
    steps_at_goal = np.zeros(2, dtype=int)
    for _ in range(env.EPISODE_STEPS):
        data.ctrl[:] = expert.act(data)
        scene.advance(model, data, env.FRAME_SKIP)
        steps_at_goal += scene.goal_distances(data) ** 2 < env.GOAL_RADIUS_SQUARED
    target, other = task.target, 1 - task.target
    distances, at_goal = scene.goal_distances(data), steps_at_goal >= env.GOAL_STEPS
    start = placement.object_qpos[:, :2]
    moved = np.linalg.norm(scene.object_xy(data) - start, axis=1)
    return {
        "mil": at_goal[target],
        "strict": distances[target] < min(env.STRICT_RADIUS, distances[other]),
        "clean": moved[other] < CLEAN_RADIUS,
        "both": at_goal.all(),
        "start": float(np.linalg.norm(start[target] - scene.GOAL)),
        "radius": task.objects[task.target].radius,
        "damping": task.objects[target].damping,
        "gap": float(np.linalg.norm(start[1] - start[0])),
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
    rows = [run_episode(task, args.seed + i) for i, task in enumerate(chosen)]
    seconds = time.process_time() - begun
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
