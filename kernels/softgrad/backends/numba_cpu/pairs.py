"""Sums and quotients of sixteen rows as pairs of float32, high + low: to 45 bits, in half the operations of float64.

high is what the pair amounts to, rounded; low its rounding error, itself rounded.  `two_sum` finds the error of a sum,
`fma` that of a product: where a machine has none, low is lost, half an ulp.
"""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import inlined
from softgrad.backends.numba_cpu.functions import two_sum
from softgrad.backends.numba_cpu.lanes import bits, f32s, floats, fma, halves, i32s, joined, to_floats

LN2_HIGH, LN2_LOW = 355 / 512, 0.6931471805599453 - 355 / 512  # the first of so few bits that k times it is exact


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


@inlined
def log1p_of_quotient(pair, by):
    """log(1 + pair / by), to an ulp, for quotients from 2⁻¹⁰⁰ to 2¹²⁰.

    That is log(s / by), s = by + pair: k ln 2 + 2 artanh(n / d), n = s − 2ᵏ by, d = s + 2ᵏ by, with 2ᵏ by so near s
    that n loses nothing, and |n / d| < 0.201.  There is no other division.
    """
    near, lost = two_sum(pair[0], by)
    lost += pair[1]  # which long sums leave behind in many parts: more than a rounding error
    s = near + lost
    lost -= s - near
    k = (bits(s) - bits(by) + i32s(1 << 22)) >> 23
    near = floats(bits(by) + (k << 23))
    exact = s - near
    n = exact + lost
    d = s + near
    over = 1.0 / d
    q = n * over
    rest = fma(-q, d, n) + ((lost - (n - exact)) - q * ((s - d) + near))  # of n, beyond q d
    w = q * q
    p = fma(w, f32s(0.30383142828941345), f32s(0.39956769347190857))
    p = fma(w, p, f32s(0.6666696071624756))
    q2, power = q + q, to_floats(k)
    whole = power * LN2_HIGH
    log = whole + q2
    return log + (fma(rest + rest, over, fma(q * w, p, power * LN2_LOW)) + (q2 - (log - whole)))
