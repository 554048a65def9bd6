"""softmax and log_softmax of dense short rows."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import inlined, kernel
from softgrad.backends.numba_cpu.dense import (
    PART,
    exponentials,
    first_largest,
    largest,
    multiples,
    source_of,
    sum_of,
    tile_at,
    write_tile,
)
from softgrad.backends.numba_cpu.lanes import each, i32s, load_dense
from softgrad.backends.numba_cpu.pairs import reciprocal
from softgrad.backends.numba_cpu.sixteen import all_set, log_sums_of, ordinary, refer_rows, whole_shift
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_softmax import SOFTMAX


@kernel
def softmax_dense(counter, chunk, hard, stage, rows, operation, z_at, out_at, packed, like):
    """One of the two of every tile that no other thread takes; rows float32 will not do for are listed at `hard`."""
    tiles = (rows + 15) >> 4
    filled = 0
    first = next_share(counter) * chunk
    while first < tiles:
        stop = min(first + chunk, tiles)
        for i in range(first, stop):
            tile = tile_at(i, rows, like)
            z = load_dense(source_of(z_at, tile, stage + PART, like), like)
            if operation == SOFTMAX:
                m, k = largest(z), i32s(-1)
            else:
                m, k = first_largest(z)
            N = whole_shift(m)
            e = exponentials(z, N)
            total, e_k = sum_of(e, k)
            keep = ordinary(m, tile)
            if not all_set(keep):
                refer_rows(hard, tile, keep, 0)
            if operation == SOFTMAX:
                results = multiples(e, reciprocal(total))
            else:
                results = each(_log, (m, log_sums_of(m, N, total, e_k)), (z,))
            filled = write_tile(results, stage, out_at, tile, keep, filled, packed, i + 1 == stop, like)
        first = next_share(counter) * chunk
    leave(counter)


@inlined
def _log(c, of, z):
    return (z - of[0]) - of[1]
