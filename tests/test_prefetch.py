"""Batches made ahead, and read from the disk all at once, are the same batches."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import make_demonstrations

from ent_bc import BatchConfig
from ent_bc.batches import TaskBatches
from ent_bc.prefetch import prefetch
from ent_bc.speed import large_data
from meta_pusher_env.collection import collect
from meta_pusher_env.dataset_layout import CollectConfig
from meta_pusher_env.datasets import DemonstrationSet


def test_items_come_in_their_order_each_made_while_the_one_before_is_used() -> None:
    made = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            assert threading.current_thread() is not threading.main_thread()
            event.set()
            yield number

    for number in prefetch(items()):
        assert all(event.wait(10) for event in made[: number + 2])
        assert not any(event.is_set() for event in made[number + 2 :])
    assert number == 3


def test_an_error_comes_where_the_item_would() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise ValueError("no more")

    ahead = prefetch(items())
    assert next(ahead) == 0
    with pytest.raises(ValueError, match="no more"):
        next(ahead)


def test_who_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    ahead = prefetch(iter(range(9)))
    next(ahead)
    assert threading.active_count() == before + 1
    ahead.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_data_set_is_told_what_a_batch_will_read_of_it() -> None:
    told: dict[int, list[int]] = {}
    read: list[int] = []

    class OnDisk(list[Any]):
        def will_read(self, wanted: Iterable[tuple[int, Iterable[int]]]) -> None:
            told.update({index: [int(place) for place in places] for index, places in wanted})
            read.clear()

        def read_obs(self, index: int, places: Sequence[int]) -> Any:
            read.append(index)
            return self[index].obs[list(places)]

    demonstrations = make_demonstrations(n_pairs=4, n_demos=4)
    config = BatchConfig(n_steps=3)
    batch = TaskBatches(OnDisk(demonstrations), 4, config, seed=0).batch(5)
    assert len(told) == 8 and read == list(told)
    for (index, places), of_demo, ends in zip(
        told.items(),
        batch["obs"]["obs"].reshape(8, 3, -1),
        batch["obs"]["demo"].reshape(8, 2, -1),
        strict=True,
    ):
        obs = demonstrations[index].obs
        assert places[0] == 0 and places[-1] == -1
        assert np.array_equal(of_demo, obs[places[1:-1]]) and np.array_equal(ends, obs[[0, -1]])
    plain = TaskBatches(demonstrations, 4, config, seed=0).batch(5)
    assert np.array_equal(plain["acts"], batch["acts"])


@pytest.mark.parametrize("obs_type", ["pixels_agent_pos", "state"])
def test_exactly_what_will_be_read_is_fetched_from_the_disk(
    obs_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CollectConfig(n_tasks=4, obs_type=obs_type, image_size=24, demos_per_task=3)
    large_data.write(tmp_path, config)
    data = DemonstrationSet(tmp_path)
    name = "state_obs" if obs_type == "state" else "pixels"
    for shard in tmp_path.glob("shard-*"):  # what was written is the same at all places
        array = np.load(shard / f"{name}.npy", mmap_mode="r+")
        array[:] = np.random.default_rng(0).integers(0, 256, array.shape)
        array.flush()
    fetched: list[bytes] = []
    monkeypatch.setattr(
        os,
        "posix_fadvise",
        lambda file, start, size, advice: fetched.append(os.pread(file, size, start)),
    )
    data.will_read([(7, [0, 4, -1]), (2, [3])])
    observations = [data[index].obs for index in (7, 7, 7, 2)]
    expected = [
        (obs["pixels"] if isinstance(obs, dict) else obs)[place]
        for obs, place in zip(observations, (0, 4, -1, 3), strict=True)
    ]
    assert fetched == [array.tobytes() for array in expected]


@pytest.mark.parametrize("obs_type", ["pixels_agent_pos", "pixels", "state"])
def test_what_is_read_from_the_file_is_what_the_map_shows(obs_type: str, tmp_path: Path) -> None:
    data = collect(tmp_path, CollectConfig(n_tasks=2, obs_type=obs_type, demos_per_task=2))
    read, obs = data.read_obs(3, [0, -1, 5, 5]), data[3].obs
    pairs = [(read[key], obs[key]) for key in obs] if isinstance(obs, dict) else [(read, obs)]
    assert isinstance(read, dict) == isinstance(obs, dict)
    for ours, shown in pairs:
        assert ours.dtype == shown.dtype and np.array_equal(ours, shown[[0, -1, 5, 5]])
        ours[:] = 0  # a copy of its own
        assert shown.any()


def test_a_closed_data_set_opens_again_when_used(tmp_path: Path) -> None:
    large_data.write(tmp_path, CollectConfig(n_tasks=2, image_size=24, demos_per_task=2))
    data = DemonstrationSet(tmp_path)
    before = np.array(data[1].obs["pixels"])  # type: ignore[call-overload]
    maps = Path("/proc/self/maps")
    assert str(tmp_path) in maps.read_text()
    data.close()
    assert str(tmp_path) not in maps.read_text()
    assert np.array_equal(data[1].obs["pixels"], before)  # type: ignore[call-overload]


def test_a_disk_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2**20}))
    with pytest.raises(OSError, match=r"0.0 GiB of room and .* set TMPDIR"):
        large_data.write(tmp_path, CollectConfig(image_size=125, demos_per_task=12))
