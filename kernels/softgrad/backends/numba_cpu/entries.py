"""Functions that take arrays as they are.

To prepare a kernel's call in Python (addresses and strides, a counter to share work by, memory) takes several times as
long as a few rows take to compute.  So beside a kernel may stand a function of the arrays themselves, which does all
that in compiled code, and runs the kernel in the calling thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from softgrad.backends.numba_cpu.compiling import entry_point, helper, kernel
from softgrad.backends.numba_cpu.lanes import write_i64

# Bytes of scratch memory before what the kernel asks for: the counter.
COUNTER = 64
ALL = 1 << 40  # tiles, of which a kernel takes so many at a time

INT, FLOAT, BOOL = numba.int64, numba.float64, numba.boolean
DESCRIBED = numba.types.UniTuple(INT, 6)  # as `memory` describes arrays: of those an entry is not compiled anew for


def reads(number: Any, ndim: int) -> Any:
    """The type of any array that is read."""
    return numba.types.Array(number, ndim, "A", readonly=True, aligned=False)


def writes(number: Any, ndim: int) -> Any:
    """The type of any array that is written to."""
    return numba.types.Array(number, ndim, "A", readonly=False, aligned=False)


class Entry(dict[tuple[Any, ...], Callable[..., Any]]):
    """A function of arrays, by their dtypes; compiled for each once, whatever the strides, as an `entry_point`."""

    def __init__(self, function: Callable[..., Any], signature: Callable[..., tuple[Any, ...]]) -> None:
        super().__init__()
        self._function, self._signature = function, signature
        self._compiled: list[Any] = []  # what keeps the code in memory

    def __missing__(self, dtypes: tuple[Any, ...]) -> Callable[..., Any]:
        compiled = kernel(self._function, *self._signature(*map(numba.from_dtype, dtypes)))
        self._compiled.append(compiled)
        found = self[dtypes] = entry_point(compiled)
        return found


def entry(signature: Callable[..., tuple[Any, ...]]) -> Callable[[Callable[..., Any]], Entry]:
    """Make a function an entry; `signature` gives the types of its arguments from those of the numbers in arrays."""
    return lambda function: Entry(function, signature)


def as_stored(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """16-bit floats as the integers of their bits, whose types name their format."""
    if array.itemsize != 2:
        return array
    return array.view(np.int16 if array.dtype.kind == "f" else np.uint16)


@helper
def _address(array):
    return np.int64(array.ctypes.data) if array.size else 0


@helper
def described(array, kind):
    """What kernels are told of an (outer, C, inner) array; address 0 of an empty one."""
    return _address(array), array.strides[0], array.strides[1], array.strides[2], kind, array.shape[2]


@helper
def described_per_row(array, kind):
    """The same of an (outer, inner) array."""
    return _address(array), array.strides[0], 0, array.strides[1], kind, array.shape[1]


@helper
def described_tangents(array, kind):
    """K, the stride from one tangent to the next, and the first, of a (K, outer, C, inner) array."""
    first = _address(array), array.strides[1], array.strides[2], array.strides[3], kind, array.shape[3]
    return array.shape[0], array.strides[0], first


@helper
def begin(scratch, results):
    """Set a counter at this address, and a list of up to so many results behind it, to nothing.

    Where the list and the memory behind it begin.
    """
    hard = scratch + COUNTER
    write_i64(scratch, 0)
    write_i64(hard, 0)
    return hard, hard + in_lines(1 + results)


def _in_lines(numbers):
    return (8 * numbers + 63) & ~63


# Bytes of so many numbers of eight, in whole lines of the caches: for the host, and compiled.
bytes_in_lines, in_lines = _in_lines, helper(_in_lines)
