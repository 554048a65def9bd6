"""What every cross-entropy kernel finds out about a row before it looks at the logits."""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from softgrad.backends.numba_cuda.exponential import exponentials
from softgrad.backends.numba_cuda.formats import load_integer, stored
from softgrad.backends.numba_cuda.machine import device, load_1, load_2, load_4, select
from softgrad.backends.numba_cuda.rows import address
from softgrad.backends.numba_cuda.sums import Sum

# Numbers to be summed are kept divided by this, in double: their mean may be in range where their sum is not.
SUMMED_UNIT = np.float64(256.0)
_HALF, _TWO, _NONE = np.float64(0.5), np.float64(2.0), np.float64(0.0)
_DOUBLE = stored("double", "double")
load_double, store_double = _DOUBLE.load, _DOUBLE.store


# What becomes of a row: its own numbers, exactly 0, NaN.
COUNTS, DEAD, BAD = np.int64(0), np.int64(1), np.int64(2)


class Charge(NamedTuple):
    """One row's target, then its weight and the factor of its derivatives.

    These are read when they are needed, for until then the row's exponentials want the registers.
    """

    t: Any
    fate: Any
    weight: Any
    scale: Any  # grad_output / divisor
    zeta: Any  # z_loss, times Σ weights / number under the mean, for all is divided by Σ weights


@device
def load_target(array, at, target_format, when):
    """A target of any integer format, by value.

    Unsigned 64-bit ones beyond 2^63 come out negative, and so out of range.
    """
    if target_format == 0:
        return np.int64(np.int8(load_1(address(array, at, 1), when)))
    if target_format == 1:
        return np.int64(np.int16(load_2(address(array, at, 2), when)))
    if target_format == 2:
        return np.int64(np.int32(load_4(address(array, at, 4), when)))
    if target_format == 4:
        return np.int64(load_1(address(array, at, 1), when))
    if target_format == 5:
        return np.int64(load_2(address(array, at, 2), when))
    if target_format == 6:
        return np.int64(load_4(address(array, at, 4), when))
    return load_integer(address(array, at, 8), when)


@device
def half_gap(m, z):
    """(m − z) / 2, for m − z may overflow though its product with a weight does not."""
    return _HALF * np.float64(m) - _HALF * np.float64(z)


@cache
def put_per_row(T: str) -> Any:
    """The device function that stores one row's number, given as its half; T is the type that z is computed in."""
    number = stored(T, "double")
    store_number, SIZE = number.store, number.SIZE

    @device
    def put(array, at, summed, half, when):
        if summed != 0:
            store_double(address(array, at, 8), half * (_TWO / SUMMED_UNIT), when)
        else:
            store_number(address(array, at, SIZE), half * _TWO, when)

    return put


@cache
def charges(real: str) -> SimpleNamespace:
    """The device functions `charge`, `weigh` and `load_weight` of a computing type."""
    E, number = exponentials(real), stored(real, real)
    is_finite, load_number, SIZE, Real = E.is_finite, number.load, number.SIZE, E.F.Real
    ZERO, ONE = Real(0), Real(1)

    @device
    def load_weight(weight, j, when):
        return load_number(weight.data + j * weight.classes * SIZE, when)

    @device
    def charge(a, at):
        t, fate = np.int64(0), COUNTS
        if a.dense == 0:
            t = load_target(a.targets, at, a.target_format, True)
            fate = select((t < 0) | (t >= a.shape.classes), BAD, COUNTS)
            fate = select((a.ignores != 0) & (t == a.ignore_index), DEAD, fate)
            t = select(fate == COUNTS, t, 0)
        return Charge(t, fate, ONE, Sum(ZERO, ZERO), ZERO)

    @device
    def weigh(charge, a, at):
        """The charge with all that follows the target."""
        fate, weight = charge.fate, charge.weight
        if a.weight.data != 0 and a.dense == 0:
            counts = fate == COUNTS
            weight = select(counts, load_weight(a.weight, charge.t, counts), ONE)
        g = a.scale
        if a.scale_rows.data != 0:
            g = g * np.float64(load_number(address(a.scale_rows, at, SIZE), True))
        mean_zeta = a.z_loss
        if a.divisor != 0:
            total, count = load_double(a.divisor, True), load_double(a.divisor + 8, True)
            fate = select((total == _NONE) | (count == _NONE), DEAD, fate)
            g = g / total
            mean_zeta = mean_zeta * (total / count)
        high = Real(g)
        scale = Sum(high, select(is_finite(high), Real(g - np.float64(high)), ZERO))
        return Charge(charge.t, fate, weight, scale, Real(mean_zeta))

    return SimpleNamespace(charge=charge, weigh=weigh, load_weight=load_weight)
