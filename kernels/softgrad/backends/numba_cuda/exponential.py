"""The exponentials that everything is made of: e_j = 2^LIFT · exp(z_j − c), to about 0.8 ulp, c of our choice.

With c = N ln 2, N an integer, no rounding error of a subtraction ever reaches the exponential:

    n = round(z log2 e)        f = z − n ln 2, |f| ≤ ln 2 / 2, by two fused steps        e = 2^(n − N + LIFT) · exp(f)

the shift lives in the exponent bits alone.  N is round(m log2 e), m the row's maximum, so e ≤ 2^(LIFT + ½).

  * LIFT keeps the digits of sums, and of products with large factors, of terms whose probability lies below the
    smallest normal number.  It cancels in every ratio.  C e ≤ 2^(LIFT + 36) stays far inside the range.
  * Terms under 2^FLOOR are exactly 0, as a masked class (z = −inf) must be.
  * n ln 2 needs |z| well under 2^23: beyond LARGE, a base b = m is subtracted first, which is exact there for every z
    near enough to matter (and 0 elsewhere: nothing is rounded either).
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from softgrad.backends.numba_cuda.machine import bits_float, device, float_bits, fused, select


class Format(NamedTuple):
    """The constants of a computing type."""

    Real: Any
    Bits: Any
    Signed: Any
    MANTISSA: int
    LIFT: int
    FLOOR: int
    LARGE: float
    ROUNDER: float  # x + ROUNDER is round(x), in the low bits
    LN2_LOW: float  # ln 2 − its rounded value
    NEAR_DROP: float  # 2^−LIFT, but for two bits that keep quotients in range
    LARGEST_UNIT: int  # the bits of a power of two whose inverse is normal too
    SMALLEST_UNIT: int  # 2^−100, 2^−900


FORMATS = {
    "float": Format(
        np.float32, np.uint32, np.int32, 23, 88, -212, 131072.0, 1.5 * 2.0**23, -1.904654299957768e-09, 2.0**-86,
        0x7E800000, 0x0D800000,
    ),
    "double": Format(
        np.float64, np.uint64, np.int64, 52, 800, -1800, 2.0**30, 1.5 * 2.0**52, 2.3190468138462995584e-17, 2.0**-798,
        0x7FD0000000000000, 0x07B0000000000000,
    ),
}  # fmt: skip


class Shift(NamedTuple):
    """c of one row."""

    base: Any
    to_exponent: Any  # (bits of n + ROUNDER) + this = n − N + LIFT, modulo the bits that are shifted out
    floor: Any  # bits of n + ROUNDER below which the term is 0


def _polynomial(Real: Any, coefficients: str) -> list[Any]:
    return [Real(float.fromhex(c)) for c in coefficients.split()]


_F5, _F4, _F3, _F2, _F1 = _polynomial(
    np.float32, "0x1.6a2318p-10 0x1.123a8ep-7 0x1.5558f6p-5 0x1.55549p-3 0x1.fffffcp-2"
)
_F0 = np.float32(1)


@device
def _exp_small_float(f):
    q = fused(_F5, f, _F4)
    q = fused(q, f, _F3)
    q = fused(q, f, _F2)
    q = fused(q, f, _F1)
    q = fused(q, f, _F0)
    return fused(q, f, _F0)


_D10, _D9, _D8, _D7, _D6, _D5, _D4, _D3, _D2, _D1 = _polynomial(
    np.float64,
    "0x1.ad7ee6e8da402p-26 0x1.28ade5ebb196bp-22 0x1.71df26642df7cp-19 0x1.a019999589e33p-16 0x1.a01a01298a748p-13 "
    "0x1.6c16c1845375cp-10 0x1.1111111127f2fp-7 0x1.55555555507cdp-5 0x1.55555555554f9p-3 0x1.000000000000ap-1",
)
_D0 = np.float64(1)


@device
def _exp_small_double(f):
    q = fused(_D10, f, _D9)
    q = fused(q, f, _D8)
    q = fused(q, f, _D7)
    q = fused(q, f, _D6)
    q = fused(q, f, _D5)
    q = fused(q, f, _D4)
    q = fused(q, f, _D3)
    q = fused(q, f, _D2)
    q = fused(q, f, _D1)
    q = fused(q, f, _D0)
    return fused(q, f, _D0)


@cache
def exponentials(real: str) -> SimpleNamespace:
    """The device functions of a computing type, "float" or "double": `shift_to`, `exp`, `unit_for`, `is_finite`."""
    F = FORMATS[real]
    Real, Bits, Signed = F.Real, F.Bits, F.Signed
    # exp(f) to 2^−28 (2^−57), minimax for |f| < 0.36.
    exp_small = _exp_small_float if real == "float" else _exp_small_double
    ZERO = Real(0)
    LARGE, ROUNDER, LOG2_E = Real(F.LARGE), Real(F.ROUNDER), Real(1.4426950408889634074)
    MINUS_LN2_HIGH, MINUS_LN2_LOW = -Real(0.69314718055994530942), -Real(F.LN2_LOW)
    LIFT, FLOOR, MANTISSA = Bits(F.LIFT), Signed(F.FLOOR), Bits(F.MANTISSA)
    EXPONENT, SMALLEST_UNIT, LARGEST_UNIT = ~Bits(2**F.MANTISSA - 1), Bits(F.SMALLEST_UNIT), Bits(F.LARGEST_UNIT)

    @device
    def is_finite(x):
        return x - x == ZERO

    @device
    def shift_to(m):
        """c of a row with the finite maximum m."""
        base = select((m > LARGE) | (m < -LARGE), m, ZERO)
        top = float_bits(fused(m - base, LOG2_E, ROUNDER))
        return Shift(base, Bits(LIFT - top), Signed(Signed(top) + FLOOR))

    @device
    def exp(shift, z):
        z = z - shift.base
        rounded = fused(z, LOG2_E, ROUNDER)
        n_bits = float_bits(rounded)
        n = rounded - ROUNDER
        f = fused(n, MINUS_LN2_HIGH, z)
        f = fused(n, MINUS_LN2_LOW, f)
        e = Bits(float_bits(exp_small(f)) + Bits(Bits(n_bits + shift.to_exponent) << MANTISSA))
        # As integers: −inf and everything far below compare less.
        return select(Signed(n_bits) < shift.floor, ZERO, bits_float(e))

    @device
    def unit_for(largest):
        """A power of two near `largest`, the largest |tangent| of a row.

        Tangents are carried divided by it, so that products with lifted exponentials stay in range, and means of small
        ones keep their digits.
        """
        exponent = Bits(float_bits(largest) & EXPONENT)
        exponent = select(exponent < SMALLEST_UNIT, SMALLEST_UNIT, exponent)
        return bits_float(select(exponent > LARGEST_UNIT, LARGEST_UNIT, exponent))

    return SimpleNamespace(shift_to=shift_to, exp=exp, unit_for=unit_for, is_finite=is_finite, F=F)
