"""exp, log1p and error-free sums, on vectors: right to one ulp, without a library call.

exp(x) = 2ⁿ · exp(r), n = x / ln 2 rounded, r = x − n ln 2 in two parts, the first of so few bits that n times it is
exact.  exp(r) = 1 + r + r² Q(r) with Q minimax on ±ln 2 / 2.  Three things make it cheap:

    rounding   adding 1.5 · 2⁵² leaves n in the low bits of the sum
    scaling    those bits, moved to where the exponent is, are 2ⁿ: a shift and a product, and a NaN stays one
    lift       more added to the same constant scales every exponential by 2^lift, for nothing: terms whose
               probability is below the smallest normal number keep their digits in a sum
    shift      less added to it by N, a whole number near the row's largest z / ln 2, does what subtracting the largest
               logit would, for nothing and without a rounding error to be carried along

The shift holds for rows with |m| < LARGEST: then |n| < 2²¹.  Others are shifted by m.
"""

from __future__ import annotations

import numpy as np

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    anywhere,
    bits,
    f64s,
    floats,
    fma,
    i64s,
    larger,
    to_floats,
    where,
)

INF = np.inf
LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453
# ln 2 in two parts: 32 bits, times |n| < 2²¹ exact, and the rest.
LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10

LARGEST = 2.0**20
LIFT = 600  # exponentials are scaled by 2^LIFT: e = 2^LIFT exp(x)
ONE = 2.0**LIFT
_ROUNDER = 1.5 * 2.0**52 + 1023 + LIFT  # 1023: the bias of float64's exponent
_LOWEST = -(1021 + LIFT) / LOG2_E  # below, 2^LIFT exp(x) would leave the normal numbers
_HIGHEST = 400 / LOG2_E
_REACH = 1023 + LIFT  # the exponent field of 2^(LIFT − REACH) is 0, and so are its bits: products with it are 0


@inlined
def exp_lifted(x, residue):
    """2^LIFT exp(x + residue), f64: 0 where x < −1123, NaN where x is.  |residue| is a rounding error of x."""
    e = _exp(x, residue, f64s(_ROUNDER))
    e = where(x > _HIGHEST, f64s(INF), e)
    return where(x < _LOWEST, f64s(0.0), e)


@inlined
def shift(n):
    """The constants of rows with N = n: what rounds and shifts, and a logit whose e is 0."""
    return _ROUNDER - n, (n - _REACH) * LN_2


@inlined
def exp_shifted(z, residue, rounder, lowest):
    """2^(LIFT − N) exp(z + residue), f64; 0 up to `lowest`, NaN where z is.  `residue` may be None."""
    return _exp(larger(lowest, z), residue, rounder)


@inlined
def _exp(x, residue, rounder):
    t = fma(x, f64s(LOG2_E), rounder)
    n = t - rounder
    if residue is None:
        r = fma(n, f64s(-LN2_LOW), fma(n, f64s(-LN2_HIGH), x))
    else:
        r = fma(n, f64s(-LN2_HIGH), x) + fma(n, f64s(-LN2_LOW), residue)
    q = fma(r, f64s(2.500000833243082e-08), f64s(2.7630248485211643e-07))
    q = fma(r, q, f64s(2.7557586548670366e-06))
    q = fma(r, q, f64s(2.480149309891094e-05))
    q = fma(r, q, f64s(0.00019841269506377436))
    q = fma(r, q, f64s(0.0013888888943629745))
    q = fma(r, q, f64s(0.008333333333494555))
    q = fma(r, q, f64s(0.04166666666653016))
    q = fma(r, q, f64s(0.16666666666666413))
    q = fma(r, q, f64s(0.5000000000000011))
    return (1.0 + fma(r * r, q, r)) * floats(bits(t) << 52)


