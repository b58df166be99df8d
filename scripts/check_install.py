"""Checks what a user installs: `make test-install`.

The wheel holds every data file, and the environment alone, in a fresh virtual environment, brings
no learning library, imports and runs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("meta_pusher_env", "ent_bc")
HEAVY = ["torch", "stable_baselines3", "imitation", "scipy", "matplotlib"]
_RUN = """
import importlib.util
import gymnasium
import meta_pusher_env
found = [name for name in {heavy} if importlib.util.find_spec(name)]
assert not found, f"The environment alone brought {{found}}."
env = gymnasium.make("MetaPusher-v0", split="test")
obs, info = env.reset(seed=0)
for _ in range(100):
    obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
assert truncated and len(env.unwrapped.tasks) == 74
assert env.unwrapped.get_demonstrations(0, 1, seed=0)[0].infos[0]["task_id"]
print("runs from", meta_pusher_env.__file__)
"""


def main() -> None:
    """Builds, looks into the wheel, installs it, and runs the environment."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        wheel = build_wheel(place)
        missing = data_files() - set(zipfile.ZipFile(wheel).namelist())
        if missing:
            sys.exit(f"The wheel lacks {sorted(missing)}: add them to package-data.")
        venv.create(place / "env", with_pip=True)
        python = str(place / "env" / "bin" / "python")
        pip(python, "install", "-c", str(ROOT / "constraints.txt"), str(wheel))
        subprocess.run([python, "-c", _RUN.format(heavy=HEAVY)], cwd=place, check=True)
    print(f"{wheel.name} holds {len(data_files())} data files; the environment alone runs")


def build_wheel(place: Path) -> Path:
    """Builds from a copy, for what an earlier build left behind would end up in the wheel."""
    source = place / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip(sys.executable, "wheel", "--no-deps", "-w", str(place), str(source))
    (wheel,) = place.glob("*.whl")
    return wheel


def data_files() -> set[str]:
    """All files of the packages that are no Python, as they stand in a wheel."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*")]
    return {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }


def pip(python: str, *arguments: str) -> None:
    """Runs pip, quietly while all is well."""
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
