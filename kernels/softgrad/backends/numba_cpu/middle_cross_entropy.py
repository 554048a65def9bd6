"""Cross-entropy of rows of some vectors with an integer target in each: loss and gradient."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, kernel
from softgrad.backends.numba_cpu.lanes import (
    f32s,
    f64s,
    i32s,
    lane,
    load_f32,
    load_f64,
    read,
    read_f32,
    read_i64,
    size_of,
    store_f32,
    take,
    where,
    write_f32,
    write_f64,
)
from softgrad.backends.numba_cpu.middle import (
    NUMBERS,
    TERMS,
    each_row,
    exponentials_of_others,
    largest,
    of_row,
    set_at_target,
    stride_of,
    write_scaled,
)
from softgrad.backends.numba_cpu.pairs import split
from softgrad.backends.numba_cpu.single import LN_2, REACH, ROUNDER, exp_shifted
from softgrad.backends.numba_cpu.single_options import less
from softgrad.backends.numba_cpu.sixteen import all_set, whole_shift
from softgrad.backends.numba_cpu.sixteen_targets import settle, targets_of, write_losses
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD
from softgrad.backends.numba_cpu.tiles import row_offset
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
    tiles = (rows + 15) >> 4
    written = grad if grad[0] != 0 and not streams else z
    first = take(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = (16 * i, min(16, rows - 16 * i), classes)
            t = targets_of(indices, tile)
            m = largest(z, tile, stage, fmt)
            N = whole_shift(m)
            z_t = logits_at(z, tile, indices, stage + NUMBERS, fmt)
            low, high = exponentials_of_others(z, terms, tile, N, stage, indices, written, written, fmt)
            gaps = f64s(0.0), f64s(0.0)
            if options is not None and loss[0] != 0 and options[0] != 0.0:
                gaps = gaps_of_rows(z, tile, m, stage, fmt)
            e_t = exp_shifted(z_t, ROUNDER - N, (N - REACH) * LN_2)
            counts, keep, (factor, rest), at_t, d, l_low, l_high = settle(
                tile, t, m, N, e_t, split(low, high), gaps, z, weights, scales, by, loss, hard, fmt, options
            )
            write_losses(loss, tile, l_low, l_high)
            if grad[0] != 0:
                if by == 0.0:
                    counts = i32s(0)
                fill_others(grad, tile, counts, t, by, fmt)
                set_at_target(terms, tile, indices, at_t, stage)
                if options is not None and options[0] != 0.0:
                    subtract(terms, tile, factor, rest, d, stage)
                    factor, rest = f32s(1.0), f32s(0.0)
                write_scaled(terms, grad, tile, factor, rest, keep & counts, stage, streams, fmt)
        first = take(counter) * chunk


@helper
def gaps_of_rows(z, tile, m, stage, fmt):
    """Σ (m − z_j) of the first eight rows and of the others."""
    each_row(m, stage + NUMBERS)
    for i in range(tile[1]):
        gaps = gaps_of(row_offset(z, tile[0] + i), tile[2], read_f32(stage + NUMBERS + 4 * i), fmt)
        write_f64(stage + 8 * i, gaps)
    return load_f64(stage), load_f64(stage + 64)


@helper
def subtract(terms, tile, factor, rest, d, stage):
    """Replace e by e (factor + rest) − d."""
    stride, numbers = stride_of(tile[2]), stage + NUMBERS
    each_row(factor, numbers)
    each_row(rest, numbers + 64)
    each_row(d, numbers + 128)
    for i in range(tile[1]):
        of = terms + stride * i, of_row(numbers, i), of_row(numbers + 64, i), of_row(numbers + 128, i)
        for j in range(0, tile[2], 16):
            store_f32(of[0] + 4 * j, less(j, 16, of))


@helper
def logits_at(z, tile, indices, numbers, fmt):
    """z_t of each row."""
    for i in range(tile[1]):
        t = max(read_i64(indices + 8 * (tile[0] + i)), 0)
        write_f32(numbers + 4 * i, read(row_offset(z, tile[0] + i) + size_of(fmt) * t, fmt))
    return load_f32(numbers)


@helper
def fill_others(grad, tile, counts, t, by, fmt):
    """0 in rows that count for nothing, NaN in rows whose target is out of range."""
    if by != 0.0 and all_set(counts):
        return
    x = where(t == BAD, f32s(0.0 if by == 0.0 else math.nan), f32s(0.0))
    for i in range(tile[1]):
        if lane(counts, i) == 0:
            fill_row(row_offset(grad, tile[0] + i), tile[2], lane(x, i), fmt)
