"""softmax, log_softmax and logsumexp of huge rows."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.functions import log1p
from softgrad.backends.numba_cpu.huge import REST, SEGMENT, SHIFT, SUM, TOP, terms_of_segment, write_scaled
from softgrad.backends.numba_cpu.lanes import f32s, f64s, lane, size_of, write_f32
from softgrad.backends.numba_cpu.past_caches import write_row
from softgrad.backends.numba_cpu.single import LN_2, term_at
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_softmax import LOGSUMEXP, SOFTMAX
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import is_ordinary, logs, refer


@kernel
def softmax_segments(counter, some, scratch, classes, operation, z, out, streams, fmt):
    """One of the three of every segment no other thread takes; rows float32 will not do for are listed at `hard`."""
    first, totals, parts, hard, kept = some
    segments = parts.shape[1]
    i = next_share(counter)
    while i < len(totals) * segments:
        r, g = first + i // segments, i % segments
        start = g * SEGMENT
        length, offset = min(SEGMENT, classes - start), size_of(fmt) * start
        z_at, m, N = row_offset(z, r) + offset, totals[r - first, TOP], totals[r - first, SHIFT]
        i = next_share(counter)
        if not is_ordinary(m):
            if g == 0:
                refer(hard, r)
        elif operation == SOFTMAX:
            e_at = terms_of_segment(parts[r - first, g], N, z_at, scratch, start, length, kept, fmt)
            write_scaled(e_at, row_offset(out, r) + offset, length, 1.0 / totals[r - first, SUM], streams, fmt)
        else:
            l = lane(log1p(totals[r - first, REST] / term_at(f64s(m - N * LN_2))), 0)
            if operation != LOGSUMEXP:
                of = (z_at, f32s(m), f32s(l), fmt)
                write_row(logs, of, row_offset(out, r) + offset, length, streams, fmt)
            elif g == 0:
                write_f32(out[0] + 4 * r, m + l)
    leave(counter)
