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
    where,
    write_f32,
)
from softgrad.backends.numba_cpu.past_caches import BEGUN, begin_lines, flush, write_until
from softgrad.backends.numba_cpu.single import LN_2, is_in_range, target_terms
from softgrad.backends.numba_cpu.single_options import less, log_of_sum, with_options, with_options_loss
from softgrad.backends.numba_cpu.taking import ahead, leave, next_share
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD
from softgrad.backends.numba_cpu.tiles import read_as, row_offset, write_as
from softgrad.backends.numba_cpu.wide import AHEAD, exponentials, fill_row, in_two_parts, is_ordinary, refer


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
    past, e_at, distance = scratch if streams else 0, scratch + BEGUN, ahead(grad, size_of(fmt), classes, AHEAD)
    begin_lines(scratch)
    zero = f32s(0.0)
    before = (0, classes, (e_at, zero, zero, zero), distance, past, fmt)
    first = next_share(counter) * chunk
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
            rest, N, m, _ = exponentials(z_at, e_at, classes, t, None, write, before, fmt)
            before = (0, classes, (e_at, zero, zero, zero), distance, past, fmt)
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
                    write_f32(e_at + 4 * t, at_t)
                    x, y = in_two_parts(factor)
                    of = e_at, x, y, f32s(offset_of(g, classes, options))
                    before = row_offset(grad, r), classes, of, distance, past, fmt
        first = next_share(counter) * chunk
    write(0, classes, before)
    flush(scratch, fmt)
    leave(counter)


@inlined
def write(j, stop, before):
    """The gradient before, e · factor, less g D, if its address is not 0."""
    out_at, classes, of, distance, past, fmt = before
    if out_at == 0:
        return j
    return write_until(less, of, out_at, classes, j, stop, distance, past, fmt)


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
def offset_of(g, classes, options):
    """g D."""
    return 0.0 if options is None or options[0] == 0.0 else g * options[0] / classes


@inlined
def weighted(h, loss):
    """h · loss, with 0 · ∞ = 0: a masked target without mass."""
    return 0.0 if h == 0.0 and loss == math.inf else h * loss
