"""softmax, log_softmax and logsumexp of sixteen rows side by side."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.entries import ALL, INT, begin, described, entry, reads, writes
from softgrad.backends.numba_cpu.lanes import halves, i32s, load_f32, read_i64, store_f32
from softgrad.backends.numba_cpu.narrow import (
    exponentials,
    first_largest,
    largest,
    tile_at,
    tiles_of,
    whole,
)
from softgrad.backends.numba_cpu.narrow_memory import COLUMNS, are_packed, fill_columns, write_columns
from softgrad.backends.numba_cpu.pairs import reciprocal
from softgrad.backends.numba_cpu.single import scaled
from softgrad.backends.numba_cpu.sixteen import (
    all_set,
    log_sums_of,
    ordinary,
    refer_rows,
    whole_shift,
    write_log_sums,
)
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_softmax import LOGSUMEXP, SOFTMAX
from softgrad.backends.numba_cpu.tiles import FLOAT32


@kernel
def softmax_columns(counter, chunk, hard, stage, rows, classes, operation, z, out, streams, fmt):
    """One of the three of every tile that no other thread takes; rows float32 will not do for are listed at `hard`."""
    columns = stage + COLUMNS
    terms = columns if operation == SOFTMAX else columns + 64 * whole(classes)
    tiles = tiles_of(z, rows)
    filled, packed = 0, are_packed(out, classes, streams, fmt)
    first = next_share(counter) * chunk
    while first < tiles:
        stop = min(first + chunk, tiles)
        for i in range(first, stop):
            tile = tile_at(i, z, rows, classes)
            fill_columns(columns, stage, z, tile, fmt)
            if operation == SOFTMAX:
                m, k = largest(columns, classes), i32s(-1)
            else:
                m, k = first_largest(columns, classes)
            N = whole_shift(m)
            total, e_k = exponentials(columns, terms, classes, N, k)
            keep = ordinary(m, tile)
            if not all_set(keep):
                refer_rows(hard, tile, keep, 0)
            if operation == SOFTMAX:
                factor, rest = reciprocal(total)
                for c in range(classes):
                    store_f32(columns + 64 * c, scaled(load_f32(columns + 64 * c), factor, rest))
            else:
                l = log_sums_of(m, N, total, e_k)
                if operation == LOGSUMEXP:
                    write_log_sums(out, tile, m, *halves(l))
                    continue
                for c in range(classes):
                    store_f32(columns + 64 * c, (load_f32(columns + 64 * c) - m) - l)
            filled = write_columns(columns, stage, out, tile, keep, filled, packed, i + 1 == stop, fmt)
        first = next_share(counter) * chunk
    leave(counter)


@entry(lambda z, out: (reads(z, 3), writes(out, 3), INT, INT))
def softmax_columns_few(z, out, operation, scratch):
    """The same of a few rows, logsumexp as (outer, 1, inner); how many are listed behind the counter."""
    rows, classes, of_z, of_out = z.shape[0] * z.shape[2], z.shape[1], described(z, FLOAT32), described(out, FLOAT32)
    hard, stage = begin(scratch, rows)
    softmax_columns(scratch, ALL, hard, stage, rows, classes, operation, of_z, of_out, False, z.dtype.type(0))
    return read_i64(hard)
