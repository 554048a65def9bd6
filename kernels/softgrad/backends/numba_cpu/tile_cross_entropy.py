"""The cross-entropy family on tiles: loss, gradient, directional derivative, Hessian product, with every option.

h      target mass on the integer target t, w_t (1 − ε); 0 for probabilities
D_j    the masses spread over all classes: w_j ε / C, or w_j (T_j (1 − ε) + ε / C); ΣD their sum
F      h + ΣD + 2 ζ lse, what p is multiplied by in the gradient; ζ = z_loss, under "mean" z_loss · D/n,
       for every row is then divided by D = Σ w_t and the z_loss part should be by n
σ      slope of the softcap, 4q / (1 + q)² with q = exp(−2 |z / cap|): 1 − tanh² has no digits left where σ is small
"""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, kernel
from softgrad.backends.numba_cpu.functions import ONE, exp_lifted, ratio
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    f64s,
    i64s,
    lane,
    load_f64,
    load_i64,
    load_part_f64,
    load_part_i64,
    store_f64,
    take,
    where,
    with_lane,
)
from softgrad.backends.numba_cpu.tile_exponentials import exponentials
from softgrad.backends.numba_cpu.tile_products import centre, settled
from softgrad.backends.numba_cpu.tiles import (
    add,
    classes_at,
    fill,
    height,
    load_per_row,
    pick,
    spill,
    store_per_row,
    sum_tile,
    tile_number,
    tiles_in,
    total,
)

INF = math.inf
BUFFERS = 5
# What an int64 target says of a row without one.
IGNORED, BAD = -1, -2


@helper
def cap(z_at, slope_at, softcap, tile):  # type: ignore[no-untyped-def]
    """Replace z by softcap · tanh(z / softcap); −inf stays masked, +inf stays (its row is NaN).  Its slope σ."""
    for j in range(height(tile)):
        z = load_f64(z_at + 64 * j)
        x = z / softcap
        q = exp_lifted(-2.0 * absolute(x), f64s(0.0)) * (1.0 / ONE)
        store_f64(slope_at + 64 * j, 4.0 * q / ((1.0 + q) * (1.0 + q)))
        capped = x
        for i in range(8):
            capped = with_lane(capped, i, math.tanh(lane(x, i)))
        # tanh(x) = x to the last digit, and z / softcap may have lost digits below the smallest normal number.
        keeps = (absolute(x) < 1e-9) | (absolute(z) == INF)
        store_f64(z_at + 64 * j, where(keeps, z, capped * softcap))


@helper
def spread(d_at, targets, dense, weights, epsilon, tile):  # type: ignore[no-untyped-def]
    """Fill D; ΣD.  `weights`: address of float64 weights, padded with zeros to a multiple of eight; 0 if there are none."""
    classes = tile[2]
    if dense:
        fill(d_at, targets, tile, 0.0)
    for j in range(height(tile)):
        share = where(classes_at(j, tile) < classes, f64s(epsilon / classes), f64s(0.0))
        d = load_f64(d_at + 64 * j) * (1.0 - epsilon) + share if dense else share
        if weights != 0:
            if tile[3]:
                d = d * load_f64(weights + 64 * j)
            else:
                d = d * load_scalar(weights + 8 * j)
        store_f64(d_at + 64 * j, d)
    return sum_tile(d_at, tile)


@helper
def load_scalar(address):  # type: ignore[no-untyped-def]
    """A float64 in every lane."""
    return f64s(lane(load_part_f64(address, 1), 0))


@helper
def rows_of(tile, scratch, z, targets, dense, indices, weights, epsilon, softcap):  # type: ignore[no-untyped-def]
    """Everything a row's loss and derivatives are made of: (t, h, ΣD, m, k, s, e_t, rest_t, l)."""
    z_at, e_at, slope_at, d_at, _ = scratch
    fill(z_at, z, tile, -INF)
    if softcap > 0.0:
        cap(z_at, slope_at, softcap, tile)
    t, h, sum_d = i64s(IGNORED), f64s(0.0), f64s(0.0)
    if not dense:
        t = load_indices(indices, tile)
        h = f64s(1.0 - epsilon)
        if weights != 0:
            for i in range(8):
                h = with_lane(h, i, lane(h, i) * lane(load_part_f64(weights + 8 * max(lane(t, i), 0), 1), 0))
    if dense or epsilon > 0.0:
        sum_d = spread(d_at, targets, dense, weights, epsilon, tile)
    m, k, s, e_t, rest_t, _, l = exponentials(z_at, e_at, t, tile)
    return t, h, sum_d, m, k, s, e_t, rest_t, l


