"""softmax of huge rows."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.huge import SEGMENT, SHIFT, SUM, TOP, exponentials_again
from softgrad.backends.numba_cpu.lanes import size_of, take
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import is_ordinary, refer, write_scaled


@kernel
def softmax_segments(counter, first, scratch, hard, classes, z, out, streams, segments, totals, fmt):
    """p of every segment that no other thread takes; rows that float32 will not do for are listed at `hard`."""
    i = take(counter)
    while i < len(totals) * segments:
        r, g = i // segments, i % segments
        start = g * SEGMENT
        length, offset = min(SEGMENT, classes - start), size_of(fmt) * start
        if is_ordinary(totals[r, TOP]):
            exponentials_again(row_offset(z, first + r) + offset, scratch, length, totals[r, SHIFT], fmt)
            write_scaled(scratch, row_offset(out, first + r) + offset, length, 1.0 / totals[r, SUM], streams, fmt)
        elif g == 0:
            refer(hard, first + r)
        i = take(counter)
