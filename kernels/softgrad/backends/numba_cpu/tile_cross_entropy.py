"""The cross-entropy family on tiles: loss, gradient, directional derivative, Hessian product, with every option.

h      target mass on the integer target t, w_t (1 − ε); 0 for probabilities
D_j    the masses spread over all classes: w_j ε / C, or w_j (T_j (1 − ε) + ε / C); ΣD their sum
F      h + ΣD + 2 ζ lse, what p is multiplied by in the gradient; ζ = z_loss, under "mean" z_loss · D/n,
       for every row is then divided by D = Σ w_t and the z_loss part should be by n
σ      slope of the softcap, 4q / (1 + q)² with q = exp(−2 |z / cap|): 1 − tanh² has no digits left where σ is small
"""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.functions import ONE, exp_lifted, factors, times, two_product, two_sum
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    anywhere,
    f64s,
    fma,
    i64s,
    lane,
    load_f64,
    load_part_i64,
    read_f64,
    read_i64,
    store_f64,
    where,
    with_lane,
)
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_exponentials import exponentials
from softgrad.backends.numba_cpu.tile_sums import sum_tile, summed
from softgrad.backends.numba_cpu.tiles import (
    classes_at,
    coming,
    fill,
    height,
    load_per_row,
    pick,
    row_of,
    store_per_row,
    tile_number,
    tiles_in,
    write,
)

INF = math.inf
# z, the rest of z, e, two factors of the slope, D, v, v as it was.
BUFFERS = 8
# What an int64 target says of a row without one.
IGNORED, BAD = -1, -2
# 2 ζ lse may leave float64's range, of which the probabilities it multiplies then bring it back.
DOWN = 2.0**-64
# log1p(x) = x to the last digit, long before x is below the smallest normal number.
TINY = 1e-200


@helper
def cap(scratch, softcap, tile):
    """Replace z by softcap · tanh(z / softcap); −inf stays masked, +inf stays (its row is NaN).

    The rounding errors of x = z / softcap and of the product would be magnified by exp, so both are carried along in
    the rest.  The slope is stored as two factors: where q is below the smallest normal number, √q = exp(−|x|) twice.
    """
    z_at, rest_at, _, slope_at, slope_2_at, _, _, _ = scratch
    inverse = 1.0 / softcap
    for j in range(height(tile)):
        z = load_f64(z_at + 64 * j)
        x = z / softcap
        product, error = two_product(x, f64s(softcap))
        x_rest = ((z - product) - error) * inverse
        x_rest = where(x_rest - x_rest == 0.0, x_rest, f64s(0.0))
        size = absolute(x)
        size_rest = where(x < 0.0, -x_rest, x_rest)
        q = exp_lifted(-2.0 * size, -2.0 * size_rest) * (1.0 / ONE)
        part = 1.0 / (1.0 + q)
        slope, slope_2 = 4.0 * q * part * part, f64s(1.0)
        faint = q < 1e-290
        if anywhere(faint):
            root = 2.0 * exp_lifted(-size, -size_rest) * (1.0 / ONE)
            slope, slope_2 = where(faint, root, slope), where(faint, root, slope_2)
        store_f64(slope_at + 64 * j, slope)
        store_f64(slope_2_at + 64 * j, slope_2)
        tanh, tanh_rest = tanh_of(x, x_rest, q, part, slope)
        capped, rest = two_product(tanh, f64s(softcap))
        rest += softcap * tanh_rest
        # tanh(x) = x to the last digit, and z / softcap may have lost digits below the smallest normal number.
        as_it_is = (size < 1e-9) | (absolute(z) == INF)
        store_f64(z_at + 64 * j, where(as_it_is, z, capped))
        store_f64(rest_at + 64 * j, where(as_it_is, f64s(0.0), where(rest - rest == 0.0, rest, f64s(0.0))))


@inlined
def tanh_of(x, x_rest, q, part, slope):
    """tanh(x + x_rest) in two parts, q = exp(−2 |x + x_rest|), part = 1 / (1 + q).

    Near 0, x + x³ P(x²).  Elsewhere (1 − q) / (1 + q): what q is in error shows less and less there, and the roundings
    are carried along.
    """
    w = x * x
    p = fma(w, f64s(-2.0598556673275166e-05), f64s(8.510707927354112e-05))
    p = fma(w, p, f64s(-0.00023463104528300406))
    p = fma(w, p, f64s(0.0005889348072447028))
    p = fma(w, p, f64s(-0.0014556615775702365))
    p = fma(w, p, f64s(0.003592110347096177))
    p = fma(w, p, f64s(-0.008863234395418095))
    p = fma(w, p, f64s(0.021869488493563037))
    p = fma(w, p, f64s(-0.05396825396743174))
    p = fma(w, p, f64s(0.13333333333332714))
    p = fma(w, p, f64s(-0.3333333333333333))
    bend = x * w * p
    near = x + bend
    near_rest = ((x - near) + bend) + x_rest * slope
    above, below = 1.0 - q, 1.0 + q
    far = above * part
    product, error = two_product(far, below)
    far_rest = (((above - product) - error) + ((1.0 - above) - q) - far * ((1.0 - below) + q)) * part
    is_near = absolute(x) < 0.55
    far, far_rest = where(x < 0.0, -far, far), where(x < 0.0, -far_rest, far_rest)
    return where(is_near, near, far), where(is_near, near_rest, far_rest)


