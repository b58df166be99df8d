"""Models to share: folders, the Hub, and those that are shipped; the network is never touched."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import huggingface_hub
import numpy as np
import pytest
import safetensors
from huggingface_hub import ModelCard, ModelHubMixin, hub_mixin
from imitation.algorithms import bc
from test_policies import some_obs, some_sentences
from toys import SPACES, make_demonstrations, make_model, parameters_of, same

from ent_bc import EntBC, hub

CARD = {
    "name": "metapusher-small",
    "license": "mit",
    "description": "It pushes.",
    "command": "ent-bc train --data runs/demos",
    "data_sha256": "0123abcd",
    "evaluation": "Test split, n = 444.",
    "scores": {"shown": "97.3% [94.4, 99.5]"},
}


class Mine(EntBC):
    """With arguments of its own."""

    def __init__(self, *args: Any, batch_size: int = 8, note: str = "", **kwargs: Any) -> None:
        self.note = note
        super().__init__(*args, batch_size=batch_size, **kwargs)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("The network was touched.")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def trained(obs_type: str = "state", **kwargs: Any) -> EntBC:
    model = make_model(obs_type, **kwargs)
    model.train(n_batches=2, progress_bar=False)
    return model


@pytest.fixture(scope="module")
def model() -> EntBC:
    return trained()


@pytest.fixture
def folder(model: EntBC, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model", model_card_kwargs=CARD)
    return tmp_path / "model"


@pytest.mark.parametrize("obs_type", SPACES)
def test_a_folder_gives_the_model_back_bit_for_bit(obs_type: str, tmp_path: Path) -> None:
    model = trained(obs_type)
    model.save_pretrained(tmp_path / "model")
    loaded = EntBC.from_pretrained(tmp_path / "model")
    assert same(parameters_of(loaded), parameters_of(model))
    obs, sentences = some_obs(obs_type), some_sentences()
    acts = [m.predict(obs, sentences, deterministic=True)[0] for m in (model, loaded)]
    assert np.array_equal(*acts)
    assert loaded.num_timesteps == model.num_timesteps
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_the_optimisers_state_is_left_out_and_training_goes_on(folder: Path) -> None:
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert all(key.startswith("policy/") for key in file.keys())
    loaded = EntBC.from_pretrained(str(folder), demonstrations=make_demonstrations())
    before = parameters_of(loaded)
    loaded.learn(3)
    assert loaded.num_timesteps == 3
    assert not same(parameters_of(loaded), before)


def test_arguments_go_to_load(folder: Path) -> None:
    assert EntBC.from_pretrained(folder, ent_weight=0.5, device="cpu").ent_weight == 0.5


def test_the_config_is_ours_and_strict_json(folder: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    config = json.loads((folder / "config.json").read_text(), parse_constant=refuse)
    assert config["library_name"] == "metapusher"
    assert config["model_class"] == "EntBC"
    assert config["saved_with"]["gymnasium"] == gym.__version__
    assert config["model"]["batch_size"] == 4
    assert config["model"]["losses"]["margin"] == 0.1
    assert config["model"]["observation_space"]["low"] == "-Infinity"


def test_the_card_says_what_how_and_how_well(folder: Path) -> None:
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "metapusher"
    assert card.data.license == "mit"
    assert {"imitation-learning", "stable-baselines3"} <= set(card.data.tags or ())
    for text in (
        'EntBC.from_pretrained("metapusher-small")',
        "# metapusher-small\n",
        "It pushes.",
        "```sh\nent-bc train --data runs/demos\n```",
        "`0123abcd`",
        "\n\nTest split, n = 444.\n\n| | |\n|---|---|\n| shown | 97.3% [94.4, 99.5] |\n",
        "\n2 optimiser steps",
        "\n| batch_size | 4 |\n| minibatch_size | 4 |\n",
        "\n| losses.margin | 0.1 |\n",
        "Box(-2.0, 2.0, (3,), float32)",
    ):
        assert text in card.text, text


def test_a_card_without_scores_or_command_has_no_empty_sections(
    model: EntBC, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert "Scores" not in card.text
    assert "```sh" not in card.text
    assert "SHA-256" not in card.text
    assert card.data.license is None


def test_an_unknown_part_of_the_card_is_refused(model: EntBC, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \['score'\]: expected some of command, .*scores"):
        model.save_pretrained(tmp_path, model_card_kwargs={"score": 1})


def test_a_card_that_was_edited_stays(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    EntBC.from_pretrained(folder).save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"


@pytest.mark.parametrize("name", hub.shipped_models())
def test_shipped_models_load_without_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # a folder of that name, a checkout say, does not hide it
    assert EntBC.from_pretrained(name).num_timesteps > 0
    assert ModelCard.load(hub.SHIPPED / name / "README.md").data.license == "mit"


def test_metapusher_is_shipped_and_fits_its_environment() -> None:
    shipped = EntBC.from_pretrained("metapusher")
    env = gym.make("meta_pusher_env:MetaPusher-v0", obs_type="pixels_agent_pos", image_size=96)
    assert shipped.observation_space == env.observation_space
    assert shipped.action_space == env.action_space
    card = (hub.SHIPPED / "metapusher" / "README.md").read_text("utf-8")
    command = "--n-batches 80000 --learning-rate 2e-3 --control-loss nll --min-sigma 0.1"
    for text in ("99.8% [99.3, 100.0]", "n = 444", "--n-tasks 8000", command):
        assert text in card


def test_an_unknown_name_lists_the_shipped_ones(folder: Path, tmp_path: Path) -> None:
    for name in ("metapushr", tmp_path / "a" / "b", Path("org/name"), Path("metapusher"), "a/b/c"):
        with pytest.raises(ValueError, match=r"There is no model .*shipped names \(.*metapusher"):
            EntBC.from_pretrained(name)
    with pytest.raises(ValueError, match="is a file, expected a folder"):
        EntBC.from_pretrained(folder / "model.safetensors")


def test_a_name_with_an_organisation_is_fetched_from_the_hub(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, Any]] = []

    def download(repo_id: str, filename: str, revision: Any = None, **kwargs: Any) -> str:
        asked.append((repo_id, filename, revision))
        return str(folder / filename)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(hub_mixin, "hf_hub_download", download)
    fetched = EntBC.from_pretrained("somebody/pusher", revision="v1", ent_weight=0.25)
    assert fetched.ent_weight == 0.25
    assert asked == [
        ("somebody/pusher", "config.json", "v1"),
        ("somebody/pusher", "model.safetensors", "v1"),
    ]


def test_a_folder_on_disk_goes_before_the_hub(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.move(folder, tmp_path / "somebody" / "pusher")
    assert EntBC.from_pretrained("somebody/pusher").num_timesteps == 2


def test_pushing_uploads_the_folder(
    model: EntBC, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Api:
        def __init__(self, token: str | None = None) -> None:
            assert token == "secret"

        def create_repo(self, repo_id: str, **kwargs: Any) -> huggingface_hub.RepoUrl:
            return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

        def upload_folder(self, *, repo_id: str, folder_path: Path, **kwargs: Any) -> str:
            shutil.copytree(folder_path, tmp_path / "remote")
            return f"commit of {repo_id}"

    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    assert model.push_to_hub("somebody/pusher", token="secret") == "commit of somebody/pusher"
    assert same(parameters_of(EntBC.from_pretrained(tmp_path / "remote")), parameters_of(model))
    assert 'from_pretrained("somebody/pusher")' in (tmp_path / "remote/README.md").read_text()


def test_the_mixin_leaves_construction_as_it_was(model: EntBC, folder: Path) -> None:
    assert isinstance(model, bc.BC) and isinstance(model, ModelHubMixin)
    assert "policy" in inspect.signature(EntBC).parameters
    assert "kwargs" not in inspect.signature(EntBC).parameters
    for made in (model, EntBC.from_pretrained(folder)):
        assert not [name for name in vars(made) if "hub" in name]


def test_a_subclass_with_arguments_of_its_own_loads_and_pickles(folder: Path) -> None:
    mine = Mine.from_pretrained(folder, note="hello")
    assert type(mine) is Mine
    assert (mine.note, mine.batch_size) == ("hello", 4)
    again = pickle.loads(pickle.dumps(mine))
    assert again.note == "hello"
    assert same(parameters_of(again), parameters_of(mine))


def test_the_example_runs(tmp_path: Path) -> None:
    file = Path(__file__).parents[1] / "examples" / "hub.py"
    done = subprocess.run(
        [sys.executable, file, "--quick", "--folder", tmp_path / "copy"],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "shown object at the goal: " in done.stdout
    copied, shipped = (
        EntBC.from_pretrained(name) for name in (str(tmp_path / "copy"), "metapusher")
    )
    assert same(parameters_of(copied), parameters_of(shipped))
