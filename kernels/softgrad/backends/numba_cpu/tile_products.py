"""Jacobian products on tiles: K tangents for one read of the point."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, kernel
from softgrad.backends.numba_cpu.functions import ONE, exp_lifted, ratio, unit_below
from softgrad.backends.numba_cpu.lanes import absolute, f64s, i64s, load_f64, max_across, store_f64, take, where
from softgrad.backends.numba_cpu.tile_exponentials import exponentials
from softgrad.backends.numba_cpu.tiles import (
    add,
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


@helper
def centre(v_at, z_at, e_at, s, reference, masks, tile):  # type: ignore[no-untyped-def]
    """Replace v by x = (v − v[reference]) / unit, |x| < 2; (unit, Σ p x, v[reference]).

    The unit, a power of two per row, keeps e · x in range whatever the tangent's size, so that a probability below
    the smallest normal number is multiplied by the tangent before it is rounded, not after.  With `masks`, a masked
    class (z −inf) adds nothing, not even a NaN.
    """
    v_ref = pick(v_at, reference, tile)
    top = f64s(0.0)
    for j in range(height(tile)):
        u = load_f64(v_at + 64 * j) - v_ref
        if tile[3]:
            u = where(classes_at(j, tile) < tile[2], u, f64s(0.0))
        if masks:
            u = where(load_f64(z_at + 64 * j) == -float("inf"), f64s(0.0), u)
        store_f64(v_at + 64 * j, u)
        top = where(absolute(u) <= top, top, absolute(u))  # keeps a NaN
    if tile[3]:
        top = f64s(max_across(where(top == top, top, f64s(float("inf")))))  # noqa: PLR0124
    unit = unit_below(top)
    inverse = 1.0 / unit
    high, low = f64s(0.0), f64s(0.0)
    for j in range(height(tile)):
        x = load_f64(v_at + 64 * j) * inverse
        store_f64(v_at + 64 * j, x)
        high, low = add(high, low, load_f64(e_at + 64 * j) * x)
    return unit, total(high, low, tile) / s, v_ref


@kernel
def product_tiles(counter, scratch, rows, classes, one_row, operation, point_kind, point, count_v, v, v_step, out, out_step):  # type: ignore[no-untyped-def]  # noqa: E501
    """One of the three operations on every tile that no other thread takes."""
    z_at, e_at, v_at = scratch
    is_logits = point_kind == LOGITS
    tiles = tiles_in(rows, classes, one_row)
    i = take(counter)
    while i < tiles:
        tile = tile_number(i, rows, classes, one_row)
        s = f64s(1.0)
        if is_logits:
            fill(z_at, point, tile, -float("inf"))
            _, k, s, _, _, _, _ = exponentials(z_at, e_at, i64s(-1), tile)
        elif point_kind == PROBS:
            fill(e_at, point, tile, 0.0)
            _, k = largest(e_at, tile)
        else:
            fill(z_at, point, tile, -float("inf"))
            _, k = largest(z_at, tile)
            s = f64s(ONE)
            for j in range(height(tile)):
                store_f64(e_at + 64 * j, exp_lifted(load_f64(z_at + 64 * j), f64s(0.0)))
        for n in range(count_v):
            fill(v_at, (v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5]), tile, 0.0)
            if operation == LOG_VJP:
                first, second = ratio(sum_tile(v_at, tile), s)
                for j in range(height(tile)):
                    y = load_f64(v_at + 64 * j) - load_f64(e_at + 64 * j) * first * second
                    store_f64(v_at + 64 * j, y)
            else:
                masks = is_logits and operation == SOFTMAX
                unit, mean, _ = centre(v_at, z_at, e_at, s, k, masks, tile)
                first, second = ratio(unit, s)
                for j in range(height(tile)):
                    y = load_f64(v_at + 64 * j) - mean
                    if operation == SOFTMAX:
                        y = y * load_f64(e_at + 64 * j) * first * second
                        if masks:
                            y = settled(y, load_f64(z_at + 64 * j), s)
                    else:
                        y = y * unit
                    store_f64(v_at + 64 * j, y)
            spill(v_at, (out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5]), tile)
        i = take(counter)


@helper
def settled(y, z, s):  # type: ignore[no-untyped-def]
    """Exactly 0 at masked classes, even where the mean is not finite; but a row that is NaN is NaN throughout."""
    y = where(z == -float("inf"), f64s(0.0), y)
    return where(s == s, y, s)  # noqa: PLR0124
