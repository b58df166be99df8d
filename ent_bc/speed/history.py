"""Earlier versions of this project's code, as peers of the present one."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def code_at(commit: str, *paths: str) -> Iterator[Path | None]:
    """A temporary folder with the files of a commit; None, and a warning, where git has it not.

    Args:
        commit: Its hash.
        *paths: Folders of the project that are wanted.
    """
    command = ["git", "-C", str(ROOT), "archive", commit, *paths]
    try:
        archive = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", b"").decode().strip() or str(error)
        warnings.warn(
            f"The version {commit[:7]} is left out, for git does not have it ({reason}): "
            "run this in a clone with the whole history.",
            stacklevel=3,
        )
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        tarfile.open(fileobj=io.BytesIO(archive)).extractall(folder, filter="data")
        yield Path(folder)
