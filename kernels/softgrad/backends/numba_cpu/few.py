"""The cross-entropy family of a few rows: one compiled function does all but take results apart."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from softgrad.backends.numba_cpu import tile_cross_entropy as tiles
from softgrad.backends.numba_cpu.entries import COUNTER, as_stored
from softgrad.backends.numba_cpu.few_single import REDUCTIONS, cross_entropy_columns_few, cross_entropy_middle_few
from softgrad.backends.numba_cpu.few_tiles import curvatures_few, losses_few, slopes_few
from softgrad.backends.numba_cpu.laid import Laid, by_tiles, ignoring, is_for_float32, padded_weights
from softgrad.backends.numba_cpu.memory import (
    FORMATS,
    KINDS,
    NOTHING,
    Array,
    Scratch,
    describe,
    describe_tangents,
    describe_targets,
    readable,
    scratch,
    tile_bytes,
)
from softgrad.backends.numba_cpu.single_rows import has_long_rows, has_middle_rows, is_single, listed, sixteen_bytes
from softgrad.protocol import Loss, loss_dtype


def of_few(problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
    """`cross_entropy` of few rows."""
    run = _in_float32 if is_single(problem.z) and is_for_float32(problem) else _in_float64
    return run(problem, grad, with_loss=with_loss)


def serves(problem: Loss, grad: Array | None = None) -> bool:
    """Whether a few rows have one grad_output, and are computed by functions that have a twin here."""
    z = problem.z
    if type(problem.grad_output) is not float or z.size == 0:
        return False
    if not (is_single(z) and is_for_float32(problem)):
        return True
    return not (
        has_long_rows(z)
        or problem.label_smoothing
        or problem.z_loss
        or (grad is not None and grad.strides[1] != grad.itemsize and has_middle_rows(z))
    )


def slopes_of_few(problem: Loss, v: Array) -> Array:
    """`cross_entropy_jvp` of them."""
    count, outer, _, inner = v.shape
    arguments, memory, _targets = _described(problem)
    _, v_step, of_v = describe_tangents(v)
    slopes = np.empty((count, outer, inner))
    results = np.empty(slopes.size if problem.reduction == "none" else count, loss_dtype(problem.z.dtype))
    slopes_few[arguments[0].dtype,](
        *arguments, count, of_v, v_step, slopes, results, KINDS[results.dtype], memory.address
    )  # fmt: skip
    return results.reshape(slopes.shape) if problem.reduction == "none" else results


def curvatures_of_few(problem: Loss, v: Array, out: Array) -> None:
    """`cross_entropy_hvp` of them."""
    arguments, memory, _targets = _described(problem)
    count, v_step, of_v = describe_tangents(v)
    curvatures_few[arguments[0].dtype,](*arguments, count, of_v, v_step, as_stored(out), memory.address)


def _in_float32(problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
    z, per_row = problem.z, problem.reduction == "none"
    outer, classes, inner = z.shape
    rows, stored = outer * inner, FORMATS[z.dtype].dtype
    targets, ignores, ignore_index = ignoring(problem.targets, problem.ignore_index)
    of_targets = describe_targets(targets)
    losses = np.empty((outer if with_loss else 0, inner))
    results = np.empty((rows if per_row else 1) if with_loss else 0, np.float32)
    hard = np.empty(1 + rows, np.int64)
    memory = scratch(COUNTER + 8 * rows + 64 + sixteen_bytes(classes))
    function = (cross_entropy_middle_few if has_middle_rows(z) else cross_entropy_columns_few)[stored,]
    function(
        as_stored(z), of_targets, ignores, ignore_index, _weights(problem), REDUCTIONS[problem.reduction],
        problem.grad_output, losses, results, _nothing(stored) if grad is None else as_stored(grad), hard,
        memory.address,
    )  # fmt: skip
    if hard[0]:
        return _redo(problem, grad, losses, listed(hard), with_loss=with_loss)
    if not with_loss:
        return None
    return results.reshape(outer, inner) if per_row else results[0]


def _in_float64(problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
    z, per_row = problem.z, problem.reduction == "none"
    outer, _, inner = z.shape
    arguments, memory, _targets = _described(problem)
    losses = np.empty((outer if with_loss else 0, inner))
    results = np.empty((losses.size if per_row else 1) if with_loss else 0, loss_dtype(z.dtype))
    unit = 0.5 if z.itemsize == 8 and not per_row else 1.0  # as in Laid
    losses_few[arguments[0].dtype,](
        *arguments, losses, results, KINDS[results.dtype], unit,
        _nothing(arguments[0].dtype) if grad is None else as_stored(grad), memory.address,
    )  # fmt: skip
    if not with_loss:
        return None
    return results.reshape(outer, inner) if per_row else results[0]


def _described(problem: Loss) -> tuple[tuple[Any, ...], Scratch, Array]:
    """A problem of few rows as `few_tiles` takes it, memory for it, and the targets, which must be kept meanwhile."""
    z = problem.z
    of_targets, of_probs, ignores, ignore_index = NOTHING, NOTHING, False, 0
    if problem.dense:
        targets = readable(problem.targets)
        of_probs = describe(targets)
    else:
        targets, ignores, ignore_index = ignoring(problem.targets, problem.ignore_index)
        of_targets = describe_targets(targets)
    options = (problem.label_smoothing, problem.z_loss, problem.softcap or 0.0, problem.grad_output)
    arguments = (
        as_stored(z), KINDS[z.dtype], of_targets, ignores, ignore_index, of_probs, problem.dense, _weights(problem),
        options, REDUCTIONS[problem.reduction],
    )  # fmt: skip
    rows = z.shape[0] * z.shape[2]
    memory = scratch(COUNTER + 8 * rows + 64 + tiles.BUFFERS * tile_bytes(z))
    return arguments, memory, targets


def _weights(problem: Loss) -> Array:
    return _NO_WEIGHTS if problem.weight is None else padded_weights(problem.weight)


_NO_WEIGHTS = np.empty(0)


def _redo(problem: Loss, grad: Array | None, losses: Array, which: Array | None, *, with_loss: bool) -> Array | None:
    """Compute the rows listed anew, by tiles, and so what the losses are reduced to."""
    laid = Laid(problem, 1 if with_loss else 0)
    values = laid.values[0] if with_loss else None
    if values is not None:
        with np.errstate(all="ignore"):
            values[...] = losses
    by_tiles(problem, laid, values, grad, which)
    results = laid.results(laid.loss_unit, when_nothing_counts=math.nan)
    return results[0] if with_loss else None


@cache
def _nothing(dtype: Any) -> Array:
    return np.empty((0, 0, 0), dtype)
