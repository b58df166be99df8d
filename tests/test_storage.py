"""A model is one file of JSON and safetensors; what it says is what was trained."""

from __future__ import annotations

import json
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch as th
from gymnasium import spaces
from safetensors.torch import save_file
from test_policies import some_obs, some_sentences
from toys import (
    ACTION_SPACE,
    DICT_SPACE,
    SLOTS,
    SPACES,
    STATE_SPACE,
    make_demonstrations,
    make_model,
    parameters_of,
    same,
)

from ent_bc import BatchConfig, EntBC, LossConfig, ScheduleConfig, TaskConditionedPolicy
from ent_bc.inputs import SlotLayout
from ent_bc.policies import MIN_SIGMA
from ent_bc.storage import space_from_dict, space_to_dict


def trained(obs_type: str = "state", n_batches: int = 3, **kwargs: Any) -> EntBC:
    model = make_model(obs_type, **kwargs)
    model.train(n_batches=n_batches, progress_bar=False)
    return model


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    """A safetensors file's JSON header and its bytes of tensors."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(path: Path, header: dict[str, Any], tensors: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    trained().save(path)
    return path


@pytest.mark.parametrize("obs_type", SPACES)
@pytest.mark.parametrize("architecture", ["attention", "tiled"])
def test_a_loaded_model_acts_and_embeds_bit_for_bit_alike(
    obs_type: str, architecture: str, tmp_path: Path
) -> None:
    model = trained(obs_type, policy_kwargs={"architecture": architecture})
    model.save(tmp_path / "model")
    loaded = EntBC.load(tmp_path / "model")
    assert same(parameters_of(loaded), parameters_of(model))
    obs, sentences = some_obs(obs_type), some_sentences()
    for sentence in (sentences, sentences[0]):
        assert np.array_equal(
            loaded.predict(obs, sentence, deterministic=True)[0],
            model.predict(obs, sentence, deterministic=True)[0],
        )
    demonstrations = make_demonstrations(obs_type)[:2]
    assert np.array_equal(loaded.embed(demonstrations), model.embed(demonstrations))


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"optimizer_cls": th.optim.AdamW, "optimizer_kwargs": {"lr": 1e-3, "betas": (0.5, 0.9)}},
        {"schedule": ScheduleConfig(horizon=12, warmup=2)},
        {"minibatch_size": 2, "batches": BatchConfig(n_query=2, n_steps=3)},
        {"losses": LossConfig(control_loss="sampled_mse"), "ent_weight": 0.1, "l2_weight": 1e-4},
        {"rng": np.random.default_rng(5), "seed": None},
    ],
    ids=["plain", "optimiser", "schedule", "batches", "losses", "rng"],
)
def test_training_goes_on_as_if_it_had_not_been_broken_off(
    kwargs: dict[str, Any], tmp_path: Path
) -> None:
    if "rng" in kwargs:
        kwargs = {**kwargs, "rng": np.random.default_rng(5)}
    broken_off = make_model(**kwargs)
    start = parameters_of(broken_off)
    broken_off.train(n_batches=5, progress_bar=False)
    broken_off.save(tmp_path / "model")
    broken_off.train(n_batches=4, progress_bar=False)  # the uninterrupted run
    resumed = EntBC.load(tmp_path / "model", demonstrations=make_demonstrations())
    assert resumed.num_timesteps == 5
    resumed.train(n_batches=4, progress_bar=False)
    assert resumed.num_timesteps == 9
    assert same(parameters_of(resumed), parameters_of(broken_off))
    assert not same(parameters_of(resumed), start)


def test_options_come_back(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "losses": LossConfig(margin=0.2, pairing="query", control_loss="nll"),
        "batches": BatchConfig(n_support=1, n_query=2, n_steps=3, early=0.5),
        "schedule": ScheduleConfig(horizon=50, warmup=3),
        "batch_size": 4,
        "minibatch_size": 2,
        "ent_weight": 0.5,
        "l2_weight": 0.25,
        "seed": 11,
    }
    model = make_model(**options, optimizer_kwargs={"lr": 0.125})
    model.save(tmp_path / "model")
    loaded = EntBC.load(tmp_path / "model")
    for name, value in options.items():
        assert getattr(loaded, name) == value, name
    assert loaded.peak_learning_rate == 0.125
    assert loaded.batch_seed == model.batch_seed
    assert loaded.observation_space == STATE_SPACE and loaded.action_space == ACTION_SPACE
    changed = EntBC.load(tmp_path / "model", ent_weight=0.75)
    assert changed.ent_weight == 0.75 and changed.l2_weight == 0.25


def test_a_policy_given_as_an_instance_is_made_again(tmp_path: Path) -> None:
    policy = TaskConditionedPolicy(
        DICT_SPACE,
        ACTION_SPACE,
        lambda _: 0.0,
        architecture="tiled",
        sentence_dim=7,
        crop=(0.25, 0, 0, 0.125),
        blind=True,
        min_sigma=0.1,
        net_arch=[16],
    )
    model = EntBC(policy, observation_space=DICT_SPACE, action_space=ACTION_SPACE, seed=0)
    model.save(tmp_path / "model")
    loaded = EntBC.load(tmp_path / "model").policy
    assert loaded.options == policy.options
    assert (loaded.architecture, loaded.sentence_dim, loaded.blind) == ("tiled", 7, True)
    assert same(parameters_of(model), {k: v.numpy() for k, v in loaded.state_dict().items()})


@pytest.mark.parametrize("slots", [SLOTS, SlotLayout(**SLOTS), None])
def test_the_layout_of_slots_is_saved_in_either_form(slots: Any, tmp_path: Path) -> None:
    model = trained(policy_kwargs={"slots": slots})
    model.save(tmp_path / "model")
    loaded = EntBC.load(tmp_path / "model")
    expected = None if slots is None else SlotLayout(**SLOTS)
    assert loaded.policy.features_extractor.layout.slots == expected
    assert same(parameters_of(loaded), parameters_of(model))


def test_the_file_is_json_and_tensors_and_no_pickle(file: Path) -> None:
    header, _ = split(file)
    record = json.loads(header["__metadata__"]["ent_bc"])
    assert record["format_version"] == 1 and record["num_timesteps"] == 3
    with safetensors.safe_open(file, framework="np") as tensors:
        assert any(key.startswith("policy/") for key in tensors.keys())
        assert any(key.startswith("optimizer/") for key in tensors.keys())
    with pytest.raises(ValueError):
        pickletools.dis(file.read_bytes(), out=open("/dev/null", "w"))


def test_a_save_that_fails_leaves_the_older_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def fail(tensors: Any, path: Path, **_: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("ent_bc.storage.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        trained(n_batches=1).save(file)
    assert file.read_bytes() == before


def test_directories_are_made(tmp_path: Path) -> None:
    trained(n_batches=1).save(str(tmp_path / "a" / "b" / "model"))
    assert (tmp_path / "a" / "b" / "model").is_file()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["model"]


# --- files that are none ---


@pytest.mark.parametrize("n_bytes", [0, 5, 100, -1, -1000])
def test_a_truncated_file_is_named(file: Path, n_bytes: int) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: n_bytes % len(content)])
    with pytest.raises(ValueError, match=r"model\.safetensors is truncated or no model file"):
        EntBC.load(file)


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("A model? No: just a text that is long enough to have a header.")
    with pytest.raises(ValueError, match=r"notes\.txt is truncated or no model file"):
        EntBC.load(path)


def test_tensors_of_something_else_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bert.safetensors"
    save_file({"weight": th.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"bert\.safetensors is a safetensors file, but no EntBC"):
        EntBC.load(path)


@pytest.mark.parametrize("version", [2, None])
def test_another_version_is_named(file: Path, version: int | None) -> None:
    header, tensors = split(file)
    record = json.loads(header["__metadata__"]["ent_bc"])
    record["format_version"] = version
    header["__metadata__"]["ent_bc"] = json.dumps(record)
    join(file, header, tensors)
    with pytest.raises(ValueError, match=f"has format version {version}, expected 1"):
        EntBC.load(file)


@pytest.mark.parametrize("knows_it", [True, False])
def test_another_least_sigma_than_was_trained_with_is_named(file: Path, knows_it: bool) -> None:
    header, tensors = split(file)
    record = json.loads(header["__metadata__"]["ent_bc"])
    if not knows_it:  # as a file from before the option
        del record["policy_kwargs"]["min_sigma"]
        header["__metadata__"]["ent_bc"] = json.dumps(record)
        join(file, header, tensors)
    assert EntBC.load(file).policy.options["min_sigma"] == MIN_SIGMA
    with pytest.raises(ValueError, match=r"policy_kwargs .'min_sigma': 0\.006.*, not .*0\.1"):
        EntBC.load(file, policy_kwargs={"min_sigma": 0.1})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no model file .*nowhere"):
        EntBC.load(tmp_path / "nowhere")


# --- spaces as JSON ---


@pytest.mark.parametrize(
    "space",
    [
        *SPACES.values(),
        spaces.Box(np.array([-1, 0], np.float32), np.array([np.inf, 0.1], np.float32)),
    ],
    ids=str,
)
def test_spaces_survive_json(space: spaces.Space[Any]) -> None:
    assert space_from_dict(json.loads(json.dumps(space_to_dict(space)))) == space


def test_a_space_that_cannot_be_saved_is_named() -> None:
    with pytest.raises(ValueError, match=r"Cannot save the space Discrete\(2\): expected Box"):
        space_to_dict(spaces.Discrete(2))
