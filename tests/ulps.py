"""How a result is held against the truth: in units of the last place of the magnitude that its budget is."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tests.real import Real, where

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-23, "bfloat16": 2.0**-23}
# Smallest normal number, and the bound at which the computing dtype overflows.
_RANGE = {"float64": (2.0**-1022, Real(1.0, e=1024)), "float32": (2.0**-126, Real(1.0, e=128))}


class Truth(NamedTuple):
    """A true value, and the magnitude in which errors against it are counted."""

    value: Real
    budget: Real


def ulp(result: Any, truth: Truth | Real, budget: Real | None = None) -> np.ndarray:
    """The error of every entry in ulp of the budget (of the true value where there is none).

    NaN must meet NaN, and an infinity its like.  A true value below the smallest normal number of the computing
    dtype may be 0 or off by that number.  A 16-bit result counts as the float32 number nearest to the truth that
    rounds to it.  A true value beyond the largest number may be infinite.
    """
    if isinstance(truth, Truth):
        truth, budget = truth
    result = np.asarray(result)
    if result.shape != truth.shape:
        raise AssertionError(f"shape {result.shape} where the truth has {truth.shape}")
    name = result.dtype.name
    tiny, overflow = _RANGE["float64" if name == "float64" else "float32"]
    size = abs(truth) if budget is None else budget.broadcast_to(truth.shape)
    low, high = _roundings(result)
    with np.errstate(all="ignore"):
        # The distance from the truth to the interval of numbers that round to the result.
        t = where((abs(truth) - overflow).hi > 0.0, where(truth.hi > 0.0, overflow, -overflow), truth)
        low, high = (where(np.isinf(x), where(x > 0.0, overflow, -overflow), x) for x in (low, high))
        error = where((low - t).hi > 0.0, low - t, where((t - high).hi > 0.0, t - high, 0.0))
        error = where((error.hi > 0.0) & ((abs(truth) - tiny).hi < 0.0) & ((error - tiny).hi <= 0.0), 0.0, error)
        counted = (error / (size * EPS[name])).float()
        counted = np.where(error.hi == 0.0, 0.0, np.where(size.hi == 0.0, np.inf, counted))
    special = ~np.isfinite(truth.hi)
    wide = result.astype(np.float64)
    same = np.where(np.isnan(truth.hi), np.isnan(wide), wide == truth.hi)
    counted = np.where(special, np.where(same, 0.0, np.inf), counted)
    return np.where(np.isnan(counted) | (np.isnan(wide) & ~special), np.inf, counted)


def _roundings(result: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interval of float32 numbers that round to each 16-bit result; the result itself for the others."""
    wide = result.astype(np.float64)
    if result.dtype.itemsize != 2:
        return wide, wide
    with np.errstate(all="ignore"):
        magnitude = np.abs(result)
        bits = magnitude.view(np.uint16)
        below = np.maximum(bits, 1) - np.uint16(1)
        ends = []
        for neighbour in (below, bits + np.uint16(1)):
            near = neighbour.view(result.dtype).astype(np.float64)
            ends.append(0.5 * (near + magnitude.astype(np.float64)))
        inner, outer = ends
        largest = 65504.0 if result.dtype.name == "float16" else float.fromhex("0x1.fep127")
        beyond = 65520.0 if result.dtype.name == "float16" else float.fromhex("0x1.ffp127")
        inner = np.where(np.isinf(wide), beyond, np.where(wide == 0.0, -outer, inner))
        outer = np.where(np.isinf(wide), np.inf, np.where(np.abs(wide) == largest, beyond, outer))
    negative = np.signbit(wide) & (wide != 0.0)
    return np.where(negative, -outer, inner), np.where(negative, -inner, outer)


def worst_ulp(result: Any, truth: Truth | Real, budget: Real | None = None) -> float:
    """The largest error of `ulp`, infinite for a NaN or infinity out of place."""
    return float(ulp(result, truth, budget).max(initial=0.0))


def assert_right(result: Any, truth: Truth | Real, dtype: Any, *, within: float = 4.0, what: str = "") -> None:
    """Kind, dtype and shape of a result first, then its values to `within` ulp."""
    expected = np.ndarray if truth_shape(truth) else np.generic
    assert isinstance(result, expected), f"{what}: {type(result).__name__}, expected {expected.__name__}"
    assert result.dtype == dtype, f"{what}: dtype {result.dtype}, expected {dtype}"
    assert result.shape == truth_shape(truth), f"{what}: shape {result.shape}, expected {truth_shape(truth)}"
    errors = ulp(result, truth)
    worst = errors.max(initial=0.0)
    if worst > within:
        at = np.unravel_index(errors.argmax(), errors.shape)
        value = truth.value if isinstance(truth, Truth) else truth
        raise AssertionError(
            f"{what}: {worst:.3g} ulp at {tuple(map(int, at))}: {result[at]!r}, truth {value[at].float()!r}; "
            f"{int((errors > within).sum())} of {errors.size} entries beyond {within} ulp"
        )


def truth_shape(truth: Truth | Real) -> tuple[int, ...]:
    return (truth.value if isinstance(truth, Truth) else truth).shape
