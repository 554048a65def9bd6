"""Cross-entropy of huge rows with an integer target: as of long rows, the sum taken from the totals."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import inlined, kernel
from softgrad.backends.numba_cpu.huge import OF_TARGET, SEGMENT, SHIFT, SUM, TOP, terms_of_segment, write_scaled
from softgrad.backends.numba_cpu.lanes import f32s, read_i64, size_of, write_f32
from softgrad.backends.numba_cpu.past_caches import write_row
from softgrad.backends.numba_cpu.single_options import less
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD
from softgrad.backends.numba_cpu.tiles import row_offset, write_as
from softgrad.backends.numba_cpu.wide import fill_row, in_two_parts, refer
from softgrad.backends.numba_cpu.wide_cross_entropy import gaps_of, loss_of, offset_of, settled_row


@kernel
def gap_segments(counter, some, scratch, classes, z, gaps, fmt):
    """Fill gaps, (rows, segments): Σ (m − z_j), which label smoothing asks for."""
    first, totals, _, _, _ = some
    rows, segments = gaps.shape
    i = next_share(counter)
    while i < rows * segments:
        r, g = i // segments, i % segments
        start = g * SEGMENT
        z_at = row_offset(z, first + r) + size_of(fmt) * start
        gaps[r, g] = gaps_of(z_at, min(SEGMENT, classes - start), totals[r, TOP], fmt)
        i = next_share(counter)
    leave(counter)


@kernel
def cross_entropy_segments(
    counter, some, scratch, classes, z, indices, weights, scales, by, loss, grad, streams, fmt, gaps, options=None
):
    """Gradient of every segment that no other thread takes, and with a row's first segment its loss."""
    first, totals, parts, hard, kept = some
    segments = parts.shape[1]
    i = next_share(counter)
    while i < len(totals) * segments:
        r, g = i // segments, i % segments
        row, start = first + r, g * SEGMENT
        length, offset = min(SEGMENT, classes - start), size_of(fmt) * start
        i = next_share(counter)
        t = read_i64(indices + 8 * row)
        if t < 0:
            x = math.nan if t == BAD else 0.0
            if loss[0] != 0 and g == 0:
                write_as(row_offset(loss, row), x, loss[4])
            if grad[0] != 0:
                fill_row(row_offset(grad, row) + offset, length, 0.0 if by == 0.0 else x, fmt)
            continue
        rest, N, m, z_t = totals[r, SUM], totals[r, SHIFT], totals[r, TOP], totals[r, OF_TARGET]
        fine, factor, at_t, scale, h, value, lse = settled_row(row, t, rest, N, m, z_t, weights, scales, by, options)
        if not fine:
            if g == 0:
                refer(hard, row)
            continue
        if loss[0] != 0 and g == 0:
            gap = 0.0
            for other in range(gaps.shape[1]):
                gap += gaps[r, other]
            write_as(row_offset(loss, row), loss_of(h, value, gap, m, lse, classes, options), loss[4])
        if grad[0] == 0:
            continue
        grad_at = row_offset(grad, row) + offset
        if by == 0.0:
            fill_row(grad_at, length, 0.0, fmt)
        else:
            e_at = terms_of_segment(parts[r, g], N, row_offset(z, row) + offset, scratch, start, length, kept, fmt)
            if start <= t < start + length:
                write_f32(e_at + 4 * (t - start), at_t)
            write_gradient(e_at, grad_at, length, classes, factor, scale, streams, options, fmt)
    leave(counter)


@inlined
def write_gradient(e_at, out_at, length, classes, factor, g, streams, options, fmt):
    """e · factor, less g D, of so many of a row's classes."""
    if options is None or options[0] == 0.0:
        write_scaled(e_at, out_at, length, factor, streams, fmt)
    else:
        of = e_at, *in_two_parts(factor), f32s(offset_of(g, classes, options))
        write_row(less, of, out_at, length, streams, fmt)
