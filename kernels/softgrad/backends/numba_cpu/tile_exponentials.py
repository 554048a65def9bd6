"""The exponentials of a tile and their sums, by the derivation's symbols.

e = 2^LIFT exp(z − m), the rounding error of z − m carried along; k the first largest class, m = z_k, t the target;
rest_x the sum over all classes but x; l = log1p(rest_k / e_k).
"""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper
from softgrad.backends.numba_cpu.functions import ONE, exp_lifted, log1p, two_sum
from softgrad.backends.numba_cpu.lanes import f64s, i64s, load_f64, store_f64, where
from softgrad.backends.numba_cpu.tiles import add, classes_at, height, largest, pick, total


@helper
def exponentials(z_at, rest_at, e_at, t, tile):
    """Fill e from z (+ rest, far below 1, where its address is not 0); (m, k, s, e_t, rest_t, rest_k, l).

    t < 0: no target, e_t 0.
    """
    m, k = largest(z_at, tile)
    high, low = f64s(0.0), f64s(0.0)
    for j in range(height(tile)):
        z = load_f64(z_at + 64 * j)
        d, residue = two_sum(z, -m)
        # A difference that overflows, or of infinities, has no rounding error.
        residue = where(residue - residue == 0.0, residue, f64s(0.0))
        if rest_at != 0:
            residue += load_f64(rest_at + 64 * j)
        e = exp_lifted(d, residue)
        store_f64(e_at + 64 * j, e)
        classes = classes_at(j, tile)
        high, low = add(high, low, where((classes == k) | (classes == t), f64s(0.0), e))
    others = total(high, low, tile)
    e_k = where(m - m == 0.0, f64s(ONE), m - m)  # exp(0); NaN for an infinite m, or one that is NaN
    if rest_at != 0:
        e_k = where(m - m == 0.0, pick(e_at, k, tile), e_k)  # m has a rest, too
    e_t = where(t < 0, f64s(0.0), pick(e_at, where(t < 0, i64s(0), t), tile))
    rest_k = others + where(t == k, f64s(0.0), e_t)
    rest_t = others + where(t == k, f64s(0.0), e_k)
    return m, k, rest_k + e_k, e_t, rest_t, rest_k, log1p(rest_k / e_k)
