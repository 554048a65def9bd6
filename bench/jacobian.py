"""Against the full Jacobian: time and peak memory of the same gradient as C grows, until it no longer fits.

B rows stay the same; softgrad's gradient is O(C) a row in time and memory, the textbook's O(C²).
"""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

from bench.cases import Case

OPERATION = "cross_entropy_value_and_grad"
ROWS = 16
# Beyond 8192 only softgrad goes on, to where the work outweighs the cost of the call.
CLASSES = tuple(2**n for n in range(1, 18))
CLASSES_QUICK = tuple(2**n for n in range(1, 18, 2))
# The arrays of (B, C, C) that softgrad.naive holds at once, at most.
JACOBIANS_HELD = 3
MOST_MEMORY = 6 << 30
MOST_MEMORY_QUICK = 1 << 30
WAY = "naive"  # the contender that builds it
FIT_ABOVE = 4.0  # times the smallest value: below, the cost of the call outweighs its work


def case_of(classes: int) -> Case:
    """The gradient at one C."""
    return Case(OPERATION, "float32", ROWS, classes)


def does_not_fit(classes: int, memory: int, *, quick: bool = False) -> str | None:
    """Why the full Jacobian is not tried at this C."""
    budget = min(MOST_MEMORY_QUICK if quick else MOST_MEMORY, memory // 2)
    needed = JACOBIANS_HELD * ROWS * classes**2 * 4
    if needed <= budget:
        return None
    return f"C = {classes:,} needs about {needed / 2**30:.1f} GiB, where {budget / 2**30:.1f} GiB are allowed"


def host_peak(call: Callable[[], Any]) -> int:
    """Bytes allocated at once during a call, its result included (NumPy reports its arrays to tracemalloc)."""
    tracemalloc.start()
    try:
        kept = call()
        peak = tracemalloc.get_traced_memory()[1]
        del kept
    finally:
        tracemalloc.stop()
    return peak


def slope(classes: Sequence[int], values: Sequence[float]) -> float | None:
    """k of the least-squares fit value ∝ C^k, where values exceed `FIT_ABOVE` times the smallest.

    None where that leaves fewer than two points.
    """
    known = [(c, v) for c, v in zip(classes, values, strict=True) if v]
    floor = FIT_ABOVE * min((v for _, v in known), default=0.0)
    points = [(math.log(c), math.log(v)) for c, v in known if v > floor]
    if len(points) < 2:
        return None
    mean_x, mean_y = (sum(p[i] for p in points) / len(points) for i in (0, 1))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
