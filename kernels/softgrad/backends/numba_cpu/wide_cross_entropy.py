"""Cross-entropy of long rows with an integer target: loss and gradient for one read of the logits.

The target's gradient is −rest_t / s, from the sum of the others: it takes the place of e_t in scratch memory, so that
one pass writes everything.
"""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.lanes import (
    f32s,
    f64s,
    halves,
    lane,
    lane_numbers32,
    load,
    load_first,
    read,
    read_f64,
    read_i64,
    size_of,
    sum_across,
    take,
    where,
    write_f32,
)
from softgrad.backends.numba_cpu.past_caches import write_row
from softgrad.backends.numba_cpu.single import LN_2, is_in_range, target_terms
from softgrad.backends.numba_cpu.single_options import less, log_of_sum, with_options, with_options_loss
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD
from softgrad.backends.numba_cpu.tiles import read_as, row_offset, write_as
from softgrad.backends.numba_cpu.wide import exponentials, fill_row, is_ordinary, refer, write_scaled


@kernel
def cross_entropy_rows(
    counter,
    chunk,
    hard,
    scratch,
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
    """Loss and gradient, each where there is an array (address not 0), of every row that no other thread takes."""
    first = take(counter) * chunk
    while first < rows:
        for r in range(first, min(first + chunk, rows)):
            t = read_i64(indices + 8 * r)
            if t < 0:
                x = math.nan if t == BAD else 0.0
                if loss[0] != 0:
                    write_as(row_offset(loss, r), x, loss[4])
                if grad[0] != 0:
                    fill_row(row_offset(grad, r), classes, 0.0 if by == 0.0 else x, fmt)
                continue
            z_at = row_offset(z, r)
            rest, N, m, _ = exponentials(z_at, scratch, classes, t, fmt)
            z_t = read(z_at + size_of(fmt) * t, fmt)
            fine, factor, at_t, g, h, value, lse = settled_row(r, t, rest, N, m, z_t, weights, scales, by, options)
            if not fine:
                refer(hard, r)
                continue
            if loss[0] != 0:
                gaps = gaps_of(z_at, classes, m, fmt) if options is not None and options[0] != 0.0 else 0.0
                write_as(row_offset(loss, r), loss_of(h, value, gaps, m, lse, classes, options), loss[4])
            if grad[0] != 0:
                if by == 0.0:
                    fill_row(row_offset(grad, r), classes, 0.0, fmt)
                else:
                    write_f32(scratch + 4 * t, at_t)
                    write_gradient(scratch, row_offset(grad, r), classes, classes, factor, g, streams, options, fmt)
        first = take(counter) * chunk


@helper
def settled_row(r, t, rest, N, m, z_t, weights, scales, by, options):
    """(Whether float32 will do, what e is multiplied by, what takes e_t's place, g, h, lse − z_t, lse if options need
    it) of row r, from the sum over the other classes.
    """
    e_t, value = target_terms(f64s(rest), f64s(z_t - N * LN_2))
    h = 1.0 if weights == 0 else read_f64(weights + 8 * t)
    s = rest + lane(e_t, 0)
    mass, at_t, fine, lse = settled(h, lane(e_t, 0), rest, s, N, options)
    g = 0.0 if by == 0.0 else read_as(row_offset(scales, r), scales[4]) / by
    scale = mass * g
    factor = scale / s
    fine = fine and is_ordinary(m) and (by == 0.0 or is_in_range(scale, factor) or factor != factor)
    return fine, factor, at_t, g, h, lane(value, 0), lse


@inlined
def settled(h, e_t, rest, s, N, options):
    """(F, what takes e_t's place, whether float32 will do for the options, lse if they need it) of a row."""
    if options is None:
        return h, -rest, True, 0.0
    lse = log_of_sum(f64s(s), f64s(N))
    mass, at_t, fine = with_options(f64s(h * (1.0 - options[0])), f64s(e_t), f64s(rest), lse, options)
    return lane(mass, 0), lane(at_t, 0), lane(fine, 0) == 1.0, lane(lse, 0)


@inlined
def loss_of(h, value, gaps, m, lse, classes, options):
    """A row's loss, from lse − z_t."""
    if options is None:
        return weighted(h, value)
    return lane(
        with_options_loss(
            f64s(weighted(h * (1.0 - options[0]), value)), f64s(gaps), f64s(m), f64s(lse), classes, options
        ),
        0,
    )


@helper
def gaps_of(z_at, classes, m, fmt):
    """Σ (m − z_j), in float64: masks as large as float32 can hold may be among them."""
    size = size_of(fmt)
    low, high = f64s(0.0), f64s(0.0)
    j = 0
    while j + 16 <= classes:
        x, y = halves(f32s(m) - load(z_at + size * j, fmt))
        low += x
        high += y
        j += 16
    if j < classes:
        n = classes - j
        gap = f32s(m) - load_first(z_at + size * j, n, fmt)
        x, y = halves(where(lane_numbers32() < n, gap, f32s(0.0)))
        low += x
        high += y
    return sum_across(low + high)


@inlined
def write_gradient(e_at, out_at, length, classes, factor, g, streams, options, fmt):
    """e · factor, less g D, of so many of a row's classes."""
    if options is None or options[0] == 0.0:
        write_scaled(e_at, out_at, length, factor, streams, fmt)
    else:
        f = f32s(factor)
        of = e_at, f, f32s(factor - lane(f, 0)), f32s(g * options[0] / classes)
        write_row(less, of, out_at, length, streams, fmt)


@inlined
def weighted(h, loss):
    """h · loss, with 0 · ∞ = 0: a masked target without mass."""
    return 0.0 if h == 0.0 and loss == math.inf else h * loss
