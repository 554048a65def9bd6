"""A cross-entropy as kernels take it, and rows of it by tiles."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from softgrad.backends.numba_cpu import tile_cross_entropy as tiles
from softgrad.backends.numba_cpu.addresses import address
from softgrad.backends.numba_cpu.memory import (
    KINDS,
    NOTHING,
    Array,
    Described,
    borrow,
    describe,
    describe_per_row,
    describe_targets,
    give_back,
    readable,
)
from softgrad.backends.numba_cpu.targets import PART, RANGES, classify, judge_parts, reduce_rows
from softgrad.backends.numba_cpu.threads import share
from softgrad.backends.numba_cpu.tile_rows import share_tiles
from softgrad.backends.numba_cpu.tiles import FLOAT64
from softgrad.protocol import BadTargetError, Loss, loss_dtype

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

    values      (lead, outer, inner), in the dtype of the loss, or float64 where they are to be reduced; with `parts`,
                so many sums of losses instead, to which `results` adds what else is listed at `apart`
    indices_at  address of each row's target as int64, IGNORED or BAD; 0 for probabilities
    weights_at  address of the weights as float64, 0 if there are none
    by          what rows are divided by
    scales      grad_output, described as one number per row
    options     what kernels in float32 are told beside: (ε, ζ), None where both are 0
    loss_unit   what losses are multiplied by until they have been reduced: one may overflow though their mean does not

    BadTargetError if there is one and the problem asks for it.
    """

    def __init__(self, problem: Loss, lead: int, parts: int = 0) -> None:
        z, reduction = problem.z, problem.reduction
        outer, self.classes, inner = z.shape
        self.rows = rows = outer * inner
        self._problem = problem
        self._dtype = loss_dtype(z.dtype)
        self._weights = None if problem.weight is None else padded_weights(problem.weight)
        self.weights_at = 0 if self._weights is None else address(self._weights)
        self.count, mass = rows, float(rows)
        copied = 0
        if not problem.dense:
            self._targets, ignores, ignore_index = ignoring(problem.targets, problem.ignore_index)
            judge = partial(
                classify, describe_targets(self._targets), rows, self.classes, ignores, ignore_index,
                problem.check_targets, self.weights_at,
            )  # fmt: skip
            if is_flat(self._targets):
                if self.weights_at or rows < 2 * PART:
                    bad, self.count, mass = judge(0)
                else:
                    bad, self.count = _judged(self._targets, self.classes, ignores, ignore_index, problem.check_targets)
                    mass = float(self.count)
                if bad >= 0:
                    raise BadTargetError(bad)
                copied = 0 if self.count == rows else rows
            else:
                copied = rows
        lent = (parts or rows) * (0 if reduction == "none" else lead)
        # grad_output, targets and what is to be reduced, each from a whole cache line on.
        first = _LINE + -(-copied // _LINE) * _LINE
        self._memory = borrow(8 * (first + lent))
        numbers, start = self._memory.numbers, self._memory.address
        if reduction == "none":
            self.values = np.empty((lead, outer, inner), self._dtype)
            self.loss_unit = 1.0
        else:
            shape = (lead, 1, parts) if parts else (lead, outer, inner)
            self.values = numbers[first : first + lent].reshape(shape)
            self.loss_unit = 0.5 if self._dtype.itemsize == 8 else 1.0
        self.apart: Array | None = None
        self.indices_at = 0
        if copied:
            self.indices_at = start + 8 * _LINE
            bad, self.count, mass = judge(self.indices_at)
            if bad >= 0:
                self.close()
                raise BadTargetError(bad)
        elif not problem.dense:
            self.indices_at = address(self._targets)
        self.by = mass if reduction == "mean" else 1.0
        self._zeta = problem.z_loss
        if reduction == "mean" and self.count and self._zeta:
            self._zeta *= self.by / self.count
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
            indices = self._memory.numbers[_LINE : _LINE + self.rows].view(np.int64).reshape(self.values.shape[1:])
            self.values[:, indices == tiles.IGNORED] = 0.0
            self.values[:, indices == tiles.BAD] = np.nan

    def results(self, unit: float, *, when_nothing_counts: float) -> Array:
        """`values`, or what they, kept in `unit`, are reduced to: (lead,).  Nothing else may be asked afterwards."""
        if self._problem.reduction == "none":
            results = self.values
        else:
            values, lead = self.values, len(self.values)
            if self.apart is not None:
                values = np.concatenate((values, self.apart.reshape(lead, 1, -1)), axis=-1)
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


def _judged(targets: Array, classes: int, ignores: bool, ignore_index: int, check: bool) -> tuple[int, int]:
    """The first of many flat targets that is out of range, −1 if there is none or they are not checked; and how many
    count.
    """
    rows, at = targets.size, address(targets)
    found = np.empty((-(-rows // PART), 2), np.int64)

    def run(counter: int) -> None:
        judge_parts(counter, at, rows, classes, ignores, ignore_index, check, found)

    share(rows // 8, len(found), run)
    bad = found[found[:, 0] >= 0, 0]
    return int(bad[0]) if bad.size else -1, int(found[:, 1].sum())


def is_flat(targets: Array) -> bool:
    """Whether they are int64 numbers side by side: where each is a class, they need not be copied."""
    return bool(targets.dtype == np.int64 and targets.flags.c_contiguous and targets.flags.aligned)


def ignoring(targets: Array, ignore_index: int | None) -> tuple[Array, bool, int]:
    """Targets, whether their dtype can hold ignore_index, and that as an int64."""
    if ignore_index is None:
        return targets, False, 0
    lowest, highest = RANGES[targets.dtype]
    if not lowest <= ignore_index <= highest:
        return targets, False, 0
    if ignore_index >= 2**63 - 1:  # beyond what the kernels compare with
        indices = np.minimum(targets, 2**62).astype(np.int64)
        indices[indices < 0] = -2
        indices[targets == ignore_index] = -1
        return indices, True, -1
    return targets, True, ignore_index


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
