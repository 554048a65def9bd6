"""Softmax Jacobian products of huge rows at given logits: as of long rows, Σ e u added over segments in their order."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.huge import FIRST, SEGMENT, SHIFT, SUM, TOP, exponentials_again
from softgrad.backends.numba_cpu.lanes import read, size_of, take
from softgrad.backends.numba_cpu.single import LARGEST_TANGENT
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import is_ordinary, refer
from softgrad.backends.numba_cpu.wide_products import moment_of, write_product

# What is known of a segment and a tangent: Σ e u, the largest |u|, v[k].
MOMENT, LARGEST_U, OF_K = range(3)


@kernel
def moment_segments(counter, first, scratch, classes, z, count_v, v, v_step, totals, moments, v_fmt, fmt):
    """Fill moments, (rows, segments, tangents, 3), for rows from `first` on."""
    rows, segments, _, _ = moments.shape
    i = take(counter)
    while i < rows * segments:
        r, g = i // segments, i % segments
        start = g * SEGMENT
        length = min(SEGMENT, classes - start)
        if is_ordinary(totals[r, TOP]):
            exponentials_again(
                row_offset(z, first + r) + size_of(fmt) * start, scratch, length, totals[r, SHIFT], fmt
            )  # fmt: skip
            for n in range(count_v):
                v_at = row_offset(v, first + r) + n * v_step
                v_k = read(v_at + size_of(v_fmt) * int(totals[r, FIRST]), v_fmt)
                moment, largest = moment_of(scratch, v_at + size_of(v_fmt) * start, length, v_k, v_fmt)
                moments[r, g, n, MOMENT], moments[r, g, n, LARGEST_U], moments[r, g, n, OF_K] = moment, largest, v_k
        i = take(counter)


@kernel
def product_segments(
    counter, first, scratch, hard, all_rows, classes, z, count_v, v, v_step, out, out_step, streams, totals, moments,
    v_fmt, fmt,
):  # fmt: skip
    """J v of every segment that no other thread takes; what float32 will not do for is listed: tangent · rows + row."""
    rows, segments, _, _ = moments.shape
    i = take(counter)
    while i < rows * segments:
        r, g = i // segments, i % segments
        start = g * SEGMENT
        length, offset, v_offset = min(SEGMENT, classes - start), size_of(fmt) * start, size_of(v_fmt) * start
        ordinary, s = is_ordinary(totals[r, TOP]), totals[r, SUM]
        if ordinary:
            exponentials_again(row_offset(z, first + r) + offset, scratch, length, totals[r, SHIFT], fmt)
        for n in range(count_v):
            moment, largest = 0.0, 0.0
            for other in range(segments):
                moment += moments[r, other, n, MOMENT]
                largest = max(largest, moments[r, other, n, LARGEST_U])
            if ordinary and largest < LARGEST_TANGENT and moment == moment:
                write_product(
                    scratch, row_offset(v, first + r) + n * v_step + v_offset,
                    row_offset(out, first + r) + n * out_step + offset, length, moments[r, g, n, OF_K], moment / s,
                    1.0 / s, 0, streams, v_fmt, fmt,
                )  # fmt: skip
            elif g == 0:
                refer(hard, n * all_rows + first + r)
        i = take(counter)