@helper
def load_indices(indices, tile):  # type: ignore[no-untyped-def]
    """Targets of a tile's rows; lanes without a row repeat the last."""
    t = load_i64(indices + 8 * tile[0]) if tile[1] == 8 else i64s(0)
    if tile[1] < 8:
        for i in range(8):
            t = with_lane(t, i, lane(load_part_i64(indices + 8 * (tile[0] + min(i, tile[1] - 1)), 1), 0))
        if tile[3]:
            t = i64s(lane(t, 0))
    return t


@helper
def losses(scratch, t, h, sum_d, m, l, has_spread, zeta, tile):  # type: ignore[no-untyped-def]
    """Σ_j W_j (m − z_j) + l ΣW + ζ lse²."""
    z_at, _, _, d_at, _ = scratch
    loss = sum_d * l
    gap = m - pick(z_at, where(t < 0, i64s(0), t), tile)
    # 0 · ∞ = 0: a masked target without mass.
    gap = where((h == 0.0) & (gap == INF), f64s(0.0), gap)
    loss += where(t < 0, f64s(0.0), h * (gap + l))
    if has_spread:
        high, low = f64s(0.0), f64s(0.0)
        for j in range(height(tile)):
            d = load_f64(d_at + 64 * j)
            # Halved, because m − z may overflow though its product with a mass does not.
            gap = 0.5 * m - 0.5 * load_f64(z_at + 64 * j)
            high, low = add(high, low, where((d == 0.0) & (gap == INF), f64s(0.0), gap * d))
        loss += 2.0 * total(high, low, tile)
    if zeta != 0.0:
        loss += zeta * (m + l) * (m + l)
    return loss


@helper
def settle(x, t, dead):  # type: ignore[no-untyped-def]
    """Rows that count for nothing are exactly 0, rows whose target is out of range NaN."""
    x = where(t == BAD, f64s(math.nan), x)
    return where((t == IGNORED) | dead, f64s(0.0), x)


@helper
def gradient(j, scratch, tile, t, at_t, first, second, scale, has_spread):  # type: ignore[no-untyped-def]
    """Vector j of p F − W, scaled; at the target `at_t`."""
    _, e_at, _, d_at, _ = scratch
    g = load_f64(e_at + 64 * j) * first * second
    if has_spread:
        g -= scale * load_f64(d_at + 64 * j)
    return where(classes_at(j, tile) == t, at_t, g)


@helper
def gradient_at_target(scratch, tile, t, h, factor_but_h, e_t, rest_t, s, scale, has_spread):  # type: ignore[no-untyped-def]
    """p_t (F − h) − D_t − h rest_t / s, scaled: what is left where p_t − 1 has no digits."""
    _, _, _, d_at, _ = scratch
    first, second = ratio(scale * h, s)
    g = -(rest_t * first * second)
    first, second = ratio(scale * factor_but_h, s)
    g += where(factor_but_h == 0.0, f64s(0.0), e_t * first * second)
    if has_spread:
        g -= scale * pick(d_at, where(t < 0, i64s(0), t), tile)
    return g


@kernel
def cross_entropy_tiles(counter, scratch, rows, classes, one_row, z, targets, dense, indices, weights, options, scales, loss, grad):  # type: ignore[no-untyped-def]  # noqa: E501
    """Loss and gradient, each where there is an array (address not 0), of every tile that no other thread takes."""
    _, _, slope_at, _, v_at = scratch
    epsilon, zeta, softcap, by, dead = options
    has_spread = dense or epsilon > 0.0
    none_counts = f64s(dead) > 0.0
    tiles = tiles_in(rows, classes, one_row)
    i = take(counter)
    while i < tiles:
        tile = tile_number(i, rows, classes, one_row)
        t, h, sum_d, m, k, s, e_t, rest_t, l = rows_of(
            tile, scratch, z, targets, dense, indices, weights, epsilon, softcap
        )
        counts = i64s(0) if dense else t  # probabilities: every row
        if loss[0] != 0:
            values = losses(scratch, t, h, sum_d, m, l, has_spread, zeta, tile)
            store_per_row(loss, settle(values, counts, counts != counts), tile)  # noqa: PLR0124
        if grad[0] != 0:
            scale = load_per_row(scales, tile) / by
            factor_but_h = sum_d + 2.0 * zeta * (m + l) if zeta != 0.0 else sum_d
            first, second = ratio(scale * (h + factor_but_h), s)
            at_t = gradient_at_target(scratch, tile, t, h, factor_but_h, e_t, rest_t, s, scale, has_spread)
            for j in range(height(tile)):
                g = gradient(j, scratch, tile, t, at_t, first, second, scale, has_spread)
                if softcap > 0.0:
                    g *= load_f64(slope_at + 64 * j)
                store_f64(v_at + 64 * j, settle(g, counts, none_counts))
            spill(v_at, grad, tile)
        i = take(counter)


