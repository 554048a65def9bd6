"""A cross-entropy as kernels take it, and rows of it by tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from softgrad.backends.numba_cpu import tile_cross_entropy as tiles
from softgrad.backends.numba_cpu.addresses import address
from softgrad.backends.numba_cpu.indices import Indices
from softgrad.backends.numba_cpu.memory import (
    KINDS,
    NOTHING,
    Array,
    Described,
    borrow,
    describe,
    describe_per_row,
    give_back,
    readable,
)
from softgrad.backends.numba_cpu.targets import reduce_rows
from softgrad.backends.numba_cpu.tile_rows import share_tiles
from softgrad.backends.numba_cpu.tiles import FLOAT64
from softgrad.protocol import Loss, loss_dtype

_LINE = 8  # numbers in a line of the caches


def is_for_float32(problem: Loss) -> bool:
    """Whether float32 kernels serve: an integer target in each row, and of the options those they know."""
    if problem.targets.ndim == 3 or problem.softcap is not None:
        return False
    if not (problem.label_smoothing or problem.z_loss):
        return True
    # A lone class has a loss of exactly 0.
    return bool(problem.z.shape[1] > 1 and not (problem.label_smoothing and problem.weight is not None))


class Laid:
    """A problem as kernels take it, and `lead` numbers per row, which are its results or are reduced to them.

    values      (lead, outer, inner), in the dtype of the loss, or float64 where they are to be reduced
    indices_at  address of each row's target as int64, IGNORED or BAD; 0 for probabilities
    weights_at  address of the weights as float64, 0 if there are none
    by          what rows are divided by
    scales      grad_output, described as one number per row
    options     what kernels in float32 are told beside: (ε, ζ), None where both are 0
    loss_unit   what losses are multiplied by until they have been reduced: one may overflow though their mean does not

    BadTargetError if there is one and the problem asks for it.
    """

    def __init__(self, problem: Loss, lead: int) -> None:
        z, reduction = problem.z, problem.reduction
        outer, self.classes, inner = z.shape
        self.rows = rows = outer * inner
        self._problem = problem
        self._dtype = loss_dtype(z.dtype)
        self._weights = None if problem.weight is None else padded_weights(problem.weight)
        self.weights_at = 0 if self._weights is None else address(self._weights)
        self._indices = indices = Indices(problem, self.weights_at)
        self.indices_at = indices.address
        lent = rows * (0 if reduction == "none" else lead)
        self._memory = borrow(8 * (_LINE + lent))  # grad_output, and from the next cache line on what is to be reduced
        numbers, start = self._memory.numbers, self._memory.address
        if reduction == "none":
            self.values = np.empty((lead, outer, inner), self._dtype)
            self.loss_unit = 1.0
        else:
            self.values = numbers[_LINE : _LINE + lent].reshape(lead, outer, inner)
            self.loss_unit = 0.5 if self._dtype.itemsize == 8 else 1.0
        self.by = indices.mass if reduction == "mean" else 1.0
        self._zeta = problem.z_loss
        if reduction == "mean" and indices.count and self._zeta:
            self._zeta *= self.by / indices.count
        epsilon = problem.label_smoothing
        self.options = (epsilon, self._zeta) if epsilon or self._zeta else None
        scale = problem.grad_output
        if isinstance(scale, float):
            numbers[0] = scale
            self.scales: Described = (start, 0, 0, 0, FLOAT64, 1)
        else:
            self._scales = np.asarray(scale, np.float64)
            self.scales = describe_per_row(np.broadcast_to(self._scales, (outer, inner)))

    def tile_arguments(self) -> tuple[Any, ...]:
        """What kernels on tiles are told of the problem."""
        problem = self._problem
        self._probabilities = readable(problem.targets) if problem.dense else problem.targets
        return (
            describe(problem.z),
            describe(self._probabilities) if problem.dense else NOTHING,
            problem.dense,
            self.indices_at,
            self.weights_at,
            (problem.label_smoothing, self._zeta, problem.softcap or 0.0, self.by, 1.0 if self.by == 0.0 else 0.0),
        )

    def without_classes(self, of_a_row: float) -> None:
        """Sums over nothing are 0, lse = −inf."""
        self.values[...] = of_a_row
        if not self._problem.dense:
            indices = self._indices.array().reshape(self.values.shape[1:])
            self.values[:, indices == tiles.IGNORED] = 0.0
            self.values[:, indices == tiles.BAD] = np.nan

    def results(self, unit: float, *, when_nothing_counts: float) -> Array:
        """`values`, or what they, kept in `unit`, are reduced to: (lead,).  Nothing else may be asked afterwards."""
        if self._problem.reduction == "none":
            results = self.values
        else:
            values, lead = self.values, len(self.values)
            results = np.empty(lead, self._dtype)
            reduce_rows(
                address(values), lead, values.size // max(lead, 1), unit, self.by, when_nothing_counts,
                address(results), KINDS[self._dtype],
            )  # fmt: skip
        self.close()
        return results

    def close(self) -> None:
        """Give the memory back."""
        give_back(self._memory)
        self._indices.close()


def padded_weights(weight: Array) -> Array:
    """Weights as float64, with zeros up to a multiple of eight."""
    padded = np.zeros(-(-max(weight.size, 1) // 8) * 8)
    padded[: weight.size] = weight
    return padded


def by_tiles(problem: Loss, laid: Laid, values: Array | None, grad: Array | None, which: Array | None = None) -> None:
    """Every option, in float64; all rows, or those listed."""
    of_loss = NOTHING if values is None else describe_per_row(values)
    of_grad = NOTHING if grad is None else describe(grad)
    arguments = (*laid.tile_arguments(), laid.scales, of_loss, laid.loss_unit, of_grad)
    share_tiles(tiles.cross_entropy_tiles, tiles.BUFFERS, problem.z, *arguments, which=which)
