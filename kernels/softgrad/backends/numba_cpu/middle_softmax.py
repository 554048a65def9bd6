"""softmax, log_softmax and logsumexp of rows of some vectors."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.entries import ALL, INT, begin, described, entry, reads, writes
from softgrad.backends.numba_cpu.flat import spread, write_all
from softgrad.backends.numba_cpu.lanes import (
    f64s,
    halves,
    load_f32,
    read_f32,
    read_i64,
    sum_of_each,
    write_f32,
)
from softgrad.backends.numba_cpu.middle import (
    BEFORE,
    LINES,
    NUMBERS,
    SUMS,
    add_terms,
    each_row,
    keep_rows,
    of_row,
    write_row_of,
)
from softgrad.backends.numba_cpu.middle_tiles import over_tiles
from softgrad.backends.numba_cpu.pairs import split
from softgrad.backends.numba_cpu.single import power_of_two_single
from softgrad.backends.numba_cpu.sixteen import (
    all_set,
    log_sums_of,
    ordinary,
    refer_rows,
    whole_shift,
    write_log_sums,
)
from softgrad.backends.numba_cpu.taking import leave
from softgrad.backends.numba_cpu.tile_softmax import LOG_SOFTMAX, LOGSUMEXP, SOFTMAX
from softgrad.backends.numba_cpu.tiles import FLOAT32, row_offset
from softgrad.backends.numba_cpu.wide import first_equal, logs, multiple


@kernel
def softmax_middle(counter, chunk, hard, stage, flat, rows, classes, operation, z, out, streams, fmt):
    """One of the three of every tile that no other thread takes; rows float32 will not do for are listed at `hard`.

    `flat`: rows lie one behind the other in all arrays.
    """
    of = operation, z, out, hard, stage + LINES if streams else 0, fmt
    arrays = rows, classes, z, out
    over_tiles(
        counter, chunk, stage, arrays, flat, fmt, True, operation != SOFTMAX,
        _set_nothing_apart, _add, _settle, _write_run, _write, of, None,
    )  # fmt: skip
    leave(counter)


@inlined
def _set_nothing_apart(of, terms, tile, stage):
    """What log_softmax and logsumexp leave out is known by the largest logit."""


@inlined
def _add(of, terms, tile, is_run, stage):
    nothing = f64s(0.0)
    if of[0] != SOFTMAX:
        return f64s(1.0), f64s(1.0), nothing, nothing
    add_terms(terms, tile, is_run, stage)
    low, high = sum_of_each(stage + SUMS)
    return low, high, nothing, nothing


@inlined
def _settle(of, options, here, terms, m, N, sums, total, stage):
    operation, z, out, hard, _, fmt = of
    tile, is_run = here[0], here[1]
    keep = ordinary(m, tile)
    if not all_set(keep):
        refer_rows(hard, tile, keep, 0)
    if operation == SOFTMAX:
        factor, rest = split(1.0 / sums[0], 1.0 / sums[1])
    else:
        factor, rest = m, logs_of_sums(z, terms, tile, is_run, m, N, stage, fmt)
        if operation == LOGSUMEXP:
            write_log_sums(out, tile, m, *halves(rest))
    each_row(factor, stage + BEFORE)
    each_row(rest, stage + BEFORE + 64)
    keep_rows(keep, stage)
    written = tile[0], tile[1] if operation != LOGSUMEXP else 0, tile[2], tile[3]
    return written, is_run and all_set(keep), total


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
def _write_run(of, terms, tile, table, distance, stage):
    operation, z, out, _, begun, fmt = of
    numbers = load_f32(stage + BEFORE), load_f32(stage + BEFORE + 64), table
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
def _write(of, terms, tile, i, distance, stage):
    operation, z, out, _, begun, fmt = of
    numbers = of_row(stage + BEFORE, i), of_row(stage + BEFORE + 64, i)
    if operation == SOFTMAX:
        write_row_of(multiple, (terms + tile[3] * i, *numbers), out, tile, i, distance, stage, begun, fmt)
    else:
        write_row_of(logs, (row_offset(z, tile[0] + i), *numbers, fmt), out, tile, i, distance, stage, begun, fmt)


@entry(lambda z, out: (reads(z, 3), writes(out, 3), INT, INT))
def softmax_middle_few(z, out, operation, scratch):
    """The same of a few rows, logsumexp as (outer, 1, inner); how many are listed behind the counter."""
    rows, classes, of_z, of_out = z.shape[0] * z.shape[2], z.shape[1], described(z, FLOAT32), described(out, FLOAT32)
    hard, stage = begin(scratch, rows)
    softmax_middle(scratch, ALL, hard, stage, False, rows, classes, operation, of_z, of_out, False, z.dtype.type(0))
    return read_i64(hard)
