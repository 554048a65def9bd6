"""The values of probabilities."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numba_cpu.addresses import address
from softgrad.backends.numba_cpu.entries import COUNTER, as_stored
from softgrad.backends.numba_cpu.memory import KINDS, Array, describe, scratch, tile_bytes, tile_scratch, tile_work
from softgrad.backends.numba_cpu.single_rows import is_few
from softgrad.backends.numba_cpu.threads import share
from softgrad.backends.numba_cpu.tile_checks import BUFFERS, bad_rows, first_bad_few


def first_bad_row(probs: Array, tolerance: float, *, log: bool) -> int | None:
    """Flat position of the first row that is no probability distribution; rows with a NaN pass."""
    outer, classes, inner = probs.shape
    rows = outer * inner
    if classes == 0:
        return 0 if rows and not tolerance >= 1.0 else None
    if is_few(probs):
        stored = as_stored(probs)
        memory = scratch(COUNTER + 8 * rows + 64 + BUFFERS * tile_bytes(probs))
        first = first_bad_few[stored.dtype,](stored, KINDS[probs.dtype], log, tolerance, memory.address)
        return None if first < 0 else first
    tiles, work = tile_work(probs)
    bad = np.empty(rows, np.float64)

    def run(counter: int) -> None:
        _scratch, buffers = tile_scratch(BUFFERS, probs)
        bad_rows(
            counter, buffers, work, log, tolerance, describe(probs),
            (address(bad), 8, 0, 8, 0, 1),
        )  # fmt: skip

    share(2 * probs.size, tiles, run)
    first = int(bad.argmax()) if rows else 0
    return first if rows and bad[first] else None
