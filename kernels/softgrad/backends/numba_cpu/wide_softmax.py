"""softmax, log_softmax and logsumexp of long rows."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.lanes import f32s, take, write_f32
from softgrad.backends.numba_cpu.past_caches import write_row
from softgrad.backends.numba_cpu.tile_softmax import LOGSUMEXP, SOFTMAX
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import (
    exponentials,
    is_ordinary,
    log_sum,
    logs,
    refer,
    write_scaled,
)


@kernel
def softmax_rows(counter, chunk, hard, scratch, rows, classes, operation, z, out, streams, fmt):
    """One of the three of every row that no other thread takes; those float32 will not do for are listed at `hard`."""
    first = take(counter) * chunk
    while first < rows:
        for r in range(first, min(first + chunk, rows)):
            z_at = row_offset(z, r)
            s, N, m, block = exponentials(z_at, scratch, classes, -1, fmt)
            if not is_ordinary(m):
                refer(hard, r)
            elif operation == SOFTMAX:
                write_scaled(scratch, row_offset(out, r), classes, 1.0 / s, streams, fmt)
            else:
                l = log_sum(z_at, scratch, classes, s, N, m, block, fmt)
                if operation == LOGSUMEXP:
                    write_f32(out[0] + 4 * r, m + l)
                else:
                    write_row(logs, (z_at, f32s(m), f32s(l), fmt), row_offset(out, r), classes, streams, fmt)
        first = take(counter) * chunk
