"""Small buffers for what the launches of a call hand to each other: for each device, stream and capture, zero at first.

Launches of one stream follow each other and may all use the same.  A captured graph may be launched on any stream, at
the same time as others that were captured on the same one, so it has a buffer of its own.  None is ever given back, for
a graph may write to its buffer at any time; and there are always some in store, for nothing can be allocated in a
capture.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

STORE = 16  # buffers in store, and half as many at least when a capture begins
_PER_THREAD_STREAM = 2  # the handle by which every thread means a stream of its own

Key = tuple[int, int, int, int]
"""Device, stream, thread where that tells streams apart, capture."""


class StreamBuffers:
    """The buffers, of `size` bytes each; `zeros(size, device)` makes memory that is never given back, all 0."""

    def __init__(self, size: int, zeros: Callable[[int, int], int]) -> None:
        self._size, self._zeros = size, zeros
        self._given: dict[Key, int] = {}
        self._store: dict[int, list[int]] = {}
        self._short: set[int] = set()  # devices whose store captures have taken from
        self._lock = threading.Lock()

    def of(self, device: int, stream: int, capture: int) -> int:
        """Address of the buffer of a stream, by its handle, and of the capture that it is in (0: none)."""
        key = device, stream, threading.get_ident() if stream == _PER_THREAD_STREAM else 0, capture
        address = self._given.get(key)
        if address is None or (self._short and not capture):
            with self._lock:
                store = self._store.setdefault(device, [])
                if not store or (len(store) < STORE // 2 and not capture):
                    self._fill(store, device)
                address = self._given.get(key)
                if address is None:
                    address = self._given[key] = store.pop()
                (self._short.add if len(store) < STORE // 2 else self._short.discard)(device)
        return address

    def _fill(self, store: list[int], device: int) -> None:
        lacking = STORE - len(store)
        first = self._zeros(lacking * self._size, device)
        store += range(first, first + lacking * self._size, self._size)
