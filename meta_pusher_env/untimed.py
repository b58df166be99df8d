"""Physics without MuJoCo's timers, which read the clock a dozen times in each substep."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import mujoco


@contextmanager
def untimed() -> Iterator[None]:
    """Leaves ``MjData.timer`` as it is meanwhile, in all threads: an eighth faster, the same bits.

    The bindings set a timer and have no way to set none, so this goes to the C library's variable;
    where that cannot be reached (on Windows), nothing changes.
    """
    timer = _timer()
    if timer is None:
        yield
        return
    before, timer.value = timer.value, None
    try:
        yield
    finally:
        timer.value = before


@lru_cache(maxsize=1)
def _timer() -> ctypes.c_void_p | None:
    """The C library's variable that points to the clock's function."""
    try:
        library = ctypes.CDLL(mujoco._structs.__file__)  # what it links is searched, too
        return ctypes.c_void_p.in_dll(library, "mjcb_time")
    except (AttributeError, OSError, ValueError):
        return None
