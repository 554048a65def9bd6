"""Sums in an order fixed by their length, and reduced losses in twice the precision."""

from __future__ import annotations

from collections.abc import Callable
from operator import add
from typing import TypeVar

import numpy as np

from softgrad.backends.numpy_cpu.blocks import Array, Block

# Rows are summed in leaves of this many, then the leaves' sums: the tree depends on the number of rows alone.
LEAF = 1024
# Some 10¹⁸ numbers up to here add to no infinity.
LARGE = 1e290


# What is summed at the classes of a slice.
Terms = Callable[[slice], Array]
Group = TypeVar("Group")


def sum_classes(block: Block, x: Array) -> Array:
    """Σ over the classes of (C, n), (n,), with an error that hardly grows with C."""
    return sum_pieces(block, len(x), lambda piece: x[piece])


def sum_pieces(block: Block, classes: int, terms: Terms) -> Array:
    """`sum_classes` of what need not be in memory for all classes at once."""
    return _halving([_sum_piece(block, terms(piece)) for piece in block.pieces(classes)], add)


def sum_closely(block: Block, classes: int, terms: Terms, bound: float | None) -> Array:
    """`sum_pieces` of float64 numbers |x| ≤ bound, a power of two, with little more than one rounding.

    Without a bound it is `sum_pieces` itself: where the result is rounded to float32, that is close enough.

    Each number is split at a bit so high that the upper parts add without error in any order.
    """
    if bound is None:
        return sum_pieces(block, classes, terms)
    to_grid = 1.5 * bound * 2.0 ** (classes.bit_length() + 1)
    highs, lows = [], []
    for piece in block.pieces(classes):
        x = terms(piece)
        high = np.add(x, to_grid, out=block.empty_like(x))
        high -= to_grid
        low = np.subtract(x, high, out=block.empty_like(x))
        highs.append(_sum_piece(block, high))
        lows.append(_sum_piece(block, low))
    return _halving(highs, add) + _halving(lows, add)


def _halving(groups: list[Group], join: Callable[[Group, Group], Group]) -> Group:
    """What the pieces have given, joined two by two."""
    while len(groups) > 1:
        half = len(groups) // 2
        groups = [*map(join, groups[:half], groups[half : 2 * half]), *groups[2 * half :]]
    return groups[0]


def _sum_piece(block: Block, x: Array) -> Array:
    """Σ over the classes of a piece.

    NumPy's own sum across columns adds one after the other, in an order that depends on how many columns there are.
    """
    if block.columns:
        return _fold(block, x, 1)[0].copy()
    if x.dtype == np.float64:
        return np.einsum("ji->i", _fold(block, x, _FEW))
    rows = x.T
    n, classes = rows.shape
    whole = classes // _CHUNK
    chunks = rows[:, : whole * _CHUNK].reshape(n, whole, _CHUNK)
    total = np.add.reduce(np.einsum("nmc->nm", chunks).astype(np.float64), axis=1)
    return total + np.einsum("nc->n", rows[:, whole * _CHUNK :])


# einsum adds along contiguous memory with little overhead per row, but one after the other in each of its lanes: this
# many float64 terms, or float32 terms whose sum is carried on in float64.
_FEW = 16
_CHUNK = 128


def _fold(block: Block, x: Array, enough: int) -> Array:
    """Add the second half of the classes to the first until no more than `enough` are left."""
    n = len(x)
    if n <= enough:
        return x
    n, odd = divmod(n, 2)
    total = np.add(x[:n], x[n : 2 * n], out=block.empty_like(x[:n]))
    if odd:
        total[0] += x[-1]
    while n > enough:
        n, odd = divmod(n, 2)
        total[:n] += total[n : 2 * n]
        if odd:
            total[0] += total[2 * n]
    return total[:n]


def largest_and_others(block: Block, e: Array, k: Array | None) -> tuple[Array, Array]:
    """The largest of each row's (C, n) non-negative terms and the sum of the others, both (n,).

    Not as Σ − largest, which cancels.  `k` says which is the largest, where that is known.
    """
    if not block.columns:
        at = e.argmax(axis=0) if k is None else k, np.arange(e.shape[1])
        largest = e[at]
        e[at] = 0.0
        others = sum_classes(block, e)
        e[at] = largest
        return largest, others
    return _halving([_largest_and_others_across(block, e[piece]) for piece in block.pieces(len(e))], _merge)


