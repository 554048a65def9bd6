"""Cross-entropy of many rows that are not so long, with an integer target in each: loss and gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from softgrad.backends.numba_cpu.addresses import address
from softgrad.backends.numba_cpu.dense_cross_entropy import cross_entropy_dense
from softgrad.backends.numba_cpu.indices import count_of_many, ignoring
from softgrad.backends.numba_cpu.laid import Laid, by_tiles, padded_weights
from softgrad.backends.numba_cpu.memory import (
    FORMATS,
    NOTHING,
    Array,
    Described,
    Scratch,
    borrow,
    describe,
    describe_per_row,
    describe_targets,
    give_back,
)
from softgrad.backends.numba_cpu.middle_cross_entropy import cross_entropy_middle
from softgrad.backends.numba_cpu.narrow_cross_entropy import cross_entropy_columns
from softgrad.backends.numba_cpu.single_rows import are_dense, are_flat, has_middle_rows, share_sixteen, streams
from softgrad.backends.numba_cpu.sixteen_targets import SUMS, tiles_added
from softgrad.backends.numba_cpu.sixteen_task import TASK_BYTES, loss_of, prepare
from softgrad.backends.numba_cpu.tiles import FLOAT64
from softgrad.protocol import BadTargetError, Loss


def cross_entropy_by_sixteen(problem: Loss, grad: Array | None, *, with_loss: bool) -> Any:
    """The loss, if asked for, and its gradient, if an array is given, whose classes are contiguous if the logits' are.

    Losses that are to be reduced are added chunk by chunk where rows lie one behind the other: they would be much to
    write and to read beside their logits.
    """
    outer, classes, inner = problem.z.shape
    reduces = with_loss and problem.reduction != "none"
    chunk = tiles_added(classes) if reduces and inner == 1 else None
    kept = 0 if not reduces else outer * inner if chunk is None else -(-outer // (16 * chunk))
    memory = borrow(TASK_BYTES + 8 * kept)
    at = memory.address + TASK_BYTES
    if reduces:
        losses = memory.numbers[TASK_BYTES // 8 : TASK_BYTES // 8 + kept]
        of_losses = (at, 8 * inner, 0, 8, FLOAT64, inner) if chunk is None else (at, 0, 0, 0, SUMS, 1)
    else:
        losses = np.empty((outer, inner) if with_loss else (0, 0), np.float32)
        of_losses = describe_per_row(losses) if with_loss else NOTHING
    task = Task(problem, grad, of_losses, memory.address)
    hard = share_sixteen(problem.z, task.kernel(), chunk=chunk)
    if hard is not None and chunk is None:
        by_tiles(problem, Laid(problem, 0), losses.reshape(outer, inner) if with_loss else None, grad, hard)
    elif hard is not None:  # their losses are in no sum
        hard.sort()  # listed in any order
        apart = np.empty((outer, 1))
        by_tiles(problem, Laid(problem, 0), apart, grad, hard)
        losses = np.concatenate((losses, apart[hard, 0]))
    loss = np.float32(loss_of(task.at, address(losses), losses.size)) if reduces else losses
    give_back(memory)
    task.close()
    return loss if with_loss else None


class Task:
    """A cross-entropy as kernels are told of it, at an address where there are TASK_BYTES for that.

    BadTargetError if there is one and the problem asks for it.
    """

    def __init__(self, problem: Loss, grad: Array | None, of_losses: Described, at: int) -> None:
        z, targets, weight, ignore_index, epsilon, zeta, _, reduction, scale, check = problem
        outer, classes, inner = z.shape
        rows = outer * inner
        self.at, self._arrays = at, (z,) if grad is None else (z, grad)
        self._targets, *judgement = ignoring(targets, ignore_index)
        self._weights = None if weight is None else padded_weights(weight)
        self._scales: Array | None = None
        if not isinstance(scale, float):
            scale, self._scales = 1.0, np.broadcast_to(np.asarray(scale, np.float64), (outer, inner))
        self._room: Scratch | None = None
        before = (
            at, rows, classes, describe(z), describe_targets(self._targets), *judgement, check,
            count_of_many(self._targets, (classes, *judgement, check)) if weight is None else -1,
            0 if self._weights is None else address(self._weights),
        )  # fmt: skip
        after = (
            scale, NOTHING if self._scales is None else describe_per_row(self._scales), zeta, reduction == "mean",
            of_losses, NOTHING if grad is None else describe(grad), grad is not None and streams(grad, z),
        )  # fmt: skip
        bad, wants_room, has_one_scale, zeta = prepare[()](*before, 0, *after)
        if wants_room:
            self._room = borrow(8 * rows)
            bad, _, has_one_scale, zeta = prepare[()](*before, self._room.address, *after)
        if bad >= 0:
            self.close()
            raise BadTargetError(bad)
        self._options = (epsilon, zeta) if epsilon or zeta else None
        self._is_plain = has_one_scale and self._options is None

    def kernel(self) -> Callable[[int, int, int, int], None]:
        """What does it.  It holds no array: some helper may keep it for a while."""
        z, at, options = self._arrays[0], self.at, self._options
        fmt = FORMATS[z.dtype]
        if has_middle_rows(z):
            flat = are_flat(*self._arrays)
            return lambda *shared: cross_entropy_middle(*shared, flat, at, fmt, options)
        if not (self._is_plain and are_dense(*self._arrays)):
            return lambda *shared: cross_entropy_columns(*shared, at, fmt, options)
        like = (fmt,) * z.shape[1]
        return lambda *shared: cross_entropy_dense(*shared, at, like)

    def close(self) -> None:
        """Give the memory back."""
        if self._room is not None:
            give_back(self._room)
