"""Integer targets as kernels take them, checked on the host's side."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numba_cpu.addresses import address
from softgrad.backends.numba_cpu.memory import Array, Scratch, borrow, describe_targets, give_back
from softgrad.backends.numba_cpu.targets import PART, RANGES, indexed, judge_parts
from softgrad.backends.numba_cpu.threads import share, threads_for
from softgrad.protocol import BadTargetError, Loss

Judgement = tuple[int, bool, int, bool]  # C, whether any target is ignored, which, whether to look for bad ones


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
        self._targets, ignores, ignore_index = ignoring(problem.targets, problem.ignore_index)
        judgement = classes, ignores, ignore_index, problem.check_targets
        count = -1 if weights_at else count_of_many(self._targets, judgement)
        given = (describe_targets(self._targets), rows, *judgement, count, weights_at)
        bad, self.count, self.mass, self.address = indexed(*given, 0)
        if self.address == 0:
            self._memory = borrow(8 * rows)
            bad, self.count, self.mass, self.address = indexed(*given, self._memory.address)
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


def count_of_many(targets: Array, judgement: Judgement) -> int:
    """How many of a great many flat targets count, judged by some threads; −1 where these are not worth it.

    BadTargetError if there is one and they are checked.
    """
    rows = targets.size
    work, parts = rows // 8, -(-rows // PART)
    if threads_for(work, parts) == 1 or not _is_flat(targets):
        return -1
    at, found = address(targets), np.empty((parts, 2), np.int64)
    share(work, parts, lambda counter: judge_parts(counter, at, rows, *judgement, found))
    bad_ones = found[found[:, 0] >= 0, 0]
    if bad_ones.size:
        raise BadTargetError(int(bad_ones[0]))
    return int(found[:, 1].sum())


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
