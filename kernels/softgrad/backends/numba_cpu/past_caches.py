"""Results larger than the caches, written past them.

Else the processor would read each line of the result from memory before it is overwritten, half as much traffic again.

Only whole lines are: one written half past the caches and half through them is waited for.  Where a row ends and the
next begins within a line, its beginning is kept in scratch memory until the next row's first numbers complete it.
"""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.lanes import (
    lane_numbers32,
    load_f32,
    prefetch,
    read_i64,
    size_of,
    store,
    store_f32,
    store_first,
    stream,
    where,
    write_i64,
)

LINE = 64  # bytes of a line of the caches
# Bytes of scratch memory of `write_until`: sixteen numbers, float32, of which the first are those of a line that is
# begun; the address where they end, 0 if there are none.
BEGUN = 128
_END = 64


@inlined
def write_until(vector, of, out_at, classes, j, stop, ahead, begun, fmt):
    """out = vector(j, n, of) for the n ≤ 16 classes from j on, from j, where one has come to, up to `stop` or further.

    To the end if `stop` is `classes`.  n < 0: all but the first −n of the sixteen are wanted.  Returns how far it has
    come.  With an address `begun` past the caches, else memory is asked for the line `ahead` bytes on.
    """
    size = size_of(fmt)
    if begun != 0:
        if j == 0:
            j = _complete(vector, of, out_at, begun, fmt)
        while j < stop and j + 64 <= classes:
            stream(out_at + size * j, vector(j, 16, of), fmt)
            stream(out_at + size * (j + 16), vector(j + 16, 16, of), fmt)
            stream(out_at + size * (j + 32), vector(j + 32, 16, of), fmt)
            stream(out_at + size * (j + 48), vector(j + 48, 16, of), fmt)
            j += 64
        while j < stop and j + 16 <= classes:
            stream(out_at + size * j, vector(j, 16, of), fmt)
            j += 16
        if stop == classes and j < classes:
            store_f32(begun, vector(j, classes - j, of))
            write_i64(begun + _END, out_at + size * classes)
        return j
    while j < stop and j + 64 <= classes:
        prefetch(out_at + size * j + ahead)
        prefetch(out_at + size * (j + 16) + ahead)
        prefetch(out_at + size * (j + 32) + ahead)
        prefetch(out_at + size * (j + 48) + ahead)
        store(out_at + size * j, vector(j, 16, of), fmt)
        store(out_at + size * (j + 16), vector(j + 16, 16, of), fmt)
        store(out_at + size * (j + 32), vector(j + 32, 16, of), fmt)
        store(out_at + size * (j + 48), vector(j + 48, 16, of), fmt)
        j += 64
    while j < stop and j + 16 <= classes:
        prefetch(out_at + size * j + ahead)
        store(out_at + size * j, vector(j, 16, of), fmt)
        j += 16
    if stop == classes and j < classes:
        store_first(out_at + size * j, vector(j, classes - j, of), classes - j, fmt)
    return j


@inlined
def _complete(vector, of, out_at, begun, fmt):
    """Write what of a row lies in the sixteen numbers that another has begun; how much that is."""
    size = size_of(fmt)
    first, end = out_at % (16 * size) // size, read_i64(begun + _END)
    if end == out_at:
        x = where(lane_numbers32() < first, load_f32(begun), vector(-first, -first, of))
        stream(out_at - size * first, x, fmt)
        write_i64(begun + _END, 0)
        return 16 - first
    flush(begun, fmt)
    if first == 0:
        return 0
    store_first(out_at, vector(0, 16, of), 16 - first, fmt)
    return 16 - first


@inlined
def begin_lines(begun):
    """Nothing is begun."""
    write_i64(begun + _END, 0)


@helper
def flush(begun, fmt):
    """Write what is begun as it is."""
    size, end = size_of(fmt), read_i64(begun + _END)
    if end != 0:
        first = end % (16 * size) // size
        store_first(end - size * first, load_f32(begun), first, fmt)
        write_i64(begun + _END, 0)


@inlined
def write_row(vector, of, out_at, classes, streams, fmt):
    """out = vector(j, n, of) for every j; past the caches if `streams`, but for lines that are not whole."""
    size = size_of(fmt)
    j = 0
    if streams and out_at % size == 0 and classes >= 64:
        # The order of work does not matter here: no sum.
        j, line = (-out_at % LINE) // size, LINE // size
        store_first(out_at, vector(0, 16, of), j, fmt)
        if j > 16:
            store_first(out_at + size * 16, vector(16, 16, of), j - 16, fmt)
        while j + line <= classes:
            stream(out_at + size * j, vector(j, 16, of), fmt)
            if line == 32:
                stream(out_at + size * (j + 16), vector(j + 16, 16, of), fmt)
            j += line
    while j + 16 <= classes:
        store(out_at + size * j, vector(j, 16, of), fmt)
        j += 16
    if j < classes:
        store_first(out_at + size * j, vector(j, classes - j, of), classes - j, fmt)


@helper
def write_run(source, out_at, count, fmt):
    """`count` numbers side by side, float32 at source, past the caches."""
    write_row(numbers_at, source, out_at, count, True, fmt)


@inlined
def numbers_at(j, n, of):
    """Numbers as they are."""
    return load_f32(of + 4 * j)