@kernel
def cross_entropy_jvp_tiles(counter, scratch, rows, classes, one_row, z, targets, dense, indices, weights, options, count_v, v, v_step, out, out_step):  # type: ignore[no-untyped-def]  # noqa: E501
    """ΣW Σ p u − Σ W u, u = v − v[t] (v[k] for probabilities), and ζ's part."""
    z_at, e_at, slope_at, d_at, v_at = scratch
    epsilon, zeta, softcap, _, _ = options
    has_spread = dense or epsilon > 0.0
    tiles = tiles_in(rows, classes, one_row)
    i = take(counter)
    while i < tiles:
        tile = tile_number(i, rows, classes, one_row)
        t, h, sum_d, m, k, s, e_t, rest_t, l = rows_of(
            tile, scratch, z, targets, dense, indices, weights, epsilon, softcap
        )
        counts = i64s(0) if dense else t
        for n in range(count_v):
            fill(v_at, (v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5]), tile, 0.0)
            if softcap > 0.0:
                for j in range(height(tile)):
                    store_f64(v_at + 64 * j, load_f64(v_at + 64 * j) * load_f64(slope_at + 64 * j))
            unit, mean, v_ref = centre(v_at, z_at, e_at, s, where(t < 0, k, t), True, tile)
            slope = (h + sum_d) * mean
            if has_spread:
                high, low = f64s(0.0), f64s(0.0)
                for j in range(height(tile)):
                    high, low = add(high, low, load_f64(d_at + 64 * j) * load_f64(v_at + 64 * j))
                slope -= total(high, low, tile)
            if zeta != 0.0:
                slope += 2.0 * zeta * (m + l) * (v_ref / unit + mean)
            values = settle(slope * unit, counts, counts != counts)  # noqa: PLR0124
            store_per_row((out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5]), values, tile)
        i = take(counter)


@kernel
def cross_entropy_hvp_tiles(counter, scratch, rows, classes, one_row, z, targets, dense, indices, weights, options, scales, count_v, v, v_step, out, out_step):  # type: ignore[no-untyped-def]  # noqa: E501
    """p (F (u − Σ p u) + 2 ζ Σ p v), scaled; through the cap where there is one."""
    z_at, e_at, slope_at, _, v_at, raw_at = scratch
    five = (z_at, e_at, slope_at, scratch[3], v_at)
    epsilon, zeta, softcap, by, dead = options
    has_spread = dense or epsilon > 0.0
    none_counts = f64s(dead) > 0.0
    tiles = tiles_in(rows, classes, one_row)
    i = take(counter)
    while i < tiles:
        tile = tile_number(i, rows, classes, one_row)
        t, h, sum_d, m, k, s, e_t, rest_t, l = rows_of(
            tile, five, z, targets, dense, indices, weights, epsilon, softcap
        )
        counts = i64s(0) if dense else t
        scale = load_per_row(scales, tile) / by
        factor_but_h = sum_d + 2.0 * zeta * (m + l) if zeta != 0.0 else sum_d
        first_g, second_g = ratio(scale * (h + factor_but_h), s)
        at_t = gradient_at_target(five, tile, t, h, factor_but_h, e_t, rest_t, s, scale, has_spread)
        for n in range(count_v):
            fill(v_at, (v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5]), tile, 0.0)
            if softcap > 0.0:
                for j in range(height(tile)):
                    raw = load_f64(v_at + 64 * j)
                    store_f64(raw_at + 64 * j, raw)
                    store_f64(v_at + 64 * j, raw * load_f64(slope_at + 64 * j))
            unit, mean, v_ref = centre(v_at, z_at, e_at, s, k, True, tile)
            first, second = ratio(scale * unit, s)
            for j in range(height(tile)):
                x = (load_f64(v_at + 64 * j) - mean) * (h + factor_but_h)
                if zeta != 0.0:
                    x += 2.0 * zeta * (v_ref / unit + mean)
                z_j = load_f64(z_at + 64 * j)
                y = settled(x * load_f64(e_at + 64 * j) * first * second, z_j, s)
                if softcap > 0.0:
                    slope = load_f64(slope_at + 64 * j)
                    g = gradient(j, five, tile, t, at_t, first_g, second_g, scale, has_spread)
                    # σ' = −2 σ tanh(z / cap) / cap; 0 where σ is, also at a masked class.
                    bend = where(slope == 0.0, f64s(0.0), slope * (z_j / softcap) * (-2.0 / softcap))
                    y = y * slope + g * bend * load_f64(raw_at + 64 * j)
                store_f64(v_at + 64 * j, settle(y, counts, none_counts))
            spill(v_at, (out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5]), tile)
        i = take(counter)
