"""Makes what is needed next while what was made last is used."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """The same items in the same order, each made in a thread while the one before is used.

    An error comes up where the item would have. Reading from a disk and copying hardly hold up
    the thread that trains; one item at most is made for nothing.

    Args:
        items: Made without a look at what their use changes: the thread is one item ahead.
    """
    end: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item
