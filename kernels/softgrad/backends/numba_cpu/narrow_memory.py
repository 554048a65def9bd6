"""Rows on their way from memory to columns, and back.

Short rows fill no line of the caches.  So where a result goes past them, some tiles are packed first, one behind the
other.
"""

from __future__ import annotations

import numpy as np

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.lanes import (
    lane,
    load,
    load_columns,
    load_f32,
    load_first,
    prefetch,
    read,
    read_f32,
    size_of,
    store,
    store_columns,
    store_f32,
    store_first,
    transpose,
    write,
    write_f32,
)
from softgrad.backends.numba_cpu.past_caches import LINE, write_run
from softgrad.backends.numba_cpu.sixteen import all_set
from softgrad.backends.numba_cpu.tiles import row_offset

AHEAD = 4096  # bytes between what is transposed and what is asked of memory
# Scratch memory, by bytes: a vector for each of sixteen rows; packed results; columns.
PACKED, COLUMNS = 1024, 1024 + 8192
ENOUGH = 4096  # bytes of packed results that are worth writing
FLOAT32 = np.float32(0)


@helper
def fill_columns(columns, stage, array, tile, fmt):
    """Copy an array's rows to columns; lanes without a row hold anything."""
    first, rows, classes = tile
    size, stride = size_of(fmt), array[2]
    if stride == size and rows == 16 and array[5] == 1:
        start = row_offset(array, first)
        for ahead in range(0, 16 * size * classes, LINE):
            prefetch(start + AHEAD + ahead)
        for c in range(0, classes, 16):
            load_columns(start + size * c, array[1], min(classes - c, 16), columns + 64 * c, fmt)
    elif stride == size:
        for c in range(0, classes, 16):
            for i in range(16):
                at = row_offset(array, first + min(i, rows - 1)) + size * c
                x = load(at, fmt) if c + 16 <= classes else load_first(at, classes - c, fmt)
                store_f32(stage + 64 * i, x)
            transpose(stage, columns + 64 * c)
    elif array[5] >= 16 and array[3] == size:
        start = row_offset(array, first)
        for c in range(classes):
            at = start + c * stride
            store_f32(columns + 64 * c, load(at, fmt) if rows == 16 else load_first(at, rows, fmt))
    else:
        for i in range(rows):
            start = row_offset(array, first + i)
            for c in range(classes):
                write_f32(columns + 64 * c + 4 * i, read(start + c * stride, fmt))


@helper
def spill_columns(columns, stage, array, tile, keep, fmt):
    """Write columns to an array's rows, but for those whose lane of `keep` is 0."""
    first, rows, classes = tile
    size, stride = size_of(fmt), array[2]
    if stride == size and rows == 16 and array[5] == 1 and all_set(keep):
        start = row_offset(array, first)
        for c in range(0, classes, 16):
            store_columns(columns + 64 * c, start + size * c, array[1], min(classes - c, 16), fmt)
    elif stride == size:
        for c in range(0, classes, 16):
            transpose(columns + 64 * c, stage)
            for i in range(rows):
                if lane(keep, i) != 0:
                    at = row_offset(array, first + i) + size * c
                    if c + 16 <= classes:
                        store(at, load_f32(stage + 64 * i), fmt)
                    else:
                        store_first(at, load_f32(stage + 64 * i), classes - c, fmt)
    elif array[5] >= 16 and array[3] == size and all_set(keep):
        start = row_offset(array, first)
        for c in range(classes):
            x = load_f32(columns + 64 * c)
            if rows == 16:
                store(start + c * stride, x, fmt)
            else:
                store_first(start + c * stride, x, rows, fmt)
    else:
        for i in range(rows):
            if lane(keep, i) != 0:
                start = row_offset(array, first + i)
                for c in range(classes):
                    write(start + c * stride, read_f32(columns + 64 * c + 4 * i), fmt)


@inlined
def are_packed(out, classes, streams, fmt):
    """Whether the results of whole tiles are packed: they lie one behind the other, go past the caches, and are short.

    Others are written by a kernel of short rows too, where the classes of its input are strided.
    """
    size = size_of(fmt)
    in_sequence = out[5] == 1 and out[2] == size and out[1] == size * classes and out[0] % 4 == 0
    return streams and in_sequence and 16 * size * classes <= ENOUGH


@helper
def write_columns(columns, stage, array, tile, keep, filled, packed, is_last, fmt):
    """Write columns to an array's rows, at once, or `packed`: behind the bytes `filled`, of which the new number is
    returned, until they are enough, or this is the last tile.

    Rows whose lane of `keep` is 0 are not written, or hold anything where results are packed: these never take the
    place of an input, from which such rows are computed once more.
    """
    first, rows, classes = tile
    if not packed:
        spill_columns(columns, stage, array, tile, keep, fmt)
        return 0
    step = size_of(fmt) * classes
    if rows == 16:
        for c in range(0, classes, 16):
            at = stage + PACKED + filled + size_of(fmt) * c
            store_columns(columns + 64 * c, at, step, min(classes - c, 16), fmt)
        filled += 16 * step
        if filled < ENOUGH and not is_last:
            return filled
        first += 16
    write_run(stage + PACKED, row_offset(array, first) - filled, filled >> 2, FLOAT32)
    if rows < 16:
        spill_columns(columns, stage, array, tile, keep, fmt)
    return 0
