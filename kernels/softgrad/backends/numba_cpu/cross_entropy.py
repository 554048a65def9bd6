"""The cross-entropy family: loss, gradient, directional derivative, Hessian product."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from softgrad.backends.numba_cpu import few
from softgrad.backends.numba_cpu import tile_cross_entropy as tiles
from softgrad.backends.numba_cpu.huge_cross_entropy import cross_entropy_segments, gap_segments
from softgrad.backends.numba_cpu.huge_rows import Together, share_segments
from softgrad.backends.numba_cpu.laid import Laid, by_tiles, is_for_float32
from softgrad.backends.numba_cpu.memory import (
    FORMATS,
    NOTHING,
    Array,
    describe,
    describe_per_row,
    describe_tangents,
    readable,
)
from softgrad.backends.numba_cpu.single_rows import (
    has_huge_rows,
    has_long_rows,
    has_middle_rows,
    is_few,
    is_single,
    share_rows,
    streams,
    write_contiguous,
)
from softgrad.backends.numba_cpu.sixteen_cross_entropy import cross_entropy_by_sixteen
from softgrad.backends.numba_cpu.tile_curvature import cross_entropy_hvp_tiles, cross_entropy_jvp_tiles
from softgrad.backends.numba_cpu.tile_rows import share_tiles
from softgrad.backends.numba_cpu.wide_cross_entropy import cross_entropy_rows
from softgrad.protocol import Loss


def cross_entropy(problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
    """The loss, if asked for, and its gradient, if an array is given."""
    z = problem.z
    if is_few(z):
        way = few.way(problem, grad)
        if way is not None:
            return way(problem, grad, with_loss=with_loss)
    if z.size and is_single(z) and is_for_float32(problem):
        return _in_float32(problem, grad, with_loss=with_loss)
    laid = Laid(problem, 1 if with_loss else 0)
    values = laid.values[0] if with_loss else None
    if laid.classes == 0:
        laid.without_classes(np.inf if problem.z_loss else 0.0)
    else:
        by_tiles(problem, laid, values, grad)
    return _reduced(laid, with_loss=with_loss)


def _in_float32(problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
    """An integer target in each row; the rows that need more, by tiles."""
    z = problem.z
    by = _by_rows if has_long_rows(z) else cross_entropy_by_sixteen

    def compute(grad: Array | None) -> Array | None:
        return by(problem, grad, with_loss=with_loss)

    if grad is None or not (has_long_rows(z) or has_middle_rows(z)):
        return compute(grad)
    return write_contiguous(grad, compute)


def _by_rows(problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
    """The same of long rows."""
    z, laid = problem.z, Laid(problem, 1 if with_loss else 0)
    values = laid.values[0] if with_loss else None
    options, of_z, fmt = laid.options, describe(z), FORMATS[z.dtype]
    past_caches = grad is not None and streams(grad, z)
    arguments = (
        laid.classes, of_z, laid.indices_at, laid.weights_at, laid.scales, laid.by,
        NOTHING if values is None else describe_per_row(values), NOTHING if grad is None else describe(grad),
        past_caches, fmt,
    )  # fmt: skip
    if has_huge_rows(z):
        smoothed, classes = options is not None and options[0] != 0.0 and with_loss, laid.classes

        def steps(some: Together) -> list[Callable[[int, int], None]]:
            gaps = np.zeros(some.parts.shape[:2])

            def gap(counter: int, scratch: int) -> None:
                gap_segments(counter, some, scratch, classes, of_z, gaps, fmt)

            def write(counter: int, scratch: int) -> None:
                cross_entropy_segments(counter, some, scratch, *arguments, gaps, options)

            return [gap, write] if smoothed else [write]

        hard = share_segments(z, laid.indices_at, steps)
    else:
        rows = laid.rows
        hard = share_rows(z, lambda *shared: cross_entropy_rows(*shared, rows, *arguments, options))
    if hard is not None:
        by_tiles(problem, laid, values, grad, hard)
    return _reduced(laid, with_loss=with_loss)


def _reduced(laid: Laid, *, with_loss: bool) -> Array | None:
    if not with_loss:
        laid.close()
        return None
    loss: Array = laid.results(laid.loss_unit, when_nothing_counts=math.nan)[0]
    return loss


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
