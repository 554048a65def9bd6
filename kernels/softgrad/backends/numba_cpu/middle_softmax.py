"""softmax, log_softmax and logsumexp of rows of some vectors."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import inlined, kernel
from softgrad.backends.numba_cpu.entries import ALL, INT, begin, described, entry, reads, writes
from softgrad.backends.numba_cpu.lanes import (
    f32s,
    i32s,
    joined,
    max_of_each,
    read_i64,
    size_of,
    store_f32,
    sum_of_each,
    where,
)
from softgrad.backends.numba_cpu.middle import (
    AHEAD,
    BEFORE,
    LINES,
    NEXT,
    SUMS,
    TERMS,
    TOPS,
    USUAL,
    each_row,
    exponentials_of_row,
    keep_rows,
    largest_of_row,
    next_largest,
    of_row,
    rests,
    shift_rows,
    shifts,
    stride_of,
    tile_at,
    write_row_of,
)
from softgrad.backends.numba_cpu.pairs import split
from softgrad.backends.numba_cpu.past_caches import begin_lines, flush
from softgrad.backends.numba_cpu.sixteen import (
    all_set,
    log_sums,
    ordinary,
    refer_rows,
    write_log_sums,
)
from softgrad.backends.numba_cpu.taking import ahead, following
from softgrad.backends.numba_cpu.tile_softmax import LOGSUMEXP, SOFTMAX
from softgrad.backends.numba_cpu.tiles import FLOAT32, row_offset
from softgrad.backends.numba_cpu.wide import logs, multiple


@kernel
def softmax_middle(counter, chunk, hard, stage, rows, classes, operation, z, out, streams, fmt):
    """One of the three of every tile that no other thread takes; rows float32 will not do for are listed at `hard`."""
    terms = stage + TERMS
    of_z, of_out = ahead(z, size_of(fmt), classes, AHEAD), ahead(out, size_of(fmt), classes, AHEAD)
    tiles = (rows + 15) >> 4
    begin_lines(stage + LINES)
    i, stop = following(counter, chunk, tiles, -1, 0)
    before, tile = (0, 0, classes), tile_at(i, rows, classes)
    usual, found = True, False
    while True:
        i, stop = following(counter, chunk, tiles, i, stop)
        after = tile_at(i, rows, classes)
        N = f32s(USUAL) if usual else shifts(next_largest(z, tile, of_z, found, stage, fmt), True)
        shift_rows(N, N, stage)
        for r in range(max(before[1], tile[1])):
            if r < before[1]:
                write(operation, z, terms, out, before, r, of_out, stage, streams, fmt)
            if r < tile[1]:
                terms_of_row(z, terms, tile, r, of_z, stage, fmt)
            if r < after[1] and not usual:
                store_f32(stage + NEXT + 64 * r, largest_of_row(z, after, r, of_z, fmt))
        if tile[1] == 0:
            flush(stage + LINES, fmt)
            return
        m = max_of_each(stage + TOPS)
        wanted, found = shifts(m, True), not usual
        if not all_set(where(wanted == N, i32s(1), i32s(0))):
            N = wanted
            shift_rows(N, N, stage)
            for r in range(tile[1]):
                terms_of_row(z, terms, tile, r, of_z, stage, fmt)
        usual = all_set(where(wanted == USUAL, i32s(1), i32s(0)))
        low, high = sum_of_each(stage + SUMS)
        keep = ordinary(m, tile)
        if not all_set(keep):
            refer_rows(hard, tile, keep, 0)
        if operation == SOFTMAX:
            factor, rest = split(1.0 / low, 1.0 / high)
        else:
            low, high, ties = rests(z, terms, tile, m, stage, fmt)
            l_low, l_high = log_sums(m, N, low, high, ties)
            factor, rest = m, joined(l_low, l_high)
            if operation == LOGSUMEXP:
                write_log_sums(out, tile, m, l_low, l_high)
        before = (tile[0], tile[1] if operation != LOGSUMEXP else 0, classes)
        each_row(factor, stage + BEFORE)
        each_row(rest, stage + BEFORE + 64)
        keep_rows(keep, stage)
        tile = after


@inlined
def terms_of_row(z, terms, tile, i, distance, stage, fmt):
    """Fill e; what its sum and its largest logit are found from."""
    e, top, _ = exponentials_of_row(z, terms, tile, i, distance, stage, False, fmt)
    store_f32(stage + SUMS + 64 * i, e)
    store_f32(stage + TOPS + 64 * i, top)


@inlined
def write(operation, z, terms, out, tile, i, distance, stage, streams, fmt):
    """Row i of a result."""
    numbers = of_row(stage + BEFORE, i), of_row(stage + BEFORE + 64, i)
    if operation == SOFTMAX:
        of = terms + stride_of(tile[2]) * i, numbers[0], numbers[1]
        write_row_of(multiple, of, out, tile, i, distance, stage, streams, fmt)
    else:
        of = row_offset(z, tile[0] + i), numbers[0], numbers[1], fmt
        write_row_of(logs, of, out, tile, i, distance, stage, streams, fmt)


@entry(lambda z, out: (reads(z, 3), writes(out, 3), INT, INT))
def softmax_middle_few(z, out, operation, scratch):
    """The same of a few rows, logsumexp as (outer, 1, inner); how many are listed behind the counter."""
    rows, classes, of_z, of_out = z.shape[0] * z.shape[2], z.shape[1], described(z, FLOAT32), described(out, FLOAT32)
    hard, stage = begin(scratch, rows)
    softmax_middle(scratch, ALL, hard, stage, rows, classes, operation, of_z, of_out, False, z.dtype.type(0))
    return read_i64(hard)
