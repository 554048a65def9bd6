"""Integer targets as kernels take them, checked on the host's side."""

from __future__ import annotations

from functools import partial

import numpy as np

from softgrad.backends.numba_cpu.addresses import address
from softgrad.backends.numba_cpu.memory import Array, Scratch, borrow, describe_targets, give_back
from softgrad.backends.numba_cpu.targets import PART, RANGES, classify, judge_parts
from softgrad.backends.numba_cpu.threads import share
from softgrad.protocol import BadTargetError, Loss


class Indices:
    """A problem's targets as int64 side by side, each a class, IGNORED or BAD; of probabilities, nothing.

    address  the targets' own where each is a class and they lie so, else that of a copy; 0 of probabilities
    count    how many rows count
    mass     the sum of the weights of their targets, each 1 without any

    BadTargetError if there is one and the problem asks for it.
    """

    def __init__(self, problem: Loss, weights_at: int) -> None:
        outer, classes, inner = problem.z.shape
        rows = outer * inner
        self.address, self.count, self.mass = 0, rows, float(rows)
        self._memory: Scratch | None = None
        if problem.dense:
            return
        targets, ignores, ignore_index = ignoring(problem.targets, problem.ignore_index)
        self._targets, check = targets, problem.check_targets
        judge = partial(
            classify, describe_targets(targets), rows, classes, ignores, ignore_index, check, weights_at
        )  # fmt: skip
        if _is_flat(targets):
            if weights_at or rows < 2 * PART:
                bad, self.count, self.mass = judge(0)
            else:
                bad, self.count = _judged(targets, classes, ignores, ignore_index, check)
                self.mass = float(self.count)
            if bad >= 0:
                raise BadTargetError(bad)
            if self.count == rows:
                self.address = address(targets)
                return
        self._memory = borrow(8 * rows)
        self.address = self._memory.address
        bad, self.count, self.mass = judge(self.address)
        if bad >= 0:
            self.close()
            raise BadTargetError(bad)

    def array(self) -> Array:
        """They themselves, (rows,); of integer targets only."""
        if self._memory is None:
            return self._targets.ravel()
        return self._memory.numbers[: self._targets.size].view(np.int64)

    def close(self) -> None:
        """Give the memory back."""
        if self._memory is not None:
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


def _is_flat(targets: Array) -> bool:
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
