"""Losses of sixteen rows, and what their gradients are multiplied by, from the sums of their exponentials."""

from __future__ import annotations

import math

import numpy as np

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.functions import log1p
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    anywhere,
    f32s,
    f64s,
    halves,
    i32s,
    joined,
    lane,
    lane_numbers32,
    load_i32_of_i64,
    load_part_i32_of_i64,
    read,
    read_f64,
    store_part_f32,
    store_part_f64,
    to_floats,
    where,
    with_lane,
)
from softgrad.backends.numba_cpu.pairs import added, in_float64, log1p_of_quotient, reciprocal, split, times
from softgrad.backends.numba_cpu.single import LIFT, LN_2, log1p_to_single
from softgrad.backends.numba_cpu.single_options import log_of_sum, with_options, with_options_loss
from softgrad.backends.numba_cpu.sixteen import all_set, ordinary, refer_rows
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD
from softgrad.backends.numba_cpu.tiles import FLOAT32, FLOAT64, read_as, row_offset, write_as

# A kind of loss: instead of each row's, the sum over what a thread takes at a time.
SUMS = -1
# Between which numbers what gradients are multiplied by needs no look at Σ e < 2⁷⁴.
SMALLEST_SCALE, LARGEST_SCALE = 2.0**-45, 2.0**60


