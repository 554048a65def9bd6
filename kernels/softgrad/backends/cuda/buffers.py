"""Small buffers for what the launches of a call hand to each other: one for each device and stream, zero at first.

They are kept for ever, for a captured graph may write to its stream's at any time; and there are always some in store,
for a stream may be met for the first time while it captures, when nothing can be allocated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

STORE = 16  # buffers made at a time
_PER_THREAD_STREAM = 2  # the handle by which every thread means a stream of its own


class StreamBuffers:
    """The buffers, of `size` bytes each; `zeros(size, device)` makes memory that is never given back, all 0."""

    def __init__(self, size: int, zeros: Callable[[int, int], int]) -> None:
        self._size, self._zeros = size, zeros
        self._given: dict[tuple[int, int, int], int] = {}
        self._store: dict[int, list[int]] = {}
        self._lock = threading.Lock()

    def of(self, device: int, stream: int) -> int:
        """Address of the buffer of a stream, which is met by its handle."""
        key = device, stream, threading.get_ident() if stream == _PER_THREAD_STREAM else 0
        address = self._given.get(key)
        if address is None:
            with self._lock:
                address = self._given[key] = self._given.get(key) or self._from_store(device)
        return address

    def _from_store(self, device: int) -> int:
        store = self._store.setdefault(device, [])
        if not store:
            first = self._zeros(STORE * self._size, device)
            store += range(first, first + STORE * self._size, self._size)
        return store.pop()
