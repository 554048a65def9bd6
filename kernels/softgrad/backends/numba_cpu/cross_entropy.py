"""The cross-entropy family: loss, gradient, directional derivative, Hessian product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from softgrad.backends.numba_cpu import tile_cross_entropy as tiles
from softgrad.backends.numba_cpu.huge_cross_entropy import cross_entropy_segments
from softgrad.backends.numba_cpu.memory import (
    FORMATS,
    NOTHING,
    Array,
    describe,
    describe_per_row,
    describe_tangents,
    describe_targets,
    readable,
    tile_scratch,
    tile_work,
)
from softgrad.backends.numba_cpu.middle_cross_entropy import cross_entropy_middle
from softgrad.backends.numba_cpu.narrow_cross_entropy import cross_entropy_columns
from softgrad.backends.numba_cpu.single_rows import (
    Together,
    has_huge_rows,
    has_long_rows,
    has_middle_rows,
    is_single,
    share_rows,
    share_segments,
    share_sixteen,
    streams,
    write_contiguous,
)
from softgrad.backends.numba_cpu.targets import classify, sum_rows
from softgrad.backends.numba_cpu.threads import share
from softgrad.backends.numba_cpu.tile_curvature import cross_entropy_hvp_tiles, cross_entropy_jvp_tiles
from softgrad.backends.numba_cpu.wide_cross_entropy import cross_entropy_rows
from softgrad.protocol import Loss, loss_dtype


def cross_entropy(problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
    """The loss, if asked for, and its gradient, if an array is given."""
    laid = Laid(problem)
    values = laid.values((1,)) if with_loss else None
    if laid.classes == 0:
        if values is None:
            return None
        laid.without_classes(values, np.inf if problem.z_loss else 0.0)
    elif not (is_single(problem.z) and laid.is_for_float32()):
        _by_tiles(problem, laid, values, grad)
    elif grad is None or not (has_long_rows(problem.z) or has_middle_rows(problem.z)):
        _by_rows(problem, laid, values, grad)
    else:
        write_contiguous(grad, lambda result: _by_rows(problem, laid, values, result))
    return None if values is None else laid.result(values, laid.loss_unit, when_nothing_counts=np.nan)[0]


def _by_rows(problem: Loss, laid: Laid, values: Array | None, grad: Array | None) -> None:
    """An integer target in each row, in float32; the rows that need more, by tiles."""
    z, fmt = problem.z, FORMATS[problem.z.dtype]
    of_loss = NOTHING if values is None else describe_per_row(values[0])
    of_grad = NOTHING if grad is None else describe(grad)
    arguments = (
        laid.rows, laid.classes, describe(z), laid.indices.ctypes.data, laid.weights_at, laid.scales, laid.by, of_loss,
        of_grad,
    )  # fmt: skip
    past_caches, options = grad is not None and streams(grad, z), laid.options
    if has_huge_rows(z) and options is None:

        def steps(some: Together) -> list[Callable[[int, int], None]]:
            first, totals, segments, hard = some

            def write(counter: int, scratch: int) -> None:
                cross_entropy_segments(
                    counter, first, scratch, hard, *arguments[1:], past_caches, segments, totals, fmt
                )  # fmt: skip

            return [write]

        hard = share_segments(z, laid.indices.ctypes.data, steps)
    elif has_long_rows(z):
        hard = share_rows(z, lambda *shared: cross_entropy_rows(*shared, *arguments, past_caches, fmt, options))
    else:
        kernel = cross_entropy_middle if has_middle_rows(z) else cross_entropy_columns
        hard = share_sixteen(z, lambda *shared: kernel(*shared, *arguments, past_caches, fmt, options))
    if hard is not None:
        _by_tiles(problem, laid, values, grad, hard)


def _by_tiles(problem: Loss, laid: Laid, values: Array | None, grad: Array | None, which: Array | None = None) -> None:
    """Every option, in float64; all rows, or those listed."""
    of_scales = laid.scales
    of_loss = NOTHING if values is None else describe_per_row(values[0])
    of_grad = NOTHING if grad is None else describe(grad)
    count, work = tile_work(problem.z, which)

    def run(counter: int) -> None:
        _scratch, buffers = tile_scratch(tiles.BUFFERS, problem.z)
        tiles.cross_entropy_tiles(counter, buffers, work, *laid.arguments, of_scales, of_loss, laid.loss_unit, of_grad)

    share(4 * problem.z.size, count, run)


def cross_entropy_jvp(problem: Loss, v: Array) -> Array:
    """The loss's derivative along each tangent."""
    laid = Laid(problem)
    v = readable(v)
    count, v_step, v_first = describe_tangents(v)
    values = laid.values((count,))
    if laid.classes == 0:
        laid.without_classes(values, 0.0)
    elif values.size:

        def run(counter: int) -> None:
            _scratch, buffers = tile_scratch(tiles.BUFFERS, problem.z)
            cross_entropy_jvp_tiles(
                counter, buffers, laid.work, *laid.arguments, count, v_first, v_step,
                describe_per_row(values[0]), values.strides[0],
            )  # fmt: skip

        laid.share(run, 1 + count)
    return laid.result(values, 1.0, when_nothing_counts=0.0)


def cross_entropy_hvp(problem: Loss, v: Array, out: Array) -> None:
    """Hessian · v."""
    if not out.size:
        return
    laid = Laid(problem)
    v = readable(v)
    count, v_step, v_first = describe_tangents(v)
    _, out_step, out_first = describe_tangents(out)

    def run(counter: int) -> None:
        _scratch, buffers = tile_scratch(tiles.BUFFERS, problem.z)
        cross_entropy_hvp_tiles(
            counter, buffers, laid.work, *laid.arguments, laid.scales,
            count, v_first, v_step, out_first, out_step,
        )  # fmt: skip

    laid.share(run, 1 + count)


