"""Cross-entropy of huge rows with an integer target: as of long rows, the sum taken from the totals."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.huge import OF_TARGET, SEGMENT, SHIFT, SUM, TOP, exponentials_again
from softgrad.backends.numba_cpu.lanes import f64s, lane, read_f64, read_i64, size_of, take, write_f32
from softgrad.backends.numba_cpu.single import LN_2, is_in_range, target_terms
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD
from softgrad.backends.numba_cpu.tiles import read_as, row_offset, write_as
from softgrad.backends.numba_cpu.wide import fill_row, is_ordinary, refer, write_scaled
from softgrad.backends.numba_cpu.wide_cross_entropy import weighted


@kernel
def cross_entropy_segments(
    counter, first, scratch, hard, classes, z, indices, weights, scales, by, loss, grad, streams, segments, totals, fmt
):
    """Gradient of every segment that no other thread takes, and with a row's first segment its loss."""
    i = take(counter)
    while i < len(totals) * segments:
        r, g = first + i // segments, i % segments
        s, N, m, z_t = (
            totals[r - first, SUM], totals[r - first, SHIFT], totals[r - first, TOP], totals[r - first, OF_TARGET],
        )  # fmt: skip
        start = g * SEGMENT
        length, offset = min(SEGMENT, classes - start), size_of(fmt) * start
        i = take(counter)
        t = read_i64(indices + 8 * r)
        if t < 0:
            x = math.nan if t == BAD else 0.0
            if loss[0] != 0 and g == 0:
                write_as(row_offset(loss, r), x, loss[4])
            if grad[0] != 0:
                fill_row(row_offset(grad, r) + offset, length, 0.0 if by == 0.0 else x, fmt)
            continue
        e_t, value = target_terms(f64s(s), f64s(z_t - N * LN_2))
        h = 1.0 if weights == 0 else read_f64(weights + 8 * t)
        scale = h * read_as(row_offset(scales, r), scales[4]) / by
        factor = 0.0 if by == 0.0 else scale / (s + lane(e_t, 0))
        if not (is_ordinary(m) and (by == 0.0 or is_in_range(scale, factor) or factor != factor)):
            if g == 0:
                refer(hard, r)
            continue
        if loss[0] != 0 and g == 0:
            write_as(row_offset(loss, r), weighted(h, lane(value, 0)), loss[4])
        if grad[0] == 0:
            continue
        if by == 0.0:
            fill_row(row_offset(grad, r) + offset, length, 0.0, fmt)
        else:
            exponentials_again(row_offset(z, r) + offset, scratch, length, N, fmt)
            if start <= t < start + length:
                write_f32(scratch + 4 * (t - start), -s)
            write_scaled(scratch, row_offset(grad, r) + offset, length, factor, streams, fmt)
