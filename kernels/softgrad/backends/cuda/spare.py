"""Arrays with spare bytes in the same allocation, behind their elements."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from softgrad.protocol import Array

ALIGNED = 8  # where the spare bytes begin


def offset(shape: tuple[int, ...], dtype: Any) -> int:
    """Of the spare bytes behind a C-contiguous array."""
    return -(-prod(shape) * int(np.dtype(dtype).itemsize) // ALIGNED) * ALIGNED


def part(empty: Callable[[tuple[int, ...], Any], Array], shape: tuple[int, ...], dtype: Any, spare: int) -> Array:
    """A C-contiguous array that is the beginning of one made by `empty(shape, dtype)`."""
    memory = empty((-(-(offset(shape, dtype) + spare) // np.dtype(dtype).itemsize),), dtype)
    return memory[: prod(shape)].reshape(shape)
