"""What many trials say."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from ent_bc.evaluation import ENV_ID, Trial
from ent_bc.statistics import (
    FAILURES,
    Rate,
    Sentences,
    by_quartile,
    embed_tasks,
    embedding_metrics,
    pair_distances,
    rate,
    summarise,
)

OUTCOMES = {
    "shown only": {"success": True, "success_other": False},
    "other only": {"success": False, "success_other": True},
    "both": {"success": True, "success_other": True},
    "neither": {"success": False, "success_other": False},
}


def trial(outcome: str, pair: str = "p0", **changes: Any) -> Trial:
    base = Trial(
        task_id=f"{pair}a",
        pair_id=pair,
        seed=0,
        success=False,
        success_other=False,
        strict=False,
        target_moved=0.1,
        distractor_moved=0.0,
        target_distance=0.1,
        distractor_distance=0.2,
    )
    return dataclasses.replace(base, **{**OUTCOMES[outcome], **changes})


def test_a_rate_is_the_share_of_hits_and_says_of_how_many() -> None:
    found = rate([True, True, True, False], ["a", "b", "c", "d"])
    assert found.value == 0.75
    assert found.n == 4
    assert 0 <= found.low <= 0.75 <= found.high <= 1
    assert str(found).startswith("75.0% [") and str(found).endswith("] (n=4)")


def test_wilsons_interval_is_the_known_one() -> None:
    found = rate([True] * 8 + [False] * 2, [str(i) for i in range(10)])
    assert found.wilson_low == pytest.approx(0.4902, abs=1e-4)
    assert found.wilson_high == pytest.approx(0.9433, abs=1e-4)


def test_trials_of_a_pair_that_end_alike_widen_the_bootstrap_beyond_wilson() -> None:
    hits = np.repeat([True, False] * 10, 12)  # 20 pairs, each with 12 equal trials
    found = rate(hits, np.repeat([str(i) for i in range(20)], 12).tolist())
    assert found.high - found.low > 2 * (found.wilson_high - found.wilson_low)


def test_where_pairs_do_not_matter_the_bootstrap_is_about_as_wide_as_wilson() -> None:
    hits = np.random.default_rng(0).random(2_000) < 0.7
    found = rate(hits, [str(i // 2) for i in range(2_000)])
    width, wilson = found.high - found.low, found.wilson_high - found.wilson_low
    assert width == pytest.approx(wilson, rel=0.15)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(100):
        of_pair = rng.beta(6, 2, size=37)  # mean 0.75
        hits = rng.random((37, 12)) < of_pair[:, None]
        found = rate(hits.ravel(), np.repeat(np.arange(37).astype(str), 12).tolist())
        covered.append(found.low <= 0.75 <= found.high)
    assert np.mean(covered) >= 0.87


def test_a_pair_with_more_trials_weighs_more() -> None:
    assert rate([True] * 9 + [False], ["a"] * 9 + ["b"]).value == 0.9


def test_the_same_trials_give_the_same_interval() -> None:
    hits, groups = [True, False, True, True], ["a", "a", "b", "c"]
    assert rate(hits, groups) == rate(hits, groups)


def test_a_rate_survives_json() -> None:
    found = rate([True, False], ["a", "b"])
    assert Rate(**json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize(("hits", "groups"), [([], []), ([True], ["a", "b"])])
def test_a_rate_of_nothing_is_refused(hits: list[bool], groups: list[str]) -> None:
    with pytest.raises(ValueError, match="expected as many"):
        rate(hits, groups)


def test_each_trial_has_exactly_one_outcome() -> None:
    trials = [trial(outcome, f"p{i}") for i, outcome in enumerate(OUTCOMES)]
    summary = summarise(trials)
    exclusive = ("shown_only", "other_only", "both", "neither")
    assert all(summary[name]["value"] == 0.25 for name in exclusive)
    assert summary["shown"]["value"] == 0.5  # shown only, both
    assert summary["other"]["value"] == 0.5  # other only, both: the twin control
    assert summary["wrong_object"] == summary["other_only"]
    assert (summary["n_trials"], summary["n_tasks"], summary["n_pairs"]) == (4, 4, 4)


def test_the_twin_control_holds_where_the_other_object_was_brought() -> None:
    trials = [trial("other only")] * 7 + [trial("both")] * 2 + [trial("shown only")]
    assert summarise(trials)["other"]["value"] == pytest.approx(0.9)


def test_failures_are_split() -> None:
    trials = [
        trial("neither", target_moved=0.01),
        trial("neither", target_moved=0.2),
        trial("neither", target_moved=0.2),
        trial("other only", target_moved=0.01),
        trial("shown only", strict=True),
    ]
    summary = summarise(trials)
    counts = [round(summary["failures"][kind]["value"] * 5) for kind in FAILURES]
    assert dict(zip(FAILURES, counts, strict=True)) == {
        "never reached": 1,
        "wrong object": 1,
        "last centimetres": 2,
    }
    assert summary["strict"]["value"] == 0.2


def test_every_number_comes_with_its_n() -> None:
    summary = summarise([trial("both")] * 3)
    rates = [value for value in summary.values() if isinstance(value, dict) and "value" in value]
    assert len(rates) == 8
    assert all(record["n"] == 3 for record in [*rates, *summary["failures"].values()])


def test_no_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        summarise([])


def test_quartiles_go_from_the_most_alike_pairs_to_the_least() -> None:
    pairs = [f"p{i}" for i in range(8)]
    trials = [trial("shown only" if i >= 4 else "other only", p) for i, p in enumerate(pairs)]
    quarters = by_quartile(trials, {pair: 0.1 * i for i, pair in enumerate(pairs)})
    assert [quarter["shown"]["value"] for quarter in quarters] == [0, 0, 1, 1]
    assert [quarter["n_trials"] for quarter in quarters] == [2, 2, 2, 2]
    assert quarters[1]["distance"] == pytest.approx([0.2, 0.3])


def test_few_pairs_make_fewer_quartiles() -> None:
    assert len(by_quartile([trial("both", "a"), trial("both", "b")], {"a": 0.1, "b": 0.2})) == 2


def test_a_pair_without_distance_is_named() -> None:
    with pytest.raises(ValueError, match="p0"):
        by_quartile([trial("both")], {"other": 1.0})


def sentences_of(vectors: list[list[list[float]]]) -> Sentences:
    """Tasks in twins: vectors[task][demonstration]."""
    flat = np.array([v for task in vectors for v in task], np.float32)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    n = len(vectors[0])
    tasks = [f"p{i // 2}{'ab'[i % 2]}" for i in range(len(vectors)) for _ in range(n)]
    return Sentences(flat, tuple(tasks), tuple(task[:-1] for task in tasks))


def test_sentences_that_name_their_task_retrieve_it() -> None:
    metrics = embedding_metrics(sentences_of([[row] * 3 for row in np.eye(6).tolist()]))
    assert metrics["embedding_accuracy"]["value"] == 1
    assert metrics["embedding_accuracy"]["n"] == 18
    assert metrics["twin_accuracy"]["value"] == 1
    assert metrics["embedding_chance"] == pytest.approx(1 / 6)
    assert metrics["n_support"] == 2


def test_sentences_that_name_the_pair_alone_do_not_tell_twins_apart() -> None:
    eye, rng = np.eye(6), np.random.default_rng(0)
    vectors = [
        [(eye[task // 2] + 0.05 * rng.normal(size=6)).tolist() for _ in range(4)]
        for task in range(12)
    ]
    metrics = embedding_metrics(sentences_of(vectors))
    assert 0.2 < metrics["twin_accuracy"]["value"] < 0.8
    assert metrics["embedding_accuracy"]["value"] == pytest.approx(
        metrics["twin_accuracy"]["value"]
    )


def test_tasks_without_twins_have_no_twin_accuracy() -> None:
    sentences = Sentences(np.eye(4, dtype=np.float32), ("a", "a", "b", "b"), ("1", "1", "2", "2"))
    assert embedding_metrics(sentences)["twin_accuracy"] is None


def test_retrieval_needs_two_demonstrations_of_each_task() -> None:
    sentences = Sentences(np.eye(3, dtype=np.float32), ("a", "a", "b"), ("1", "1", "1"))
    with pytest.raises(ValueError, match="at least 2"):
        embedding_metrics(sentences)


def test_sentences_are_as_many_as_their_names() -> None:
    with pytest.raises(ValueError, match="3 sentences"):
        Sentences(np.eye(3, dtype=np.float32), ("a", "b"), ("1", "1"))


class _Recorder:
    """Embeds by counting."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def embed(self, demonstrations: Any) -> np.ndarray:
        self.seen.append(demonstrations)
        return np.eye(20, dtype=np.float32)[len(self.seen)]

    def predict(self, *_: Any, **__: Any) -> Any:
        raise AssertionError


