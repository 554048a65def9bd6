"""Cache-sized blocks of rows, classes first: inside a block z is (C, n), a number per row is (n,).

Classes first makes the mathematics read as it is written, `e / e.sum(0)`.  What differs is how a block lies in memory:

    columns   one class after the other: every operation runs along the n rows.  For a class axis that is strided
              anyway, and for short rows, which NumPy would otherwise pay for one by one.
    rows      one row after the other, seen transposed: no copy of data that lie so already.

Which of the two depends on C and on whether the class axis is contiguous, never on the rows around, so neither does
the order in which classes are added.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Item = TypeVar("Item")

# Bytes of one array of a block.  NumPy's overhead per call is about a microsecond, for some thirty calls: float32 rows,
# with two to four arrays, take larger blocks than float64 ones with a dozen.
BLOCK_BYTES = {np.dtype(np.float32): 2**20, np.dtype(np.float64): 2**18}
COLUMN_BYTES = {np.dtype(np.float32): 2**19, np.dtype(np.float64): 2**18}
# Up to here a transposed copy costs less than NumPy's overhead per row.
SHORT = 32
# Up to here the last operation of a block of columns may as well write across them.
FEW = 12
# Fewer columns than this would waste most of each cache line that a strided class axis touches.
FEWEST_COLUMNS = 4
# But an array of a block has no more bytes than this, unless one row has.
MOST_BYTES = 2**21
# Classes that long rows are worked through at a time: then only what is needed of all classes at once takes memory for
# all of them.
PIECE = 2**14
ALL = slice(None)


class Arena:
    """Scratch memory that each block uses anew: fresh pages from the system would cost as much as the arithmetic."""

    # Kept by each thread from call to call, as long as it stays small.
    KEPT_BYTES = 2**22
    _idle = threading.local()

    def __init__(self) -> None:
        self._buffers: list[Array] = []
        self.used = 0

    @classmethod
    @contextmanager
    def borrowed(cls) -> Iterator[Arena]:
        """This thread's arena, or a new one while that is in use."""
        arena = getattr(cls._idle, "arena", None) or cls()
        cls._idle.arena = None
        try:
            yield arena
        finally:
            if sum(buffer.size for buffer in arena._buffers) <= cls.KEPT_BYTES:
                cls._idle.arena = arena

    def reset(self) -> None:
        """Take back every array handed out."""
        self.used = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """A C-contiguous array, valid until `reset`."""
        size = prod(shape) * np.dtype(dtype).itemsize
        if self.used == len(self._buffers):
            self._buffers.append(np.empty(size, np.uint8))
        elif self._buffers[self.used].size < size:
            self._buffers[self.used] = np.empty(size, np.uint8)
        buffer = self._buffers[self.used]
        self.used += 1
        return buffer[:size].view(dtype).reshape(shape)


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of an (outer, C, inner) view.  The arrays it makes are valid until the next block."""

    outer: slice
    inner: slice
    columns: bool
    arena: Arena

    def reusing(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, one after the other: an array made while one is at hand is valid until the next."""
        used = self.arena.used
        for item in items:
            yield item
            self.arena.used = used

    def pieces(self, classes: int, size: int = PIECE) -> Iterator[slice]:
        """The classes in slices of at most `size`, with memory as `reusing` has it."""
        return self.reusing(slice(i, min(i + size, classes)) for i in range(0, classes, size))

    def load(self, array: Array, dtype: Any = np.float64) -> Array:
        """(C, n) of an (outer, C, inner) array: a new array in this block's memory layout."""
        part = array[self.outer, :, self.inner]
        k, classes, j = part.shape
        if self.columns:
            block = self.arena.empty((classes, k, j), dtype)
            block[...] = part.transpose(1, 0, 2)
            return block.reshape(classes, k * j)
        block = self.arena.empty((k, j, classes), dtype)
        block[...] = part.transpose(0, 2, 1)
        return block.reshape(k * j, classes).T

    def view(self, array: Array) -> Array:
        """(C, n) over the array's own memory where it lies as `load` would have it, else `load` in its own dtype."""
        place = self.place(array)
        return self.load(array, array.dtype) if place is None else place

    def empty_like(self, block: Array, dtype: Any = None) -> Array:
        """A new array of the shape and memory layout of `block`."""
        classes, n = block.shape
        dtype = block.dtype if dtype is None else dtype
        return self.arena.empty((classes, n), dtype) if self.columns else self.arena.empty((n, classes), dtype).T

    def place(self, array: Array) -> Array | None:
        """(C, n) over the array's own memory, None where this block is not laid out as it lies."""
        part = array[self.outer, :, self.inner]
        return None if self.columns or part.shape[2] != 1 else part[:, :, 0].T

    def destination(self, array: Array) -> Array | None:
        """(C, n) over the array's own memory where a result is best written to it at once, else None."""
        part = array[self.outer, :, self.inner]
        return part[:, :, 0].T if part.shape[2] == 1 and not (self.columns and part.shape[1] > FEW) else None

    def store(self, array: Array, values: Array) -> None:
        """Write (C, n) values to this block of an (outer, C, inner) array, rounded once; 16-bit ones from float32."""
        for piece in self.pieces(len(values)):
            self._store_piece(array[self.outer, piece, self.inner], values[piece])

    def _store_piece(self, part: Array, values: Array) -> None:
        if part.dtype.itemsize == 2 and values.dtype == np.float64:
            values = self.cast(values, np.float32)
        if part.dtype != values.dtype:
            values = self.cast(values, part.dtype)  # converting while transposing is slower than one after the other
        k, classes, j = part.shape
        if self.columns:
            part.transpose(1, 0, 2)[...] = values.reshape(classes, k, j)
        else:
            part.transpose(0, 2, 1)[...] = values.T.reshape(k, j, classes)

    def cast(self, values: Array, dtype: Any) -> Array:
        """A copy in another dtype."""
        cast = self.empty_like(values, dtype)
        np.copyto(cast, values, casting="unsafe")
        return cast

    def load_per_row(self, array: Array) -> Array:
        """(n,) of an (outer, inner) array."""
        return array[self.outer, self.inner].reshape(-1)

    def store_per_row(self, array: Array, values: Array) -> None:
        """Write (n,) values to this block of an (outer, inner) array, rounded once."""
        part = array[self.outer, self.inner]
        np.copyto(part, values.reshape(part.shape), casting="same_kind")


def blocks(array: Array, computing: Any = np.float64) -> Iterator[Block]:
    """The blocks of an (outer, C, inner) array, in the order of its rows; rows are sized for a computing dtype."""
    outer, classes, inner = array.shape
    contiguous = classes == 1 or array.strides[1] == array.itemsize
    columns = classes <= SHORT or not contiguous
    computing = np.dtype(computing)
    if columns:
        column_bytes = computing.itemsize * max(classes, 1)
        fewest = max(min(MOST_BYTES // column_bytes, FEWEST_COLUMNS), 1)
        n = max(COLUMN_BYTES[computing] // column_bytes, fewest)
        n = n // 64 * 64 + 16 if n > 128 else n  # no power of two between classes: they would share cache sets
    else:
        n = max(BLOCK_BYTES[computing] // computing.itemsize // classes, 1)
    # Whole inner runs where several fit, else pieces of one.
    k, j = (n // max(inner, 1), max(inner, 1)) if inner <= n else (1, n)
    with Arena.borrowed() as arena:
        for o in range(0, outer, k):
            for i in range(0, inner, j):
                arena.reset()
                yield Block(slice(o, min(o + k, outer)), slice(i, min(i + j, inner)), columns, arena)
