"""Tiles shared out to threads."""

from __future__ import annotations

from typing import Any

from softgrad.backends.numba_cpu.memory import Array, tile_bytes, tile_scratch, tile_work
from softgrad.backends.numba_cpu.threads import share

# Elements that a thread takes at a time.
CHUNK = 2**14


def share_tiles(
    kernel: Any, buffers: int, z: Array, *arguments: Any, which: Array | None = None, passes: int = 1
) -> None:
    """Call ``kernel(counter, chunk, scratch, work, *arguments)`` in as many threads as the work is worth.

    It works on all rows of z, or on those listed in ``which``, ``passes`` times as long as a softmax.
    """
    tiles, work = tile_work(z, which)
    elements, size = work[0] * work[1], tile_bytes(z)
    chunk = max(1, min(CHUNK * tiles // max(elements, 1), -(-tiles // 16)))

    def run(counter: int) -> None:
        _scratch, addresses = tile_scratch(buffers, size)
        kernel(counter, chunk, addresses, work, *arguments)

    share(2 * passes * elements, -(-tiles // chunk), run)