def test_tasks_are_embedded_from_single_demonstrations() -> None:
    model = _Recorder()
    sentences = embed_tasks(model, ENV_ID, {"split": "val", "n_tasks": 2}, seed=1)
    assert sentences.vectors.shape == (4, 20)
    assert list(sentences.task_ids) == [demo.task_id for demo in model.seen]
    assert len(set(sentences.task_ids)) == 2 and len(set(sentences.pair_ids)) == 1


def test_distances_of_pairs_lie_between_zero_and_one() -> None:
    distances = pair_distances(ENV_ID, {"split": "val", "n_tasks": 6})
    assert len(distances) == 3
    assert all(0 < distance < 1 for distance in distances.values())


def test_close_ups_show_the_objects_and_nothing_of_the_roles() -> None:
    env: Any = gym.make(ENV_ID, split="val", n_tasks=2).unwrapped
    task = env.tasks[0]
    crops = env.object_crops(task)
    assert crops.shape == (2, 32, 32, 3) and crops.dtype == np.uint8
    np.testing.assert_array_equal(crops, env.object_crops(task.twin))
    same = dataclasses.replace(task, objects=(task.objects[0],) * 2)
    equal = env.object_crops(same)
    np.testing.assert_array_equal(equal[0], equal[1])
    np.testing.assert_array_equal(equal[0], crops[0])
