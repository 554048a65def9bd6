"""Cross-entropy of rows of some vectors with an integer target in each: loss and gradient."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.lanes import (
    f32s,
    f64s,
    halves,
    i32s,
    lane,
    load_f32,
    load_f64,
    max_of_each,
    read_f32,
    read_i64,
    size_of,
    store_f32,
    sum_of_each,
    where,
    write_f32,
    write_f64,
)
from softgrad.backends.numba_cpu.middle import (
    AHEAD,
    BEFORE,
    LINES,
    NEXT,
    NUMBERS,
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
    set_at_target,
    shift_rows,
    shifts,
    stride_of,
    tile_at,
    without,
    write_row_of,
)
from softgrad.backends.numba_cpu.pairs import split
from softgrad.backends.numba_cpu.past_caches import begin_lines, flush
from softgrad.backends.numba_cpu.single import power_of_two_single
from softgrad.backends.numba_cpu.single_options import less
from softgrad.backends.numba_cpu.sixteen import all_set, whole_shift
from softgrad.backends.numba_cpu.sixteen_targets import settle, targets_of, write_losses
from softgrad.backends.numba_cpu.taking import ahead, following
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD
from softgrad.backends.numba_cpu.tiles import read_as, row_offset
from softgrad.backends.numba_cpu.wide import fill_row
from softgrad.backends.numba_cpu.wide_cross_entropy import gaps_of


@kernel
def cross_entropy_middle(
    counter,
    chunk,
    hard,
    stage,
    rows,
    classes,
    z,
    indices,
    weights,
    scales,
    by,
    loss,
    grad,
    streams,
    fmt,
    options=None,
):
    """Loss and gradient, each where there is an array (address not 0), of every tile that no other thread takes."""
    terms = stage + TERMS
    of_z, of_out = ahead(z, size_of(fmt), classes, AHEAD), ahead(grad, size_of(fmt), classes, AHEAD)
    tiles = (rows + 15) >> 4
    begin_lines(stage + LINES)
    i, stop = following(counter, chunk, tiles, -1, 0)
    before, tile = (0, 0, classes), tile_at(i, rows, classes)
    near_0 = is_usual(weights, scales, by, options)
    usual, found = near_0, False
    while True:
        i, stop = following(counter, chunk, tiles, i, stop)
        after = tile_at(i, rows, classes)
        N = f32s(USUAL) if usual else shifts(next_largest(z, tile, of_z, found, stage, fmt), near_0)
        shift_rows(N, N, stage)
        for r in range(max(before[1], tile[1])):
            if r < before[1]:
                write(terms, grad, before, r, of_out, stage, streams, fmt)
            if r < tile[1]:
                terms_of_row(z, terms, tile, indices, r, of_z, stage, fmt)
            if r < after[1] and not usual:
                store_f32(stage + NEXT + 64 * r, largest_of_row(z, after, r, of_z, fmt))
        if tile[1] == 0:
            flush(stage + LINES, fmt)
            return
        m = max_of_each(stage + TOPS)
        wanted, found = shifts(m, near_0), not usual
        if not all_set(where(wanted == N, i32s(1), i32s(0))):
            shift_rows(wanted, wanted, stage)
            for r in range(tile[1]):
                terms_of_row(z, terms, tile, indices, r, of_z, stage, fmt)
        usual = near_0 and all_set(where(wanted == USUAL, i32s(1), i32s(0)))
        # From here on as if every row had its own N: a row has the bits that other calls would give it.
        N = whole_shift(m)
        unit, inverse = power_of_two_single(wanted - N), power_of_two_single(N - wanted)
        low, high = sum_of_each(stage + SUMS)
        unit_low, unit_high = halves(unit)
        low, high = low * unit_low, high * unit_high
        e_t = load_f32(stage + NUMBERS + 192) * unit
        t = targets_of(indices, tile)
        gaps = f64s(0.0), f64s(0.0)
        if options is not None and loss[0] != 0 and options[0] != 0.0:
            gaps = gaps_of_rows(z, tile, m, stage, fmt)
        counts, keep, (factor, rest), at_t, d, l_low, l_high = settle(
            tile, t, m, N, e_t, split(low, high), gaps, z, weights, scales, by, loss, hard, fmt, options
        )
        write_losses(loss, tile, l_low, l_high)
        before = (tile[0], 0, classes)
        if grad[0] != 0:
            if by == 0.0:
                counts = i32s(0)
            fill_others(grad, tile, counts, t, by, fmt)
            set_at_target(terms, tile, indices, at_t * inverse, stage)
            before = tile
            each_row(factor * unit, stage + BEFORE)
            each_row(rest * unit, stage + BEFORE + 64)
            each_row(d, stage + BEFORE + 128)
            keep_rows(keep & counts, stage)
        tile = after


@inlined
def is_usual(weights, scales, by, options):
    """Whether rows near 0 may share one N: gradients are multiplied by nothing that would need more room on a side."""
    if weights != 0 or scales[1] != 0 or scales[3] != 0:
        return False
    if options is not None and options[1] != 0.0:
        return False
    g = abs(read_as(scales[0], scales[4]) / by) if by != 0.0 else 0.0
    return g == 0.0 or 2.0**-24 <= g <= 1.0


@inlined
def terms_of_row(z, terms, tile, indices, i, distance, stage, fmt):
    """Fill e, 0 for the target; what the sum of the others and the largest logit are found from, and e_t."""
    e, top, _ = exponentials_of_row(z, terms, tile, i, distance, stage, False, fmt)
    t, e_at = read_i64(indices + 8 * (tile[0] + i)), terms + stride_of(tile[2]) * i
    if t >= 0:
        write_f32(stage + NUMBERS + 192 + 4 * i, read_f32(e_at + 4 * t))
        e = without(e, e_at, tile[2], t)
    store_f32(stage + SUMS + 64 * i, e)
    store_f32(stage + TOPS + 64 * i, top)


@inlined
def write(terms, grad, tile, i, distance, stage, streams, fmt):
    """Row i of the gradient: e (factor + rest) − d."""
    numbers = stage + BEFORE
    of = terms + stride_of(tile[2]) * i, of_row(numbers, i), of_row(numbers + 64, i), of_row(numbers + 128, i)
    write_row_of(less, of, grad, tile, i, distance, stage, streams, fmt)


@helper
def gaps_of_rows(z, tile, m, stage, fmt):
    """Σ (m − z_j) of the first eight rows and of the others."""
    each_row(m, stage + NUMBERS)
    for i in range(tile[1]):
        gaps = gaps_of(row_offset(z, tile[0] + i), tile[2], read_f32(stage + NUMBERS + 4 * i), fmt)
        write_f64(stage + SUMS + 8 * i, gaps)
    return load_f64(stage + SUMS), load_f64(stage + SUMS + 64)


@helper
def fill_others(grad, tile, counts, t, by, fmt):
    """0 in rows that count for nothing, NaN in rows whose target is out of range."""
    if by != 0.0 and all_set(counts):
        return
    x = where(t == BAD, f32s(0.0 if by == 0.0 else math.nan), f32s(0.0))
    for i in range(tile[1]):
        if lane(counts, i) == 0:
            fill_row(row_offset(grad, tile[0] + i), tile[2], lane(x, i), fmt)
