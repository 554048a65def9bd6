"""The values of probabilities."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numba_cpu.addresses import address
from softgrad.backends.numba_cpu.entries import COUNTER, as_stored
from softgrad.backends.numba_cpu.memory import FORMATS, KINDS, Array, describe, scratch, tile_bytes
from softgrad.backends.numba_cpu.narrow_checks import doubt_columns, doubt_dense
from softgrad.backends.numba_cpu.single_rows import SHORT_CHECKED, are_dense, is_few, is_single, share_sixteen
from softgrad.backends.numba_cpu.tile_checks import BUFFERS, bad_rows, first_bad_few
from softgrad.backends.numba_cpu.tile_rows import share_tiles
from softgrad.backends.numba_cpu.tiles import FLOAT64


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
    if _are_sure(probs, tolerance, log=log):
        return None
    bad = np.empty(rows, np.float64)
    of_bad = address(bad), 8 * inner, 0, 8, FLOAT64, inner
    share_tiles(bad_rows, BUFFERS, probs, log, tolerance, describe(probs), of_bad)
    first = int(bad.argmax()) if rows else 0
    return first if rows and bad[first] else None


def _are_sure(probs: Array, tolerance: float, *, log: bool) -> bool:
    """Whether a quick look is enough: short rows, none of them in doubt."""
    outer, classes, inner = probs.shape
    if not is_single(probs) or classes > SHORT_CHECKED:
        return False
    fmt = FORMATS[probs.dtype]
    if are_dense(probs):
        at, like = address(probs), (fmt,) * classes
        doubts = share_sixteen(probs, lambda *shared: doubt_dense(*shared, outer, log, tolerance, at, like))
    else:
        of_probs = describe(probs)
        doubts = share_sixteen(
            probs, lambda *shared: doubt_columns(*shared, outer * inner, classes, log, tolerance, of_probs, fmt)
        )
    return doubts is None
