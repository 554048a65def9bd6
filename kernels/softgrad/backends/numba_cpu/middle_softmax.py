"""softmax of rows of some vectors."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.lanes import sum_across, take
from softgrad.backends.numba_cpu.middle import STAGE, TERMS, exponentials, largest, sums, write_scaled
from softgrad.backends.numba_cpu.sixteen import ordinary, refer_rows, split, whole_shift


@kernel
def softmax_middle(counter, chunk, hard, stage, rows, classes, z, out, fmt):
    """p of every tile that no other thread takes; rows that float32 will not do for are listed at `hard`."""
    numbers, terms = stage + STAGE, stage + TERMS
    tiles = (rows + 15) >> 4
    first = take(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = (16 * i, min(16, rows - 16 * i), classes)
            m = largest(z, tile, stage, fmt)
            exponentials(z, terms, tile, whole_shift(m), numbers, out, out, fmt)
            low, high = sums(terms, tile, stage)
            keep = ordinary(m, tile)
            if sum_across(keep) < 16:
                refer_rows(hard, tile, keep, 0)
            factor, rest = split(1.0 / low, 1.0 / high)
            write_scaled(terms, out, tile, factor, rest, keep, numbers, fmt)
        first = take(counter) * chunk
