"""What kernels are told of arrays, and the scratch memory they work in."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softgrad.backends.numba_cpu.addresses import address
from softgrad.backends.numba_cpu.targets import INTEGERS
from softgrad.backends.numba_cpu.tiles import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, ONE_ROW, bytes_of, tiles_in

Array = NDArray[Any]
Described = tuple[int, int, int, int, int, int]

NOTHING: Described = (0, 0, 0, 0, 0, 1)


class _OfDtype(dict[Any, Any]):
    """What belongs to a dtype, looked up by its name once: a name takes NumPy two microseconds to spell."""

    def __init__(self, by_name: dict[str, Any]) -> None:
        super().__init__()
        self._by_name = by_name

    def __missing__(self, dtype: Any) -> Any:
        found = self._by_name.get(dtype.name) if dtype.isnative else None
        self[dtype] = found
        return found


# The kernels' names of dtypes: a kind; for those computed with in float32, also a number whose type names the format.
KINDS = _OfDtype({"float64": FLOAT64, "float32": FLOAT32, "float16": FLOAT16, "bfloat16": BFLOAT16})
FORMATS = _OfDtype({"float32": np.float32(0), "float16": np.int16(0), "bfloat16": np.uint16(0)})


def readable(array: Array) -> Array:
    """An array in a dtype the kernels read: itself, or a float64 copy of integers and exotic floats."""
    return array if KINDS[array.dtype] is not None else array.astype(np.float64)


def describe(array: Array) -> Described:
    """Address, strides of (outer, class, inner), kind, length of inner: of an (outer, C, inner) array."""
    outer, classes, inner = array.strides
    return address(array), outer, classes, inner, KINDS[array.dtype], array.shape[2]


def describe_tangents(v: Array) -> tuple[int, int, Described]:
    """K, the stride from one tangent to the next, and the first, of a (K, outer, C, inner) array."""
    step, outer, classes, inner = v.strides
    return v.shape[0], step, (address(v), outer, classes, inner, KINDS[v.dtype], v.shape[3])


def describe_per_row(array: Array) -> Described:
    """The same of an (outer, inner) array of floats."""
    outer, inner = array.strides
    return address(array), outer, 0, inner, KINDS[array.dtype], array.shape[1]


def describe_targets(targets: Array) -> Described:
    """The same of (outer, inner) integer targets."""
    outer, inner = targets.strides
    return address(targets), outer, 0, inner, INTEGERS[targets.dtype], targets.shape[1]


def has_one_row_tiles(z: Array) -> bool:
    """Whether a tile holds one row: depends on C, and on whether the class axis is contiguous, alone."""
    return bool(z.shape[1] >= ONE_ROW and z.strides[1] == z.itemsize)


class Scratch:
    """Memory to work in, from a whole cache line on."""

    __slots__ = ("address", "numbers", "size")

    def __init__(self, size: int) -> None:
        memory = np.empty(size // 8 + 8)
        skipped = -address(memory) % 64
        self.numbers = memory[skipped // 8 :]
        self.address = address(self.numbers)
        self.size = size


KEPT_BYTES = 2**23


class _Kept(threading.local):
    """A thread's memory, kept from call to call while it is small: fresh pages cost as much as the arithmetic."""

    def __init__(self) -> None:
        self.scratch: Scratch | None = None
        self.spare: list[Scratch] = []


_kept = _Kept()


def scratch(size: int) -> Scratch:
    """The calling thread's own.  Its contents last as long as one kernel runs."""
    kept = _kept.scratch
    if kept is None or kept.size < size:
        kept = Scratch(size)
        if size <= KEPT_BYTES:
            _kept.scratch = kept
    return kept


def borrow(size: int) -> Scratch:
    """Memory for the length of a call, which should be given back."""
    spare = _kept.spare
    # Taken from the list: a signal's or a finalizer's call, in the middle of this one, is given another.
    kept = spare.pop() if spare else None
    return Scratch(size) if kept is None or kept.size < size else kept


def give_back(memory: Scratch) -> None:
    """Keep it for this thread's next call, if it is small."""
    if memory.size <= KEPT_BYTES:
        _kept.spare.append(memory)


def tile_bytes(z: Array) -> int:
    """Memory that a tile takes."""
    return int(bytes_of.py_func(z.shape[1], has_one_row_tiles(z)))


def tile_scratch(buffers: int, size: int) -> tuple[Scratch, tuple[int, ...]]:
    """Memory for tiles of so many bytes, and the address of each buffer."""
    memory = scratch(buffers * size)
    return memory, tuple(range(memory.address, memory.address + buffers * size, size))


Work = tuple[int, int, bool, int, int]


def tile_work(z: Array, which: Array | None = None) -> tuple[int, Work]:
    """The number of tiles, and what their kernels are told of the work: all rows of z, or those listed in `which`."""
    outer, classes, inner = z.shape
    rows, listed = (outer * inner, 0) if which is None else (which.size, address(which))
    work = rows, classes, has_one_row_tiles(z), listed, inner
    return int(tiles_in.py_func(work)), work