@inlined
def times_slope(y, j, scratch):
    """y times the softcap's slope at vector j."""
    return y * load_f64(scratch[3] + 64 * j) * load_f64(scratch[4] + 64 * j)


@helper
def spread(d_at, targets, dense, weights, epsilon, tile):
    """Fill D; ΣD.  `weights`: address of float64 weights, zeros up to a multiple of eight; 0 if there are none."""
    classes = tile[2]
    if dense:
        fill(d_at, targets, tile, 0.0)
    for j in range(height(tile)):
        share = where(classes_at(j, tile) < classes, f64s(epsilon / classes), f64s(0.0))
        d = share
        if dense:
            # Both roundings undone: a negative T may cancel against ε / C.
            d, of_product = two_product(load_f64(d_at + 64 * j), f64s(1.0 - epsilon))
            d, of_sum = two_sum(d, share)
            d += of_product + of_sum
        if weights != 0:
            d = d * load_f64(weights + 64 * j) if tile[3] else d * f64s(read_f64(weights + 8 * j))
        store_f64(d_at + 64 * j, d)
    return sum_tile(d_at, tile)


@helper
def rows_of(tile, scratch, z, targets, dense, indices, weights, epsilon, softcap, other):
    """Everything a row's loss and derivatives are made of: (t, h, ΣD, m, k, s, e_t, rest_t, rest_k, l).

    Of the array `other` memory is asked for these rows.
    """
    z_at, rest_at, e_at, _, _, d_at, _, _ = scratch
    fill(z_at, z, tile, -INF)
    if softcap > 0.0:
        cap(scratch, softcap, tile)
    t, h, sum_d = i64s(IGNORED), f64s(0.0), f64s(0.0)
    if not dense:
        t = load_indices(indices, tile)
        h = f64s(1.0 - epsilon)
        if weights != 0:
            h *= pick_weights(weights, t, tile)
    if dense or epsilon > 0.0:
        sum_d = spread(d_at, targets, dense, weights, epsilon, tile)
    ahead = coming(z, other, tile, other[0] == 0)
    m, k, s, e_t, rest_t, rest_k, l = exponentials(z_at, rest_at if softcap > 0.0 else 0, e_at, t, tile, ahead)
    return t, h, sum_d, m, k, s, e_t, rest_t, rest_k, l


@helper
def pick_weights(weights, t, tile):
    """The weight of each row's target."""
    w = f64s(read_f64(weights + 8 * max(lane(t, 0), 0)))
    if not tile[3]:
        for i in range(1, 8):
            w = with_lane(w, i, read_f64(weights + 8 * max(lane(t, i), 0)))
    return w


@helper
def load_indices(indices, tile):
    """Targets of a tile's rows; lanes without a row, any."""
    if tile[3]:
        return i64s(read_i64(indices + 8 * row_of(tile, 0)))
    if tile[4] == 0:
        return load_part_i64(indices + 8 * tile[0], tile[1])
    t = i64s(0)
    for i in range(8):
        t = with_lane(t, i, read_i64(indices + 8 * row_of(tile, min(i, tile[1] - 1))))
    return t


@helper
def losses(scratch, t, h, sum_d, m, s, rest_k, l, has_spread, zeta, tile):
    """Half of Σ_j W_j (m − z_j) + l ΣW + ζ lse²: m − z may overflow though a mean of it does not."""
    z_at, d_at = scratch[0], scratch[5]
    half = 0.5 * l
    gap = 0.5 * m - 0.5 * pick(z_at, where(t < 0, i64s(0), t), tile)
    # 0 · ∞ = 0: a masked target without mass.
    gap = where((h == 0.0) & (gap == INF), f64s(0.0), gap)
    loss = where(t < 0, f64s(0.0), h * gap)
    if has_spread:
        loss += summed(spread_gap, (z_at, d_at, 0.5 * m), tile)
    # A sure row's l = rest / e may be below the smallest normal number though l ΣW is not.
    mass = h + sum_d
    part = half * mass
    is_tiny = half < TINY
    if anywhere(is_tiny):
        # s is e_k, to the last digit.
        part = where(is_tiny, times(rest_k, f64s(0.5), mass, s), part)
    loss += part
    if zeta != 0.0:
        part = 0.5 * zeta * (m + l) * (m + l)
        # Where that overflows it outweighs every finite logit.
        loss = where((absolute(part) == INF) & (loss == loss), part, loss + part)
    return loss


