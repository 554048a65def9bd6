"""The exponential in float32: one third of the operations of a shift by the maximum, and no rounding error to carry.

e_j = 2^(LIFT − N) exp(z_j) with a whole number N near the row's largest z / ln 2.  The shift by N is exact: it is
part of the constant that rounds z / ln 2, and costs nothing, where z − m would have to be followed by its rounding
error.  What remains is as in `functions`: n = z / ln 2 rounded, r = z − n ln 2 in two parts, the first of nine bits so
that n times it is exact, exp(r) = 1 + r + r² Q(r), 2ⁿ a shift.  0.7 ulp.

That holds for rows with |m| < LARGEST: e is 0 further than 190 ln 2 below m, and for nearer logits
|n| · 2⁻²⁴ · (ln 2's second part) stays an eighth of an ulp.  Other rows are left to the float64 tiles.

The lift keeps terms that are below the smallest normal number as probabilities, for the sake of their sum.
"""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import inlined
from softgrad.backends.numba_cpu.functions import INF, SQRT_HALF, exp_lifted, log1p
from softgrad.backends.numba_cpu.functions import LIFT as FULL_LIFT
from softgrad.backends.numba_cpu.lanes import bits, f32s, f64s, floats, fma, larger, to_floats, together, where

LARGEST = 800.0
LIFT = 64
LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453
_LN2_HIGH, _LN2_LOW = 355 / 512, LN_2 - 355 / 512
# exp(r) = 1 + r + _E2 r² + … + _E6 r⁶, |r| ≤ ½ ln 2.
_E6, _E5, _E4, _E3, _E2 = (
    0.0013814611593261361, 0.008368716575205326, 0.04166838899254799, 0.1666652113199234, 0.4999999403953552,
)  # fmt: skip
ROUNDER = 1.5 * 2.0**23 + 127 + LIFT  # 127: the bias of float32's exponent
_FROM_FULL_LIFT = 2.0 ** (LIFT - FULL_LIFT)
REACH = 127 + LIFT  # the exponent field of 2^(LIFT − REACH) is 0, and so are its bits: products with it are 0


@inlined
def shift(n):
    """The constants of a row with N = n: what rounds and shifts, and a logit whose e is 0."""
    return f32s(ROUNDER - n), f32s((n - REACH) * LN_2)


@inlined
def exp_shifted(z, rounder, lowest):
    """2^(LIFT − N) exp(z), f32; 0 up to `lowest`, NaN where z is."""
    z = larger(lowest, z)  # what this costs a comparison afterwards would cost too, but beside products, not sums
    t = fma(z, f32s(LOG2_E), rounder)
    n = t - rounder
    r = fma(n, f32s(-_LN2_LOW), fma(n, f32s(-_LN2_HIGH), z))
    q = fma(r, f32s(_E6), f32s(_E5))
    q = fma(r, q, f32s(_E4))
    q = fma(r, q, f32s(_E3))
    q = fma(r, q, f32s(_E2))
    q = fma(r, q, f32s(1.0))
    q = fma(r, q, f32s(1.0))
    return q * floats(bits(t) << 23)


@inlined
def four_exp_shifted(a, b, c, d, rounders, lowest):
    """The same of four vectors, each with constants of its own, step by step beside each other.

    A product's result is there four cycles later: of one vector after the other the processor would have to look far
    ahead for work that it need not wait for, and does not look far enough.
    """
    a, b, c, d = larger(lowest[0], a), larger(lowest[1], b), larger(lowest[2], c), larger(lowest[3], d)
    t, u, v, w = _multiplied(a, b, c, d, LOG2_E, rounders[0], rounders[1], rounders[2], rounders[3])
    i, j, k, l = t - rounders[0], u - rounders[1], v - rounders[2], w - rounders[3]
    a, b, c, d = _multiplied(i, j, k, l, -_LN2_HIGH, a, b, c, d)
    a, b, c, d = _multiplied(i, j, k, l, -_LN2_LOW, a, b, c, d)
    x = f32s(_E5)
    i, j, k, l = _multiplied(a, b, c, d, _E6, x, x, x, x)
    i, j, k, l = _horner(i, j, k, l, a, b, c, d, _E4)
    i, j, k, l = _horner(i, j, k, l, a, b, c, d, _E3)
    i, j, k, l = _horner(i, j, k, l, a, b, c, d, _E2)
    i, j, k, l = _horner(i, j, k, l, a, b, c, d, 1.0)
    i, j, k, l = _horner(i, j, k, l, a, b, c, d, 1.0)
    a, b, c, d = floats(bits(t) << 23), floats(bits(u) << 23), floats(bits(v) << 23), floats(bits(w) << 23)
    return i * a, j * b, k * c, l * d


@inlined
def _multiplied(i, j, k, l, by, a, b, c, d):
    x = f32s(by)
    return together(fma(i, x, a), fma(j, x, b), fma(k, x, c), fma(l, x, d))


@inlined
def _horner(i, j, k, l, a, b, c, d, coefficient):
    x = f32s(coefficient)
    return together(fma(i, a, x), fma(j, b, x), fma(k, c, x), fma(l, d, x))


@inlined
def power_of_two_single(n):
    """2ⁿ, f32, for whole numbers −126 ≤ n ≤ 127."""
    return floats(bits(n + (1.5 * 2.0**23 + 127)) << 23)


@inlined
def exponent(x):
    """The exponent of 2 in float32 x > 0, a whole number."""
    return to_floats((bits(x) >> 23) - 127)


@inlined
def term_at(d):
    """The term of d = z − N ln 2, in float64."""
    return exp_lifted(d, f64s(0.0)) * _FROM_FULL_LIFT


@inlined
def target_terms(rest, d):
    """(e_t, loss) in float64, from rest_t = Σ of the others and d = z_t − N ln 2: e_t lifted like rest_t.

    The loss is log1p(rest_t / e_t); log rest_t − z_t where e_t is out of range, as it is for a masked class.
    """
    e_t = term_at(d)
    far = log1p(rest) - LIFT * LN_2 - d  # rest ≥ 2⁶³ there: log1p is log
    return e_t, where(d < -600.0, far, log1p(rest / e_t))


@inlined
def log1p_to_single(x):
    """log(1 + x), f64, x ≥ 0, to 2⁻²⁹: as `functions.log1p`, for what is a float32 in the end."""
    u = 1.0 + x
    lost = where(x < 1.0, x - (u - 1.0), f64s(0.0))
    k = (bits(u) - SQRT_HALF) >> 52
    f = floats(bits(u) - (k << 52)) - 1.0
    s = f / (2.0 + f)
    w = s * s
    p = fma(w, f64s(0.23353432758298867), f64s(0.2854996827969847))
    p = fma(w, p, f64s(0.4000012943272042))
    p = fma(w, p, f64s(0.6666666654509626))
    half_square = 0.5 * f * f
    log = fma(to_floats(k), f64s(LN_2), f - (half_square - fma(s, fma(w, p, half_square), lost)))
    return where(x < INF, log, x)


@inlined
def is_in_range(scale, factor):
    """Whether e · factor is as good as p · scale: no factor too small to have its digits, no p flushed too early."""
    return scale == 0.0 or (abs(scale) < 2.0**60 and abs(factor) > 2.0**-120)


@inlined
def scaled(x, factor, rest):
    """x (factor + rest), rounded once: a reciprocal alone would round twice, and 1 / 1 not be 1."""
    return fma(x, factor, x * rest)
