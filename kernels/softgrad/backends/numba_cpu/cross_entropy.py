"""The cross-entropy family: loss, gradient, directional derivative, Hessian product."""

from __future__ import annotations

from typing import Any

import numpy as np

from softgrad.backends.numba_cpu import tile_cross_entropy as tiles
from softgrad.backends.numba_cpu.memory import (
    NOTHING,
    Array,
    Described,
    describe,
    describe_per_row,
    describe_tangents,
    describe_targets,
    has_one_row_tiles,
    readable,
    tile_scratch,
)
from softgrad.backends.numba_cpu.targets import classify, sum_rows
from softgrad.backends.numba_cpu.threads import share
from softgrad.protocol import Loss


def cross_entropy(problem: Loss, loss: Array | None, grad: Array | None) -> None:
    """The loss and its gradient, each where an array is given."""
    laid = Laid(problem)
    values = None if loss is None else laid.loss_rows(loss)
    scales = laid.scales()

    def run(counter: int) -> None:
        _scratch, buffers = tile_scratch(tiles.BUFFERS, problem.z)
        tiles.cross_entropy_tiles(
            counter, buffers, laid.rows, laid.classes, laid.one_row, *laid.arguments, describe_per_row(scales),
            NOTHING if values is None else describe_per_row(values), NOTHING if grad is None else describe(grad),
        )  # fmt: skip

    if laid.rows and laid.classes:
        share(4 * problem.z.size, laid.tasks, run)
    elif values is not None:
        values[...] = np.where(laid.indices.reshape(values.shape) == tiles.IGNORED, 0.0, np.nan)
    if loss is not None and problem.reduction != "none":
        loss[...] = laid.reduced(values, when_nothing_counts=np.nan)


def cross_entropy_jvp(problem: Loss, v: Array, out: Array) -> None:
    """The loss's derivative along each tangent."""
    laid = Laid(problem)
    v = readable(v)
    reduced = problem.reduction != "none"
    count, v_step, v_first = describe_tangents(v)
    values = np.empty((count, 1, laid.rows)) if reduced else out

    def run(counter: int) -> None:
        _scratch, buffers = tile_scratch(tiles.BUFFERS, problem.z)
        tiles.cross_entropy_jvp_tiles(
            counter, buffers, laid.rows, laid.classes, laid.one_row, *laid.arguments, count, v_first, v_step,
            laid.per_row(values[0]), values.strides[0],
        )  # fmt: skip

    if laid.rows and laid.classes and count:
        share(4 * problem.z.size * (1 + count), laid.tasks, run)
    elif laid.rows:
        values[...] = 0.0
    if reduced:
        out[...] = [laid.reduced(one, when_nothing_counts=0.0) for one in values]


def cross_entropy_hvp(problem: Loss, v: Array, out: Array) -> None:
    """Hessian · v."""
    if not out.size:
        return
    laid = Laid(problem)
    v = readable(v)
    scales = laid.scales()
    count, v_step, v_first = describe_tangents(v)
    _, out_step, out_first = describe_tangents(out)

    def run(counter: int) -> None:
        _scratch, buffers = tile_scratch(tiles.BUFFERS + 1, problem.z)
        tiles.cross_entropy_hvp_tiles(
            counter, buffers, laid.rows, laid.classes, laid.one_row, *laid.arguments, describe_per_row(scales),
            count, v_first, v_step, out_first, out_step,
        )  # fmt: skip

    share(4 * problem.z.size * (1 + count), laid.tasks, run)


class Laid:
    """A problem as the tile kernels take it."""

    def __init__(self, problem: Loss) -> None:
        z = problem.z
        outer, self.classes, inner = z.shape
        self.rows, self.one_row = outer * inner, has_one_row_tiles(z)
        self.tasks = self.rows if self.one_row else -(-self.rows // 8)
        self._problem = problem
        self._weights = _padded_weights(problem.weight)
        weights_at = 0 if self._weights is None else self._weights.ctypes.data
        self.indices = np.empty(0, np.int64)
        self._by, zeta = 1.0, problem.z_loss
        count, mass = self.rows, float(self.rows)
        if not problem.dense:
            self.indices = np.empty(self.rows, np.int64)
            count, mass = classify_targets(problem, weights_at, self.indices)
        if problem.reduction == "mean":
            self._by = mass
            if count and zeta:
                zeta *= self._by / count
        self._targets = readable(problem.targets) if problem.dense else problem.targets
        options = (
            problem.label_smoothing,
            zeta,
            0.0 if problem.softcap is None else problem.softcap,
            self._by,
            1.0 if self._by == 0.0 else 0.0,
        )
        self.arguments: tuple[Any, ...] = (
            describe(z),
            describe(self._targets) if problem.dense else NOTHING,
            problem.dense,
            self.indices.ctypes.data,
            weights_at,
            options,
        )

    def per_row(self, array: Array) -> Described:
        """An array of one number per row."""
        return describe_per_row(array)

    def loss_rows(self, loss: Array) -> Array:
        """Where the rows' losses go: to the caller's array, or to one they are reduced from."""
        return loss if self._problem.reduction == "none" else np.empty((1, self.rows))

    def scales(self) -> Array:
        """grad_output, one per row."""
        scale = self._problem.grad_output
        outer, _, inner = self._problem.z.shape
        return np.broadcast_to(np.asarray(scale, np.float64), (outer, inner))

    def reduced(self, values: Array | None, *, when_nothing_counts: float) -> float:
        """The sum or mean of the rows' (1, rows) float64 numbers."""
        if self._by == 0.0:
            return when_nothing_counts
        assert values is not None
        with np.errstate(all="ignore"):
            return float(np.float64(sum_rows(values.ctypes.data, self.rows)) / self._by)


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
