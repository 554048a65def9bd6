"""Real numbers to about 100 bits and of any exponent, in NumPy arrays: what the truth is computed in.

A number is (hi + lo) · 2^e with ½ ≤ |hi| < 1 and |lo| ≤ ulp(hi) / 2: a double-double whose exponent has its own
integer, so that exp(−5000) · 1e300 is neither 0 nor short of digits.  float64 alone cannot judge float64, and
np.longdouble is float64 on half of the platforms.  Infinities and NaN follow IEEE arithmetic, in `hi`.
"""

from __future__ import annotations

from fractions import Fraction
from math import factorial
from typing import Any

import numpy as np

# The exponent of zero: below that of any other number.
_ZERO = -(2**40)
# exp(x) below this is 0: no product of a few float64 factors brings it back.
_VANISHING = -20_000.0
_SPLIT = 2.0**27 + 1.0
# log 2 = _LN2 + _LN2_REST; the first has 33 bits, so that its multiples by small integers are exact.
_LN2 = float.fromhex("0x1.62e42fefp-1")
_LN2_REST = (float.fromhex("0x1.473de6af278edp-34"), float.fromhex("-0x1.9ff0342542fc3p-90"))


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def _two_product(a: Any, b: Any) -> tuple[Any, Any]:
    product = a * b
    x, y = _SPLIT * a, _SPLIT * b
    a_hi, b_hi = x - (x - a), y - (y - b)
    a_lo, b_lo = a - a_hi, b - b_hi
    return product, ((a_hi * b_hi - product) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo


class Real:
    """An array of real numbers; `Real(x)` of floats or integers up to 2⁵³ is exact."""

    __slots__ = ("e", "hi", "lo")
    __array_ufunc__ = None  # ndarray ∘ Real is Real's to answer
    hi: np.ndarray
    lo: np.ndarray
    e: np.ndarray

    def __init__(self, hi: Any, lo: Any = 0.0, e: Any = 0) -> None:
        with np.errstate(all="ignore"):
            hi, lo = np.asarray(hi).astype(np.float64), np.asarray(lo, np.float64)
            total = hi + lo
            lo = lo - (total - hi)
            hi, power = np.frexp(total)
            lo = np.ldexp(lo, -power)
            finite = np.isfinite(hi)
            self.hi = hi
            self.lo = np.where(finite, lo, 0.0)
            self.e = np.where(finite, np.where(hi == 0.0, _ZERO, np.asarray(e, np.int64) + power), 0)

    @classmethod
    def _of(cls, hi: Any, lo: Any, e: Any) -> Real:
        new = cls.__new__(cls)
        new.hi, new.lo, new.e = hi, lo, e
        return new

    # --- as an array ---------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.hi.shape

    @property
    def ndim(self) -> int:
        return self.hi.ndim

    def __getitem__(self, at: Any) -> Real:
        return Real._of(self.hi[at], self.lo[at], self.e[at])

    def __len__(self) -> int:
        return len(self.hi)

    def reshape(self, *shape: Any) -> Real:
        return Real._of(self.hi.reshape(*shape), self.lo.reshape(*shape), self.e.reshape(*shape))

    def moveaxis(self, source: int, destination: int) -> Real:
        return Real._of(*(np.moveaxis(x, source, destination) for x in (self.hi, self.lo, self.e)))

    def take(self, indices: np.ndarray) -> Real:
        """Of each row along the last axis the entry at `indices`, (..., 1)."""
        return Real._of(*(np.take_along_axis(x, indices, -1) for x in (self.hi, self.lo, self.e)))

    def broadcast_to(self, shape: tuple[int, ...]) -> Real:
        return Real._of(*(np.broadcast_to(x, shape) for x in (self.hi, self.lo, self.e)))

    def float(self) -> np.ndarray:
        """The numbers rounded to float64 (once, but for subnormal numbers)."""
        with np.errstate(all="ignore"):
            return np.ldexp(self.hi, np.clip(self.e, -3000, 3000).astype(np.int32))

    def __repr__(self) -> str:
        return f"Real({self.float()})"

    # --- arithmetic ----------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Real:
        b = _real(other)
        with np.errstate(all="ignore"):
            e = np.maximum(self.e, b.e)
            down_a = np.maximum(self.e - e, -2000).astype(np.int32)
            down_b = np.maximum(b.e - e, -2000).astype(np.int32)
            hi, error = _two_sum(np.ldexp(self.hi, down_a), np.ldexp(b.hi, down_b))
            lo, rest = _two_sum(np.ldexp(self.lo, down_a), np.ldexp(b.lo, down_b))
            error = np.where(np.isfinite(hi), error + lo, 0.0)
            hi, error = hi + error, error - ((hi + error) - hi)
            return Real(hi, np.where(np.isfinite(hi), error + rest, 0.0), e)

    def __mul__(self, other: Any) -> Real:
        b = _real(other)
        with np.errstate(all="ignore"):
            hi, lo = _two_product(self.hi, b.hi)
            lo = lo + (self.hi * b.lo + self.lo * b.hi)
            return Real(hi, np.where(np.isfinite(hi), lo, 0.0), np.maximum(self.e + b.e, _ZERO))

    def __truediv__(self, other: Any) -> Real:
        b = _real(other)
        with np.errstate(all="ignore"):
            # On the fractions alone: division shares no exponent but its own.
            x, y = Real._of(self.hi, self.lo, np.zeros_like(self.e)), Real._of(b.hi, b.lo, np.zeros_like(b.e))
            first = x.hi / y.hi
            second = (x - y * Real(first)).float() / y.hi
            third = (x - y * (Real(first) + Real(second))).float() / y.hi
            finite = np.isfinite(first)
            quotient = Real(first, np.where(finite, second, 0.0)) + Real(np.where(finite, third, 0.0))
            zero = quotient.hi == 0.0
            e = np.where(zero | ~np.isfinite(quotient.hi), quotient.e, quotient.e + self.e - b.e)
            return Real._of(quotient.hi, quotient.lo, e)

    def __neg__(self) -> Real:
        return Real._of(-self.hi, -self.lo, self.e)

    def __sub__(self, other: Any) -> Real:
        return self + -_real(other)

    def __rsub__(self, other: Any) -> Real:
        return _real(other) + -self

    def __rtruediv__(self, other: Any) -> Real:
        return _real(other) / self

    __radd__, __rmul__ = __add__, __mul__

    def __abs__(self) -> Real:
        sign = np.where(self.hi < 0.0, -1.0, 1.0)
        return Real._of(self.hi * sign, self.lo * sign, self.e)

    def sum(self) -> Real:
        """The sum along the last axis, by halves."""
        x = self if self.shape[-1] else Real(np.zeros((*self.shape[:-1], 1)))
        while (n := x.shape[-1]) > 1:
            half = n // 2
            folded = x[..., :half] + x[..., half : 2 * half]
            x = concatenate(folded, x[..., 2 * half :]) if n % 2 else folded
        return x[..., 0]


def _real(x: Any) -> Real:
    return x if isinstance(x, Real) else Real(x)


def concatenate(a: Real, b: Real) -> Real:
    """Real numbers joined along the last axis."""
    pairs = ((a.hi, b.hi), (a.lo, b.lo), (a.e, b.e))
    return Real._of(*(np.concatenate(pair, -1) for pair in pairs))


def where(condition: Any, a: Any, b: Any) -> Real:
    """np.where for real numbers."""
    a, b = _real(a), _real(b)
    return Real._of(*(np.where(condition, x, y) for x, y in ((a.hi, b.hi), (a.lo, b.lo), (a.e, b.e))))


# --- functions -----------------------------------------------------------------------------------------------------


def exp(x: Real) -> Real:
    """e^x = 2^n (e^(r/64))^64 with r = x − n log 2."""
    with np.errstate(all="ignore"):
        value = x.float()
        ordinary = np.abs(value) < -_VANISHING
        x = where(ordinary, x, 0.0)
        n = np.rint(x.float() / (_LN2 + _LN2_REST[0]))
        r = (x - Real(n * _LN2)) - Real(n) * Real(*_LN2_REST)
        y = _add(*_taylor(Real._of(r.hi, r.lo, np.where(r.hi == 0.0, _ZERO, r.e - 6)), 12), 1.0, 0.0)
        for _ in range(6):
            y = _multiply(*y, *y)
        return where(
            ordinary,
            Real(*y, n.astype(np.int64)),
            np.where(value < 0.0, 0.0, np.where(np.isnan(value), np.nan, np.inf)),
        )


def expm1(x: Real) -> Real:
    """e^x − 1 without cancellation."""
    small = x.e <= -7
    series = Real(*_taylor(where(small, x, 0.0), 18))
    # The series needs fixed-point room: below it, x is its own exponential but for x²/2.
    return where(x.e < -400, x, where(small, series, exp(x) - 1.0))


def _taylor(x: Real, terms: int) -> tuple[Any, Any]:
    """x + x²/2! + … of a small x, as (high, low)."""
    scale = np.maximum(x.e, -2000).astype(np.int32)
    hi, lo = np.ldexp(x.hi, scale), np.ldexp(x.lo, scale)
    y = _INVERSE_FACTORIALS[terms]
    for n in range(terms - 1, 0, -1):
        y = _add(*_multiply(*y, hi, lo), *_INVERSE_FACTORIALS[n])
    return _multiply(*y, hi, lo)


def _add(a: Any, a_lo: Any, b: Any, b_lo: Any) -> tuple[Any, Any]:
    hi, error = _two_sum(a, b)
    error = error + (a_lo + b_lo)
    total = hi + error
    return total, error - (total - hi)


def _multiply(a: Any, a_lo: Any, b: Any, b_lo: Any) -> tuple[Any, Any]:
    hi, lo = _two_product(a, b)
    lo = lo + (a * b_lo + a_lo * b)
    total = hi + lo
    return total, lo - (total - hi)


def _inverse_factorial(n: int) -> tuple[float, float]:
    exact = Fraction(1, factorial(n))
    return float(exact), float(exact - Fraction(float(exact)))


_INVERSE_FACTORIALS = [_inverse_factorial(n) for n in range(20)]


def log1p(x: Real) -> Real:
    """log(1 + x) of x ≥ 0: one Newton step for e^y − 1 = x, which doubles the digits of float64's answer."""
    with np.errstate(all="ignore"):
        y = Real(np.log1p(x.float()))
        y = y + (x - expm1(y)) / (x + 1.0)
        y = where(x.e < -300, x, y)
        return where(np.isinf(x.hi), x, y)


def tanh(x: Real) -> Real:
    """(1 − q) / (1 + q) with q = e^(−2|x|), and the sign of x."""
    magnitude = abs(x)
    q1 = expm1(magnitude * -2.0)
    t = -q1 / (q1 + 2.0)
    return where(x.hi < 0.0, -t, t)
