"""Cross-entropy of sixteen rows side by side, with an integer target in each: loss and gradient."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    f32s,
    f64s,
    halves,
    i32s,
    joined,
    lane,
    lane_numbers32,
    load_f32,
    load_i32_of_i64,
    load_part_f64,
    load_part_i32_of_i64,
    store_f32,
    store_part_f64,
    sum_across,
    take,
    where,
    with_lane,
)
from softgrad.backends.numba_cpu.narrow import (
    exponentials,
    fill_columns,
    largest,
    ordinary,
    pick,
    refer_rows,
    spill_columns,
    split,
    tile_at,
    tiles_of,
    whole_shift,
)
from softgrad.backends.numba_cpu.single import LN_2, scaled, target_terms
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD
from softgrad.backends.numba_cpu.tiles import FLOAT64, load_some, row_offset, store_some


@kernel
def cross_entropy_columns(counter, chunk, hard, stage, rows, classes, z, indices, weights, scales, by, loss, grad, fmt):
    """Loss and gradient, each where there is an array (address not 0), of every tile that no other thread takes."""
    columns = stage + 1024
    tiles = tiles_of(z, rows)
    first = take(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = tile_at(i, z, rows, classes)
            n = tile[1]
            at = indices + 8 * tile[0]
            t = load_i32_of_i64(at) if n == 16 else load_part_i32_of_i64(at, n)
            fill_columns(columns, stage, z, tile, fmt)
            m, _ = largest(columns, classes)
            N = whole_shift(m)
            z_low, z_high = halves(pick(columns, classes, t))
            n_low, n_high = halves(N)
            low, high = exponentials(columns, classes, N, t)
            e_low, loss_low = target_terms(low, z_low - n_low * LN_2)
            e_high, loss_high = target_terms(high, z_high - n_high * LN_2)
            h_low, h_high = masses(weights, t)
            keep_low, f_low = scales_of(scales, tile, 0, h_low, by, low + e_low)
            keep_high, f_high = scales_of(scales, tile, 8, h_high, by, high + e_high)
            counts = where((t < 0) | (lane_numbers32() >= tile[1]), i32s(0), i32s(1))
            in_range = where(joined(keep_low, keep_high) > 0.5, i32s(1), i32s(0))
            keep = where(counts == 0, i32s(1), ordinary(m, tile) & in_range)
            if sum_across(keep) < 16:
                refer_rows(hard, tile, keep, 0)
            if loss[0] != 0:
                write_losses(loss, tile, 0, loss_low, h_low, t, keep)
                write_losses(loss, tile, 8, loss_high, h_high, t, keep)
            if grad[0] != 0:
                factor, rest = split(f_low, f_high)
                write_gradient(columns, classes, factor, rest, joined(-low, -high), t, counts, by)
                spill_columns(columns, stage, grad, tile, keep, fmt)
        first = take(counter) * chunk


@helper
def masses(weights, t):
    """Weights of the targets."""
    low, high = f64s(1.0), f64s(1.0)
    if weights != 0:
        for i in range(8):
            low = with_lane(low, i, lane(load_part_f64(weights + 8 * max(lane(t, i), 0), 1), 0))
            high = with_lane(high, i, lane(load_part_f64(weights + 8 * max(lane(t, i + 8), 0), 1), 0))
    return low, high


@helper
def scales_of(scales, tile, start, h, by, s):
    """What eight rows' gradients are multiplied by, over s, and whether float32 will do for it."""
    if scales[1] == 0 and scales[3] == 0:
        scale = f64s(lane(load_some(scales[0], 1, scales[4]), 0))
    else:
        scale = f64s(0.0)
        for i in range(8):
            at = row_offset(scales, tile[0] + min(start + i, tile[1] - 1))
            scale = with_lane(scale, i, lane(load_some(at, 1, scales[4]), 0))
    scale = scale * h / by if by != 0.0 else f64s(0.0)
    factor = scale / s
    fine = (scale == 0.0) | (factor != factor) | ((absolute(scale) < 2.0**60) & (absolute(factor) > 2.0**-120))
    return where(fine, f64s(1.0), f64s(0.0)), factor


@helper
def write_losses(loss, tile, start, values, h, t, keep):
    """h · loss of eight rows, 0 · ∞ = 0; 0 and NaN for rows without a target."""
    values = where((h == 0.0) & (values == math.inf), f64s(0.0), h * values)
    for i in range(8):
        if lane(t, start + i) < 0:
            values = with_lane(values, i, math.nan if lane(t, start + i) == BAD else 0.0)
    n = min(8, tile[1] - start)
    if n <= 0:
        return
    if loss[4] == FLOAT64 and loss[3] == 8 and loss[1] == 8 * loss[5]:
        store_part_f64(loss[0] + 8 * (tile[0] + start), values, n)
    else:
        for i in range(n):
            store_some(row_offset(loss, tile[0] + start + i), f64s(lane(values, i)), 1, loss[4])


@inlined
def write_gradient(columns, classes, factor, rest, at_t, t, counts, by):
    """Replace e by the gradient: at the target −rest_t in place of e_t; 0 or NaN in rows without a target."""
    for c in range(classes):
        g = scaled(where(t == c, at_t, load_f32(columns + 64 * c)), factor, rest)
        g = where(counts == 0, where(t == BAD, f32s(math.nan), f32s(0.0)), g)
        store_f32(columns + 64 * c, g if by != 0.0 else f32s(0.0))
