"""Where an array's memory is: `array.ctypes.data`, which takes NumPy a microsecond, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from softgrad.backends.numba_cpu.compiling import entry_point, kernel


def address(array: NDArray[Any]) -> int:
    """Address of the first element."""
    return _finders[array.dtype, array.ndim](array)


def _data(array):
    return array.ctypes.data


class _Finders(dict[tuple[Any, int], Callable[[NDArray[Any]], int]]):
    """What finds the address of arrays of a dtype and a number of dimensions, whatever their strides."""

    def __init__(self) -> None:
        super().__init__()
        self._compiled: list[Any] = []  # what keeps the code in memory

    def __missing__(self, key: tuple[Any, int]) -> Callable[[NDArray[Any]], int]:
        dtype, ndim = key
        known = np.dtype(np.uint16) if dtype.itemsize == 2 else dtype  # numba knows no arrays of 16-bit floats
        any_strides = numba.types.Array(numba.from_dtype(known), ndim, "A", readonly=True, aligned=False)
        compiled = kernel(_data, any_strides)
        self._compiled.append(compiled)
        # Called without a look at what is given to it: its dtype and its number of dimensions are known.
        find = in_memory = entry_point(compiled)
        if known is not dtype:

            def find(array: NDArray[Any]) -> int:
                return in_memory(array.view(known))

        self[key] = find
        return find


_finders = _Finders()
