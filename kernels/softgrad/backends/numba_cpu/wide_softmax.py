"""softmax, log_softmax and logsumexp of long rows."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import inlined, kernel
from softgrad.backends.numba_cpu.lanes import f32s, size_of, write_f32
from softgrad.backends.numba_cpu.past_caches import BEGUN, begin_lines, flush, write_until
from softgrad.backends.numba_cpu.taking import ahead, leave, next_share
from softgrad.backends.numba_cpu.tile_softmax import LOGSUMEXP, SOFTMAX
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import (
    AHEAD,
    exponentials,
    in_two_parts,
    is_ordinary,
    log_sum,
    logs,
    multiple,
    refer,
)


@kernel
def softmax_rows(counter, chunk, hard, scratch, rows, classes, operation, z, out, streams, fmt):
    """One of the three of every row that no other thread takes; those float32 will not do for are listed at `hard`."""
    past, e_at, distance = scratch if streams else 0, scratch + BEGUN, ahead(out, size_of(fmt), classes, AHEAD)
    begin_lines(scratch)
    before = (operation, 0, classes, e_at, 0, f32s(0.0), f32s(0.0), distance, past, fmt)
    first = next_share(counter) * chunk
    while first < rows:
        for r in range(first, min(first + chunk, rows)):
            z_at = row_offset(z, r)
            s, N, m, block = exponentials(z_at, e_at, classes, -1, None, write, before, fmt)
            out_at, x, y = 0, f32s(0.0), f32s(0.0)
            if not is_ordinary(m):
                refer(hard, r)
            elif operation == SOFTMAX:
                out_at, (x, y) = row_offset(out, r), in_two_parts(1.0 / s)
            else:
                l = log_sum(z_at, e_at, classes, s, N, m, block, fmt)
                if operation == LOGSUMEXP:
                    write_f32(out[0] + 4 * r, m + l)
                else:
                    out_at, x, y = row_offset(out, r), f32s(m), f32s(l)
            before = (operation, out_at, classes, e_at, z_at, x, y, distance, past, fmt)
        first = next_share(counter) * chunk
    write(0, classes, before)
    flush(scratch, fmt)
    leave(counter)


@inlined
def write(j, stop, before):
    """The row before, if its address is not 0."""
    operation, out_at, classes, e_at, z_at, x, y, distance, past, fmt = before
    if out_at == 0:
        return j
    if operation == SOFTMAX:
        return write_until(multiple, (e_at, x, y), out_at, classes, j, stop, distance, past, fmt)
    return write_until(logs, (z_at, x, y, fmt), out_at, classes, j, stop, distance, past, fmt)
