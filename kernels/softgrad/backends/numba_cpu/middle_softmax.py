"""softmax of rows of some vectors."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.lanes import sum_across, take
from softgrad.backends.numba_cpu.middle import STAGE, TERMS, exponentials, largest, sums, write_scaled
from softgrad.backends.numba_cpu.sixteen import ordinary, refer_rows, split, whole_shift


@kernel
def softmax_middle(counter, chunk, hard, stage, rows, classes, z, out, fmt):
    """p of every tile that no other thread takes; rows that float32 will not do for are listed at `hard`."""
    numbers, terms = stage + STAGE, stage + TERMS
    tiles = (rows + 15) >> 4
    first = take(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = (16 * i, min(16, rows - 16 * i), classes)
            m = largest(z, tile, stage, fmt)
            exponentials(z, terms, tile, whole_shift(m), numbers, out, out, fmt)
            low, high = sums(terms, tile, stage)
            keep = ordinary(m, tile)
            if sum_across(keep) < 16:
                refer_rows(hard, tile, keep, 0)
            factor, rest = split(1.0 / low, 1.0 / high)
            write_scaled(terms, out, tile, factor, rest, keep, numbers, fmt)
        first = take(counter) * chunk


def softmax_middle_few(z, out, hard, fmt):
    """The same of a few rows, whose arrays the kernel describes itself: for calls that cost less than describing them.

    As many of its rows as hard[0] says are listed at `hard`.
    """
    outer, classes, inner = z.shape
    counter = np.zeros(1, np.int64)
    scratch = np.empty(4096 + 64 * (classes + 16), np.uint8)
    address = scratch.ctypes.data
    hard[0] = 0
    of_z = (z.ctypes.data, z.strides[0], z.strides[1], z.strides[2], 0, inner)
    of_out = (out.ctypes.data, out.strides[0], out.strides[1], out.strides[2], 0, inner)
    stage = address + (-address & 63)
    softmax_middle(counter.ctypes.data, 1, hard.ctypes.data, stage, outer * inner, classes, of_z, of_out, fmt)
