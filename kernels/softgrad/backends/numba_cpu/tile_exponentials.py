"""The exponentials of a tile and their sums, by the derivation's symbols.

e = 2^(LIFT − N) exp(z), N a whole number near m / ln 2; k the first largest class, m = z_k, t the target; rest_x the
sum over all classes but x; l = log1p(rest_k / e_k).  Rows with |m| ≥ LARGEST, or with none, are `far`: for them
e = 2^LIFT exp(z − m), the rounding error of z − m carried along.

Where rest_k and rest_t are asked for, the sum is over the classes but k and t: one row is computed as if these were
masked, in eight rows their lanes are left out.
"""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.functions import LARGEST, LOG2_E, exp_lifted, exp_shifted, log1p, shift, two_sum
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    anywhere,
    f64s,
    i64s,
    lane,
    load_f64,
    prefetch,
    read_f64,
    store_f64,
    where,
    with_lane,
    write_f64,
)
from softgrad.backends.numba_cpu.tile_sums import add, first_equal, largest, summed, total
from softgrad.backends.numba_cpu.tiles import classes_at, height, pick

INF = math.inf


@helper
def exponentials_and_sum(z_at, e_at, tile, ahead):
    """Fill e from z, or one row's z with it; (m, s).  Memory is asked for what lies `ahead`."""
    m = largest(z_at, tile)
    far = ~(absolute(m) < LARGEST)
    any_far = anywhere(far)
    s = f64s(0.0)
    if not (any_far and tile[3]):
        shifts = shift(whole_shift(m))
        if tile[3]:
            s = summed(_term, (z_at, None, e_at, shifts, ahead), tile)
        else:
            s = summed(_term, (z_at, None, e_at, shifts, None), tile)
    if any_far:
        _, of_far, _, _ = _far_exponentials(z_at, 0, e_at, m, i64s(-1), i64s(-1), far, tile)
        s = where(far, of_far, s)
    return m, s


@helper
def exponentials(z_at, rest_at, e_at, t, tile, ahead):
    """Fill e from z (+ rest, far below 1, where its address is not 0); (m, k, s, e_t, rest_t, rest_k, l).

    t < 0: no target, e_t 0.  One row's e may take the place of z.
    """
    m = largest(z_at, tile)
    k = first_equal(z_at, m, tile)
    far = ~(absolute(m) < LARGEST)
    any_far = anywhere(far)
    others, e_k, e_t = f64s(0.0), f64s(0.0), f64s(0.0)
    if not (any_far and tile[3]):
        shifts = shift(whole_shift(m))
        if tile[3]:
            others, e_k, e_t = _sums_of_row(z_at, rest_at, e_at, shifts, m, k, t, tile, ahead)
        else:
            others, e_k, e_t = _sums_of_rows(z_at, rest_at, e_at, shifts, k, t, tile)
    if any_far:
        far_m, far_others, far_k, far_t = _far_exponentials(z_at, rest_at, e_at, m, k, t, far, tile)
        m, others = where(far, far_m, m), where(far, far_others, others)
        e_k, e_t = where(far, far_k, e_k), where(far, far_t, e_t)
    e_t = where(t < 0, f64s(0.0), e_t)
    rest_k = others + where(t == k, f64s(0.0), e_t)
    rest_t = others + where(t == k, f64s(0.0), e_k)
    return m, k, rest_k + e_k, e_t, rest_t, rest_k, log1p(rest_k / e_k)


@inlined
def whole_shift(m):
    """N of each row."""
    x = where(m > -LARGEST, where(m < LARGEST, m, f64s(LARGEST)), f64s(-LARGEST)) * LOG2_E
    return (x + 1.5 * 2.0**52) - 1.5 * 2.0**52


@inlined
def _term(j, of):
    """Vector j of the exponentials; memory is asked for what comes later."""
    return _exponential(j, *of)


