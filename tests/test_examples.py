"""The examples run as a newcomer would type them, with ``--quick``.

Those of Meta-World, Minari, MIL's files and the Hub are run by the tests of these.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ent_bc import EntBC

ROOT = Path(__file__).parents[1]
OTHERS = {"one_shot", "meta_world", "minari_datasets", "mil_tasks", "hub"}
OURS = {
    "own_demonstrations": ["--out", "{out}/model.safetensors"],
    "bc": ["--model", "{model}"],
    "dagger": ["--model", "{model}", "--out", "{out}"],
    "ppo": ["--model", "{model}", "--out", "{out}/ppo.safetensors"],
}
SAYS = {"own_demonstrations": "", "ppo": "strict success on new objects: 0.00, then 0.00"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of state observations."""
    path = tmp_path_factory.mktemp("examples") / "model.safetensors"
    EntBC(env="meta_pusher_env:MetaPusher-v0", seed=0).save(path)
    return path


@pytest.mark.parametrize("name", OURS)
def test_an_example_runs(name: str, model: Path, tmp_path: Path) -> None:
    options = [option.format(model=model, out=tmp_path) for option in OURS[name]]
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / f"{name}.py", *options, "--quick"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    if name != "bc":
        assert list(tmp_path.iterdir()), "it keeps what it made"
    assert SAYS.get(name, "return: -") in done.stdout


def test_every_example_is_run_and_fits_a_screen() -> None:
    examples = {path.stem: path.read_text("utf-8") for path in (ROOT / "examples").glob("*.py")}
    assert examples.keys() == OURS.keys() | OTHERS
    for name, text in examples.items():
        assert len(text.splitlines()) <= 40, name
        assert '"--quick"' in text or name == "one_shot", name
