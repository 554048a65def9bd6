"""Losses of sixteen rows, and what their gradients are multiplied by, from the sums of their exponentials."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    f64s,
    halves,
    i32s,
    joined,
    lane,
    lane_numbers32,
    load_i32_of_i64,
    load_part_i32_of_i64,
    read_f64,
    store_part_f64,
    sum_across,
    where,
    with_lane,
)
from softgrad.backends.numba_cpu.single import LN_2, target_terms
from softgrad.backends.numba_cpu.sixteen import ordinary, refer_rows, split
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD
from softgrad.backends.numba_cpu.tiles import FLOAT64, read_as, row_offset, write_as


@helper
def targets_of(indices, tile):
    """t of each row."""
    at = indices + 8 * tile[0]
    return load_i32_of_i64(at) if tile[1] == 16 else load_part_i32_of_i64(at, tile[1])


@helper
def settle(tile, t, m, N, z_t, low, high, weights, scales, by, loss, hard):
    """Write the rows' losses, list those that float32 will not do for, and say how to make the gradient.

    (1 for rows with a target else 0, 1 for rows to be written else 0, factor, rest, what takes e_t's place.)
    """
    z_low, z_high = halves(z_t)
    n_low, n_high = halves(N)
    e_low, loss_low = target_terms(low, z_low - n_low * LN_2)
    e_high, loss_high = target_terms(high, z_high - n_high * LN_2)
    h_low, h_high = masses(weights, t)
    fine_low, f_low = factors_of(scales, tile, 0, h_low, by, low + e_low)
    fine_high, f_high = factors_of(scales, tile, 8, h_high, by, high + e_high)
    counts = where((t < 0) | (lane_numbers32() >= tile[1]), i32s(0), i32s(1))
    fine = where(joined(fine_low, fine_high) > 0.5, i32s(1), i32s(0))
    keep = where(counts == 0, i32s(1), ordinary(m, tile) & fine)
    if sum_across(keep) < 16:
        refer_rows(hard, tile, keep, 0)
    if loss[0] != 0:
        write_losses(loss, tile, 0, loss_low, h_low, t)
        write_losses(loss, tile, 8, loss_high, h_high, t)
    factor, rest = split(f_low, f_high)
    return counts, keep, factor, rest, joined(-low, -high)


@helper
def masses(weights, t):
    """Weights of the targets."""
    low, high = f64s(1.0), f64s(1.0)
    if weights != 0:
        for i in range(8):
            low = with_lane(low, i, read_f64(weights + 8 * max(lane(t, i), 0)))
            high = with_lane(high, i, read_f64(weights + 8 * max(lane(t, i + 8), 0)))
    return low, high


@helper
def factors_of(scales, tile, start, h, by, s):
    """Whether float32 will do for what eight rows' gradients are multiplied by (1.0 or 0.0), and that over s."""
    if scales[1] == 0 and scales[3] == 0:
        scale = f64s(read_as(scales[0], scales[4]))
    else:
        scale = f64s(0.0)
        for i in range(8):
            at = row_offset(scales, tile[0] + min(start + i, tile[1] - 1))
            scale = with_lane(scale, i, read_as(at, scales[4]))
    scale = scale * h / by if by != 0.0 else f64s(0.0)
    factor = scale / s
    fine = (scale == 0.0) | (factor != factor) | ((absolute(scale) < 2.0**60) & (absolute(factor) > 2.0**-120))
    return where(fine, f64s(1.0), f64s(0.0)), factor


@helper
def write_losses(loss, tile, start, values, h, t):
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
            write_as(row_offset(loss, tile[0] + start + i), lane(values, i), loss[4])
