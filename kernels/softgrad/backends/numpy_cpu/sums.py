"""Sums in an order fixed by their length, and reduced losses in twice the precision."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numpy_cpu.blocks import Array

# Rows are summed in leaves of this many, then the leaves' sums: the tree depends on the number of rows alone.
LEAF = 1024


def sum_classes(x: Array) -> Array:
    """Σ over the classes of (C, n), (n,).

    Blocks of rows use NumPy's pairwise sum along contiguous memory.  Blocks of columns are folded in halves, since
    NumPy's order of addition across columns depends on how many there are.
    """
    if not x.flags.c_contiguous and x.flags.f_contiguous:
        return np.add.reduce(x, axis=0)
    classes = x.shape[0]
    if classes == 1:
        return x[0].copy()
    half = classes // 2
    folded = x[:half] + x[half : 2 * half]
    if classes % 2:
        folded[0] += x[-1]
    while half > 1:
        classes, half = half, half // 2
        folded[:half] += folded[half : 2 * half]
        if classes % 2:
            folded[0] += folded[classes - 1]
    return folded[0]


class Total:
    """A running sum of per-row numbers in double-double: the pair (high, low) stands for high + low."""

    def __init__(self) -> None:
        self._pending: list[Array] = []
        self._count = 0
        self._leaves: list[tuple[Array, Array]] = []

    def add(self, values: Array) -> None:
        """Append float64 numbers, (n,)."""
        self._pending.append(values)
        self._count += len(values)
        if self._count >= LEAF:
            rows = np.concatenate(self._pending)
            whole = len(rows) // LEAF * LEAF
            leaves = rows[:whole].reshape(-1, LEAF).T
            self._leaves.append(_fold(leaves, np.zeros_like(leaves)))
            self._pending = [rows[whole:]]
            self._count -= whole

    def value(self) -> tuple[float, float]:
        """The sum as (high, low)."""
        rest = np.concatenate([*self._pending, np.zeros(1)])[:, None]
        high, low = _fold(rest, np.zeros_like(rest))
        highs = np.concatenate([*(leaf[0] for leaf in self._leaves), high])[:, None]
        lows = np.concatenate([*(leaf[1] for leaf in self._leaves), low])[:, None]
        high, low = _fold(highs, lows)
        return float(high[0]), float(low[0])


def _fold(high: Array, low: Array) -> tuple[Array, Array]:
    """Σ over the first axis of numbers high + low, halving, each addition exact to about 106 bits."""
    while len(high) > 1:
        half = (len(high) + 1) // 2
        a, b = high[:half].copy(), high[half:]
        la, lb = low[:half].copy(), low[half:]
        n = len(b)
        total, error = two_sum(a[:n], b)
        error += la[:n] + lb
        # An infinite or NaN sum has no error term.
        np.copyto(error, 0.0, where=~np.isfinite(total))
        a[:n] = total + error
        la[:n] = np.where(np.isfinite(total), error - (a[:n] - total), 0.0)
        high, low = a, la
    return high[0], low[0]


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b rounded, and the rounding error: exact (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)
