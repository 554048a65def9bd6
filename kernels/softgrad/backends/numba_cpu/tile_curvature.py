"""Directional derivatives and Hessian products of the cross-entropy on tiles, by its loss's and gradient's symbols."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.functions import factors, times
from softgrad.backends.numba_cpu.lanes import absolute, anywhere, f64s, i64s, load_f64, store_f64, where
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_cross_entropy import (
    DOWN,
    factor,
    gradient,
    gradient_at_target,
    rows_of,
    settle,
    times_slope,
)
from softgrad.backends.numba_cpu.tile_products import (
    FAINT,
    MASKED,
    MASKED_WITHOUT_MASS,
    centre,
    moment_of,
    settled,
    unit_of,
)
from softgrad.backends.numba_cpu.tile_sums import summed, vector_of
from softgrad.backends.numba_cpu.tiles import (
    classes_at,
    fill,
    height,
    load_per_row,
    pick,
    row_of,
    row_offset,
    store_per_row,
    tile_number,
    tiles_in,
    write,
)


@helper
def move(v, scratch, softcap, tile):
    """Fill v, as the softcap moves it, and v as it was."""
    v_at, raw_at = scratch[6], scratch[7]
    fill(v_at, v, tile, 0.0)
    if softcap > 0.0:
        for j in range(height(tile)):
            raw = load_f64(v_at + 64 * j)
            store_f64(raw_at + 64 * j, raw)
            store_f64(v_at + 64 * j, times_slope(raw, j, scratch))


@helper
def moment_of_v(scratch, v_at, tile):
    """Σ e v as moment · unit; a masked class adds nothing."""
    z_at, e_at = scratch[0], scratch[2]
    top = f64s(0.0)
    for j in range(height(tile)):
        size = absolute(unmasked(j, (z_at, v_at)))
        top = where(size <= top, top, size)
    unit = unit_of(top, tile)
    return summed(weighed_unmasked, (z_at, e_at, v_at, 1.0 / unit), tile), unit


@inlined
def unmasked(j, of):
    """v, 0 where the class is masked."""
    z_at, v_at = of
    return where(load_f64(z_at + 64 * j) == -math.inf, f64s(0.0), load_f64(v_at + 64 * j))


@inlined
def weighed_unmasked(j, of):
    """e v / unit."""
    z_at, e_at, v_at, inverse = of
    return load_f64(e_at + 64 * j) * (unmasked(j, (z_at, v_at)) * inverse)


@inlined
def times_mass(j, of):
    """D u."""
    d_at, v_at, v_ref = of
    return load_f64(d_at + 64 * j) * (load_f64(v_at + 64 * j) - v_ref)


@kernel
def cross_entropy_jvp_tiles(
    counter, chunk, scratch, work, z, targets, dense, indices, weights, options, count_v, v, v_step, out,
    out_step,
):  # fmt: skip
    """ΣW Σ p u − Σ W u + 2 ζ lse Σ p v, with u = v − v[t], or v − v[k], of every tile that no other thread takes."""
    z_at, _, e_at, _, _, d_at, v_at, _ = scratch
    epsilon, zeta, softcap, _, _ = options
    has_spread = dense or epsilon > 0.0
    # In the mean a masked class adds nothing, even a NaN; in Σ W u only if it has no mass.
    idle = MASKED_WITHOUT_MASS if has_spread else MASKED
    tiles = tiles_in(work)
    first_tile = next_share(counter) * chunk
    while first_tile < tiles:
        for i in range(first_tile, min(first_tile + chunk, tiles)):
            tile = tile_number(i, work)
            t, h, sum_d, m, k, s, _, _, _, l = rows_of(
                tile, scratch, z, targets, dense, indices, weights, epsilon, softcap, v
            )
            counts = i64s(0) if dense else t
            for n in range(count_v):
                move((v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5]), scratch, softcap, tile)
                mean_1, mean_2 = f64s(0.0), f64s(0.0)
                if zeta != 0.0:
                    moment, unit = moment_of_v(scratch, v_at, tile)
                    mean_1, mean_2 = factors(f64s(2.0 * zeta), moment, unit, f64s(1.0), s)
                v_ref = pick(v_at, where(t < 0, k, t), tile)
                moment, fine = moment_of(e_at, v_at, v_ref, tile, v_at)
                in_masses = f64s(0.0)
                if has_spread:
                    in_masses = summed(times_mass, (d_at, v_at, v_ref), tile)
                    fine = fine & (absolute(in_masses) < math.inf)
                unit = f64s(1.0)
                if anywhere(~fine):
                    unit, moment = centre(v_at, z_at, e_at, d_at, v_ref, fine, idle, tile)
                    if has_spread:
                        in_masses = summed(times_mass, (d_at, v_at, f64s(0.0)), tile)
                slope = times(moment, h + sum_d, unit, s) - in_masses * unit
                if zeta != 0.0:
                    slope += (m + l) * mean_1 * mean_2
                values = settle(slope, counts, counts != counts)
                store_per_row((out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5]), values, tile)
        first_tile = next_share(counter) * chunk
    leave(counter)


@kernel
def cross_entropy_hvp_tiles(
    counter, chunk, scratch, work, z, targets, dense, indices, weights, options, scales, count_v, v, v_step,
    out, out_step,
):  # fmt: skip
    """p (F (u − Σ p u) + 2 ζ Σ p v), scaled, through the cap where there is one; of every tile not taken."""
    z_at, _, e_at, _, _, d_at, v_at, raw_at = scratch
    epsilon, zeta, softcap, by, dead = options
    has_spread = dense or epsilon > 0.0
    none_counts = f64s(dead) > 0.0
    up = f64s(1.0 / DOWN)
    tiles = tiles_in(work)
    first_tile = next_share(counter) * chunk
    while first_tile < tiles:
        for i in range(first_tile, min(first_tile + chunk, tiles)):
            tile = tile_number(i, work)
            t, h, sum_d, m, k, s, e_t, rest_t, _, l = rows_of(
                tile, scratch, z, targets, dense, indices, weights, epsilon, softcap, v
            )
            counts = i64s(0) if dense else t
            scale = load_per_row(scales, tile) / by
            F, others = factor(h + sum_d, zeta, m, l), factor(sum_d, zeta, m, l)
            for n in range(count_v):
                of_out = (out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5])
                move((v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5]), scratch, softcap, tile)
                mean_1, mean_2 = f64s(0.0), f64s(0.0)
                if zeta != 0.0:
                    moment, unit = moment_of_v(scratch, v_at, tile)
                    first, second = factors(scale, f64s(2.0 * zeta), f64s(1.0), f64s(1.0), s)
                    mean_1, mean_2 = factors(moment * first * second, unit, f64s(1.0), f64s(1.0), s)
                v_k = pick(v_at, k, tile)
                moment, fine = moment_of(e_at, v_at, v_k, tile, row_offset(of_out, row_of(tile, 0)))
                fine = fine & (absolute(moment / s) > FAINT)  # other factors may make a faint mean an ordinary number
                if softcap == 0.0 and not anywhere(~fine | (counts < 0) | none_counts):
                    first, second = factors(F, up, scale, f64s(1.0), s)
                    of = v_at, e_at, v_k, moment / s, first, second, mean_1, mean_2
                    write(curvature, of, v_at, of_out, tile)
                    continue
                unit, moment = centre(v_at, z_at, e_at, d_at, v_k, fine, MASKED, tile)
                first, second = factors(F, up, scale, unit, s)
                mean = moment / s
                # At k, where u = 0, the mean alone is left.
                y_k = -moment * (pick(e_at, k, tile) / s) * first * second
                raw_unit, at_t, first_g, second_g = f64s(1.0), f64s(0.0), f64s(0.0), f64s(0.0)
                if softcap > 0.0:
                    # The gradient is multiplied by the power of two near v before it is rounded, by the rest of v
                    # after.
                    _, raw_unit = moment_of_v(scratch, raw_at, tile)
                    first_g, second_g = factors(scale * raw_unit, F, up, f64s(1.0), s)
                    at_t = gradient_at_target(d_at, tile, t, h, others, e_t, rest_t, s, scale * raw_unit, has_spread)
                plain = fine & (f64s(softcap) == 0.0)  # as they would be without rows beside them that are not
                for j in range(height(tile)):
                    z_j, e = load_f64(z_at + 64 * j), load_f64(e_at + 64 * j)
                    y = (load_f64(v_at + 64 * j) - mean) * e * first * second
                    y = where((classes_at(j, tile) == k) & ~fine, y_k, y) + e * mean_1 * mean_2
                    if softcap > 0.0:
                        g = gradient(j, scratch, tile, t, at_t, first_g, second_g, scale * raw_unit, has_spread)
                        # The slope's own derivative is −2 tanh(z / cap) / cap times the slope.
                        bend = where(absolute(z_j) == math.inf, f64s(0.0), z_j / softcap) * (-2.0 / softcap)
                        bent = g * (load_f64(raw_at + 64 * j) / raw_unit) * bend
                        y = times_slope(settled(y, z_j, s), j, scratch) + times_slope(bent, j, scratch)
                    y = where(plain, y + 0.0, settled(y, z_j, s))
                    store_f64(v_at + 64 * j, settle(y, counts, none_counts))
                write(vector_of, v_at, v_at, of_out, tile)
        first_tile = next_share(counter) * chunk
    leave(counter)


@inlined
def curvature(j, of):
    """p (F (u − Σ p u) + 2 ζ Σ p v), scaled, of an ordinary tangent; no −0."""
    v_at, e_at, v_k, mean, first, second, mean_1, mean_2 = of
    e = load_f64(e_at + 64 * j)
    return ((load_f64(v_at + 64 * j) - v_k) - mean) * e * first * second + e * mean_1 * mean_2 + 0.0
