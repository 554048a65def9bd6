"""Element-wise copies between arrays of any strides and dtypes: what a device array library does where there is none.

The source is read as a number of its own dtype, and rounded once to the target's; or moved as it is, if both are alike.
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from softgrad.backends.cuda.regimes import Regime
from softgrad.backends.numba_cuda.formats import SIZES, joined_words, stored
from softgrad.backends.numba_cuda.machine import (
    device,
    load_1,
    load_2,
    load_4,
    load_8,
    select,
    store_1,
    store_2,
    store_4,
    store_8,
)

AXES = 6
_INTEGERS = {
    "int8": (np.int8, load_1), "int16": (np.int16, load_2), "int32": (np.int32, load_4),
    "uint8": (np.uint8, load_1), "uint16": (np.uint16, load_2), "uint32": (np.uint32, load_4),
}  # fmt: skip


def _loads(source: str) -> Any:
    """The device function that reads a number of a C type or an integer dtype, as a double."""
    if source in SIZES:
        return stored(source, "double").load
    if source in _INTEGERS:
        Integer, load_word = _INTEGERS[source]

        @device
        def load_short(address, when):
            return np.float64(Integer(load_word(address, when)))

        return load_short
    Long = np.int64 if source == "int64" else np.uint64

    @device
    def load_long(address, when):
        low, high = load_8(address, when)
        return np.float64(Long(joined_words(low, high)))

    return load_long


def _moves(size: int) -> Any:
    """The device function that moves so many bytes."""

    @device
    def move(source, target, when):
        if size == 1:
            store_1(target, load_1(source, when), when)
        elif size == 2:
            store_2(target, load_2(source, when), when)
        elif size == 4:
            store_4(target, load_4(source, when), when)
        else:
            low, high = load_8(source, when)
            store_8(target, low, high, when)

    return move


def copy(source: str, target: str, regime: Regime) -> Any:
    """The kernel; C types or integer dtypes, or both the number of bytes to move."""
    SIZE = regime.threads
    if source.isdigit():
        transfer = _moves(int(source))
    else:
        load, store = _loads(source), stored(target, "double").store

        @device
        def transfer(source, target, when):
            store(target, load(source, when), when)

    @device
    def copy(a, cut):
        i = np.int64(cuda.blockIdx.x) * SIZE + np.int64(cuda.threadIdx.x)
        present = i < a.size
        i = select(present, i, 0)
        source, target = a.source, a.target
        for back in range(AXES):
            axis = AXES - 1 - back
            outer = i // a.shape[axis]
            at = i - outer * a.shape[axis]
            source = source + at * a.source_strides[axis]
            target = target + at * a.target_strides[axis]
            i = outer
        transfer(source, target, present)

    return copy
