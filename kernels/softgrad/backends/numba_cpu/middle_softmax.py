"""softmax, log_softmax and logsumexp of rows of some vectors."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.entries import ALL, INT, begin, described, entry, reads, writes
from softgrad.backends.numba_cpu.flat import spread, write_all
from softgrad.backends.numba_cpu.lanes import (
    anywhere,
    f32s,
    f64s,
    halves,
    larger,
    load_f32,
    max_of_each,
    read_f32,
    read_i64,
    size_of,
    store_f32,
    sum_of_each,
    write_f32,
)
from softgrad.backends.numba_cpu.middle import (
    AHEAD,
    BEFORE,
    LINES,
    NEAR,
    NEXT,
    NUMBERS,
    SUMS,
    TOPS,
    USUAL,
    add_terms,
    are_near,
    each_row,
    fill_again,
    fill_run,
    keep_rows,
    largest_of_row,
    look_at_run,
    next_largest,
    of_row,
    shift_rows,
    shifts,
    terms_in,
    terms_of_row,
    tile_at,
    write_row_of,
)
from softgrad.backends.numba_cpu.pairs import split
from softgrad.backends.numba_cpu.past_caches import begin_lines, flush
from softgrad.backends.numba_cpu.single import power_of_two_single
from softgrad.backends.numba_cpu.sixteen import (
    all_set,
    everywhere,
    log_sums_of,
    ordinary,
    refer_rows,
    whole_shift,
    write_log_sums,
)
from softgrad.backends.numba_cpu.taking import ahead, following, leave
from softgrad.backends.numba_cpu.tile_softmax import LOG_SOFTMAX, LOGSUMEXP, SOFTMAX
from softgrad.backends.numba_cpu.tiles import FLOAT32, row_offset
from softgrad.backends.numba_cpu.wide import first_equal, logs, multiple


@kernel
def softmax_middle(counter, chunk, hard, stage, flat, rows, classes, operation, z, out, streams, fmt):
    """One of the three of every tile that no other thread takes; rows float32 will not do for are listed at `hard`.

    `flat`: rows lie one behind the other in all arrays.
    """
    terms, others, table = terms_in(stage, classes, flat)
    of_z, of_out = ahead(z, size_of(fmt), classes, AHEAD), ahead(out, size_of(fmt), classes, AHEAD)
    tiles = (rows + 15) >> 4
    begin_lines(stage + LINES)
    i, stop = following(counter, chunk, tiles, -1, 0)
    before, tile = tile_at(0, 0, classes, flat), tile_at(i, rows, classes, flat)
    usual, found, whole = True, False, False
    while True:
        i, stop = following(counter, chunk, tiles, i, stop)
        after = tile_at(i, rows, classes, flat)
        terms, others = others, terms
        is_run = flat and tile[1] == 16
        if is_run:
            N, low_enough = fill_run(z, terms, tile, usual, True, table, of_z, stage, fmt)
        else:
            N = f32s(USUAL) if usual else shifts(next_largest(z, tile, of_z, found, stage, fmt), True)
            low_enough = usual
            shift_rows(N, N, stage)
        found, top = not (is_run or usual), f32s(-math.inf)
        if whole:
            write_run(operation, z, others, out, before, table, of_out, stage, streams, fmt)
        to_write, to_fill = 0 if whole else before[1], 0 if is_run else tile[1]
        for r in range(max(to_write, to_fill)):
            if r < to_write:
                write(operation, z, others, out, before, r, of_out, stage, streams, fmt)
            if r < to_fill:
                top = larger(terms_of_row(z, terms, tile, r, of_z, stage, fmt), top)
            if r < after[1] and found:
                store_f32(stage + NEXT + 64 * r, largest_of_row(z, after, r, of_z, fmt))
        if tile[1] == 0:
            break
        low, high = sums_of(operation, terms, tile, is_run, stage)
        low_enough = low_enough and not anywhere(top >= NEAR)
        near = operation == SOFTMAX and low_enough and are_near(low, high)
        if is_run and not near:
            look_at_run(z, tile, stage, fmt)
        m, wanted = f32s(0.0), N
        if not near:
            m = max_of_each(stage + TOPS)
            wanted = shifts(m, True)
            if not everywhere(wanted == N):
                shift_rows(wanted, wanted, stage)
                fill_again(z, terms, tile, of_z, stage, fmt)
                low, high = sums_of(operation, terms, tile, is_run, stage)
            usual = everywhere(wanted == USUAL)
        keep = ordinary(m, tile)
        whole = is_run and all_set(keep)
        if not all_set(keep):
            refer_rows(hard, tile, keep, 0)
        if operation == SOFTMAX:
            factor, rest = split(1.0 / low, 1.0 / high)
        else:
            factor, rest = m, logs_of_sums(z, terms, tile, is_run, m, wanted, stage, fmt)
            if operation == LOGSUMEXP:
                write_log_sums(out, tile, m, *halves(rest))
        before = (tile[0], tile[1] if operation != LOGSUMEXP else 0, classes, tile[3])
        each_row(factor, stage + BEFORE)
        each_row(rest, stage + BEFORE + 64)
        keep_rows(keep, stage)
        tile = after
    flush(stage + LINES, fmt)
    leave(counter)


@inlined
def sums_of(operation, terms, tile, is_run, stage):
    """Σ e of the first eight rows and of the others, for softmax: the other operations leave out a class first."""
    if operation != SOFTMAX:
        return f64s(1.0), f64s(1.0)
    add_terms(terms, tile, is_run, stage)
    return sum_of_each(stage + SUMS)


@helper
def logs_of_sums(z, terms, tile, is_run, m, N, stage, fmt):
    """l = log1p(rest_k / e_k) of each row, k the first class whose logit is m; e_k is made 0."""
    numbers = stage + NUMBERS
    each_row(m, numbers)
    for i in range(tile[1]):
        z_at, e_at = row_offset(z, tile[0] + i), terms + tile[3] * i
        k = first_equal(z_at, tile[2], read_f32(numbers + 4 * i), 0, fmt)
        write_f32(numbers + 64 + 4 * i, read_f32(e_at + 4 * k))
        write_f32(e_at + 4 * k, 0.0)
    add_terms(terms, tile, is_run, stage)
    # As if every row had its own N: a row has the bits that it has among any others.
    own = whole_shift(m)
    unit = power_of_two_single(N - own)
    low, high = sum_of_each(stage + SUMS)
    unit_low, unit_high = halves(unit)
    return log_sums_of(m, own, split(low * unit_low, high * unit_high), load_f32(numbers + 64) * unit)


@inlined
def write_run(operation, z, terms, out, tile, table, distance, stage, streams, fmt):
    """A tile of a result that is a run, all of it."""
    numbers, begun = (load_f32(stage + BEFORE), load_f32(stage + BEFORE + 64), table), stage + LINES if streams else 0
    if operation == SOFTMAX:
        write_all(multiple_of_run, (terms, *numbers), out, tile, distance, begun, fmt)
    elif operation == LOG_SOFTMAX:
        write_all(logs_of_run, (row_offset(z, tile[0]), *numbers, fmt), out, tile, distance, begun, fmt)


@inlined
def multiple_of_run(j, n, of):
    """`multiple`, with each row's factor."""
    e_at, factor, rest, table = of
    return multiple(j, n, (e_at, spread(factor, table, j), spread(rest, table, j)))


