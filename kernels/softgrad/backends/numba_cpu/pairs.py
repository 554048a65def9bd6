"""Sums and quotients of sixteen rows as pairs of float32, high + low: to 45 bits, in half the operations of float64.

high is what the pair amounts to, rounded; low its rounding error, itself rounded.  `two_sum` finds the error of a sum,
`fma` that of a product: where a machine has none, low is lost, half an ulp.
"""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.functions import INF, two_sum
from softgrad.backends.numba_cpu.lanes import bits, f32s, floats, fma, halves, i32s, joined, to_floats, where

LN2_HIGH, LN2_LOW = 355 / 512, 0.6931471805599453 - 355 / 512  # the first of so few bits that k times it is exact
SQRT_HALF = 0x3F3504F3


@inlined
def added(pair, x):
    """A pair and a number."""
    high, error = two_sum(pair[0], x)
    return high, pair[1] + error


@inlined
def split(low, high):
    """Sixteen float64 as pairs."""
    near = joined(low, high)
    x, y = halves(near)
    return near, joined(low - x, high - y)


@inlined
def in_float64(pair):
    """Pairs as float64, of the first eight rows and of the others."""
    low, high = halves(pair[0])
    rest_low, rest_high = halves(pair[1])
    return low + rest_low, high + rest_high


@inlined
def reciprocal(pair):
    """1 over a pair."""
    near = 1.0 / pair[0]
    error = fma(-near, pair[1], fma(-near, pair[0], f32s(1.0)))
    return near, near * error


@inlined
def times(a, b):
    """The product of two pairs."""
    near = a[0] * b[0]
    return near, fma(a[0], b[0], -near) + fma(a[0], b[1], a[1] * b[0])


@inlined
def rounded_product(a, b):
    """The same as one number."""
    return fma(a[0], b[0], fma(a[0], b[1], a[1] * b[0]))


@helper
def log1p_of_quotient(pair, by):
    """log(1 + pair / by), to an ulp, for quotients from 2⁻¹⁰⁰ to 2¹²⁰: as `functions.log1p`."""
    over = 1.0 / by
    x = pair[0] * over
    left = (fma(-x, by, pair[0]) + pair[1]) * over  # by which x is too small
    u = 1.0 + x
    lost = where(x < 1.0, x - (u - 1.0), 1.0 - (u - x)) + left
    k = (bits(u) - i32s(SQRT_HALF)) >> 23  # so that 1 + f lies between √½ and √2
    f = floats(bits(u) - (k << 23)) - 1.0
    s = f / (2.0 + f)
    lost *= floats((127 - k) << 23) * (1.0 - 2.0 * s)  # over u; 1 − 2 s is near enough to 1 / (1 + f)
    w = s * s
    p = fma(w, f32s(0.24279078841), f32s(0.28498786688))
    p = fma(w, p, f32s(0.40000972152))
    p = fma(w, p, f32s(0.66666662693))
    half_square = 0.5 * f * f
    n = to_floats(k)
    small = fma(n, f32s(LN2_LOW), lost)
    log = fma(n, f32s(LN2_HIGH), f - (half_square - fma(s, fma(w, p, half_square), small)))
    return where(x < INF, log, x)
