"""Sums whose error does not grow with the number of terms, and quotients of them."""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from softgrad.backends.numba_cuda.exponential import exponentials
from softgrad.backends.numba_cuda.machine import device, fused, select


class Sum(NamedTuple):
    """The number high + low, |low| no more than the rounding error of high."""

    high: Any
    low: Any


class Factor(NamedTuple):
    """What an exponential is multiplied by, one after the other."""

    first: Any
    second: Any


@device
def add(s, x):
    """s + x by Knuth's two-sum: the rounding error of each addition is exact, and kept."""
    high = s.high + x
    of_x = high - s.high
    return Sum(high, s.low + ((s.high - (high - of_x)) + (x - of_x)))


@device
def plus(a, b):
    """The sum of two sums.  Symmetric in the two: lanes that add each other's get the same bits."""
    high = a.high + b.high
    of_b = high - a.high
    return Sum(high, ((a.high - (high - of_b)) + (b.high - of_b)) + (a.low + b.low))


@device
def times(factor, e):
    """The product with an exponential."""
    return e * factor.first * factor.second


@device
def share(factor, e):
    """The product with an exponential: exactly 0 where that is 0, as at a masked class, whatever the factor is."""
    return select(e == 0, e, times(factor, e))


@device
def scaled(x, small, large):
    """x · small · large, which leaves the range on the way only where the product does: small < 1 ≤ large."""
    return select(abs(x) >= 1, x * small * large, x * large * small)


@device
def times_power(factor, e, power):
    """The product with an exponential, and with a power of two that may be large."""
    once = scaled(e, factor.first, power)
    return select(factor.second == 1, once, scaled(e * factor.first, factor.second, power))


@cache
def tree_sum(n: int, apart: int = 1) -> Any:
    """The device function that adds x[i], x[i + apart], …, n numbers, as a tree."""

    @device
    def leaf(x, i, step):
        return x[i]

    # The sum of those at even places, and that of those at odd ones.
    def tree(n):
        if n == 1:
            return leaf
        even, odd = tree(n - n // 2), tree(n // 2)

        @device
        def node(x, i, step):
            return even(x, i, 2 * step) + odd(x, i + step, 2 * step)

        return node

    node = tree(n)

    @device
    def tree_sum_of(x, i):
        return node(x, i, apart)

    return tree_sum_of


@cache
def sums(real: str) -> SimpleNamespace:
    """The device functions of a computing type.

    `value`, `normal`; `handed`, `joined`, `back`; `factor`, `factor_of`, `inverse`, `inverse_of_number`, `product`.
    """
    E = exponentials(real)
    is_finite = E.is_finite
    Real = E.F.Real
    ZERO, ONE, NEAR_DROP = Real(0), Real(1), Real(E.F.NEAR_DROP)

    @device
    def value(s):
        # An infinite sum has no rounding error, though the steps above leave a NaN for it.
        return select(is_finite(s.high), s.high + s.low, s.high)

    @device
    def normal(s):
        high = value(s)
        return Sum(high, select(is_finite(high), (s.high - high) + s.low, ZERO))

    # A sum as lanes hand it to each other.  For float that is a double, which one addition joins; on the way back it is
    # split.
    if real == "float":

        @device
        def handed(s):
            return select(is_finite(s.high), np.float64(s.high) + np.float64(s.low), np.float64(s.high))

        @device
        def joined(a, b):
            return a + b

        @device
        def back(x):
            high = np.float32(x)
            return Sum(high, select(is_finite(high), np.float32(x - np.float64(high)), ZERO))

    else:

        @device
        def handed(s):
            return s

        joined, back = plus, handed

    @device
    def factor_of(a, s):
        """a · 2^LIFT / s for a sum s of exponentials, to half an ulp, a and s as high + low.

        Applied so that neither the factor nor the product with it leaves the range, or loses digits, unless the
        final product does.
        """
        t = normal(s)
        b = t.high * NEAR_DROP
        unit = ONE / b
        ratio = a.high * unit
        # One Newton step with the exact residual makes it right; where that underflows there is nothing to correct.
        rest = (fused(-ratio, b, a.high) + a.low) - ratio * (t.low * NEAR_DROP)
        ratio = select(is_finite(ratio), fused(rest, unit, ratio), ratio)
        large = (ratio >= ONE) | (ratio <= -ONE)
        return Factor(select(large, ratio * NEAR_DROP, ratio), select(large, ONE, NEAR_DROP))

    @device
    def factor(a, s):
        """The same for a number a."""
        return factor_of(Sum(a, ZERO), s)

    @device
    def inverse(s):
        """2^LIFT / s for the sum s of a row's exponentials, largest first: far inside the range."""
        t = normal(s)
        b = t.high * NEAR_DROP
        unit = ONE / b
        return fused(fused(-unit, b, ONE) - unit * (t.low * NEAR_DROP), unit, unit) * NEAR_DROP

    @device
    def inverse_of_number(s):
        """The same of a sum without a low part."""
        return (ONE / (s.high * NEAR_DROP)) * NEAR_DROP

    @device
    def product(a, b):
        """a · b exactly, as high + low."""
        high = a * b
        return Sum(high, select(is_finite(high), fused(a, b, -high), ZERO))

    return SimpleNamespace(
        value=value,
        normal=normal,
        handed=handed,
        joined=joined,
        back=back,
        factor_of=factor_of,
        factor=factor,
        inverse=inverse,
        inverse_of_number=inverse_of_number,
        product=product,
    )