@inlined
def logs_of_run(j, n, of):
    """`logs`, with each row's m and l."""
    z_at, m, l, table, fmt = of
    return logs(j, n, (z_at, spread(m, table, j), spread(l, table, j), fmt))


@inlined
def write(operation, z, terms, out, tile, i, distance, stage, streams, fmt):
    """Row i of a result."""
    numbers = of_row(stage + BEFORE, i), of_row(stage + BEFORE + 64, i)
    if operation == SOFTMAX:
        of = terms + tile[3] * i, numbers[0], numbers[1]
        write_row_of(multiple, of, out, tile, i, distance, stage, streams, fmt)
    else:
        of = row_offset(z, tile[0] + i), numbers[0], numbers[1], fmt
        write_row_of(logs, of, out, tile, i, distance, stage, streams, fmt)


@entry(lambda z, out: (reads(z, 3), writes(out, 3), INT, INT))
def softmax_middle_few(z, out, operation, scratch):
    """The same of a few rows, logsumexp as (outer, 1, inner); how many are listed behind the counter."""
    rows, classes, of_z, of_out = z.shape[0] * z.shape[2], z.shape[1], described(z, FLOAT32), described(out, FLOAT32)
    hard, stage = begin(scratch, rows)
    softmax_middle(scratch, ALL, hard, stage, False, rows, classes, operation, of_z, of_out, False, z.dtype.type(0))
    return read_i64(hard)
