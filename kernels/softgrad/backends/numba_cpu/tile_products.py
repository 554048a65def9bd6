"""Jacobian products on tiles: K tangents for one read of the point."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.entries import (
    ALL,
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
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    anywhere,
    f64s,
    load_f64,
    max_across,
    prefetch,
    store_f64,
    where,
)
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_exponentials import exponentials_and_sum
from softgrad.backends.numba_cpu.tile_sums import first_equal, largest, sum_tile, summed
from softgrad.backends.numba_cpu.tiles import (
    begin_tiles,
    classes_at,
    coming,
    fill,
    height,
    pick,
    row_of,
    row_offset,
    tile_number,
    tiles_in,
    write,
)

SOFTMAX, LOG_JVP, LOG_VJP = range(3)
LOGITS, PROBS, LOG_PROBS = range(3)
BUFFERS = 3

# Given probabilities are scaled up by this, so that in sums none is below the smallest normal number.
PROBS_LIFT = 2.0**128
INF = math.inf


# Which classes add nothing to Σ e u, not even a NaN: none, the masked ones (z −inf), or those of them without mass.
NONE, MASKED, MASKED_WITHOUT_MASS = range(3)
# A moment smaller than this may have lost digits of its terms.
FAINT = 2.0**-990


@inlined
def weighed(j, of):
    """e u."""
    e_at, v_at, v_ref, ahead = of
    prefetch(ahead + 64 * j)
    return load_f64(e_at + 64 * j) * (load_f64(v_at + 64 * j) - v_ref)


@helper
def moment_of(e_at, v_at, v_ref, tile, ahead):
    """(Σ e u with u = v − v_ref, whether that is right): not if it is not finite, or so small that digits may be lost.

    Then `centre` has it.
    """
    moment = summed(weighed, (e_at, v_at, v_ref, ahead), tile)
    return moment, (absolute(moment) > FAINT) & (absolute(moment) < INF)


@helper
def centre(v_at, z_at, e_at, d_at, v_ref, fine, idle, tile):
    """Replace v by x = u / unit with u = v − v_ref, |x| < 2; (unit, moment Σ e x).

    The unit, a power of two per row, keeps e · x in range whatever the tangent's size; it is 1 where that is `fine`
    without.  Σ p u is moment · unit / s, divided only where it is used: at the reference, where u = 0, it is all there
    is, and may be a number that has its digits only once the other factors are on it.
    """
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
    unit = where(fine, f64s(1.0), unit_of(top, tile))
    inverse = 1.0 / unit
    for j in range(height(tile)):
        store_f64(v_at + 64 * j, load_f64(v_at + 64 * j) * inverse)
    return unit, summed(weighed, (e_at, v_at, f64s(0.0), v_at), tile)


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
def product_tiles(counter, chunk, scratch, work, operation, point_kind, point, count_v, v, v_step, out, out_step):
    """One of the three operations on every tile that no other thread takes."""
    z_at, e_at, v_at = scratch
    idle = MASKED if point_kind == LOGITS and operation == SOFTMAX else NONE
    tiles = tiles_in(work)
    first_tile = next_share(counter) * chunk
    while first_tile < tiles:
        for i in range(first_tile, min(first_tile + chunk, tiles)):
            tile = tile_number(i, work)
            k, s = read_point(point, point_kind, z_at, e_at, tile, coming(point, v, tile, False))
            for n in range(count_v):
                of_out = (out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5])
                fill(v_at, (v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5]), tile, 0.0)
                if operation == LOG_VJP:
                    first, second = factors(sum_tile(v_at, tile), f64s(1.0), f64s(1.0), f64s(1.0), s)
                    write(log_vjp, (v_at, e_at, first, second), v_at, of_out, tile)
                    continue
                v_k = pick(v_at, k, tile)
                moment, fine = moment_of(e_at, v_at, v_k, tile, row_offset(of_out, row_of(tile, 0)))
                if anywhere(~fine):
                    of = with_unit(z_at, e_at, v_at, v_k, fine, k, s, idle, operation == SOFTMAX, tile)
                    write(
                        any_product, (z_at, e_at, v_at, k, s, idle, operation == SOFTMAX, tile, of), v_at, of_out, tile
                    )
                elif operation == SOFTMAX:
                    first, second = factors(f64s(1.0), f64s(1.0), f64s(1.0), f64s(1.0), s)
                    write(softmax_product, (v_at, e_at, v_k, moment / s, first, second), v_at, of_out, tile)
                else:
                    write(log_jvp, (v_at, v_k, moment / s), v_at, of_out, tile)
        first_tile = next_share(counter) * chunk
    leave(counter)


@inlined
def softmax_product(j, of):
    """e (u − Σ p u) / s; at k, where u = 0, the mean alone is left.  No −0, which `any_product` might have as 0."""
    v_at, e_at, v_k, mean, first, second = of
    return ((load_f64(v_at + 64 * j) - v_k) - mean) * load_f64(e_at + 64 * j) * first * second + 0.0


@inlined
def log_jvp(j, of):
    """u − Σ p u."""
    v_at, v_k, mean = of
    return (load_f64(v_at + 64 * j) - v_k) - mean


@inlined
def log_vjp(j, of):
    """v − e Σ v / s."""
    v_at, e_at, first, second = of
    return load_f64(v_at + 64 * j) - load_f64(e_at + 64 * j) * first * second


@helper
def with_unit(z_at, e_at, v_at, v_k, fine, k, s, idle, is_softmax, tile):
    """Replace v by x = u / unit; what `any_product` needs beside."""
    unit, moment = centre(v_at, z_at, e_at, 0, v_k, fine, idle, tile)
    first, second = factors(unit, f64s(1.0), f64s(1.0), f64s(1.0), s)
    y_k = -moment * (pick(e_at, k, tile) / s if is_softmax else f64s(1.0)) * first * second
    return fine, unit, moment / s, first, second, y_k


@inlined
def any_product(j, of):
    """The first two for whatever tangent."""
    z_at, e_at, v_at, k, s, idle, is_softmax, tile, numbers = of
    fine, unit, mean, first, second, y_k = numbers
    y = load_f64(v_at + 64 * j) - mean
    y = y * load_f64(e_at + 64 * j) * first * second + 0.0 if is_softmax else y * unit
    y = where((classes_at(j, tile) == k) & ~fine, y_k, y)
    return where(fine, y, settled(y, load_f64(z_at + 64 * j), s)) if idle == MASKED else y


@helper
def read_point(point, point_kind, z_at, e_at, tile, ahead):
    """Fill z and e from the point; (k, s)."""
    if point_kind == LOGITS:
        fill(z_at, point, tile, -INF)
        m, s = exponentials_and_sum(z_at, e_at, tile, ahead)
        return first_equal(z_at, m, tile), s
    if point_kind == PROBS:
        fill(e_at, point, tile, 0.0)
        k = first_equal(e_at, largest(e_at, tile), tile)
        for j in range(height(tile)):
            store_f64(e_at + 64 * j, load_f64(e_at + 64 * j) * PROBS_LIFT)
        return k, f64s(PROBS_LIFT)
    fill(z_at, point, tile, -INF)
    k = first_equal(z_at, largest(z_at, tile), tile)
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
        scratch, ALL, buffers, work, operation, point_kind, described(point, kind), count, of_v, v_step, of_out,
        out_step,
    )  # fmt: skip
