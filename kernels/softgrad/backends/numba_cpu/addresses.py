"""Where an array's memory is: `array.ctypes.data`, which takes NumPy a microsecond, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from softgrad.backends.numba_cpu.compiling import kernel


def address(array: NDArray[Any]) -> int:
    """Address of the first element."""
    return _finders[array.dtype, array.ndim](array)


def _data(array):
    return array.ctypes.data


class _Finders(dict[tuple[Any, int], Callable[[NDArray[Any]], int]]):
    """What finds the address of arrays of a dtype and a number of dimensions, whatever their strides."""

    def __missing__(self, key: tuple[Any, int]) -> Callable[[NDArray[Any]], int]:
        dtype, ndim = key
        known = np.dtype(np.uint16) if dtype.itemsize == 2 else dtype  # numba knows no arrays of 16-bit floats
        any_strides = numba.types.Array(numba.from_dtype(known), ndim, "A", readonly=True, aligned=False)
        find = compiled = kernel(_data, any_strides)
        if known is not dtype:

            def find(array: NDArray[Any]) -> int:
                return compiled(array.view(known))

        self[key] = find
        return find


_finders = _Finders()