@inlined
def spread_gap(j, of):
    """D (m − z) / 2."""
    z_at, d_at, half_m = of
    d = load_f64(d_at + 64 * j)
    gap = half_m - 0.5 * load_f64(z_at + 64 * j)
    return where((d == 0.0) & (gap == INF), f64s(0.0), gap * d)


@inlined
def settle(x, t, dead):
    """Rows that count for nothing are exactly 0, rows whose target is out of range NaN."""
    x = where(t == BAD, f64s(math.nan), x)
    return where((t == IGNORED) | dead, f64s(0.0), x)


@inlined
def factor(mass, zeta, m, l):
    """(mass + 2 ζ lse) · DOWN."""
    return mass * DOWN + (2.0 * zeta * DOWN) * (m + l) if zeta != 0.0 else mass * DOWN


@helper
def gradient_at_target(d_at, tile, t, h, others, e_t, rest_t, s, scale, has_spread):
    """p_t (F − h) − D_t − h rest_t / s, scaled: what is left where p_t − 1 has no digits.  `others`: (F − h) DOWN."""
    first, second = factors(scale, h, f64s(1.0), f64s(1.0), s)
    g = -rest_t * first * second
    if anywhere(others != 0.0):
        first, second = factors(scale, others, f64s(1.0 / DOWN), f64s(1.0), s)
        g += where(others == 0.0, f64s(0.0), e_t * first * second)
    if has_spread:
        g -= scale * pick(d_at, where(t < 0, i64s(0), t), tile)
    return g


@inlined
def plain_gradient(j, of):
    """p F, scaled; at the target `at_t`."""
    e_at, tile, t, at_t, first, second = of
    return where(classes_at(j, tile) == t, at_t, load_f64(e_at + 64 * j) * first * second)


@inlined
def gradient(j, scratch, tile, t, at_t, first, second, scale, has_spread):
    """Vector j of p F − W, scaled; at the target `at_t`."""
    g = load_f64(scratch[2] + 64 * j) * first * second
    if has_spread:
        g -= scale * load_f64(scratch[5] + 64 * j)
    return where(classes_at(j, tile) == t, at_t, g)


@inlined
def any_gradient(j, of):
    """The same, through the cap where there is one, of rows that may count for nothing."""
    scratch, tile, t, at_t, first, second, scale, has_spread, is_capped, counts, none_counts = of
    g = gradient(j, scratch, tile, t, at_t, first, second, scale, has_spread)
    if is_capped:
        g = times_slope(g, j, scratch)
    return settle(g, counts, none_counts)


@kernel
def cross_entropy_tiles(
    counter, chunk, scratch, work, z, targets, dense, indices, weights, options, scales, loss, loss_unit, grad
):
    """Loss · loss_unit and gradient, each where there is an array (address not 0), of every tile not taken."""
    e_at, d_at, v_at = scratch[2], scratch[5], scratch[6]
    epsilon, zeta, softcap, by, dead = options
    has_spread = dense or epsilon > 0.0
    none_counts = f64s(dead) > 0.0
    tiles = tiles_in(work)
    first_tile = next_share(counter) * chunk
    while first_tile < tiles:
        for i in range(first_tile, min(first_tile + chunk, tiles)):
            tile = tile_number(i, work)
            t, h, sum_d, m, _, s, e_t, rest_t, rest_k, l = rows_of(
                tile, scratch, z, targets, dense, indices, weights, epsilon, softcap, grad
            )
            counts = i64s(0) if dense else t  # probabilities: every row
            if loss[0] != 0:
                values = losses(scratch, t, h, sum_d, m, s, rest_k, l, has_spread, zeta, tile)
                store_per_row(loss, settle(values * (2.0 * loss_unit), counts, counts != counts), tile)
            if grad[0] != 0:
                scale = load_per_row(scales, tile) / by
                first, second = factors(scale, factor(h + sum_d, zeta, m, l), f64s(1.0 / DOWN), f64s(1.0), s)
                others = factor(sum_d, zeta, m, l)
                at_t = gradient_at_target(d_at, tile, t, h, others, e_t, rest_t, s, scale, has_spread)
                if has_spread or softcap > 0.0 or dead > 0.0 or anywhere(counts < 0):
                    of = (
                        scratch, tile, t, at_t, first, second, scale, has_spread, softcap > 0.0, counts, none_counts
                    )  # fmt: skip
                    write(any_gradient, of, v_at, grad, tile)
                else:
                    write(plain_gradient, (e_at, tile, t, at_t, first, second), v_at, grad, tile)
        first_tile = next_share(counter) * chunk
    leave(counter)
