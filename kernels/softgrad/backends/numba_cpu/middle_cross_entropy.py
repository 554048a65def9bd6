"""Cross-entropy of rows of some vectors with an integer target in each: loss and gradient."""

from __future__ import annotations

import math

import numpy as np

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.flat import spread, write_all
from softgrad.backends.numba_cpu.lanes import (
    anywhere,
    f32s,
    f64s,
    halves,
    i32s,
    joined,
    lane,
    larger,
    load_f32,
    load_f64,
    max_of_each,
    read_f32,
    read_i64,
    size_of,
    store_f32,
    sum_across,
    sum_of_each,
    where,
    write_f32,
    write_f64,
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
    set_at_target,
    shift_rows,
    shifts,
    terms_in,
    terms_of_row,
    tile_at,
    write_row_of,
)
from softgrad.backends.numba_cpu.pairs import split
from softgrad.backends.numba_cpu.past_caches import begin_lines, flush
from softgrad.backends.numba_cpu.single import LIFT, exponent, power_of_two_single
from softgrad.backends.numba_cpu.single_options import less
from softgrad.backends.numba_cpu.sixteen import all_set, everywhere
from softgrad.backends.numba_cpu.sixteen_targets import SUMS as SUMMED
from softgrad.backends.numba_cpu.sixteen_targets import settle, sum_of_losses, targets_of, write_losses
from softgrad.backends.numba_cpu.sixteen_task import told
from softgrad.backends.numba_cpu.taking import ahead, following, leave
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD
from softgrad.backends.numba_cpu.tiles import read_as, row_offset
from softgrad.backends.numba_cpu.wide import fill_row
from softgrad.backends.numba_cpu.wide_cross_entropy import gaps_of


@kernel
def cross_entropy_middle(counter, chunk, hard, stage, flat, task, fmt, options=None):
    """Loss and gradient, each where there is an array (address not 0), of every tile that no other thread takes.

    Losses of kind SUMS: their sum over each chunk of tiles.  `flat`: rows lie one behind the other in all arrays.
    """
    rows, classes, z, indices, weights, scales, by, loss, grad, streams = told(task)
    terms, others, table = terms_in(stage, classes, flat)
    of_z, of_out = ahead(z, size_of(fmt), classes, AHEAD), ahead(grad, size_of(fmt), classes, AHEAD)
    tiles = (rows + 15) >> 4
    begin_lines(stage + LINES)
    i, stop = following(counter, chunk, tiles, -1, 0)
    before, tile = tile_at(0, 0, classes, flat), tile_at(i, rows, classes, flat)
    near_0 = is_usual(weights, scales, by, options)
    usual, found, whole, sums = near_0, False, False, f64s(0.0)
    while True:
        here, is_last = i // chunk, i + 1 == stop
        i, stop = following(counter, chunk, tiles, i, stop)
        after = tile_at(i, rows, classes, flat)
        terms, others = others, terms
        is_run = flat and tile[1] == 16
        if is_run:
            N, low_enough = fill_run(z, terms, tile, usual, near_0, table, of_z, stage, fmt)
            set_targets_apart(terms, tile, indices, stage)  # long before they are added, that none waits for the other
        else:
            N = f32s(USUAL) if usual else shifts(next_largest(z, tile, of_z, found, stage, fmt), near_0)
            low_enough = usual
            shift_rows(N, N, stage)
        found, top = not (is_run or usual), f32s(-math.inf)
        if whole:
            write_run(others, grad, before, table, of_out, stage, streams, fmt)
        to_write, to_fill = 0 if whole else before[1], 0 if is_run else tile[1]
        for r in range(max(to_write, to_fill)):
            if r < to_write:
                write(others, grad, before, r, of_out, stage, streams, fmt)
            if r < to_fill:
                top = larger(terms_of_row(z, terms, tile, r, of_z, stage, fmt), top)
            if r < after[1] and found:
                store_f32(stage + NEXT + 64 * r, largest_of_row(z, after, r, of_z, fmt))
        if tile[1] == 0:
            break
        if not is_run:
            set_targets_apart(terms, tile, indices, stage)
        add_terms(terms, tile, is_run, stage)
        low, high, e_low, e_high = sums_of(stage)
        low_enough = low_enough and not anywhere(top >= NEAR)
        near = options is None and low_enough and are_near(low + e_low, high + e_high)
        if is_run and not near:
            look_at_run(z, tile, stage, fmt)
        m, wanted = f32s(0.0), N
        if not near:
            m = max_of_each(stage + TOPS)
            wanted = shifts(m, near_0)
            if not everywhere(wanted == N):
                shift_rows(wanted, wanted, stage)
                fill_again(z, terms, tile, of_z, stage, fmt)
                set_targets_apart(terms, tile, indices, stage)
                add_terms(terms, tile, is_run, stage)
                low, high, e_low, e_high = sums_of(stage)
            usual = near_0 and everywhere(wanted == USUAL)
        # From here on with an N that makes Σ e a number from 2^LIFT on, whichever it was made with.
        further = exponent(joined(low + e_low, high + e_high)) - LIFT
        N = wanted + further
        unit, inverse = power_of_two_single(f32s(0.0) - further), power_of_two_single(further)
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
        if loss[4] == SUMMED:
            sums += sum_of_losses(tile, keep, l_low, l_high)
            if is_last:
                if loss[0] != 0:
                    write_f64(loss[0] + 8 * here, sum_across(sums))
                sums = f64s(0.0)
        else:
            write_losses(loss, tile, l_low, l_high)
        before, whole = tile_at(0, 0, classes, flat), False
        if grad[0] != 0:
            if by == 0.0:
                counts = i32s(0)
            fill_others(grad, tile, counts, t, by, fmt)
            set_at_target(terms, tile, indices, at_t * inverse, stage)
            before, whole = tile, is_run and all_set(keep & counts)
            each_row(factor * unit, stage + BEFORE)
            each_row(rest * unit, stage + BEFORE + 64)
            each_row(d, stage + BEFORE + 128)
            keep_rows(keep & counts, stage)
        tile = after
    flush(stage + LINES, fmt)
    leave(counter)


