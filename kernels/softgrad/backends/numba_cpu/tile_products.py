"""Jacobian products on tiles: K tangents for one read of the point."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, kernel
from softgrad.backends.numba_cpu.entries import (
    COUNTER,
    DESCRIBED,
    INT,
    described,
    described_tangents,
    entry,
    reads,
    writes,
)
from softgrad.backends.numba_cpu.functions import ONE, exp_lifted, factors, unit_below
from softgrad.backends.numba_cpu.lanes import absolute, f64s, i64s, load_f64, max_across, store_f64, take, where
from softgrad.backends.numba_cpu.tile_exponentials import exponentials
from softgrad.backends.numba_cpu.tiles import (
    add,
    begin_tiles,
    classes_at,
    fill,
    height,
    largest,
    pick,
    spill,
    sum_tile,
    tile_number,
    tiles_in,
    total,
)

SOFTMAX, LOG_JVP, LOG_VJP = range(3)
LOGITS, PROBS, LOG_PROBS = range(3)
BUFFERS = 3

# Given probabilities are scaled up by this, so that in sums none is below the smallest normal number.
PROBS_LIFT = 2.0**128
INF = math.inf


# Which classes add nothing to Σ e u, not even a NaN: none, the masked ones (z −inf), or those of them without mass.
NONE, MASKED, MASKED_WITHOUT_MASS = range(3)


@helper
def centre(v_at, z_at, e_at, d_at, reference, idle, tile):
    """Replace v by x = u / unit with u = v − v[reference], |x| < 2; (unit, moment Σ e x).

    The unit, a power of two per row, keeps e · x in range whatever the tangent's size.  Σ p u is moment · unit / s,
    divided only where it is used: at the reference, where u = 0, it is all there is, and may be a number that has
    its digits only once the other factors are on it.
    """
    v_ref = pick(v_at, reference, tile)
    top = f64s(0.0)
    for j in range(height(tile)):
        u = load_f64(v_at + 64 * j) - v_ref
        if tile[3]:
            u = where(classes_at(j, tile) < tile[2], u, f64s(0.0))
        if idle != NONE:
            masked = load_f64(z_at + 64 * j) == -INF
            if idle == MASKED_WITHOUT_MASS:
                masked = masked & (load_f64(d_at + 64 * j) == 0.0)
            u = where(masked, f64s(0.0), u)
        store_f64(v_at + 64 * j, u)
        top = where(absolute(u) <= top, top, absolute(u))  # keeps a NaN
    unit = unit_of(top, tile)
    inverse = 1.0 / unit
    high, low = f64s(0.0), f64s(0.0)
    for j in range(height(tile)):
        x = load_f64(v_at + 64 * j) * inverse
        store_f64(v_at + 64 * j, x)
        high, low = add(high, low, load_f64(e_at + 64 * j) * x)
    return unit, total(high, low, tile)


@helper
def unit_of(top, tile):
    """The power of two below each row's largest |u|, from those of its lanes."""
    if tile[3]:
        top = f64s(max_across(where(top == top, top, f64s(INF))))
    return unit_below(top)


@helper
def settled(y, z, s):
    """Exactly 0 at masked classes, even where the mean is not finite; but a row that is NaN is NaN throughout."""
    y = where(z == -INF, f64s(0.0), y)
    return where(s == s, y, s)


@kernel
def product_tiles(counter, scratch, work, operation, point_kind, point, count_v, v, v_step, out, out_step):
    """One of the three operations on every tile that no other thread takes."""
    z_at, e_at, v_at = scratch
    is_logits = point_kind == LOGITS
    tiles = tiles_in(work)
    i = take(counter)
    while i < tiles:
        tile = tile_number(i, work)
        k, s = read_point(point, point_kind, z_at, e_at, tile)
        share_k = pick(e_at, k, tile) / s
        for n in range(count_v):
            fill(v_at, (v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5]), tile, 0.0)
            if operation == LOG_VJP:
                first, second = factors(sum_tile(v_at, tile), f64s(1.0), f64s(1.0), f64s(1.0), s)
                for j in range(height(tile)):
                    y = load_f64(v_at + 64 * j) - load_f64(e_at + 64 * j) * first * second
                    store_f64(v_at + 64 * j, y)
            else:
                idle = MASKED if is_logits and operation == SOFTMAX else NONE
                unit, moment = centre(v_at, z_at, e_at, 0, k, idle, tile)
                first, second = factors(unit, f64s(1.0), f64s(1.0), f64s(1.0), s)
                mean = moment / s
                y_k = -moment * (share_k if operation == SOFTMAX else f64s(1.0)) * first * second
                for j in range(height(tile)):
                    y = load_f64(v_at + 64 * j) - mean
                    y = y * load_f64(e_at + 64 * j) * first * second if operation == SOFTMAX else y * unit
                    y = where(classes_at(j, tile) == k, y_k, y)
                    if idle == MASKED:
                        y = settled(y, load_f64(z_at + 64 * j), s)
                    store_f64(v_at + 64 * j, y)
            spill(v_at, (out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5]), tile)
        i = take(counter)


@helper
def read_point(point, point_kind, z_at, e_at, tile):
    """Fill z and e from the point; (k, s)."""
    if point_kind == LOGITS:
        fill(z_at, point, tile, -INF)
        _, k, s, _, _, _, _ = exponentials(z_at, 0, e_at, i64s(-1), tile)
        return k, s
    if point_kind == PROBS:
        fill(e_at, point, tile, 0.0)
        _, k = largest(e_at, tile)
        for j in range(height(tile)):
            store_f64(e_at + 64 * j, load_f64(e_at + 64 * j) * PROBS_LIFT)
        return k, f64s(PROBS_LIFT)
    fill(z_at, point, tile, -INF)
    _, k = largest(z_at, tile)
    for j in range(height(tile)):
        store_f64(e_at + 64 * j, exp_lifted(load_f64(z_at + 64 * j), f64s(0.0)))
    return k, f64s(ONE)


@entry(lambda point: (INT, DESCRIBED, INT, reads(point, 3), INT, writes(point, 4), INT, INT, INT))
def product_tiles_few(count, of_v, v_step, point, kind, out, operation, point_kind, scratch):
    """The same of a few rows."""
    size, work = begin_tiles(point, scratch)
    z_at = scratch + COUNTER
    _, out_step, of_out = described_tangents(out, kind)
    buffers = z_at, z_at + size, z_at + 2 * size
    product_tiles(
        scratch, buffers, work, operation, point_kind, described(point, kind), count, of_v, v_step, of_out, out_step
    )  # fmt: skip
