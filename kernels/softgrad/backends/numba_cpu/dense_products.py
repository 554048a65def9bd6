"""Jacobian products of dense short rows, one tangent to each."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import inlined, kernel
from softgrad.backends.numba_cpu.dense import (
    PART,
    TANGENT_PART,
    exponentials,
    first_largest,
    source_of,
    sum_of,
    tile_at,
    write_tile,
)
from softgrad.backends.numba_cpu.lanes import absolute, each, f32s, fma, fold, i32s, larger, load_dense, where
from softgrad.backends.numba_cpu.pairs import added, reciprocal, rounded_product, split
from softgrad.backends.numba_cpu.single import LIFT, scaled
from softgrad.backends.numba_cpu.sixteen import (
    all_set,
    fine_tangents,
    given_sums,
    ordinary_point,
    refer_rows,
    whole_shift,
)
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_products import LOG_JVP, LOG_PROBS, LOG_VJP, PROBS, SOFTMAX


@kernel
def product_dense(counter, chunk, hard, stage, rows, operation, kind, z_at, v_at, out_at, packed, like):
    """One of the three of every tile not taken; rows float32 will not do for are listed at `hard`."""
    tiles = (rows + 15) >> 4
    filled = 0
    first = next_share(counter) * chunk
    while first < tiles:
        stop = min(first + chunk, tiles)
        for i in range(first, stop):
            tile = tile_at(i, rows, like)
            z = load_dense(source_of(z_at, tile, stage + PART, like), like)
            v = load_dense(source_of(v_at, tile, stage + TANGENT_PART, like), like)
            m, k = first_largest(z)
            if kind == PROBS:
                e, over = each(_lifted, 0, (z,)), (f32s(2.0**-LIFT), f32s(0.0))
            else:
                N = whole_shift(m)
                e = exponentials(z, N)
                if kind == LOG_PROBS:
                    low, high = given_sums(N)
                    over = split(1.0 / low, 1.0 / high)
                else:
                    over = reciprocal(sum_of(e, i32s(-1))[0])
            v_k = f32s(0.0)
            if operation != LOG_VJP:
                v_k = fold(_pick, v_k, k, (v,))
            u = each(_less, v_k, (v,))
            high, low, _, top = fold(_sum, (f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0)), (operation, len(z)), (e, u))
            keep = ordinary_point(m, kind, tile) & fine_tangents(top, high, tile)
            if not all_set(keep):
                refer_rows(hard, tile, keep, 0)
            mean = rounded_product((high, low), over)
            if operation == SOFTMAX:
                results = each(_softmax_product, (mean, over), (e, u))
            elif operation == LOG_JVP:
                results = each(_less, mean, (u,))
            else:
                results = each(_log_softmax_vjp, mean, (e, u))
            filled = write_tile(results, stage, out_at, tile, keep, filled, packed, i + 1 == stop, like)
        first = next_share(counter) * chunk
    leave(counter)


@inlined
def _lifted(c, of, p):
    return p * 2.0**LIFT


@inlined
def _pick(c, found, k, v):
    return where(k == c, v, found)


@inlined
def _less(c, of, v):
    return v - of


@inlined
def _sum(c, sums, of, e, u):
    """Sums, added as `narrow_products.moments` does; the largest |u|."""
    high, low, group, top = sums
    operation, classes = of
    before = f32s(0.0) if c & 3 == 0 else group
    group = before + u if operation == LOG_VJP else fma(e, u, before)
    if c & 3 == 3 or c + 1 == classes:
        high, low = added((high, low), group)
    return high, low, group, larger(absolute(u), top)


@inlined
def _softmax_product(c, of, e, u):
    mean, over = of
    return scaled(e * (u - mean), over[0], over[1])


@inlined
def _log_softmax_vjp(c, mean, e, u):
    return fma(e, f32s(0.0) - mean, u)
