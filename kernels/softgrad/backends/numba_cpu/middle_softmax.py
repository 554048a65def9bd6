"""softmax, log_softmax and logsumexp of rows of some vectors."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.entries import ALL, INT, begin, described, entry, reads, writes
from softgrad.backends.numba_cpu.lanes import joined, read_i64, take
from softgrad.backends.numba_cpu.middle import TERMS, exponentials, largest, rests, write_logs, write_scaled
from softgrad.backends.numba_cpu.pairs import split
from softgrad.backends.numba_cpu.sixteen import (
    all_set,
    log_sums,
    ordinary,
    refer_rows,
    whole_shift,
    write_log_sums,
)
from softgrad.backends.numba_cpu.tile_softmax import LOGSUMEXP, SOFTMAX
from softgrad.backends.numba_cpu.tiles import FLOAT32


@kernel
def softmax_middle(counter, chunk, hard, stage, rows, classes, operation, z, out, streams, fmt):
    """One of the three of every tile that no other thread takes; rows float32 will not do for are listed at `hard`."""
    terms = stage + TERMS
    written = z if operation == LOGSUMEXP or streams else out
    tiles = (rows + 15) >> 4
    first = take(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = (16 * i, min(16, rows - 16 * i), classes)
            m = largest(z, tile, stage, fmt)
            N = whole_shift(m)
            low, high = exponentials(z, terms, tile, N, stage, written, written, fmt)
            keep = ordinary(m, tile)
            if not all_set(keep):
                refer_rows(hard, tile, keep, 0)
            if operation == SOFTMAX:
                factor, rest = split(1.0 / low, 1.0 / high)
                write_scaled(terms, out, tile, factor, rest, keep, stage, streams, fmt)
                continue
            low, high, ties = rests(z, terms, tile, m, stage, fmt)
            l_low, l_high = log_sums(m, N, low, high, ties)
            if operation == LOGSUMEXP:
                write_log_sums(out, tile, m, l_low, l_high)
            else:
                write_logs(z, terms, out, tile, m, joined(l_low, l_high), keep, stage, streams, fmt)
        first = take(counter) * chunk


@entry(lambda z, out: (reads(z, 3), writes(out, 3), INT, INT))
def softmax_middle_few(z, out, operation, scratch):
    """The same of a few rows, logsumexp as (outer, 1, inner); how many are listed behind the counter."""
    rows, classes, of_z, of_out = z.shape[0] * z.shape[2], z.shape[1], described(z, FLOAT32), described(out, FLOAT32)
    hard, stage = begin(scratch, rows)
    softmax_middle(scratch, ALL, hard, stage, rows, classes, operation, of_z, of_out, False, z.dtype.type(0))
    return read_i64(hard)
