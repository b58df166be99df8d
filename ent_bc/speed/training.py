"""Training the paper's net: its step, batches from a disk, memory; one torch thread each."""

from __future__ import annotations

import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from torch.utils._pytree import tree_map

from ent_bc import BatchConfig, EntBC
from ent_bc.batches import TaskBatches
from ent_bc.layers import use_low_precision
from ent_bc.presets import PRESETS
from ent_bc.schedule import bfloat16_is_fast
from ent_bc.speed import large_data
from ent_bc.speed.plain_net import PlainNet
from ent_bc.speed.rows import Row, in_turn, rate
from meta_pusher_env.dataset_layout import CollectConfig
from meta_pusher_env.datasets import DemonstrationSet

FULL = CollectConfig(image_size=125, demos_per_task=12, frames_per_demo=9)  # 4.2 GiB, 694 tasks
QUICK = CollectConfig(n_tasks=8, image_size=24, demos_per_task=2, frames_per_demo=1)
MEMORY_LIMIT = 2.0  # GiB


def measure(*, quick: bool) -> list[Row]:
    """Rows of training on demonstrations of noise, as many and as large as real ones."""
    config, n, n_epochs = (QUICK, 1, 2) if quick else (FULL, 9, 3)
    th.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            large_data.write(Path(folder), config)
        except OSError as error:
            warnings.warn(f"Training is not measured: {error}", stacklevel=2)
            return []
        data = DemonstrationSet(folder)
        rows = [_step_row(data, n), _loading_row(data, n, n_epochs)]
        data.close()
        # In a process of its own, which the nets above have not made larger.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            memory = pool.submit(_peak_memory, folder, n_epochs).result()
    name, limit = f"anonymous memory, training on {len(data):,} demonstrations", "the limit"
    return [*rows, Row(name, limit, "GiB", (memory,), (MEMORY_LIMIT,), at_most=1.0)]


def _step_row(data: DemonstrationSet, n: int) -> Row:
    model = _make_model(data)
    assert isinstance(model._batches, TaskBatches)
    batch = model._batches.batch(0)
    use_low_precision(model.policy, model.schedule.low_precision)
    model.policy.set_training_mode(True)
    plain = _plain_step(model, batch)
    ours, theirs = in_turn(n, rate(lambda: model._train_step([batch], 1), 1), rate(plain, 1))
    return Row(
        "training step of preset paper, 1 + 1 demonstrations",
        "the same net written plainly",
        "steps/s",
        ours,
        theirs,
        at_least=4.0 if bfloat16_is_fast() else 2.0,
    )


def _plain_step(model: EntBC, batch: dict[str, Any]) -> Callable[[], None]:
    net = PlainNet(model.policy)
    optimizer = th.optim.Adam(net.parameters(), lr=model.peak_learning_rate)

    def step() -> None:
        optimizer.zero_grad()
        tensors = tree_map(th.as_tensor, batch)
        loss = model.loss_calculator(net, tensors["obs"], tensors["acts"]).loss  # type: ignore[arg-type]
        loss.backward()
        th.nn.utils.clip_grad_norm_(net.parameters(), model.schedule.max_grad_norm)
        optimizer.step()

    return step


def _loading_row(data: DemonstrationSet, n: int, n_epochs: int) -> Row:
    """Steps on batches from the disk beside steps on batches in memory, the first of each apart.

    Before each epoch the data set's pages are dropped. That is not counted.
    """
    loaded, kept = _make_model(data), _make_model(data)
    assert isinstance(kept._batches, TaskBatches)
    made = [kept._batches.batch(number) for number in range(len(kept._batches))]
    kept._batches.batch = lambda number: made[number % len(made)]  # type: ignore[method-assign]

    def forget() -> None:
        data.close()
        large_data.drop_pages(data.directory)

    ours, theirs = in_turn(
        n, lambda: _train(loaded, n_epochs, forget), lambda: _train(kept, n_epochs, forget)
    )
    gibibytes = sum(path.stat().st_size for path in data.directory.rglob("*.npy")) / 2**30
    name = f"training on batches from a data set of {gibibytes:.1f} GiB, dropped from memory"
    return Row(name, "on batches in memory", "s", ours, theirs, at_most=1.05)


def _train(model: EntBC, n_epochs: int, forget: Callable[[], None]) -> float:
    """Seconds that some epochs take, from the end of their first step on."""
    ends: list[float] = []
    pauses: list[float] = []

    def on_epoch_end() -> None:
        start = time.perf_counter()
        forget()
        pauses.append(time.perf_counter() - start)

    forget()
    model.train(
        n_epochs=n_epochs,
        on_epoch_end=on_epoch_end,
        on_batch_end=lambda: ends.append(time.perf_counter()),
        progress_bar=False,
    )
    return ends[-1] - ends[0] - sum(pauses[:-1])


def _peak_memory(folder: str, n_epochs: int) -> float:
    """The most anonymous memory (RssAnon) that this process has while it trains, GiB."""
    th.set_num_threads(1)
    model = _make_model(DemonstrationSet(folder))
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, _anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        model.train(n_epochs=2 * n_epochs, progress_bar=False)
    finally:
        done.set()
        watcher.join()
    return peak


def _anonymous_memory() -> float:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 2**20
    raise OSError("/proc/self/status has no RssAnon: memory is measured on Linux alone.")


def _make_model(data: DemonstrationSet) -> EntBC:
    """Preset `paper`, one-shot, on images of the data set's size."""
    preset = PRESETS["paper"]
    env = gym.make(
        "meta_pusher_env:MetaPusher-v0", obs_type=preset.obs_type, image_size=data.config.image_size
    )
    arguments = preset.arguments(preset.n_batches) | {"batches": BatchConfig(1, 1, 1, 0.0)}
    return EntBC(
        observation_space=env.observation_space,
        action_space=env.action_space,
        demonstrations=data,
        seed=0,
        device="cpu",
        **arguments,
    )
