"""Losses of sixteen rows, and what their gradients are multiplied by, from the sums of their exponentials."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined
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
from softgrad.backends.numba_cpu.single_options import log_of_sum, with_options, with_options_loss
from softgrad.backends.numba_cpu.sixteen import ordinary, refer_rows, split
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD
from softgrad.backends.numba_cpu.tiles import FLOAT64, read_as, row_offset, write_as


@helper
def targets_of(indices, tile):
    """t of each row."""
    at = indices + 8 * tile[0]
    return load_i32_of_i64(at) if tile[1] == 16 else load_part_i32_of_i64(at, tile[1])


@helper
def settle(tile, t, m, N, z_t, low, high, gaps, weights, scales, by, loss, hard, options):
    """Write the rows' losses, list those that float32 will not do for, and say how to make the gradient.

    (1 for rows with a target else 0, 1 for rows to be written else 0, factor, rest, what takes e_t's place, g D.)
    """
    z_low, z_high = halves(z_t)
    n_low, n_high = halves(N)
    m_low, m_high = halves(m)
    h_low, h_high = masses(weights, t)
    fine_low, f_low, t_low, d_low = settle_eight(
        tile, 0, t, m_low, n_low, z_low, low, gaps[0], h_low, scales, by, loss, options
    )
    fine_high, f_high, t_high, d_high = settle_eight(
        tile, 8, t, m_high, n_high, z_high, high, gaps[1], h_high, scales, by, loss, options
    )
    counts = where((t < 0) | (lane_numbers32() >= tile[1]), i32s(0), i32s(1))
    fine = where(joined(fine_low, fine_high) > 0.5, i32s(1), i32s(0))
    keep = where(counts == 0, i32s(1), ordinary(m, tile) & fine)
    if sum_across(keep) < 16:
        refer_rows(hard, tile, keep, 0)
    factor, rest = split(f_low, f_high)
    return counts, keep, factor, rest, joined(t_low, t_high), joined(d_low, d_high)


@inlined
def settle_eight(tile, start, t, m, N, z_t, rest, gaps, h, scales, by, loss, options):
    """Write the losses of eight rows; (1.0 where float32 will do, else 0.0; factor, what takes e_t's place, g D)."""
    e_t, value = target_terms(rest, z_t - N * LN_2)
    s = rest + e_t
    g = scales_of(scales, tile, start) / by if by != 0.0 else f64s(0.0)
    if options is None:
        mass, at_t, will_do, d = h, -rest, f64s(1.0), f64s(0.0)
        values = weighted(h, value)
    else:
        lse = log_of_sum(s, N)
        mass, at_t, will_do = with_options(h * (1.0 - options[0]), e_t, rest, lse, options)
        values = with_options_loss(weighted(h * (1.0 - options[0]), value), gaps, m, lse, tile[2], options)
        d = g * (options[0] / tile[2])
    if loss[0] != 0:
        write_losses(loss, tile, start, values, t)
    scale = g * mass
    factor = scale / s
    fine = (scale == 0.0) | (factor != factor) | ((absolute(scale) < 2.0**60) & (absolute(factor) > 2.0**-120))
    return where(fine, will_do, f64s(0.0)), factor, at_t, d


@inlined
def weighted(h, value):
    """h · value, 0 · ∞ = 0."""
    return where((h == 0.0) & (value == math.inf), f64s(0.0), h * value)


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
def scales_of(scales, tile, start):
    """grad_output of eight rows."""
    if scales[1] == 0 and scales[3] == 0:
        return f64s(read_as(scales[0], scales[4]))
    g = f64s(0.0)
    for i in range(8):
        at = row_offset(scales, tile[0] + min(start + i, tile[1] - 1))
        g = with_lane(g, i, read_as(at, scales[4]))
    return g


@helper
def write_losses(loss, tile, start, values, t):
    """The losses of eight rows; 0 and NaN for those without a target."""
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
