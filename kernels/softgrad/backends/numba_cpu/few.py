"""The cross-entropy family of a few rows: one compiled function does all but take results apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from softgrad.backends.numba_cpu import tile_cross_entropy as tiles
from softgrad.backends.numba_cpu.addresses import address
from softgrad.backends.numba_cpu.entries import COUNTER, as_stored, bytes_of_list
from softgrad.backends.numba_cpu.few_single import REDUCTIONS, cross_entropy_columns_few, cross_entropy_middle_few
from softgrad.backends.numba_cpu.few_tiles import curvatures_few, losses_few, slopes_few
from softgrad.backends.numba_cpu.laid import Laid, by_tiles, ignoring, is_for_float32
from softgrad.backends.numba_cpu.memory import (
    FORMATS,
    KINDS,
    NOTHING,
    Array,
    Scratch,
    borrow,
    describe,
    describe_tangents,
    describe_targets,
    give_back,
    readable,
    scratch,
    tile_bytes,
)
from softgrad.backends.numba_cpu.single_rows import (
    SHORT,
    has_long_rows,
    has_middle_rows,
    is_single,
    listed_behind,
    sixteen_bytes,
)
from softgrad.protocol import BadTargetError, Loss, loss_dtype

Way = Callable[..., Array | None]


def way(problem: Loss, grad: Array | None = None) -> Way | None:
    """What computes `cross_entropy` of few rows; None if they are computed as many are.

    They are where rows have each their own grad_output, and where kernels have no twin here.
    """
    z = problem.z
    if type(problem.grad_output) is not float or z.size == 0:
        return None
    if not (is_single(z) and is_for_float32(problem)):
        return _in_float64
    if z.shape[1] <= SHORT:
        return _in_float32
    if has_long_rows(z) or (grad is not None and grad.strides[1] != grad.itemsize and has_middle_rows(z)):
        return None
    return _in_float32


def slopes_of_few(problem: Loss, v: Array) -> Array:
    """`cross_entropy_jvp` of them."""
    count, v_step, of_v = describe_tangents(v)
    outer, _, inner = problem.z.shape
    rows = outer * inner
    arguments, memory, _targets = _described(problem, count * rows)
    results = np.empty(count * rows if problem.reduction == "none" else count, loss_dtype(problem.z.dtype))
    bad = slopes_few[arguments[0].dtype,](
        *arguments, count, of_v, v_step, results, KINDS[results.dtype], memory.address
    )  # fmt: skip
    if bad >= 0:
        raise BadTargetError(bad)
    return results.reshape(count, outer, inner) if problem.reduction == "none" else results


def curvatures_of_few(problem: Loss, v: Array, out: Array) -> None:
    """`cross_entropy_hvp` of them."""
    arguments, memory, _targets = _described(problem, 0)
    count, v_step, of_v = describe_tangents(v)
    bad = curvatures_few[arguments[0].dtype,](*arguments, count, of_v, v_step, as_stored(out), memory.address)
    if bad >= 0:
        raise BadTargetError(bad)


def _in_float32(problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
    z, targets, weight, ignore_index, epsilon, zeta, _, reduction, scale, check = problem
    outer, classes, inner = z.shape
    rows, number = outer * inner, FORMATS[z.dtype].dtype
    targets, ignores, ignore_index = ignoring(targets, ignore_index)
    of_weight, _weight = _describe_weight(weight)
    results = np.empty((rows if reduction == "none" else 1) if with_loss else 0, np.float32)
    with_options = epsilon != 0.0 or zeta != 0.0
    few = (cross_entropy_columns_few if classes <= SHORT or not has_middle_rows(z) else cross_entropy_middle_few)[
        with_options
    ]
    memory = borrow(COUNTER + bytes_of_list(rows) + 2 * bytes_of_list(rows) + 8 * classes + 64 + sixteen_bytes(classes))
    outcome = few[number,](
        as_stored(z), describe_targets(targets), ignores, ignore_index, check, of_weight, REDUCTIONS[reduction], scale,
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
    arguments, memory, _targets = _described(problem, rows)
    results = np.empty((rows if per_row else 1) if with_loss else 0, loss_dtype(z.dtype))
    unit = 0.5 if z.itemsize == 8 and not per_row else 1.0  # as in Laid
    number = arguments[0].dtype
    bad = losses_few[number,](
        *arguments, results, KINDS[results.dtype], unit, _nothing(number) if grad is None else as_stored(grad),
        memory.address,
    )  # fmt: skip
    if bad >= 0:
        raise BadTargetError(bad)
    if not with_loss:
        return None
    return results.reshape(outer, inner) if per_row else results[0]


def _described(problem: Loss, numbers: int) -> tuple[tuple[Any, ...], Scratch, tuple[Array, Array | None]]:
    """A problem of few rows as `few_tiles` takes it, memory for it and so many float64 numbers, and what must be kept
    meanwhile.
    """
    z, targets, weight, ignore_index, epsilon, zeta, softcap, reduction, scale, check = problem
    of_targets, of_probs, ignores, dense = NOTHING, NOTHING, False, targets.ndim == 3
    if dense:
        targets = readable(targets)
        of_probs = describe(targets)
    else:
        targets, ignores, ignore_index = ignoring(targets, ignore_index)
        of_targets = describe_targets(targets)
    of_weight, weight = _describe_weight(weight)
    arguments = (
        as_stored(z), KINDS[z.dtype], of_targets, ignores, ignore_index or 0, check, of_probs, dense, of_weight,
        (epsilon, zeta, softcap or 0.0, scale), REDUCTIONS[reduction],
    )  # fmt: skip
    outer, classes, inner = z.shape
    size = bytes_of_list(outer * inner) + bytes_of_list(numbers) + 8 * classes + 64
    return arguments, scratch(COUNTER + size + tiles.BUFFERS * tile_bytes(z)), (targets, weight)


def _describe_weight(weight: Array | None) -> tuple[tuple[int, int, int], Array | None]:
    """Address, stride and kind, all 0 without weights; and what must be kept meanwhile."""
    if weight is None:
        return _NO_WEIGHTS, None
    weight = readable(weight)
    return (address(weight), weight.strides[0], KINDS[weight.dtype]), weight


_NO_WEIGHTS = (0, 0, 0)


def _redo(problem: Loss, grad: Array | None, memory: Scratch, count: int, *, with_loss: bool) -> Array | None:
    """Compute the rows listed anew, by tiles, and so what the losses are reduced to."""
    which = listed_behind(memory, count)
    laid = Laid(problem, 1 if with_loss else 0)
    values = laid.values[0] if with_loss else None
    if values is not None:
        first = (COUNTER + bytes_of_list(values.size)) // 8
        with np.errstate(all="ignore"):
            values[...] = memory.numbers[first : first + values.size].reshape(values.shape)
    by_tiles(problem, laid, values, grad, which)
    results = laid.results(laid.loss_unit, when_nothing_counts=math.nan)
    return results[0] if with_loss else None


@cache
def _nothing(dtype: Any) -> Array:
    return np.empty((0, 0, 0), dtype)
