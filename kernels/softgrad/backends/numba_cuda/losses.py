"""What every cross-entropy kernel finds out about a row before it looks at the logits."""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from softgrad.backends.numba_cuda.exponential import exponentials
from softgrad.backends.numba_cuda.machine import device, load_1, load_2, load_4, load_8, select
from softgrad.backends.numba_cuda.rows import address, stored
from softgrad.backends.numba_cuda.sums import Sum

# Numbers to be summed are kept divided by this, in double: their mean may be in range where their sum is not.
SUMMED_UNIT = np.float64(256.0)
_HALF, _TWO, _NONE = np.float64(0.5), np.float64(2.0), np.float64(0.0)
_DOUBLE = stored("double", "double")
load_double, store_double = _DOUBLE.load, _DOUBLE.store


class Charge(NamedTuple):
    """One row's target, its weight, and the factor of its derivatives."""

    t: Any
    dead: Any  # every number is exactly 0
    bad: Any  # every number is NaN
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
    low, high = load_8(address(array, at, 8), when)
    return np.int64((np.uint64(high) << np.uint64(32)) | np.uint64(low))


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
    """The device function `charge` of a computing type, and `load_weight`."""
    E, number = exponentials(real), stored(real, real)
    is_finite, load_number, SIZE, Real = E.is_finite, number.load, number.SIZE, E.F.Real
    ZERO, ONE = Real(0), Real(1)

    @device
    def load_weight(weight, j, when):
        return load_number(weight.data + j * weight.classes * SIZE, when)

    @device
    def charge(a, at, present):
        t = np.int64(0) * at.outer
        dead = t != 0
        bad = t != 0
        weight = ONE
        if a.dense == 0:
            t = load_target(a.targets, at, a.target_format, present)
            dead = (a.ignores != 0) & (t == a.ignore_index)
            bad = (dead == False) & ((t < 0) | (t >= a.shape.classes))  # noqa: E712
            counts = (dead | bad) == False  # noqa: E712
            t = select(counts, t, 0)
            if a.weight.data != 0:
                weight = select(counts, load_weight(a.weight, t, counts), ONE)
        g = a.scale
        if a.scale_rows.data != 0:
            g = g * np.float64(load_number(address(a.scale_rows, at, SIZE), present))
        zeta = a.z_loss
        if a.divisor != 0:
            total, count = load_double(a.divisor, True), load_double(a.divisor + 8, True)
            nothing = (total == _NONE) | (count == _NONE)
            dead = dead | nothing
            bad = bad & (nothing == False)  # noqa: E712
            g = g / total
            zeta = zeta * (total / count)
        high = Real(g)
        scale = Sum(high, select(is_finite(high), Real(g - np.float64(high)), ZERO))
        return Charge(t, dead, bad, weight, scale, Real(zeta))

    return SimpleNamespace(charge=charge, load_weight=load_weight)
