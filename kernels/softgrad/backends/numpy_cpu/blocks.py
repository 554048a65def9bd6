"""Cache-sized blocks of rows, classes first: inside a block z is (C, n), a number per row is (n,).

Classes first makes the mathematics read as it is written, `e / e.sum(0)`.  What differs is how a block lies in memory:

    columns   one class after the other: every operation runs along the n rows.  For a class axis that is strided
              anyway, and for short rows, which NumPy would otherwise pay for one by one.
    rows      one row after the other, seen transposed: no copy of data that lie so already.

Which of the two depends on C and on whether the class axis is contiguous, never on the rows around, so neither does
the order in which classes are added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Elements per block: the handful of float64 arrays a primitive keeps then fit a 2 MB second-level cache.
BLOCK = 32768
# Up to here a transposed copy costs less than NumPy's overhead per row.
SHORT = 64
# Fewer columns than this would waste most of each cache line that a strided class axis touches.
FEWEST_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of an (outer, C, inner) view."""

    outer: slice
    inner: slice
    columns: bool

    def load(self, array: Array, dtype: Any = np.float64) -> Array:
        """(C, n) of an (outer, C, inner) array: a new array in this block's memory layout."""
        part = array[self.outer, :, self.inner]
        k, classes, j = part.shape
        if self.columns:
            block = np.empty((classes, k, j), dtype)
            block[...] = part.transpose(1, 0, 2)
            return block.reshape(classes, k * j)
        block = np.empty((k, j, classes), dtype)
        block[...] = part.transpose(0, 2, 1)
        return block.reshape(k * j, classes).T

    def view(self, array: Array) -> Array:
        """(C, n) over the array's own memory where it lies as `load` would have it, else `load` in its own dtype."""
        view = self.place(array)
        return self.load(array, array.dtype) if view is None else view

    def empty_like(self, block: Array) -> Array:
        """A new array of the shape and memory layout of `block`."""
        classes, n = block.shape
        return np.empty((classes, n), block.dtype) if self.columns else np.empty((n, classes), block.dtype).T

    def store(self, array: Array, values: Array) -> None:
        """Write (C, n) values to this block of an (outer, C, inner) array, rounded once."""
        part = array[self.outer, :, self.inner]
        k, classes, j = part.shape
        if self.columns:
            store(part.transpose(1, 0, 2), values.reshape(classes, k, j))
        else:
            store(part.transpose(0, 2, 1), values.T.reshape(k, j, classes))

    def place(self, array: Array) -> Array | None:
        """(C, n) over the array's own memory, None where this block is not laid out as it lies."""
        part = array[self.outer, :, self.inner]
        return None if self.columns or part.shape[2] != 1 else part[:, :, 0].T

    def take(self, values: Array, rows: Array) -> Array:
        """Some rows of (C, n) values, in this block's memory layout."""
        return values.take(rows, axis=1) if self.columns else values.T.take(rows, axis=0).T

    def load_per_row(self, array: Array) -> Array:
        """(n,) of an (outer, inner) array."""
        return array[self.outer, self.inner].reshape(-1)

    def store_per_row(self, array: Array, values: Array) -> None:
        """Write (n,) values to this block of an (outer, inner) array, rounded once."""
        part = array[self.outer, self.inner]
        store(part, values.reshape(part.shape))


def blocks(array: Array) -> Iterator[Block]:
    """The blocks of an (outer, C, inner) array, in the order of its rows."""
    outer, classes, inner = array.shape
    contiguous = classes == 1 or array.strides[1] == array.itemsize
    columns = classes <= SHORT or not contiguous
    n = max(BLOCK // max(classes, 1), FEWEST_COLUMNS if columns else 1)
    # Whole inner runs where several fit, else pieces of one.
    k, j = (max(n // inner, 1), inner) if inner <= n else (1, n)
    for o in range(0, outer, k):
        for i in range(0, inner, max(j, 1)):
            yield Block(slice(o, min(o + k, outer)), slice(i, min(i + j, inner)), columns)


def store(target: Array, values: Array) -> None:
    """Copy, rounding once to the target's dtype; 16-bit results are rounded from float32."""
    if target.dtype.itemsize == 2 and values.dtype == np.float64:
        values = values.astype(np.float32)
    np.copyto(target, values, casting="unsafe")
