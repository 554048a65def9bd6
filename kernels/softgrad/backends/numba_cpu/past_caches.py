"""Results larger than the caches, written past them.

Else the processor would read each line of the result from memory before it is overwritten, half as much traffic again.
"""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.lanes import anywhere, load_f32, size_of, store_first, stream


@helper
def write_run(source, out_at, count, fmt):
    """Numbers side by side, float32 at source, count ≥ 16; a sixteen that begins or ends within a line takes no part.

    out_at is a multiple of a number's size.
    """
    size = size_of(fmt)
    j = (-out_at % (16 * size)) // size
    store_first(out_at, load_f32(source), j, fmt)
    while j + 16 <= count:
        stream(out_at + size * j, load_f32(source + 4 * j), fmt)
        j += 16
    store_first(out_at + size * j, load_f32(source + 4 * j), count - j, fmt)


@inlined
def runs(out, tile, keep, fmt):
    """Whether a tile's rows lie one behind the other in a result, and are all to be written."""
    size = size_of(fmt)
    return out[5] == 1 and out[1] == size * tile[2] and out[0] % size == 0 and not anywhere(keep == 0)
