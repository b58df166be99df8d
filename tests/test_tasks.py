"""Tasks come in twins; splits are a pure function of a seed, frozen in the manifest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meta_pusher_env import objects
from meta_pusher_env.tasks import (
    DEFAULT_N_TASKS,
    SPLITS,
    PusherTask,
    hash_tasks,
    make_manifest,
    make_tasks,
    read_manifest,
)


def families(tasks: tuple[PusherTask, ...], kind: str) -> set[str]:
    return {getattr(spec, kind) for task in tasks for spec in task.objects}


# --- twins ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_twins_stand_side_by_side_and_differ_in_the_target_alone(split: str) -> None:
    tasks = make_tasks(split)
    for first, second in zip(tasks[::2], tasks[1::2], strict=True):
        assert (first.twin, second.twin) == (second, first)
        assert first.objects == second.objects
        assert first.pair_id == second.pair_id
        assert (first.target, second.target) == (0, 1)
        assert first.objects[0] != first.objects[1]
    assert len({task.task_id for task in tasks}) == len(tasks)


def test_twin_of_the_twin_is_the_task() -> None:
    task = make_tasks("val")[4]
    assert task.twin.twin == task
    assert task.twin != task
    assert task.twin.task_id != task.task_id


# --- splits ---------------------------------------------------------------------------------------


def test_default_sizes_are_those_of_mil() -> None:
    sizes = {split: len(make_tasks(split)) for split in SPLITS}
    assert sizes == {"train": 694, "val": 76, "test": 74} == dict(DEFAULT_N_TASKS)


@pytest.mark.parametrize("split_seed", [0, 1])
@pytest.mark.parametrize("kind", ["shape", "texture"])
def test_families_of_the_test_split_occur_in_no_other(kind: str, split_seed: int) -> None:
    found = {split: families(make_tasks(split, 1000, split_seed), kind) for split in SPLITS}
    assert not found["test"] & (found["train"] | found["val"])
    assert found["train"] == found["val"]  # with so many tasks, each occurs
    known = objects.SHAPE_FAMILIES if kind == "shape" else objects.TEXTURE_FAMILIES
    assert found["test"] | found["train"] == set(known)
    assert len(known) >= 12


def test_no_pair_occurs_twice() -> None:
    pairs = [t.objects for split in SPLITS for s in (0, 1) for t in make_tasks(split, None, s)[::2]]
    assert len(set(pairs)) == len(pairs)


def test_the_same_arguments_give_the_same_tasks() -> None:
    assert make_tasks("train", 40, 7) == make_tasks("train", 40, 7)
    assert make_tasks("train", 694, 0) == make_tasks("train")


@pytest.mark.parametrize("split", SPLITS)
def test_more_tasks_extend_fewer(split: str) -> None:
    assert make_tasks(split, 200)[:60] == make_tasks(split, 60)
    assert make_tasks(split, 2) == make_tasks(split)[:2]


def test_another_seed_is_another_universe() -> None:
    ours, theirs = make_tasks("test", None, 0), make_tasks("test", None, 1)
    assert not {task.objects for task in ours} & {task.objects for task in theirs}
    assert not {task.task_id for task in ours} & {task.task_id for task in theirs}


def test_look_alikes_are_part_of_the_benchmark() -> None:
    pairs = [task.objects for task in make_tasks("train", 4000)[::2]]
    same_colour = [a.color == b.color for a, b in pairs]
    same_all = [(a.shape, a.texture, a.color) == (b.shape, b.texture, b.color) for a, b in pairs]
    assert sum(same_colour) / len(pairs) == pytest.approx(objects.LOOK_ALIKE_PROBABILITY, abs=0.03)
    assert any(same_all)


# --- records --------------------------------------------------------------------------------------


def test_manifest_is_what_the_code_makes() -> None:
    """The generator is frozen: a change of any default task must come with a new version."""
    assert read_manifest() == make_manifest()


def test_manifest_holds_the_hash_of_each_split() -> None:
    manifest = read_manifest()
    assert manifest["sha256"] == {split: hash_tasks(make_tasks(split)) for split in SPLITS}
    assert manifest["generator"]["look_alike_probability"] == 0.2


def test_hash_changes_with_any_task() -> None:
    tasks = make_tasks("val")
    assert hash_tasks(tasks[:-2]) != hash_tasks(tasks)
    assert hash_tasks((tasks[0].twin, *tasks[1:])) != hash_tasks(tasks)


@pytest.mark.parametrize("split", SPLITS)
def test_json_round_trip(split: str) -> None:
    for task in make_tasks(split)[:20]:
        again = PusherTask.from_dict(json.loads(json.dumps(task.to_dict())))
        assert again == task
        assert hash(again) == hash(task)
        assert again.task_id == task.task_id


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "training"}, "'training'.*expected one of train, val, test"),
        ({"split": None}, "None.*expected one of train, val, test"),
        ({"n_tasks": 7}, "7, expected an even number"),
        ({"n_tasks": 0}, "0, expected an even number of at least 2"),
        ({"n_tasks": -2}, "-2, expected an even number of at least 2"),
        ({"n_tasks": 4.0}, "4.0, expected an even number"),
        ({"n_tasks": "4"}, "'4', expected an even number"),
        ({"split_seed": -1}, "-1, expected an integer of at least 0"),
        ({"split_seed": 0.5}, "0.5, expected an integer of at least 0"),
    ],
)
def test_bad_split_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_tasks(**({"split": "train"} | arguments))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 2}, "target is 2, expected 0 or 1"),
        ({"target": "a"}, "target is 'a', expected 0 or 1"),
        ({"target": True}, "target is True, expected 0 or 1"),
        ({"target": 1.0}, "target is 1.0, expected 0 or 1"),
        ({"pair_id": 3}, "pair_id is 3, expected"),
        ({"objects": []}, "expected a list of two object specs"),
        ({"objects": ["a", "b"]}, "must be a mapping"),
        ({"objects": None}, "expected a list of two object specs"),
    ],
)
def test_bad_task_record_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PusherTask.from_dict(make_tasks("val")[0].to_dict() | change)


def test_missing_field_of_a_task_record_is_named() -> None:
    record = make_tasks("val")[0].to_dict()
    del record["target"]
    with pytest.raises(ValueError, match=r"lacks \['target'\]"):
        PusherTask.from_dict(record)


def test_a_task_needs_two_object_specs() -> None:
    task = make_tasks("val")[0]
    with pytest.raises(ValueError, match="expected a tuple of two ObjectSpec"):
        PusherTask(pair_id="x", objects=task.objects[:1], target=0)  # type: ignore[arg-type]