@inlined
def _exponential(j, z_at, rest_at, e_at, shifts, ahead):
    rounder, lowest = shifts
    if ahead is not None:
        one, other, size = ahead
        prefetch(one + size * j)
        prefetch(other + size * j)
    rest = None if rest_at is None else load_f64(rest_at + 64 * j)
    e = exp_shifted(load_f64(z_at + 64 * j), rest, rounder, lowest)
    store_f64(e_at + 64 * j, e)
    return e


@inlined
def _term_of_others(j, of):
    """The same of eight rows, 0 where it is k or t."""
    k, t, of_term = of
    return where((k == j) | (t == j), f64s(0.0), _term(j, of_term))


@inlined
def _sums_of_row(z_at, rest_at, e_at, shifts, m, k, t, tile, ahead):
    """(Σ e without k and t, e_k, e_t) of one row."""
    k_0, t_0 = lane(k, 0), lane(t, 0)
    has_target = t_0 >= 0
    z_k_at, z_t_at = z_at + 8 * k_0, z_at + 8 * max(t_0, 0)
    z_t = read_f64(z_t_at)
    write_f64(z_k_at, -INF)
    if has_target:
        write_f64(z_t_at, -INF)
    rest = f64s(0.0)
    if rest_at != 0:
        others = summed(_term, (z_at, rest_at, e_at, shifts, ahead), tile)
        rest = with_lane(f64s(read_f64(rest_at + 8 * k_0)), 1, read_f64(rest_at + 8 * max(t_0, 0)))
    else:
        others = summed(_term, (z_at, None, e_at, shifts, ahead), tile)
    write_f64(z_k_at, lane(m, 0))
    write_f64(z_t_at, z_t)
    rounder, lowest = shifts
    e = exp_shifted(with_lane(m, 1, z_t), rest, rounder, lowest)
    write_f64(e_at + 8 * k_0, lane(e, 0))
    if has_target:
        write_f64(e_at + 8 * t_0, lane(e, 1))
    return others, f64s(lane(e, 0)), f64s(lane(e, 1))


@inlined
def _sums_of_rows(z_at, rest_at, e_at, shifts, k, t, tile):
    """The same of eight rows."""
    if rest_at != 0:
        others = summed(_term_of_others, (k, t, (z_at, rest_at, e_at, shifts, None)), tile)
    else:
        others = summed(_term_of_others, (k, t, (z_at, None, e_at, shifts, None)), tile)
    return others, pick(e_at, k, tile), pick(e_at, where(t < 0, i64s(0), t), tile)


@helper
def _far_exponentials(z_at, rest_at, e_at, m, k, t, far, tile):
    """(m, Σ e without k and t, e_k, e_t) of the rows that are far, whose e alone are written; m NaN where there is one.

    k and t may be −1, for none.
    """
    lost = i64s(0)
    for j in range(height(tile)):
        z = load_f64(z_at + 64 * j)
        lost = where(z != z, i64s(1), lost)
    if tile[3]:
        lost = i64s(1 if anywhere(lost > 0) else 0)
    m = where(lost > 0, f64s(math.nan), m)
    high, low = f64s(0.0), f64s(0.0)
    for j in range(height(tile)):
        z = load_f64(z_at + 64 * j)
        d, residue = two_sum(z, -m)
        # A difference that overflows, or of infinities, has no rounding error.
        residue = where(residue - residue == 0.0, residue, f64s(0.0))
        if rest_at != 0:
            residue += load_f64(rest_at + 64 * j)
        e = exp_lifted(d, residue)
        store_f64(e_at + 64 * j, where(far, e, load_f64(e_at + 64 * j)))
        classes = classes_at(j, tile)
        high, low = add(high, low, where((classes == k) | (classes == t), f64s(0.0), e))
    # NaN for an infinite m, or one that is NaN.
    e_k = where(m - m == 0.0, pick(e_at, where(k < 0, i64s(0), k), tile), m - m)
    return m, total(high, low, tile), e_k, pick(e_at, where(t < 0, i64s(0), t), tile)