def tiles_added(classes: int) -> int:
    """Of how many tiles a thread takes together, and adds, the losses: by C alone, as the order of sums is."""
    return min(256, max(1, 2**15 // (16 * classes)))


@helper
def targets_of(indices, tile):
    """t of each row."""
    at = indices + 8 * tile[0]
    return load_i32_of_i64(at) if tile[1] == 16 else load_part_i32_of_i64(at, tile[1])


@inlined
def settle(tile, t, m, N, e_t, others, gaps, z, weights, scales, by, loss, hard, fmt, options):
    """List the rows that float32 will not do for, find the losses, if there is a place for them, and how to make the
    gradient, from e_t and the sum over the other classes, a pair.

    (1 for rows with a target else 0, 1 for rows to be written else 0, what e is multiplied by, a pair, what takes e_t's
    place, g D; the losses of eight rows and of the others, in float64.)
    """
    counts = where((t < 0) | (lane_numbers32() >= tile[1]), i32s(0), i32s(1))
    d, lse = f32s(0.0), (f64s(0.0), f64s(0.0))
    if options is None and weights == 0:
        g = split(*scales_of(scales, tile, by))
        factor, at_t = plain_factor(others, e_t, g)
        fine = is_moderate(g[0])
    else:
        factor, at_t, fine, d, lse = settled_in_float64(tile, t, N, e_t, others, weights, scales, by, options)
    keep = where(counts == 0, i32s(1), where(fine, ordinary(m, tile), i32s(0)))
    if not all_set(keep):
        refer_rows(hard, tile, keep, 0)
    l_low, l_high = f64s(0.0), f64s(0.0)
    if loss[0] != 0:
        l_low, l_high = minus_log_p(tile, t, N, e_t, others, z, fmt)
        if options is not None or weights != 0:
            h_low, h_high = masses(weights, t)
            m_low, m_high = halves(m)
            l_low = loss_of(l_low, h_low, gaps[0], m_low, lse[0], tile[2], options)
            l_high = loss_of(l_high, h_high, gaps[1], m_high, lse[1], tile[2], options)
        if not all_set(counts):
            l_low, l_high = of_rows_without_targets(l_low, l_high, t)
    return counts, keep, factor, at_t, d, l_low, l_high


@inlined
def plain_factor(others, e_t, g):
    """What e is multiplied by, a pair, and what takes e_t's place, where nothing but g, a pair, scales the gradient."""
    return times(reciprocal(added(others, e_t)), g), f32s(0.0) - (others[0] + others[1])


@inlined
def is_moderate(g):
    """Where g / Σ e is as good as g p: as `single.is_in_range`, for any sum of the rows that are taken so."""
    return (g == 0.0) | ((absolute(g) > SMALLEST_SCALE) & (absolute(g) < LARGEST_SCALE))


@helper
def settled_in_float64(tile, t, N, e_t, others, weights, scales, by, options):
    """(What e is multiplied by, a pair, what takes e_t's place, where float32 will do, g D, lse) with options."""
    low, high = in_float64(others)
    e_low, e_high = halves(e_t)
    n_low, n_high = halves(N)
    h_low, h_high = masses(weights, t)
    g_low, g_high = scales_of(scales, tile, by)
    s_low, s_high = low + e_low, high + e_high
    mass_low, at_low, does_low, lse_low = with_target(h_low, e_low, low, s_low, n_low, options)
    mass_high, at_high, does_high, lse_high = with_target(h_high, e_high, high, s_high, n_high, options)
    scale_low, scale_high = g_low * mass_low, g_high * mass_high
    factor = split(scale_low / s_low, scale_high / s_high)
    fine = are_in_range(joined(scale_low, scale_high), factor[0]) & (joined(does_low, does_high) > 0.5)
    share = 0.0 if options is None else options[0] / tile[2]
    return factor, joined(at_low, at_high), fine, joined(g_low * share, g_high * share), (lse_low, lse_high)


@inlined
def minus_log_p(tile, t, N, e_t, others, z, fmt):
    """lse − z_t of each row, float64: log1p(rest_t / e_t), in float32 where that is no smaller than its numbers."""
    low, high = halves(log1p_of_quotient(others, e_t))
    extreme = ((e_t < 2.0**-50) | (others[0] < 2.0**-30)) & (t >= 0)
    if anywhere(extreme):
        far_low, far_high = far_losses(logits_at(z, tile, t, fmt), N, e_t, others)
        is_low, is_high = halves(where(extreme, f32s(1.0), f32s(0.0)))
        low, high = where(is_low == 1.0, far_low, low), where(is_high == 1.0, far_high, high)
    return low, high


@helper
def far_losses(z_t, N, e_t, others):
    """The same in float64; log rest_t − z_t where e_t is out of range, as it is for a masked class."""
    low, high = in_float64(others)
    e_low, e_high = halves(e_t)
    d_low, d_high = halves(z_t)
    n_low, n_high = halves(N)
    beyond_low = log1p(low) - LIFT * LN_2 - (d_low - n_low * LN_2)
    beyond_high = log1p(high) - LIFT * LN_2 - (d_high - n_high * LN_2)
    near_low, near_high = log1p_to_single(low / e_low), log1p_to_single(high / e_high)
    return where(e_low == 0.0, beyond_low, near_low), where(e_high == 0.0, beyond_high, near_high)


@helper
def logits_at(z, tile, t, fmt):
    """z_t of each row, 0 where there is no target."""
    x = f32s(0.0)
    for i in range(tile[1]):
        c = np.int64(lane(t, i))
        if c >= 0:
            x = with_lane(x, i, read(row_offset(z, tile[0] + i) + c * z[2], fmt))
    return x


@inlined
def with_target(h, e_t, rest, s, N, options):
    """(ΣW, what takes e_t's place, 1.0 where float32 will do, else 0.0; log Σ exp z) of eight rows."""
    if options is None:
        return h, -rest, f64s(1.0), s
    lse = log_of_sum(s, N)
    mass, at_t, will_do = with_options(h * (1.0 - options[0]), e_t, rest, lse, options)
    return mass, at_t, will_do, lse


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
def scales_of(scales, tile, by):
    """What gradients are multiplied by, but for ΣW, of the first eight rows and of the others."""
    if by == 0.0:
        return f64s(0.0), f64s(0.0)
    if scales[1] == 0 and scales[3] == 0:
        scale = read_as(scales[0], scales[4]) / by
        return f64s(scale), f64s(scale)
    low, high = f64s(0.0), f64s(0.0)
    for i in range(8):
        last = tile[1] - 1
        low = with_lane(low, i, read_as(row_offset(scales, tile[0] + min(i, last)), scales[4]))
        high = with_lane(high, i, read_as(row_offset(scales, tile[0] + min(i + 8, last)), scales[4]))
    return low / by, high / by


@inlined
def are_in_range(scale, factor):
    """`single.is_in_range`, or the factor is NaN, as its row is."""
    return (scale == 0.0) | (factor != factor) | ((absolute(scale) < 2.0**60) & (absolute(factor) > 2.0**-120))


@inlined
def loss_of(value, h, gaps, m, lse, classes, options):
    """The losses of eight rows, from lse − z_t."""
    if options is None:
        return weighted(h, value)
    return with_options_loss(weighted(h * (1.0 - options[0]), value), gaps, m, lse, classes, options)


@helper
def of_rows_without_targets(low, high, t):
    """The losses; 0 and NaN for rows without a target."""
    t_low, t_high = halves(to_floats(t))
    return _of_targets(low, t_low), _of_targets(high, t_high)


@inlined
def _of_targets(value, t):
    return where(t < 0.0, where(t == float(BAD), f64s(math.nan), f64s(0.0)), value)


@inlined
def weighted(h, value):
    """h · value, 0 · ∞ = 0."""
    return where((h == 0.0) & (value == math.inf), f64s(0.0), h * value)


@inlined
def sum_of_losses(tile, keep, low, high):
    """Eight sums of two losses each, without those of rows that are to be computed once more."""
    if tile[1] < 16 or not all_set(keep):
        ones_low, ones_high = halves(where((lane_numbers32() < tile[1]) & (keep != 0), f32s(1.0), f32s(0.0)))
        low, high = where(ones_low > 0.5, low, f64s(0.0)), where(ones_high > 0.5, high, f64s(0.0))
    return low + high


@helper
def write_losses(loss, tile, low, high):
    """One number per row, where there is a place for them."""
    if loss[0] == 0:
        return
    rows = tile[1]
    size = 8 if loss[4] == FLOAT64 else 4
    if loss[4] in (FLOAT64, FLOAT32) and loss[3] == size and loss[1] == size * loss[5]:
        at = loss[0] + size * tile[0]
        if loss[4] == FLOAT32:
            store_part_f32(at, joined(low, high), rows)
        else:
            store_part_f64(at, low, min(rows, 8))
            store_part_f64(at + 64, high, max(rows - 8, 0))
        return
    for i in range(rows):
        write_as(row_offset(loss, tile[0] + i), lane(low, i) if i < 8 else lane(high, i - 8), loss[4])
