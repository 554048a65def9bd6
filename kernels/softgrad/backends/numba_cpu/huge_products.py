"""Jacobian products of huge rows: as of long rows, the sums added over segments in their order."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import inlined, kernel
from softgrad.backends.numba_cpu.huge import FIRST, SEGMENT, SHIFT, SUM, TOP, terms_of_segment
from softgrad.backends.numba_cpu.lanes import f32s, read, size_of
from softgrad.backends.numba_cpu.past_caches import write_row
from softgrad.backends.numba_cpu.product_vectors import (
    is_fine,
    log_softmax_jvp,
    log_softmax_vjp,
    softmax_product,
    unweighted,
    weighted,
)
from softgrad.backends.numba_cpu.single import LIFT
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_products import LOG_JVP, LOG_PROBS, LOG_VJP, PROBS, SOFTMAX
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import in_two_parts, refer
from softgrad.backends.numba_cpu.wide_products import is_ordinary_point, lift, moment_of

# What is known of a segment and a tangent: Σ e u or Σ u, the largest |u|, v[k] (0 where there is no reference).
MOMENT, LARGEST_U, OF_K = range(3)


@kernel
def moment_segments(counter, some, scratch, classes, operation, kind, z, count_v, v, v_step, moments, v_fmt, fmt):
    """Fill moments, (rows, segments, tangents, 3)."""
    first, totals, parts, _, kept = some
    rows, segments, _, _ = moments.shape
    i = next_share(counter)
    while i < rows * segments:
        r, g = i // segments, i % segments
        start = g * SEGMENT
        length = min(SEGMENT, classes - start)
        if is_ordinary_point(totals[r, TOP], kind):
            z_at = row_offset(z, first + r) + size_of(fmt) * start
            e_at = terms_of(parts[r, g], totals[r, SHIFT], z_at, scratch, start, length, kept, kind, fmt)
            for n in range(count_v):
                v_at = row_offset(v, first + r) + n * v_step
                if operation == LOG_VJP:
                    v_k = 0.0
                    moment, largest = moment_of(
                        unweighted, e_at, v_at + size_of(v_fmt) * start, length, f32s(v_k), v_fmt
                    )
                else:
                    v_k = read(v_at + size_of(v_fmt) * int(totals[r, FIRST]), v_fmt)
                    moment, largest = moment_of(weighted, e_at, v_at + size_of(v_fmt) * start, length, f32s(v_k), v_fmt)
                moments[r, g, n, MOMENT], moments[r, g, n, LARGEST_U], moments[r, g, n, OF_K] = moment, largest, v_k
        i = next_share(counter)
    leave(counter)


@kernel
def product_segments(
    counter, some, scratch, all_rows, classes, operation, kind, z, count_v, v, v_step, out, out_step, streams, moments,
    v_fmt, fmt,
):  # fmt: skip
    """One of the three of every segment not taken; what float32 will not do for is listed: tangent · rows + row."""
    first, totals, parts, hard, kept = some
    rows, segments, _, _ = moments.shape
    i = next_share(counter)
    while i < rows * segments:
        r, g = i // segments, i % segments
        start = g * SEGMENT
        length, offset, v_offset = min(SEGMENT, classes - start), size_of(fmt) * start, size_of(v_fmt) * start
        ordinary, s = is_ordinary_point(totals[r, TOP], kind), sum_of(totals[r, SUM], totals[r, SHIFT], kind)
        e_at = scratch
        if ordinary:
            z_at = row_offset(z, first + r) + offset
            e_at = terms_of(parts[r, g], totals[r, SHIFT], z_at, scratch, start, length, kept, kind, fmt)
        for n in range(count_v):
            moment, top = 0.0, 0.0
            for other in range(segments):
                moment += moments[r, other, n, MOMENT]
                top = max(top, moments[r, other, n, LARGEST_U])
            if ordinary and is_fine(top, moment):
                v_at = row_offset(v, first + r) + n * v_step + v_offset
                v_k = f32s(moments[r, g, n, OF_K])
                of = e_at, v_at, v_k, f32s(moment / s), *in_two_parts(1.0 / s), v_fmt
                write_product(
                    operation, of, row_offset(out, first + r) + n * out_step + offset, length, streams, fmt
                )  # fmt: skip
            elif g == 0:
                refer(hard, n * all_rows + first + r)
        i = next_share(counter)
    leave(counter)


@inlined
def write_product(operation, of, out_at, classes, streams, fmt):
    """One of the three."""
    if operation == SOFTMAX:
        write_row(softmax_product, of, out_at, classes, streams, fmt)
    elif operation == LOG_JVP:
        write_row(log_softmax_jvp, of, out_at, classes, streams, fmt)
    else:
        write_row(log_softmax_vjp, of, out_at, classes, streams, fmt)


@inlined
def terms_of(part, N, z_at, scratch, start, length, kept, kind, fmt):
    """The place of e, or of probabilities as they are, lifted."""
    if kind == PROBS:
        lift(z_at, scratch, length, fmt)
        return scratch
    return terms_of_segment(part, N, z_at, scratch, start, length, kept, fmt)


@inlined
def sum_of(s, N, kind):
    """Σ e, from that over the exponentials."""
    if kind == PROBS:
        return 2.0**LIFT
    return 2.0 ** (LIFT - N) if kind == LOG_PROBS else s
