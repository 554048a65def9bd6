"""The cross-entropy family: loss, gradient, directional derivative, Hessian product."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from softgrad.backends.numba_cpu import few
from softgrad.backends.numba_cpu import tile_cross_entropy as tiles
from softgrad.backends.numba_cpu.addresses import address
from softgrad.backends.numba_cpu.dense_cross_entropy import cross_entropy_dense
from softgrad.backends.numba_cpu.huge_cross_entropy import cross_entropy_segments, gap_segments
from softgrad.backends.numba_cpu.huge_rows import Together, share_segments
from softgrad.backends.numba_cpu.laid import Laid, by_tiles, is_for_float32
from softgrad.backends.numba_cpu.memory import (
    FORMATS,
    NOTHING,
    Array,
    Described,
    describe,
    describe_per_row,
    describe_tangents,
    readable,
)
from softgrad.backends.numba_cpu.middle_cross_entropy import cross_entropy_middle
from softgrad.backends.numba_cpu.narrow_cross_entropy import cross_entropy_columns
from softgrad.backends.numba_cpu.single_rows import (
    MIDDLE,
    are_dense,
    are_flat,
    has_huge_rows,
    has_long_rows,
    has_middle_rows,
    is_few,
    is_single,
    share_rows,
    share_sixteen,
    streams,
    write_contiguous,
)
from softgrad.backends.numba_cpu.sixteen_targets import SUMS, tiles_added
from softgrad.backends.numba_cpu.tile_curvature import cross_entropy_hvp_tiles, cross_entropy_jvp_tiles
from softgrad.backends.numba_cpu.tile_rows import share_tiles
from softgrad.backends.numba_cpu.wide_cross_entropy import cross_entropy_rows
from softgrad.protocol import Loss


def cross_entropy(problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
    """The loss, if asked for, and its gradient, if an array is given."""
    if is_few(problem.z):
        way = few.way(problem, grad)
        if way is not None:
            return way(problem, grad, with_loss=with_loss)
    parts = parts_of(problem) if with_loss else 0
    laid = Laid(problem, 1 if with_loss else 0, parts)
    values = laid.values[0] if with_loss else None
    if laid.classes == 0:
        laid.without_classes(np.inf if problem.z_loss else 0.0)
    elif not (is_single(problem.z) and is_for_float32(problem)):
        by_tiles(problem, laid, values, grad)
    else:

        def write(result: Array | None) -> None:
            if parts:
                _in_parts(problem, laid, result)
            else:
                _by_rows(problem, laid, values, result)

        if grad is None or not (has_long_rows(problem.z) or has_middle_rows(problem.z)):
            write(grad)
        else:
            write_contiguous(grad, write)
    if with_loss:
        return laid.results(laid.loss_unit, when_nothing_counts=math.nan)[0]
    laid.close()
    return None


def parts_of(problem: Loss) -> int:
    """Into how many sums kernels add the losses of not so long rows, to be reduced; 0: they are kept for each row."""
    z = problem.z
    outer, classes, inner = z.shape
    whole = problem.reduction == "none" or inner != 1 or not (is_single(z) and is_for_float32(problem))
    return 0 if whole or not 0 < classes <= MIDDLE else -(-outer // (16 * tiles_added(classes)))


def _in_parts(problem: Loss, laid: Laid, grad: Array | None) -> None:
    """Their losses would be much to write and to read beside their logits."""
    of_sums = (address(laid.values), 0, 0, 0, SUMS, 1)
    hard = share_sixteen(problem.z, _for_sixteen(problem, laid, of_sums, grad), chunk=tiles_added(laid.classes))
    if hard is not None:
        hard.sort()  # listed in any order
        values = np.empty(problem.z.shape[::2])
        by_tiles(problem, laid, values, grad, hard)
        laid.apart = values.ravel()[hard]


def _for_sixteen(
    problem: Loss, laid: Laid, of_loss: Described, grad: Array | None
) -> Callable[[int, int, int, int], None]:
    """The kernel of rows of which sixteen are worked on at a time."""
    arguments, (past_caches, fmt, options) = _arguments(problem, laid, of_loss, grad)
    arrays = (problem.z,) if grad is None else (problem.z, grad)
    if has_middle_rows(problem.z):
        flat = are_flat(*arrays)
        return lambda *shared: cross_entropy_middle(*shared, flat, *arguments, past_caches, fmt, options)
    g = laid.scale()
    if g is None or not are_dense(*arrays):
        return lambda *shared: cross_entropy_columns(*shared, *arguments, past_caches, fmt, options)
    outer, classes, _ = problem.z.shape
    near = np.float32(g)
    dense = (outer, describe(problem.z), laid.indices_at, near, np.float32(g - float(near)), of_loss)
    like, grad_at = (fmt,) * classes, 0 if grad is None else address(grad)
    return lambda *shared: cross_entropy_dense(*shared, *dense, grad_at, past_caches, like)


def _arguments(problem: Loss, laid: Laid, of_loss: Described, grad: Array | None) -> tuple[tuple[Any, ...], Any]:
    """What kernels are told of the work, and the rest: whether to write past the caches, the format, the options."""
    z = problem.z
    of_grad = NOTHING if grad is None else describe(grad)
    arguments = (
        laid.rows, laid.classes, describe(z), laid.indices_at, laid.weights_at, laid.scales, laid.by, of_loss, of_grad,
    )  # fmt: skip
    return arguments, (grad is not None and streams(grad, z), FORMATS[z.dtype], laid.options)


def _by_rows(problem: Loss, laid: Laid, values: Array | None, grad: Array | None) -> None:
    """An integer target in each row, in float32; the rows that need more, by tiles."""
    z, of_loss = problem.z, NOTHING if values is None else describe_per_row(values)
    arguments, (past_caches, fmt, options) = _arguments(problem, laid, of_loss, grad)
    if has_huge_rows(z):
        smoothed = options is not None and options[0] != 0.0 and values is not None
        of_z, classes = describe(z), laid.classes

        def steps(some: Together) -> list[Callable[[int, int], None]]:
            gaps = np.zeros(some.parts.shape[:2])

            def gap(counter: int, scratch: int) -> None:
                gap_segments(counter, some, scratch, classes, of_z, gaps, fmt)

            def write(counter: int, scratch: int) -> None:
                cross_entropy_segments(counter, some, scratch, *arguments[1:], past_caches, fmt, gaps, options)

            return [gap, write] if smoothed else [write]

        hard = share_segments(z, laid.indices_at, steps)
    elif has_long_rows(z):
        hard = share_rows(z, lambda *shared: cross_entropy_rows(*shared, *arguments, past_caches, fmt, options))
    else:
        hard = share_sixteen(z, _for_sixteen(problem, laid, of_loss, grad))
    if hard is not None:
        by_tiles(problem, laid, values, grad, hard)


def cross_entropy_jvp(problem: Loss, v: Array) -> Array:
    """The loss's derivative along each tangent."""
    v = readable(v)
    if is_few(v) and v.size and type(problem.grad_output) is float:
        return few.slopes_of_few(problem, v)
    count, v_step, v_first = describe_tangents(v)
    laid = Laid(problem, count)
    if laid.classes == 0:
        laid.without_classes(0.0)
    elif laid.values.size:
        arguments = (
            *laid.tile_arguments(), count, v_first, v_step, describe_per_row(laid.values[0]), laid.values.strides[0],
        )  # fmt: skip
        share_tiles(cross_entropy_jvp_tiles, tiles.BUFFERS, problem.z, *arguments, passes=1 + count)
    return laid.results(1.0, when_nothing_counts=0.0)


def cross_entropy_hvp(problem: Loss, v: Array, out: Array) -> None:
    """Hessian · v."""
    if not out.size:
        Laid(problem, 0).close()  # which judges the targets
        return
    v = readable(v)
    if is_few(v) and type(problem.grad_output) is float:
        few.curvatures_of_few(problem, v, out)
        return
    laid = Laid(problem, 0)
    count, v_step, v_first = describe_tangents(v)
    _, out_step, out_first = describe_tangents(out)
    arguments = (*laid.tile_arguments(), laid.scales, count, v_first, v_step, out_first, out_step)
    share_tiles(cross_entropy_hvp_tiles, tiles.BUFFERS, problem.z, *arguments, passes=1 + count)
    laid.close()
