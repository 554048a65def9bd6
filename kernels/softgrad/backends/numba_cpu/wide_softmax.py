"""softmax of long rows."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.lanes import take
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import exponentials, is_ordinary, refer, write_scaled


@kernel
def softmax_rows(counter, chunk, hard, scratch, rows, classes, z, out, streams, fmt):
    """p of every row that no other thread takes; those that float32 will not do for are listed at `hard`."""
    first = take(counter) * chunk
    while first < rows:
        for r in range(first, min(first + chunk, rows)):
            s, _, m, _ = exponentials(row_offset(z, r), scratch, classes, -1, fmt)
            if is_ordinary(m):
                write_scaled(scratch, row_offset(out, r), classes, 1.0 / s, streams, fmt)
            else:
                refer(hard, r)
        first = take(counter) * chunk
