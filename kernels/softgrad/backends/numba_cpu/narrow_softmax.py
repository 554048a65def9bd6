"""softmax of sixteen rows side by side."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.lanes import i32s, load_f32, store_f32, sum_across, take
from softgrad.backends.numba_cpu.narrow import exponentials, fill_columns, largest, spill_columns, tile_at, tiles_of
from softgrad.backends.numba_cpu.single import scaled
from softgrad.backends.numba_cpu.sixteen import ordinary, refer_rows, split, whole_shift


@kernel
def softmax_columns(counter, chunk, hard, stage, rows, classes, z, out, fmt):
    """p of every tile that no other thread takes; rows that float32 will not do for are listed at `hard`."""
    columns = stage + 1024
    tiles = tiles_of(z, rows)
    first = take(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = tile_at(i, z, rows, classes)
            fill_columns(columns, stage, z, tile, fmt)
            m, _ = largest(columns, classes)
            low, high = exponentials(columns, classes, whole_shift(m), i32s(-1))
            keep = ordinary(m, tile)
            if sum_across(keep) < 16:
                refer_rows(hard, tile, keep, 0)
            factor, rest = split(1.0 / low, 1.0 / high)
            for c in range(classes):
                store_f32(columns + 64 * c, scaled(load_f32(columns + 64 * c), factor, rest))
            spill_columns(columns, stage, out, tile, keep, fmt)
        first = take(counter) * chunk


def softmax_columns_few(z, out, hard, fmt):
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
    softmax_columns(counter.ctypes.data, 1, hard.ctypes.data, stage, outer * inner, classes, of_z, of_out, fmt)
