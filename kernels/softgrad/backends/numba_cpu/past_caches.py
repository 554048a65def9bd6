"""Results larger than the caches, written past them.

Else the processor would read each line of the result from memory before it is overwritten, half as much traffic again.
"""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.lanes import anywhere, load_f32, size_of, store, store_first, stream

LINE = 64  # bytes of a line of the caches


@inlined
def write_row(vector, of, out_at, classes, streams, fmt):
    """out = vector(j, n, of) for the n ≤ 16 classes from j on, for every j; past the caches if `streams`.

    Only whole lines: one written half past the caches and half through them would be waited for.
    """
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
    """`count` numbers side by side, float32 at source, likewise."""
    write_row(numbers_at, source, out_at, count, True, fmt)


@inlined
def numbers_at(j, n, of):
    """Numbers as they are."""
    return load_f32(of + 4 * j)


@inlined
def runs(out, tile, keep, fmt):
    """Whether a tile's rows lie one behind the other in a result, and are all to be written."""
    size = size_of(fmt)
    return out[5] == 1 and out[1] == size * tile[2] and out[0] % size == 0 and not anywhere(keep == 0)