@inlined
def log1p(x):
    """log(1 + x), f64, x ≥ 0: with u = 1 + x = 2ᵏ (1 + f), s = f / (2 + f), log(1 + f) = f − f²/2 + s (f²/2 + s² P)."""
    u = 1.0 + x
    lost = where(x < 1.0, x - (u - 1.0), 1.0 - (u - x)) / u
    k = (bits(u) - SQRT_HALF) >> 52  # so that 1 + f lies between √½ and √2
    f = floats(bits(u) - (k << 52)) - 1.0
    s = f / (2.0 + f)
    w = s * s
    p = fma(w, f64s(0.14796732600027454), f64s(0.1531397651895364))
    p = fma(w, p, f64s(0.18183567048156324))
    p = fma(w, p, f64s(0.22222198524266917))
    p = fma(w, p, f64s(0.28571428742828825))
    p = fma(w, p, f64s(0.3999999999941286))
    p = fma(w, p, f64s(0.6666666666666735))
    half_square = 0.5 * f * f
    n = to_floats(k)
    small = fma(n, f64s(LN2_LOW), lost)
    log = fma(n, f64s(LN2_HIGH), f - (half_square - fma(s, fma(w, p, half_square), small)))
    return where(x < INF, log, x)


SQRT_HALF = int(np.float64(0.5**0.5).view(np.int64))


@inlined
def two_sum(a, b):
    """a + b rounded, and the rounding error: exact (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


@inlined
def unit_below(x):
    """The power of two at or below x ≥ 0, f64, at least 2⁻¹⁰⁰⁰; 1 for 0, an infinity or NaN."""
    unit = floats(bits(x) & i64s(0x7FF << 52))
    unit = where(unit > 2.0**-1000, unit, f64s(2.0**-1000))
    return where((x > 0.0) & (x < INF), unit, f64s(1.0))


@helper
def factors(a, b, c, d, over):
    """a · b · c · d / over as two numbers to be multiplied by one after the other.

    Nothing on the way leaves float64's range, only the result may: so a probability below the smallest normal number
    is multiplied by what scales it before it is rounded, not after.
    """
    ab, cd = a * b, c * d
    x = ab * cd / over
    ordinary = _is_ordinary(ab) & _is_ordinary(cd) & _is_ordinary(ab * cd) & _is_ordinary(x)
    if not anywhere(~ordinary):
        return x, f64s(1.0)
    power = _exponent(a) + _exponent(b) + _exponent(c) + _exponent(d) - _exponent(over)
    fraction = _fraction(a) * _fraction(b) * _fraction(c) * _fraction(d) / _fraction(over)
    power = where(power > 2000, i64s(2000), where(power < -2000, i64s(-2000), power))
    first = power >> 1
    return (
        where(ordinary, x, power_of_two(first)),
        where(ordinary, f64s(1.0), fraction * power_of_two(power - first)),
    )


@inlined
def _is_ordinary(x):
    """Whether x is far from float64's limits."""
    return (absolute(x) > 2.0**-1000) & (absolute(x) < 2.0**1000)


@helper
def times(x, a, b, over):
    """x · a · b / over, likewise."""
    first, second = factors(a, b, f64s(1.0), f64s(1.0), over)
    return x * first * second


@inlined
def two_product(a, b):
    """a · b rounded, and the rounding error: exact (Dekker) where nothing over- or underflows."""
    product = a * b
    a_high, b_high = a * _SPLIT, b * _SPLIT
    a_high, b_high = a_high - (a_high - a), b_high - (b_high - b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


_SPLIT = 2.0**27 + 1.0


@inlined
def in_two_parts(s):
    """1 / s, f64, and what that leaves over: e times both is as good as e / s."""
    factor = 1.0 / s
    product, error = two_product(s, factor)
    return factor, ((1.0 - product) - error) * factor


@inlined
def _exponent(x):
    return ((bits(x) & i64s(0x7FF << 52)) >> 52) - 1023


@inlined
def _fraction(x):
    """x / 2ⁿ, n its exponent, in two steps, because 2⁻ⁿ may not be a normal number."""
    n = _exponent(x)
    half = n >> 1
    return x * power_of_two(-half) * power_of_two(half - n)


@inlined
def power_of_two(n):
    """2ⁿ for −1022 ≤ n ≤ 1023."""
    return floats((n + 1023) << 52)
