"""Softmax Jacobian products of long rows at given logits: J v = p (u − Σ p u), u = v − v[k].

The exponentials of a row are made once, into scratch memory, for all its tangents.  Each tangent is read from memory
once, for Σ e u, and again from the cache, for the result.
"""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    f32s,
    f64s,
    halves,
    lane,
    lane_numbers32,
    larger,
    load,
    load_f32,
    load_first,
    max_across,
    prefetch,
    read,
    size_of,
    store,
    store_first,
    stream,
    sum_across,
    take,
    where,
)
from softgrad.backends.numba_cpu.single import LARGEST_TANGENT, scaled
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import GROUP, exponentials, first_equal, is_ordinary, refer


@kernel
def product_rows(
    counter, chunk, hard, scratch, rows, classes, z, count_v, v, v_step, out, out_step, streams, v_fmt, fmt
):
    """J v of every row that no other thread takes.  What float32 will not do for is listed: tangent · rows + row."""
    first = take(counter) * chunk
    while first < rows:
        for r in range(first, min(first + chunk, rows)):
            z_at = row_offset(z, r)
            s, _, m, block = exponentials(z_at, scratch, classes, -1, fmt)
            ordinary = is_ordinary(m)
            k = first_equal(z_at, classes, m, block, fmt) if ordinary else 0
            for n in range(count_v):
                v_at = row_offset(v, r) + n * v_step
                v_k = read(v_at + size_of(v_fmt) * k, v_fmt)
                moment, largest = moment_of(scratch, v_at, classes, v_k, v_fmt)
                if ordinary and largest < LARGEST_TANGENT and moment == moment:
                    write_product(
                        scratch, v_at, row_offset(out, r) + n * out_step, classes, v_k, moment / s, 1.0 / s, k, streams,
                        v_fmt, fmt,
                    )  # fmt: skip
                else:
                    refer(hard, n * rows + r)
        first = take(counter) * chunk


@helper
def moment_of(e_at, v_at, classes, v_k, fmt):
    """Σ e u, added in the order of Σ e, NaN where a u is; and the largest |u| that is none."""
    size = 16 * size_of(fmt)
    vectors, tail = classes >> 4, classes & 15
    low, high, top = f64s(0.0), f64s(0.0), f32s(0.0)
    reference = f32s(v_k)
    j = 0
    while j + GROUP <= vectors:
        a, top = two_terms(e_at, v_at, j, size, reference, top, fmt)
        b, top = two_terms(e_at, v_at, j + 2, size, reference, top, fmt)
        c, top = two_terms(e_at, v_at, j + 4, size, reference, top, fmt)
        d, top = two_terms(e_at, v_at, j + 6, size, reference, top, fmt)
        x, y = halves((a + b) + (c + d))
        low += x
        high += y
        j += GROUP
    even, odd = f32s(0.0), f32s(0.0)
    while j < vectors:
        x, top = term(e_at, v_at, j, size, reference, top, fmt)
        even, odd = odd, even + x
        j += 1
    if tail > 0:
        u = where(lane_numbers32() < tail, load_first(v_at + size * j, tail, fmt) - reference, f32s(0.0))
        top = larger(absolute(u), top)
        odd += load_f32(e_at + 64 * j) * u
    x, y = halves(even + odd)
    return sum_across((low + x) + (high + y)), max_across(top)


@inlined
def term(e_at, v_at, j, size, reference, top, fmt):
    """Vector j of e u."""
    prefetch(v_at + size * j + 4096)
    u = load(v_at + size * j, fmt) - reference
    return load_f32(e_at + 64 * j) * u, larger(absolute(u), top)


@inlined
def two_terms(e_at, v_at, j, size, reference, top, fmt):
    """Σ of two."""
    a, top = term(e_at, v_at, j, size, reference, top, fmt)
    b, top = term(e_at, v_at, j + 1, size, reference, top, fmt)
    return a + b, top


@helper
def write_product(e_at, v_at, out_at, classes, v_k, mean, unit, k, streams, v_fmt, fmt):
    """out = e (u − mean) / s; at k, where u = 0, the mean alone is left."""
    v_size, size = size_of(v_fmt), size_of(fmt)
    reference, shift, factor = f32s(v_k), f32s(mean), f32s(unit)
    rest = f32s(unit - lane(factor, 0))
    j = 0
    if streams and out_at % size == 0 and classes >= 32:
        j = (-out_at % (16 * size)) // size
        store_first(out_at, product(e_at, v_at, reference, shift, factor, rest, v_fmt), j, fmt)
        while j + 16 <= classes:
            y = product(e_at + 4 * j, v_at + v_size * j, reference, shift, factor, rest, v_fmt)
            stream(out_at + size * j, y, fmt)
            j += 16
    while j + 16 <= classes:
        store(out_at + size * j, product(e_at + 4 * j, v_at + v_size * j, reference, shift, factor, rest, v_fmt), fmt)
        j += 16
    if j < classes:
        v = load_first(v_at + v_size * j, classes - j, v_fmt)
        y = scaled(load_f32(e_at + 4 * j) * ((v - reference) - shift), factor, rest)
        store_first(out_at + size * j, y, classes - j, fmt)


@inlined
def product(e_at, v_at, reference, shift, factor, rest, v_fmt):
    """e (u − mean) / s."""
    return scaled(load_f32(e_at) * ((load(v_at, v_fmt) - reference) - shift), factor, rest)