class Laid:
    """A problem as the tile kernels take it."""

    def __init__(self, problem: Loss) -> None:
        z = problem.z
        outer, self.classes, inner = z.shape
        self.rows = outer * inner
        self.tasks, self.work = tile_work(z)
        self._problem = problem
        self._weights = _padded_weights(problem.weight)
        self.weights_at = 0 if self._weights is None else self._weights.ctypes.data
        self.indices = np.empty(0, np.int64)
        self.by, zeta = 1.0, problem.z_loss
        count, mass = self.rows, float(self.rows)
        if not problem.dense:
            self.indices = np.empty(self.rows, np.int64)
            count, mass = classify_targets(problem, self.weights_at, self.indices)
        if problem.reduction == "mean":
            self.by = mass
            if count and zeta:
                zeta *= self.by / count
        # Losses that are reduced from float64 are kept halved: one of them may overflow though their mean does not.
        self.loss_unit = 0.5 if z.dtype == np.float64 and problem.reduction != "none" else 1.0
        self._targets = readable(problem.targets) if problem.dense else problem.targets
        # grad_output, one per row.
        scales = np.asarray(problem.grad_output, np.float64)
        self._scales = np.broadcast_to(scales, (outer, inner))
        self.scales = describe_per_row(self._scales)
        # What kernels in float32 are told beside: (ε, ζ), None where both are 0.
        self.options = (problem.label_smoothing, zeta) if problem.label_smoothing or zeta else None
        options = (
            problem.label_smoothing,
            zeta,
            0.0 if problem.softcap is None else problem.softcap,
            self.by,
            1.0 if self.by == 0.0 else 0.0,
        )
        self.arguments: tuple[Any, ...] = (
            describe(z),
            describe(self._targets) if problem.dense else NOTHING,
            problem.dense,
            self.indices.ctypes.data,
            self.weights_at,
            options,
        )

    def is_for_float32(self) -> bool:
        """Whether float32 kernels serve: an integer target in each row, and of the options those they know."""
        problem = self._problem
        if problem.dense or problem.softcap is not None:
            return False
        # A lone class has a loss of exactly 0.
        return self.options is None or (self.classes > 1 and not (problem.label_smoothing and self.weights_at))

    def _reduced(self, row: Array) -> Any:
        """The sum or mean of the rows' numbers."""
        total = np.float64(sum_rows(row.ctypes.data, self.rows, 1.0))
        if np.isfinite(total):
            return total / self.by
        # Their sum may overflow though their mean does not.
        return np.float64(sum_rows(row.ctypes.data, self.rows, 2.0**-64)) / self.by * 2.0**64

    def share(self, run: Callable[[int], None], passes: int) -> None:
        """Run on as many threads as the work is worth."""
        share(4 * passes * self._problem.z.size, self.tasks, run)

    def values(self, lead: tuple[int, ...]) -> Array:
        """One number per row, (*lead, outer, inner): the result, or float64 numbers that it is reduced from."""
        outer, _, inner = self._problem.z.shape
        dtype = loss_dtype(self._problem.z.dtype) if self._problem.reduction == "none" else np.float64
        return np.empty((*lead, outer, inner), dtype)

    def without_classes(self, values: Array, of_a_row: float) -> None:
        """Sums over nothing are 0, lse = −inf."""
        values[...] = of_a_row
        if not self._problem.dense:
            indices = self.indices.reshape(values.shape[1:])
            values[:, indices == tiles.IGNORED] = 0.0
            values[:, indices == tiles.BAD] = np.nan

    def result(self, values: Array, unit: float, *, when_nothing_counts: float) -> Array:
        """(*lead, outer, inner) values, or what they are reduced to, (*lead,)."""
        if self._problem.reduction == "none":
            return values
        reduced = np.empty(len(values), loss_dtype(self._problem.z.dtype))
        if self.by == 0.0:
            reduced[...] = when_nothing_counts
        else:
            with np.errstate(all="ignore"):
                reduced[...] = [self._reduced(row) / unit for row in values]
        return reduced


def classify_targets(problem: Loss, weights_at: int, indices: Array) -> tuple[int, float]:
    """Fill `indices`; the number of rows that count, and the sum of their weights."""
    targets, ignores, ignore_index = ignoring(problem.targets, problem.ignore_index)
    count, mass = classify(
        describe_targets(targets), indices.size, problem.z.shape[1], ignores, ignore_index, weights_at,
        indices.ctypes.data,
    )  # fmt: skip
    return count, mass if weights_at else float(count)


def ignoring(targets: Array, ignore_index: int | None) -> tuple[Array, bool, int]:
    """Targets, whether their dtype can hold ignore_index, and that as an int64."""
    limits = np.iinfo(targets.dtype)
    if ignore_index is None or not limits.min <= ignore_index <= limits.max:
        return targets, False, 0
    if ignore_index >= 2**63 - 1:  # beyond what the kernels compare with
        return np.where(targets == ignore_index, -1, np.minimum(targets, 2**62)).astype(np.int64), True, -1
    return targets, True, ignore_index


def _padded_weights(weight: Array | None) -> Array | None:
    """Weights as float64, with zeros up to a multiple of eight."""
    if weight is None:
        return None
    padded = np.zeros(-(-max(weight.size, 1) // 8) * 8)
    padded[: weight.size] = weight
    return padded