def _largest_and_others_across(block: Block, e: Array) -> tuple[Array, Array]:
    """Two groups of classes become one: the larger of their largest stays, the smaller joins the others."""
    half = e.shape[0] // 2
    a, b, odd = e[:half], e[half : 2 * half], e[2 * half :]
    if not half:
        return odd[0].copy(), np.zeros_like(odd[0])
    largest = np.maximum(a, b, out=block.empty_like(a))
    others = np.minimum(a, b, out=block.empty_like(a))
    if len(odd):
        _join(largest[:1], others[:1], odd)
    while half > 1:
        n, half = half, half // 2
        others[:half] += others[half : 2 * half]
        _join(largest[:half], others[:half], largest[half : 2 * half])
        if n % 2:
            others[0] += others[n - 1]
            _join(largest[:1], others[:1], largest[n - 1 : n])
    return largest[0].copy(), others[0].copy()


def sum_of_others(block: Block, e: Array, k: Array | None) -> Array:
    """The sum of the terms but the largest, at k where that is known: its place in `e` is lost."""
    if k is None:
        return largest_and_others(block, e, None)[1]
    e[k, np.arange(len(k))] = 0.0
    return sum_classes(block, e)


def _merge(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    _join(*a, b[0])
    return a[0], a[1] + b[1]


def _join(largest: Array, others: Array, more: Array) -> None:
    smaller = np.minimum(largest, more)
    np.maximum(largest, more, out=largest)
    others += smaller


class Total:
    """A running sum of per-row numbers in double-double: the pair (high, low) stands for high + low.

    Once a number comes near the largest of float64, all are scaled down: their sum may overflow though their mean does
    not.  A power of two changes no bit.
    """

    def __init__(self) -> None:
        self._pending: list[Array] = []
        self._count = 0
        self._leaves: list[tuple[Array, Array]] = []
        self._scale = 1.0

    def add(self, values: Array) -> None:
        """Append float64 numbers, (n,)."""
        if self._scale == 1.0 and np.abs(values).max(initial=0.0) > LARGE:
            self._scale = 2.0**-64
            self._pending = [rows * self._scale for rows in self._pending]
            self._leaves = [(high * self._scale, low * self._scale) for high, low in self._leaves]
        self._pending.append(values if self._scale == 1.0 else values * self._scale)
        self._count += len(values)
        if self._count >= LEAF:
            rows = np.concatenate(self._pending)
            whole = len(rows) // LEAF * LEAF
            leaves = rows[:whole].reshape(-1, LEAF).T
            self._leaves.append(_fold_pairs(leaves, np.zeros_like(leaves)))
            self._pending = [rows[whole:]]
            self._count -= whole

    def value(self) -> tuple[float, float, float]:
        """The sum as (high, low, scale): (high + low) / scale."""
        rest = np.concatenate([*self._pending, np.zeros(1)])[:, None]
        high, low = _fold_pairs(rest, np.zeros_like(rest))
        highs = np.concatenate([*(leaf[0] for leaf in self._leaves), high])[:, None]
        lows = np.concatenate([*(leaf[1] for leaf in self._leaves), low])[:, None]
        high, low = _fold_pairs(highs, lows)
        return float(high[0]), float(low[0]), self._scale

    def sum(self) -> float:
        """The sum, rounded once."""
        high, low, scale = self.value()
        return (high + low) / scale


def _fold_pairs(high: Array, low: Array) -> tuple[Array, Array]:
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


def two_sum(a: Array, b: Array | float) -> tuple[Array, Array]:
    """a + b rounded, and the rounding error: exact (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def two_product(a: Array, b: float) -> tuple[Array, Array]:
    """a · b rounded, and the rounding error: exact (Dekker) where nothing over- or underflows."""
    product = a * b
    a_high, b_high = a * _SPLIT, b * _SPLIT
    a_high, b_high = a_high - (a_high - a), b_high - (b_high - b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


_SPLIT = 2.0**27 + 1.0
