"""Jacobian products of long rows.

The exponentials of a row are made once, into scratch memory, for all its tangents.  Each tangent is read from memory
once, for its sum, and again from the cache, for the result.
"""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    f32s,
    f64s,
    halves,
    lane_numbers32,
    larger,
    load,
    load_f32,
    load_first,
    max_across,
    prefetch,
    read,
    size_of,
    store_f32,
    sum_across,
    where,
)
from softgrad.backends.numba_cpu.past_caches import BEGUN, begin_lines, flush, write_until
from softgrad.backends.numba_cpu.product_vectors import (
    bounds,
    is_fine,
    log_softmax_jvp,
    log_softmax_vjp,
    softmax_product,
    unweighted,
    weighted,
)
from softgrad.backends.numba_cpu.single import LIFT
from softgrad.backends.numba_cpu.taking import ahead, leave, next_share
from softgrad.backends.numba_cpu.tile_products import LOG_JVP, LOG_PROBS, LOG_VJP, PROBS, SOFTMAX
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import AHEAD, GROUP, exponentials, first_equal, in_two_parts, largest, refer

# Up to how many classes a product is written while the next row is worked on: the second-level cache should still hold
# its tangent then.
LONGEST = 2**15


@kernel
def product_rows(
    counter, chunk, hard, scratch, rows, classes, operation, kind, z, count_v, v, v_step, out, out_step, streams,
    v_fmt, fmt,
):  # fmt: skip
    """One of the three of every row not taken.  What float32 will not do for is listed: tangent · rows + row."""
    past, e_at, distance = scratch if streams else 0, scratch + BEGUN, ahead(out, size_of(fmt), classes, AHEAD)
    begin_lines(scratch)
    of = e_at, 0, f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0), v_fmt
    before = (operation, 0, classes, of, distance, past, fmt)
    first = next_share(counter) * chunk
    while first < rows:
        for r in range(first, min(first + chunk, rows)):
            z_at, v_at = row_offset(z, r), row_offset(v, r)
            s, m, block = terms_of(z_at, e_at, classes, kind, (v_at, 16 * size_of(v_fmt)), write, before, fmt)
            ordinary = is_ordinary_point(m, kind)
            k = first_equal(z_at, classes, m, block, fmt) if ordinary and operation != LOG_VJP else 0
            for n in range(count_v):
                if n > 0:
                    write(0, classes, before)
                moment, top, v_k = moment_at(operation, e_at, v_at, classes, k, v_fmt)
                out_at = row_offset(out, r) + n * out_step
                if not (ordinary and is_fine(top, moment)):
                    refer(hard, n * rows + r)
                    out_at = 0
                factor, rest = in_two_parts(1.0 / s)
                of = e_at, v_at, f32s(v_k), f32s(moment / s), factor, rest, v_fmt
                before = (operation, out_at, classes, of, distance, past, fmt)
                v_at += v_step
            if classes > LONGEST:
                write(0, classes, before)
                before = (operation, 0, classes, of, distance, past, fmt)
        first = next_share(counter) * chunk
    write(0, classes, before)
    flush(scratch, fmt)
    leave(counter)


@inlined
def write(j, stop, before):
    """The product before, if its address is not 0."""
    operation, out_at, classes, of, distance, past, fmt = before
    if out_at == 0:
        return j
    if operation == SOFTMAX:
        return write_until(softmax_product, of, out_at, classes, j, stop, distance, past, fmt)
    if operation == LOG_JVP:
        return write_until(log_softmax_jvp, of, out_at, classes, j, stop, distance, past, fmt)
    return write_until(log_softmax_vjp, of, out_at, classes, j, stop, distance, past, fmt)


@inlined
def is_ordinary_point(m, kind):
    """Whether float32 will do for a row whose largest entry is m."""
    lowest, highest = bounds(kind)
    return lowest < m < highest


@inlined
def terms_of(z_at, e_at, classes, kind, asked, write, before, fmt):
    """Fill e, or probabilities as they are, lifted; (Σ e, m, the first block that holds m)."""
    if kind == PROBS:
        write(0, classes, before)
        m = largest(z_at, 0, classes >> 4, classes & 15, fmt)
        lift(z_at, e_at, classes, fmt)
        return 2.0**LIFT, m, 0
    s, N, m, block = exponentials(z_at, e_at, classes, -1, asked, write, before, fmt)
    return 2.0 ** (LIFT - N) if kind == LOG_PROBS else s, m, block


@helper
def lift(p_at, e_at, classes, fmt):
    """e = p · 2^LIFT."""
    size = size_of(fmt)
    j = 0
    while j + 16 <= classes:
        store_f32(e_at + 4 * j, load(p_at + size * j, fmt) * 2.0**LIFT)
        j += 16
    if j < classes:
        p = where(lane_numbers32() < classes - j, load_first(p_at + size * j, classes - j, fmt), f32s(0.0))
        store_f32(e_at + 4 * j, p * 2.0**LIFT)


@inlined
def moment_at(operation, e_at, v_at, classes, k, v_fmt):
    """(Σ e u or Σ u, the largest |u|, v[k])."""
    if operation == LOG_VJP:
        moment, top = moment_of(unweighted, e_at, v_at, classes, f32s(0.0), v_fmt)
        return moment, top, 0.0
    v_k = read(v_at + size_of(v_fmt) * k, v_fmt)
    moment, top = moment_of(weighted, e_at, v_at, classes, f32s(v_k), v_fmt)
    return moment, top, v_k


@inlined
def moment_of(weigh, e_at, v_at, classes, reference, fmt):
    """The sum, added in the order of Σ e, NaN where a u is; and the largest |u| that is none."""
    size = 16 * size_of(fmt)
    vectors, tail = classes >> 4, classes & 15
    low, high, top = f64s(0.0), f64s(0.0), f32s(0.0)
    j = 0
    while j + GROUP <= vectors:
        a, top = two_terms(weigh, e_at, v_at, j, size, reference, top, fmt)
        b, top = two_terms(weigh, e_at, v_at, j + 2, size, reference, top, fmt)
        c, top = two_terms(weigh, e_at, v_at, j + 4, size, reference, top, fmt)
        d, top = two_terms(weigh, e_at, v_at, j + 6, size, reference, top, fmt)
        x, y = halves((a + b) + (c + d))
        low += x
        high += y
        j += GROUP
    even, odd = f32s(0.0), f32s(0.0)
    while j < vectors:
        x, top = add(weigh, even, e_at, v_at, j, size, reference, top, fmt)
        even, odd = odd, x
        j += 1
    if tail > 0:
        u = where(lane_numbers32() < tail, load_first(v_at + size * j, tail, fmt) - reference, f32s(0.0))
        top = larger(absolute(u), top)
        odd = weigh(odd, load_f32(e_at + 64 * j), u)
    x, y = halves(even + odd)
    return sum_across((low + x) + (high + y)), max_across(top)


@inlined
def add(weigh, total, e_at, v_at, j, size, reference, top, fmt):
    """A sum with vector j of what is summed."""
    prefetch(v_at + size * j + 4096)
    u = load(v_at + size * j, fmt) - reference
    return weigh(total, load_f32(e_at + 64 * j), u), larger(absolute(u), top)


@inlined
def two_terms(weigh, e_at, v_at, j, size, reference, top, fmt):
    """Σ of two."""
    a, top = add(weigh, f32s(0.0), e_at, v_at, j, size, reference, top, fmt)
    return add(weigh, a, e_at, v_at, j + 1, size, reference, top, fmt)