@inlined
def sums_of(stage):
    """Σ e without the targets, and these, of the first eight rows and of the others: (Σ, Σ, e_t, e_t)."""
    low, high = sum_of_each(stage + SUMS)
    e_low, e_high = halves(load_f32(stage + NUMBERS + 192))
    return low, high, e_low, e_high


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
def set_targets_apart(terms, tile, indices, stage):
    """Take e_t out of the terms of each row, before they are added."""
    for i in range(tile[1]):
        t = read_i64(indices + 8 * (tile[0] + i))
        at = terms + tile[3] * i + 4 * max(t, 0)
        e_t = read_f32(at)
        write_f32(stage + NUMBERS + 192 + 4 * i, e_t)
        write_f32(at, np.float32(0.0) if t >= 0 else e_t)


@inlined
def write_run(terms, grad, tile, table, distance, stage, streams, fmt):
    """A tile of the gradient that is a run, all of it."""
    numbers = load_f32(stage + BEFORE), load_f32(stage + BEFORE + 64), load_f32(stage + BEFORE + 128)
    write_all(less_of_run, (terms, *numbers, table), grad, tile, distance, stage + LINES if streams else 0, fmt)


@inlined
def less_of_run(j, n, of):
    """`less`, with each row's numbers."""
    e_at, factor, rest, offset, table = of
    return less(j, n, (e_at, spread(factor, table, j), spread(rest, table, j), spread(offset, table, j)))


@inlined
def write(terms, grad, tile, i, distance, stage, streams, fmt):
    """Row i of the gradient: e (factor + rest) − d."""
    numbers = stage + BEFORE
    of = terms + tile[3] * i, of_row(numbers, i), of_row(numbers + 64, i), of_row(numbers + 128, i)
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
