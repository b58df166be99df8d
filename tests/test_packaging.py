"""What a fresh machine installs: every direct dependency is pinned, and nothing is hard-wired."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
HEAVY = {"torch", "stable-baselines3", "imitation"}


EXTRAS = PROJECT["optional-dependencies"]
STACKS = {
    "constraints.txt": ("ent-bc", "minari", "dev"),
    "constraints-latest.txt": ("ent-bc-latest", "meta-world", "minari", "dev"),
}
"""The pins of each tested stack, and the extras that are installed there."""


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~;\[ ]", line)[0].lower().replace("_", "-") for line in requirements}


def required(extra: str) -> list[str]:
    """What an extra brings, with that of the extras which it names in turn."""
    lines = []
    for line in EXTRAS[extra]:
        inner = re.fullmatch(rf"{PROJECT['name']}\[([\w-]+)\]", line)
        lines += required(inner[1]) if inner else [line]
    return lines


def constraints(name: str) -> list[str]:
    lines = (ROOT / name).read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("stack", STACKS)
def test_every_direct_dependency_is_pinned(stack: str) -> None:
    extras = [line for extra in STACKS[stack] for line in required(extra)]
    assert names([*PROJECT["dependencies"], *extras]) <= names(constraints(stack))
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+( *;.*)?", line) for line in constraints(stack))


@pytest.mark.parametrize(
    ("stack", "pins"),
    [
        ("constraints.txt", ("gymnasium==0.29.1", "stable-baselines3==2.2.1", "mujoco==4.0.0")),
        (
            "constraints-latest.txt",
            ("gymnasium==1.4.0", "stable-baselines3==2.9.2", "mujoco==3.3.0"),
        ),
    ],
)
def test_the_two_stacks_are_the_ends_of_the_range(stack: str, pins: tuple[str, ...]) -> None:
    assert {*pins, "imitation==1.0.1", "torch==2.13.0"} <= set(constraints(stack))


def test_the_environment_alone_installs_light() -> None:
    assert not names(PROJECT["dependencies"]) & HEAVY
    assert names(required("ent-bc")) >= HEAVY


def test_the_newest_stack_leaves_imitation_and_its_pins_out() -> None:
    assert set(required("ent-bc")) - set(required("ent-bc-latest")) == {"imitation==1.0.1"}


@pytest.mark.parametrize(
    "name", ["pyproject.toml", *STACKS, "Makefile", ".ci/run", "scripts/set_up.sh"]
)
def test_no_registry_is_hard_wired(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert "index-url" not in text
    assert "://" not in text


@pytest.mark.parametrize("package", ["meta_pusher_env", "ent_bc"])
def test_every_data_file_is_declared(package: str) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    declared = {
        path for glob in settings["package-data"][package] for path in (ROOT / package).glob(glob)
    }
    present = {path for path in (ROOT / package).rglob("*") if path.is_file()}
    undeclared = {path for path in present - declared if path.suffix not in (".py", ".pyc")}
    assert not undeclared
    assert ROOT / package / "py.typed" in declared & present
