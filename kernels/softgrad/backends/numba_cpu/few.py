"""The cross-entropy family of a few rows: one compiled function does all but take results apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from softgrad.backends.numba_cpu import tile_cross_entropy as tiles
from softgrad.backends.numba_cpu.entries import COUNTER, as_stored, bytes_in_lines
from softgrad.backends.numba_cpu.few_single import REDUCTIONS, cross_entropy_columns_few, cross_entropy_middle_few
from softgrad.backends.numba_cpu.few_tiles import curvatures_few, losses_few, slopes_few
from softgrad.backends.numba_cpu.indices import ignoring
from softgrad.backends.numba_cpu.laid import Laid, by_tiles, is_for_float32
from softgrad.backends.numba_cpu.memory import (
    FORMATS,
    KINDS,
    NOTHING,
    Array,
    Scratch,
    borrow,
    describe,
    describe_tangents,
    give_back,
    readable,
    scratch,
    tile_bytes,
)
from softgrad.backends.numba_cpu.single_rows import (
    SHORT,
    has_long_rows,
    has_middle_rows,
    listed_behind,
    sixteen_bytes,
)
from softgrad.backends.numba_cpu.sixteen_task import TASK_BYTES
from softgrad.backends.numba_cpu.tiles import FLOAT32, FLOAT64
from softgrad.protocol import BadTargetError, Loss

Way = Callable[..., Array | None]


def way(problem: Loss, grad: Array | None = None) -> Way | None:
    """What computes `cross_entropy` of few rows; None if they are computed as many are.

    They are where rows have each their own grad_output, and where kernels have no twin here.
    """
    z = problem.z
    if type(problem.grad_output) is not float or z.size == 0:
        return None
    if FORMATS[z.dtype] is None or not is_for_float32(problem):
        return _in_float64
    if z.shape[1] > SHORT and (
        has_long_rows(z) or (grad is not None and grad.strides[1] != grad.itemsize and has_middle_rows(z))
    ):
        return None
    return _in_float32


def slopes_of_few(problem: Loss, v: Array) -> Array:
    """`cross_entropy_jvp` of them."""
    count, v_step, of_v = describe_tangents(v)
    outer, _, inner = problem.z.shape
    rows = outer * inner
    arguments, memory, _probs = _described(problem, count * rows)
    dtype, kind = _loss_dtype(problem.z)
    results = np.empty(count * rows if problem.reduction == "none" else count, dtype)
    bad = slopes_few[arguments[0].dtype,](
        *arguments, count, of_v, v_step, results, kind, memory.address
    )  # fmt: skip
    if bad >= 0:
        raise BadTargetError(bad)
    return results.reshape(count, outer, inner) if problem.reduction == "none" else results


def curvatures_of_few(problem: Loss, v: Array, out: Array) -> None:
    """`cross_entropy_hvp` of them."""
    arguments, memory, _probs = _described(problem, 0)
    count, v_step, of_v = describe_tangents(v)
    bad = curvatures_few[arguments[0].dtype,](*arguments, count, of_v, v_step, as_stored(out), memory.address)
    if bad >= 0:
        raise BadTargetError(bad)


def _in_float32(problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
    z, targets, weight, ignore_index, epsilon, zeta, _, reduction, scale, check = problem
    outer, classes, inner = z.shape
    rows, number = outer * inner, FORMATS[z.dtype].dtype
    targets, ignores, ignored = _indices(targets, ignore_index)
    weights = _NO_WEIGHTS if weight is None else weight.astype(np.float64, copy=False)
    results = np.empty((rows if reduction == "none" else 1) if with_loss else 0, np.float32)
    with_options = epsilon != 0.0 or zeta != 0.0
    few = (cross_entropy_columns_few if classes <= SHORT or not has_middle_rows(z) else cross_entropy_middle_few)[
        with_options
    ]
    memory = borrow(COUNTER + 8 * (3 * rows + classes) + 256 + TASK_BYTES + sixteen_bytes(classes))
    outcome = few[number,](
        as_stored(z), targets, ignores, ignored, check, weights, REDUCTIONS[reduction], scale,
        (epsilon, zeta) if with_options else None, results, _nothing(number) if grad is None else as_stored(grad),
        memory.address,
    )  # fmt: skip
    if outcome:
        if outcome < 0:
            raise BadTargetError(-1 - outcome)
        return _redo(problem, grad, memory, outcome, with_loss=with_loss)
    give_back(memory)
    if not with_loss:
        return None
    return results.reshape(outer, inner) if reduction == "none" else results[0]


def _in_float64(problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
    z, per_row = problem.z, problem.reduction == "none"
    outer, _, inner = z.shape
    rows = outer * inner
    arguments, memory, _probs = _described(problem, rows)
    dtype, kind = _loss_dtype(z)
    results = np.empty((rows if per_row else 1) if with_loss else 0, dtype)
    unit = 0.5 if kind == FLOAT64 and not per_row else 1.0  # as in Laid
    number = arguments[0].dtype
    bad = losses_few[number,](
        *arguments, results, kind, unit, _nothing(number) if grad is None else as_stored(grad),
        memory.address,
    )  # fmt: skip
    if bad >= 0:
        raise BadTargetError(bad)
    if not with_loss:
        return None
    return results.reshape(outer, inner) if per_row else results[0]


def _described(problem: Loss, numbers: int) -> tuple[tuple[Any, ...], Scratch, Array]:
    """A problem as `few_tiles` takes it; memory for it and so many float64 numbers; what must be kept meanwhile."""
    z, targets, weight, ignore_index, epsilon, zeta, softcap, reduction, scale, check = problem
    dense = targets.ndim == 3
    if dense:
        probs = readable(targets)
        of_probs = describe(probs)
        targets, ignores, ignored = _NO_TARGETS, False, 0
    else:
        probs, of_probs = _NO_TARGETS, NOTHING
        targets, ignores, ignored = _indices(targets, ignore_index)
    weights = _NO_WEIGHTS if weight is None else weight.astype(np.float64, copy=False)
    arguments = (
        as_stored(z), KINDS[z.dtype], targets, ignores, ignored, check, of_probs, dense, weights,
        (epsilon, zeta, softcap or 0.0, scale), REDUCTIONS[reduction],
    )  # fmt: skip
    outer, classes, inner = z.shape
    # With what it takes to begin whole cache lines.
    size = 8 * (outer * inner + numbers + classes) + tiles.BUFFERS * tile_bytes(z) + 256
    return arguments, scratch(COUNTER + size), probs


def _loss_dtype(z: Array) -> tuple[Any, int]:
    return (np.float64, FLOAT64) if z.itemsize == 8 else (np.float32, FLOAT32)


def _indices(targets: Array, ignore_index: int | None) -> tuple[Array, bool, int]:
    """Targets as int64, whether any of them is ignored, and which."""
    if targets.dtype != _INT64:
        targets, ignores, ignored = ignoring(targets, ignore_index)
        if targets.dtype.kind == "u" and targets.itemsize == 8:
            targets = np.minimum(targets, 2**63 - 1)  # out of range, and never one that could be ignored
        return targets.astype(_INT64), ignores, ignored
    if ignore_index is None or not -(2**63) <= ignore_index < 2**63 - 1:
        return ignoring(targets, ignore_index)
    return targets, True, ignore_index


_INT64 = np.dtype(np.int64)
_NO_WEIGHTS, _NO_TARGETS = np.empty(0), np.empty((0, 0), _INT64)


def _redo(problem: Loss, grad: Array | None, memory: Scratch, count: int, *, with_loss: bool) -> Array | None:
    """Compute the rows listed anew, by tiles, and so what the losses are reduced to."""
    which = listed_behind(memory, count)
    laid = Laid(problem, 1 if with_loss else 0)
    values = laid.values[0] if with_loss else None
    if values is not None:
        first = (COUNTER + bytes_in_lines(1 + values.size)) // 8
        with np.errstate(all="ignore"):
            values[...] = memory.numbers[first : first + values.size].reshape(values.shape)
    by_tiles(problem, laid, values, grad, which)
    results = laid.results(laid.loss_unit, when_nothing_counts=math.nan)
    return results[0] if with_loss else None


@cache
def _nothing(dtype: Any) -> Array:
    return np.empty((0, 0, 0), dtype)
