"""Cross-entropy of rows of some vectors with an integer target in each: loss and gradient."""

from __future__ import annotations

import math

import numpy as np

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.flat import spread, write_all
from softgrad.backends.numba_cpu.lanes import (
    f32s,
    f64s,
    halves,
    i32s,
    joined,
    lane,
    load_f32,
    load_f64,
    read_f32,
    read_i64,
    sum_across,
    sum_of_each,
    where,
    write_f32,
    write_f64,
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
    set_at_target,
    write_row_of,
)
from softgrad.backends.numba_cpu.middle_tiles import over_tiles
from softgrad.backends.numba_cpu.pairs import split
from softgrad.backends.numba_cpu.single import LIFT, exponent, power_of_two_single
from softgrad.backends.numba_cpu.single_options import less
from softgrad.backends.numba_cpu.sixteen import all_set
from softgrad.backends.numba_cpu.sixteen_targets import SUMS as SUMMED
from softgrad.backends.numba_cpu.sixteen_targets import settle, sum_of_losses, targets_of, write_losses
from softgrad.backends.numba_cpu.sixteen_task import told
from softgrad.backends.numba_cpu.taking import leave
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
    of = z, indices, weights, scales, by, loss, grad, hard, stage + LINES if streams else 0, fmt
    may_be_usual = is_usual(weights, scales, by, options)
    arrays = rows, classes, z, grad
    over_tiles(
        counter, chunk, stage, arrays, flat, fmt, may_be_usual, options is not None,
        _set_apart, _add, _settle, _write_run, _write, of, options,
    )  # fmt: skip
    leave(counter)


@inlined
def _add(of, terms, tile, is_run, stage):
    add_terms(terms, tile, is_run, stage)
    low, high = sum_of_each(stage + SUMS)
    e_low, e_high = halves(load_f32(stage + NUMBERS + 192))
    return low, high, e_low, e_high


@inlined
def _settle(of, options, here, terms, m, N, sums, total, stage):
    z, indices, weights, scales, by, loss, grad, hard, _, fmt = of
    tile, is_run, share, is_last = here
    low, high, e_low, e_high = sums
    # From here on with an N that makes Σ e a number from 2^LIFT on, whichever it was made with.
    further = exponent(joined(low + e_low, high + e_high)) - LIFT
    unit, inverse = power_of_two_single(f32s(0.0) - further), power_of_two_single(further)
    unit_low, unit_high = halves(unit)
    others = split(low * unit_low, high * unit_high)
    e_t = load_f32(stage + NUMBERS + 192) * unit
    t = targets_of(indices, tile)
    gaps = f64s(0.0), f64s(0.0)
    if options is not None and loss[0] != 0 and options[0] != 0.0:
        gaps = gaps_of_rows(z, tile, m, stage, fmt)
    counts, keep, (factor, rest), at_t, d, l_low, l_high = settle(
        tile, t, m, N + further, e_t, others, gaps, z, weights, scales, by, loss, hard, fmt, options
    )
    if loss[4] == SUMMED:
        total += sum_of_losses(tile, keep, l_low, l_high)
        if is_last:
            if loss[0] != 0:
                write_f64(loss[0] + 8 * share, sum_across(total))
            total = f64s(0.0)
    else:
        write_losses(loss, tile, l_low, l_high)
    written, whole = (tile[0], 0, tile[2], tile[3]), False
    if grad[0] != 0:
        if by == 0.0:
            counts = i32s(0)
        fill_others(grad, tile, counts, t, by, fmt)
        set_at_target(terms, tile, indices, at_t * inverse, stage)
        written, whole = tile, is_run and all_set(keep & counts)
        each_row(factor * unit, stage + BEFORE)
        each_row(rest * unit, stage + BEFORE + 64)
        each_row(d, stage + BEFORE + 128)
        keep_rows(keep & counts, stage)
    return written, whole, total


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
def _set_apart(of, terms, tile, stage):
    """Take e_t out of the terms of each row, before they are added."""
    indices = of[1]
    for i in range(tile[1]):
        t = read_i64(indices + 8 * (tile[0] + i))
        at = terms + tile[3] * i + 4 * max(t, 0)
        e_t = read_f32(at)
        write_f32(stage + NUMBERS + 192 + 4 * i, e_t)
        write_f32(at, np.float32(0.0) if t >= 0 else e_t)


@inlined
def _write_run(of, terms, tile, table, distance, stage):
    numbers = load_f32(stage + BEFORE), load_f32(stage + BEFORE + 64), load_f32(stage + BEFORE + 128)
    write_all(less_of_run, (terms, *numbers, table), of[6], tile, distance, of[8], of[9])


@inlined
def less_of_run(j, n, of):
    """`less`, with each row's numbers."""
    e_at, factor, rest, offset, table = of
    return less(j, n, (e_at, spread(factor, table, j), spread(rest, table, j), spread(offset, table, j)))


@inlined
def _write(of, terms, tile, i, distance, stage):
    """Row i of the gradient: e (factor + rest) − d."""
    numbers = of_row(stage + BEFORE, i), of_row(stage + BEFORE + 64, i), of_row(stage + BEFORE + 128, i)
    write_row_of(less, (terms + tile[3] * i, *numbers), of[6], tile, i, distance, stage, of[8], of[9])


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
