"""Jacobian products of rows of some vectors."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    f32s,
    f64s,
    joined,
    lane,
    lane_numbers32,
    larger,
    load_f32,
    load_first,
    read,
    read_f32,
    read_i64,
    size_of,
    store,
    store_f32,
    store_first,
    sum_across,
    take,
    transpose,
    where,
    write_f32,
    write_i64,
)
from softgrad.backends.numba_cpu.middle import (
    STAGE,
    TERMS,
    across,
    each_row,
    exponentials,
    largest,
    of_row,
    stride_of,
    sums,
)
from softgrad.backends.numba_cpu.product_vectors import (
    log_softmax_jvp,
    log_softmax_vjp,
    softmax_product,
    unweighted,
    weighted,
)
from softgrad.backends.numba_cpu.single import LIFT
from softgrad.backends.numba_cpu.sixteen import (
    fine_tangents,
    given_sums,
    ordinary_point,
    refer_rows,
    split,
    whole_shift,
)
from softgrad.backends.numba_cpu.tile_products import LOG_JVP, LOG_PROBS, LOG_VJP, PROBS, SOFTMAX
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import first_equal
from softgrad.backends.numba_cpu.wide_products import lift, term


@kernel
def product_middle(
    counter, chunk, hard, stage, rows, classes, operation, kind, z, count_v, v, v_step, out, out_step, v_fmt, fmt
):
    """One of the three of every tile not taken.  What float32 will not do for is listed: tangent · rows + row."""
    numbers, terms = stage + STAGE, stage + TERMS
    more = terms + 16 * stride_of(classes)  # numbers per row again
    which, tops = more + 128, more + 256
    tiles = (rows + 15) >> 4
    first = take(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = (16 * i, min(16, rows - 16 * i), classes)
            m = largest(z, tile, stage, fmt)
            low, high = terms_of(z, terms, tile, m, kind, numbers, stage, v, out, fmt)
            factor, rest = split(1.0 / low, 1.0 / high)
            ordinary_rows = ordinary_point(m, kind, tile)
            if operation != LOG_VJP:
                first_largest(z, tile, m, ordinary_rows, numbers, which, fmt)
            for n in range(count_v):
                of_v = (v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5])
                of_out = (out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5])
                v_k = f32s(0.0)
                if operation == LOG_VJP:
                    u_low, u_high, top = moments(unweighted, terms, of_v, tile, v_k, numbers, stage, tops, v_fmt)
                else:
                    v_k = tangents_at(of_v, tile, which, numbers, v_fmt)
                    u_low, u_high, top = moments(weighted, terms, of_v, tile, v_k, numbers, stage, tops, v_fmt)
                keep = ordinary_rows & fine_tangents(top, u_low, u_high, tile)
                if sum_across(keep) < 16:
                    refer_rows(hard, tile, keep, n * rows)
                each_row(v_k, numbers)
                each_row(joined(u_low / low, u_high / high), numbers + 64)
                each_row(factor, more)
                each_row(rest, more + 64)
                if operation == SOFTMAX:
                    write_products(softmax_product, terms, of_v, of_out, tile, keep, numbers, more, v_fmt, fmt)
                elif operation == LOG_JVP:
                    write_products(log_softmax_jvp, terms, of_v, of_out, tile, keep, numbers, more, v_fmt, fmt)
                else:
                    write_products(log_softmax_vjp, terms, of_v, of_out, tile, keep, numbers, more, v_fmt, fmt)
        first = take(counter) * chunk


@inlined
def terms_of(z, terms, tile, m, kind, numbers, stage, v, out, fmt):
    """Fill e, or probabilities as they are, lifted; Σ e of the first eight rows and of the others."""
    if kind == PROBS:
        for i in range(tile[1]):
            lift(row_offset(z, tile[0] + i), terms + stride_of(tile[2]) * i, tile[2], fmt)
        return f64s(2.0**LIFT), f64s(2.0**LIFT)
    N = whole_shift(m)
    exponentials(z, terms, tile, N, numbers, v, out, fmt)
    return given_sums(N) if kind == LOG_PROBS else sums(terms, tile, stage)


@helper
def first_largest(z, tile, m, ordinary_rows, numbers, which, fmt):
    """k of each row, as int64 at `which`."""
    each_row(m, numbers)
    all_ordinary = sum_across(ordinary_rows) == 16
    for i in range(tile[1]):
        k = 0
        if all_ordinary or lane(ordinary_rows, i) != 0:
            k = first_equal(row_offset(z, tile[0] + i), tile[2], read_f32(numbers + 4 * i), 0, fmt)
        write_i64(which + 8 * i, k)


@helper
def tangents_at(v, tile, which, numbers, fmt):
    """v_k of each row."""
    for i in range(tile[1]):
        at = row_offset(v, tile[0] + i) + size_of(fmt) * read_i64(which + 8 * i)
        write_f32(numbers + 4 * i, read(at, fmt))
    return load_f32(numbers)


@inlined
def moments(weigh, terms, v, tile, v_k, numbers, stage, tops, fmt):
    """The sums, added in the order of Σ e, of the first eight rows and of the others; the largest |u|."""
    first, rows, classes = tile
    size, stride = 16 * size_of(fmt), stride_of(classes)
    vectors, tail = classes >> 4, classes & 15
    each_row(v_k, numbers)
    for i in range(rows):
        at, e_at = row_offset(v, first + i), terms + stride * i
        reference = of_row(numbers, i)
        a, b, c, d, top = f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0)
        j = 0
        while j + 4 <= vectors:
            x, top = term(weigh, e_at, at, j, size, reference, top, fmt)
            a += x
            x, top = term(weigh, e_at, at, j + 1, size, reference, top, fmt)
            b += x
            x, top = term(weigh, e_at, at, j + 2, size, reference, top, fmt)
            c += x
            x, top = term(weigh, e_at, at, j + 3, size, reference, top, fmt)
            d += x
            j += 4
        while j < vectors:
            x, top = term(weigh, e_at, at, j, size, reference, top, fmt)
            a, b, c, d = b, c, d, a + x
            j += 1
        if tail > 0:
            u = load_first(at + size * vectors, tail, fmt) - reference
            u = where(lane_numbers32() < tail, u, f32s(0.0))
            top = larger(absolute(u), top)
            a += weigh(e_at + 64 * vectors, u)
        store_f32(stage + 64 * i, (a + b) + (c + d))
        store_f32(tops + 64 * i, top)
    low, high = across(stage, stage)
    transpose(tops, stage)
    top = f32s(0.0)
    for c in range(16):
        top = larger(load_f32(stage + 64 * c), top)
    return low, high, top


@inlined
def write_products(vector, terms, v, out, tile, keep, numbers, more, v_fmt, fmt):
    """One of the products, but for rows whose lane of `keep` is 0."""
    first, rows, classes = tile
    size, stride = 16 * size_of(fmt), stride_of(classes)
    vectors, tail = classes >> 4, classes & 15
    all_kept = sum_across(keep) == 16
    for i in range(rows):
        if all_kept or lane(keep, i) != 0:
            v_at, at, e_at = row_offset(v, first + i), row_offset(out, first + i), terms + stride * i
            reference, mean = of_row(numbers, i), of_row(numbers + 64, i)
            factor, rest = of_row(more, i), of_row(more + 64, i)
            of = e_at, v_at, reference, mean, factor, rest, v_fmt
            for j in range(vectors):
                store(at + size * j, vector(16 * j, 16, of), fmt)
            if tail > 0:
                store_first(at + size * vectors, vector(16 * vectors, tail, of), tail, fmt)
