"""What a fresh machine installs: every direct dependency is pinned, and nothing is hard-wired."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
HEAVY = {"torch", "stable-baselines3", "imitation"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~;\[ ]", line)[0].lower().replace("_", "-") for line in requirements}


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_direct_dependency_is_pinned() -> None:
    extras = PROJECT["optional-dependencies"].values()
    direct = names([*PROJECT["dependencies"], *(line for extra in extras for line in extra)])
    assert direct <= names(constraints())
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+( *;.*)?", line) for line in constraints())


def test_the_environment_alone_installs_light() -> None:
    assert not names(PROJECT["dependencies"]) & HEAVY
    assert names(PROJECT["optional-dependencies"]["ent-bc"]) >= HEAVY


def test_torch_is_the_pinned_cpu_build() -> None:
    assert "torch==2.13.0" in constraints()


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "Makefile", ".ci/run"])
def test_no_registry_is_hard_wired(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert "index-url" not in text
    assert "://" not in text


@pytest.mark.parametrize("name", ["meta_pusher_env/manifest.json", "meta_pusher_env/py.typed"])
def test_package_data_is_declared(name: str) -> None:
    package, file = name.split("/")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    assert file in settings["package-data"][package]
    assert (ROOT / name).is_file()
