"""The rules of the house: who may import whom, and what the environment alone needs."""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "stable_baselines3", "imitation", "tensorboard", "ent_bc")
APPLICATIONS = {"cli.py", "speed", "benchmark"}
"""Of ent_bc: programs, not library code; they may know the environment by name."""


def modules_of(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_by(path: Path, *, lazily: bool = True) -> Iterator[str]:
    """Names of modules in a file's import statements; without `lazily`, of those run on import."""
    nodes: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        is_guard = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if lazily or not (is_guard or is_function):
            nodes.extend(ast.iter_child_nodes(node))


def run(code: str) -> None:
    """Runs code in a fresh interpreter that has a look at what it loaded."""
    # What a picture drawn earlier in this process chose must not choose there too.
    gl = ("MUJOCO_GL", "PYOPENGL_PLATFORM")
    env = {key: value for key, value in os.environ.items() if key not in gl}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", modules_of("meta_pusher_env"), ids=short)
def test_environment_names_no_learning_library(path: Path) -> None:
    for name in imported_by(path):
        assert name.split(".")[0] not in HEAVY, f"{path.name} imports {name}"


def test_environment_loads_no_learning_library() -> None:
    names = [f"meta_pusher_env.{path.stem}" for path in modules_of("meta_pusher_env")]
    names = [name for name in names if not name.endswith("__")]
    run(
        f"import importlib, sys\n"
        f"for name in {names}: importlib.import_module(name)\n"
        f"loaded = set({HEAVY}) & set(sys.modules)\n"
        f"assert not loaded, loaded\n"
    )


def test_environment_works_where_no_learning_library_is_installed() -> None:
    run(
        f"import sys\n"
        f"sys.modules.update(dict.fromkeys({(*HEAVY, 'scipy', 'matplotlib')}))\n"  # None: no such
        f"import gymnasium\n"
        f"env = gymnasium.make('meta_pusher_env:MetaPusher-v0', split='test', n_tasks=2)\n"
        f"env.reset(seed=0)\n"
        f"env.step(env.action_space.sample())\n"
        f"assert len(env.unwrapped.get_demonstrations(0, 1, seed=0)) == 1\n"
    )


def test_state_observations_start_no_opengl() -> None:
    run(
        "import gymnasium, sys\n"
        "env = gymnasium.make('meta_pusher_env:MetaPusher-v0', n_tasks=2)\n"
        "env.reset(seed=0)\n"
        "assert 'OpenGL' not in sys.modules\n"
    )


@pytest.mark.parametrize(
    "path",
    [path for path in modules_of("ent_bc") if APPLICATIONS.isdisjoint(path.parts)],
    ids=short,
)
def test_library_code_of_ent_bc_does_not_know_the_environment(path: Path) -> None:
    for name in imported_by(path):
        assert name.split(".")[0] != "meta_pusher_env", f"{path.name} imports {name}"


@pytest.mark.parametrize("package", ["meta_pusher_env", "ent_bc"])
def test_modules_import_one_way(package: str) -> None:
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in modules_of(package)
    }
    graph = {
        name: {
            known
            for imported in imported_by(path, lazily=False)
            for known in (imported, imported.rpartition(".")[0])
            if known in paths and known not in (name, package)
        }
        for name, path in paths.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("path", modules_of("meta_pusher_env") + modules_of("ent_bc"), ids=short)
def test_no_global_random_state_and_no_pickle(path: Path) -> None:
    text = path.read_text("utf-8")
    for forbidden in ("np.random.seed(", "random.seed(", "import random\n", "import pickle\n"):
        assert forbidden not in text, f"{path.name}: {forbidden}"


@pytest.mark.parametrize("package", ["meta_pusher_env", "ent_bc"])
def test_types_are_shipped(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
