"""What counts as a demonstration, what is wrong with what does not, and what is read of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from imitation.data import types
from toys import (
    ACTION_SPACE,
    AGENT_SPACE,
    DICT_SPACE,
    IMAGE_SIZE,
    N_ACTIONS,
    N_STEPS,
    PIXELS_SPACE,
    SENTENCE_SPACE,
    SPACES,
    STATE_DIM,
    STATE_SPACE,
    Demo,
    make_demonstrations,
)

from ent_bc import as_trajectories
from ent_bc.demonstrations import (
    check_demonstrations,
    end_observations,
    group_by_task,
    index_obs,
    sample_vectors,
)


def replace(demo: Demo, **changes: Any) -> Demo:
    return dataclasses.replace(demo, **changes)


def with_obs(demo: Demo, key: str, value: Any) -> Demo:
    return replace(demo, obs={**demo.obs, key: value})


@pytest.mark.parametrize("obs_type", SPACES)
def test_good_demonstrations_pass_also_as_trajectories(obs_type: str) -> None:
    demonstrations = make_demonstrations(obs_type)
    check_demonstrations(demonstrations, SPACES[obs_type], ACTION_SPACE)
    check_demonstrations(as_trajectories(demonstrations), SPACES[obs_type], ACTION_SPACE)


def test_demonstrations_need_no_sentence_where_the_policy_is_told_one() -> None:
    told = spaces.Dict({**DICT_SPACE.spaces, "sentence": SENTENCE_SPACE})
    check_demonstrations(make_demonstrations("pixels_agent_pos"), told, ACTION_SPACE)


CHW_SPACE = spaces.Box(0, 255, (3, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
STATE, PIXELS, BOTH = (make_demonstrations(obs_type, n_pairs=1)[0] for obs_type in SPACES)
NAN_OBS, NAN_ACTS = STATE.obs.copy(), STATE.acts.copy()
NAN_OBS[5, 3] = NAN_ACTS[2, 1] = np.nan


@pytest.mark.parametrize(
    ("obs_type", "bad", "message"),
    [
        pytest.param("state", [], "is empty, expected at least one", id="none"),
        pytest.param("state", STATE, "are a Demo, expected a sequence", id="not a list"),
        pytest.param(
            "state",
            [STATE.obs],
            "Demonstration 0 is a ndarray, expected a record with obs, acts and infos",
            id="bare array",
        ),
        pytest.param(
            "state",
            [STATE, replace(STATE, obs=STATE.obs[:, 1:])],
            f"Demonstration 1 has shape ({N_STEPS + 1}, {STATE_DIM - 1}), "
            f"expected (T, {STATE_DIM}) of float32",
            id="shape",
        ),
        pytest.param(
            "pixels",
            [replace(PIXELS, obs=PIXELS.obs[:, ::2, ::2])],
            f"has shape ({N_STEPS + 1}, 12, 12, 3), expected (T, {IMAGE_SIZE}, {IMAGE_SIZE}, 3)",
            id="image size",
        ),
        pytest.param(
            "pixels_agent_pos",
            [with_obs(BOTH, "pixels", BOTH.obs["pixels"][:, :12])],
            f"Demonstration 0, observation 'pixels', has shape ({N_STEPS + 1}, 12, 24, 3)",
            id="image size in a Dict",
        ),
        pytest.param(
            "pixels",
            [replace(PIXELS, obs=PIXELS.obs / 255)],
            "has dtype float64, expected (T, 24, 24, 3) of uint8",
            id="dtype of an image",
        ),
        pytest.param(
            "state",
            [replace(STATE, obs=STATE.obs.astype(np.int64))],
            f"has dtype int64, expected (T, {STATE_DIM}) of float32",
            id="dtype of a state",
        ),
        pytest.param(
            "state",
            [replace(STATE, obs=NAN_OBS)],
            "Demonstration 0 has NaN or infinite observations",
            id="NaN in obs",
        ),
        pytest.param(
            "pixels_agent_pos",
            [with_obs(BOTH, "agent_pos", np.full_like(BOTH.obs["agent_pos"], np.inf))],
            "observation 'agent_pos', has NaN or infinite observations",
            id="infinity in a Dict",
        ),
        pytest.param(
            "state",
            [replace(STATE, acts=NAN_ACTS)],
            "Demonstration 0 has NaN or infinite actions",
            id="NaN in acts",
        ),
        pytest.param(
            "state",
            [replace(STATE, acts=STATE.acts[:, :2])],
            f"has actions of shape ({N_STEPS}, 2), expected (T, *({N_ACTIONS},))",
            id="shape of acts",
        ),
        pytest.param(
            "state",
            [replace(STATE, acts=STATE.acts.astype(str))],
            "has actions of <U32, expected numbers",
            id="dtype of acts",
        ),
        pytest.param(
            "state",
            [replace(STATE, acts=STATE.acts[1:])],
            f"has {N_STEPS + 1} observations and {N_STEPS - 1} actions, expected {N_STEPS} obs",
            id="number of acts",
        ),
        pytest.param(
            "pixels_agent_pos",
            [replace(BOTH, obs={"pixels": BOTH.obs["pixels"]})],
            "has no observation ['agent_pos']",
            id="key",
        ),
        pytest.param(
            "pixels_agent_pos", [PIXELS], "has no observation ['agent_pos', 'pixels']", id="no Dict"
        ),
        pytest.param("pixels", [BOTH], "has shape None, expected (T, 24, 24, 3)", id="a Dict"),
    ],
)
def test_what_is_wrong_is_named(obs_type: str, bad: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        check_demonstrations(bad, SPACES[obs_type], ACTION_SPACE)
    assert message in str(error.value)


@pytest.mark.parametrize("infos", [None, [], [{"step": 0}]])
def test_a_demonstration_must_say_its_task(infos: Any) -> None:
    with pytest.raises(ValueError, match="Demonstration 1 does not say its task: expected 'task_i"):
        group_by_task([STATE, replace(STATE, infos=infos)])


def test_demonstrations_are_grouped_by_task() -> None:
    demonstrations = make_demonstrations(n_pairs=1, n_demos=2)
    assert group_by_task(demonstrations[::-1]) == {"0b": [0, 1], "0a": [2, 3]}


# --- what a sentence is made from ---


def test_of_a_video_the_first_and_the_last_frame_are_read() -> None:
    for demo in (BOTH, as_trajectories([BOTH])[0], BOTH.obs["pixels"]):
        first, last = end_observations([demo, BOTH], DICT_SPACE)
        assert set(first) == set(last) == {"pixels"}
        assert np.array_equal(first["pixels"], BOTH.obs["pixels"][[0, 0]])
        assert np.array_equal(last["pixels"], BOTH.obs["pixels"][[-1, -1]])


def test_of_a_state_demonstration_the_first_and_the_last_state_are_read() -> None:
    first, last = end_observations([STATE, STATE.obs[:4]], STATE_SPACE)
    assert np.array_equal(first, STATE.obs[[0, 0]])
    assert np.array_equal(last, STATE.obs[[-1, 3]])


def test_of_a_dict_without_an_image_all_vectors_are_read() -> None:
    space = spaces.Dict({"agent_pos": AGENT_SPACE, "sentence": SENTENCE_SPACE})
    for demo in (BOTH, BOTH.obs["agent_pos"]):
        first, last = end_observations([demo], space)
        assert set(first) == set(last) == {"agent_pos"}
        assert np.array_equal(last["agent_pos"], BOTH.obs["agent_pos"][[-1]])


def test_a_dict_of_sentences_alone_has_nothing_to_be_read() -> None:
    with pytest.raises(ValueError, match="nothing to make a sentence from: expected an image"):
        end_observations([BOTH], spaces.Dict({"sentence": SENTENCE_SPACE}))


@pytest.mark.parametrize("space", [PIXELS_SPACE, CHW_SPACE])
def test_frames_may_be_in_either_order_of_axes(space: spaces.Box) -> None:
    frames = BOTH.obs["pixels"]
    for given in (frames, frames.transpose(0, 3, 1, 2)):
        first, _ = end_observations([given], space)
        assert np.array_equal(first[0], given[0])


def test_two_vectors_cannot_come_as_one_array() -> None:
    space = spaces.Dict({"agent_pos": AGENT_SPACE, "goal": AGENT_SPACE})
    with pytest.raises(ValueError, match=r"is a bare array, expected observations \['agent_pos', "):
        end_observations([BOTH.obs["agent_pos"]], space)


def test_a_dict_without_the_image_is_named() -> None:
    with pytest.raises(ValueError, match=r"has observations \['agent_pos'\], expected"):
        end_observations([replace(BOTH, obs={"agent_pos": BOTH.obs["agent_pos"]})], DICT_SPACE)


# --- helpers on observations ---


@pytest.mark.parametrize("wrap", [dict, types.DictObs])
def test_indexing_takes_mappings_and_dict_obs_and_copies(wrap: Any) -> None:
    picked = index_obs(wrap(BOTH.obs), [0, -1])
    assert isinstance(picked, dict)
    for key, value in picked.items():
        assert np.array_equal(value, BOTH.obs[key][[0, -1]])
        assert not np.shares_memory(value, BOTH.obs[key])
    assert np.array_equal(index_obs(PIXELS.obs, [3]), PIXELS.obs[[3]])


def test_statistics_are_taken_from_vectors_and_never_from_images() -> None:
    demonstrations = make_demonstrations("pixels_agent_pos", n_pairs=1)
    for demos in (demonstrations, as_trajectories(demonstrations)):
        vectors = sample_vectors(demos, np.random.default_rng(0))
        assert isinstance(vectors, dict) and set(vectors) == {"agent_pos"}
        assert np.array_equal(
            vectors["agent_pos"], np.concatenate([d.obs["agent_pos"] for d in demonstrations])
        )
    states = sample_vectors(make_demonstrations(n_pairs=100, n_demos=2), np.random.default_rng(0))
    assert isinstance(states, np.ndarray)
    assert states.shape == (256 * (N_STEPS + 1), STATE_DIM)  # a sample is enough


# --- as imitation's trajectories ---


@pytest.mark.parametrize("obs_type", SPACES)
def test_as_trajectories_keeps_everything(obs_type: str) -> None:
    demonstrations = make_demonstrations(obs_type)
    trajectories = as_trajectories(demonstrations)
    assert len(trajectories) == len(demonstrations)
    for demo, trajectory in zip(demonstrations, trajectories, strict=True):
        assert type(trajectory) is types.Trajectory
        assert np.array_equal(trajectory.acts, demo.acts)
        assert isinstance(trajectory.infos, list) and trajectory.infos == demo.infos
        assert trajectory.terminal is False
        if isinstance(demo.obs, dict):
            assert isinstance(trajectory.obs, types.DictObs)
            assert trajectory.obs == types.DictObs(demo.obs)
        else:
            assert trajectory.obs is demo.obs


def test_rewards_go_along() -> None:
    @dataclasses.dataclass(frozen=True)
    class Rewarded(Demo):
        rews: np.ndarray = dataclasses.field(default_factory=lambda: np.linspace(0, 1, N_STEPS))

    (trajectory,) = as_trajectories([Rewarded(STATE.obs, STATE.acts, STATE.infos, terminal=True)])
    assert isinstance(trajectory, types.TrajectoryWithRew) and trajectory.terminal is True
    assert np.array_equal(trajectory.rews, np.linspace(0, 1, N_STEPS))


def test_trajectories_stay_what_they_are() -> None:
    once = as_trajectories(make_demonstrations("pixels_agent_pos", n_pairs=1))
    assert as_trajectories(once) == once


def test_a_sparse_demonstration_is_no_trajectory() -> None:
    @dataclasses.dataclass(frozen=True)
    class Sparse(Demo):
        steps: np.ndarray = dataclasses.field(default_factory=lambda: np.arange(N_STEPS + 1))

    full = Sparse(STATE.obs, STATE.acts, STATE.infos)
    as_trajectories([full])
    steps = np.array([0, 4, N_STEPS])
    sparse = replace(full, obs=STATE.obs[steps], steps=steps)
    with pytest.raises(
        ValueError, match=r"Demonstration 1 has .* 3 of 13 time steps.*DemonstrationSet\.full"
    ):
        as_trajectories([full, sparse])


def test_the_image_space_of_the_toys_is_what_the_messages_say() -> None:
    assert PIXELS_SPACE.shape == (IMAGE_SIZE, IMAGE_SIZE, 3) == (24, 24, 3)
