"""The command line does the main job: collect, train, go on after a stop, evaluate, report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ent_bc.cli import (
    Evaluate,
    Train,
    collect_demonstrations,
    evaluate,
    train,
)
from ent_bc.ent_bc import EntBC
from meta_pusher_env.dataset_layout import CollectConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "data"
    config = CollectConfig(n_tasks=4, demos_per_task=2, clean_demos=1, obs_type="state")
    collect_demonstrations(path, config, n_workers=1)
    return path


@pytest.fixture(scope="module")
def model(data: Path) -> Path:
    return train(Train(data, data.parent / "model", "state", n_batches=6))


def test_a_stopped_training_goes_on_where_it_was(data: Path, model: Path) -> None:
    out = data.parent / "stopped"
    command = Train(data, out, "state", n_batches=6, checkpoint_interval=2)
    stopped = EntBC.load(model)
    assert stopped.num_timesteps == 6

    class Killed(Exception):
        pass

    real = EntBC.save

    def save_then_die(self: EntBC, path: Path) -> None:
        real(self, path)
        if self.num_timesteps == 4:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(EntBC, "save", save_then_die)
        train(command)
    gone_on = EntBC.load(train(command))
    for name, value in stopped.policy.state_dict().items():
        assert value.equal(gone_on.policy.state_dict()[name]), name
    assert not (out / "checkpoint.safetensors").exists()


def test_small_nets_train_in_one_process_unless_more_are_asked_for(
    data: Path, model: Path, tmp_path: Path
) -> None:
    assert EntBC.load(model).schedule.n_workers == 1
    asked = train(Train(data, tmp_path, "state", n_batches=1, n_workers=2))
    assert EntBC.load(asked).schedule.n_workers == 2


def test_evaluation_writes_results_and_a_report(model: Path) -> None:
    out = model.parent / "report"
    command = Evaluate(
        model,
        out,
        split="val",
        n_tasks=4,
        n_trials=1,
        conditions=("own_1shot", "twin"),
        n_workers=1,
    )
    results = evaluate(command)
    assert results["conditions"]["own_1shot"]["n_trials"] == 4
    assert json.loads((out / "results.json").read_text())["conditions"].keys() == {
        "own_1shot",
        "twin",
    }
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "one_shot.mp4").exists() and (out / "one_shot.gif").exists()


def test_bad_commands_are_named(data: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds 'state' observations, preset 'pixels' expects"):
        train(Train(data, tmp_path))
    with pytest.raises(ValueError, match="learning_rate is 0.0, expected more than 0"):
        train(Train(data, tmp_path, "state", learning_rate=0.0))
    with pytest.raises(ValueError, match=r"Unknown conditions \['other'\]"):
        evaluate(Evaluate(model, tmp_path, conditions=("other",)))


OTHER_RUNS = {
    "with seed 0, and 1 is asked for": {"seed": 1},
    "with n_batches 6, and 8 is asked for": {"n_batches": 8},
    "with optimizer_kwargs .*0.002.*0.004.* is asked for": {"learning_rate": 4e-3},
    "with losses .*beta_nll.*sampled_mse.* is asked for": {"control_loss": "sampled_mse"},
    "with policy_kwargs .*False.*True.* is asked for: choose another --out": {"blind": True},
    "with policy_kwargs .*'min_sigma': 0.006.*'min_sigma': 0.1.* is asked for": {"min_sigma": 0.1},
}


@pytest.mark.parametrize("message", OTHER_RUNS)
@pytest.mark.parametrize("name", ["model", "checkpoint"])
def test_a_run_does_not_pass_off_another_ones_model(
    name: str, message: str, data: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / f"{name}.safetensors").write_bytes(model.read_bytes())
    same = Train(data, tmp_path, "state", n_batches=6)
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(same, **OTHER_RUNS[message]))
    assert train(same).read_bytes() == model.read_bytes()  # it is there already
