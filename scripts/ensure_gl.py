"""Makes sure that headless OpenGL works: EGL, else OSMesa, else installs them when it may.

On Debian, as root or with a sudo that asks for no password, missing packages are installed;
otherwise this ends with the one line to type.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

PACKAGES = {"egl": ("libegl1", "libgl1-mesa-dri"), "osmesa": ("libosmesa6",)}
_CHECK = "from meta_pusher_env import rendering; print(rendering.ensure_gl())"


def main() -> int:
    """Returns the exit status: 0 where OpenGL works in the end."""
    backend, why = find_backend()
    asked = os.environ.get("MUJOCO_GL", "").lower()
    wanted = [asked] if asked in PACKAGES else [] if asked else list(PACKAGES)
    prefix = find_installer() if backend is None and wanted else None
    for name in wanted:
        if backend is None and prefix is not None and install(prefix, PACKAGES[name]):
            backend, why = find_backend()
    if backend is not None:
        print(f"OpenGL: {backend}")
        return 0
    print(f"Pictures need OpenGL. {why}", file=sys.stderr)
    if wanted:
        sudo = "" if os.geteuid() == 0 else "sudo "
        packages = " ".join(PACKAGES[wanted[0]])
        print(f"Type:\n    {sudo}apt-get install -y {packages}", file=sys.stderr)
    return 1


def find_backend() -> tuple[str | None, str]:
    """Returns the backend that works, or None and why; each time in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", _CHECK],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    last = lines[-1] if lines else f"OpenGL ended the process with status {done.returncode}."
    return (last, "") if done.returncode == 0 else (None, last)


def find_installer() -> list[str] | None:
    """Returns what makes a command run as root, or None where nothing may be installed."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    may = shutil.which("sudo") is not None and _succeeds([*sudo, "true"], quiet=True)
    return sudo if may else None


def install(prefix: list[str], packages: tuple[str, ...]) -> bool:
    """Installs Debian packages; returns whether that went well."""
    print(f"OpenGL is missing: installing {' '.join(packages)}", flush=True)
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    _succeeds([*apt, "update", "-qq"])  # old package lists may still do
    return _succeeds([*apt, "install", "-y", "--no-install-recommends", *packages])


def _succeeds(command: list[str], *, quiet: bool = False) -> bool:
    output = subprocess.DEVNULL if quiet else None
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
    )
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
