"""Softmax Jacobian products of rows of some vectors at given logits: J v = p (u − Σ p u), u = v − v[k]."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, kernel
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    f32s,
    joined,
    lane,
    lane_numbers32,
    larger,
    load,
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
from softgrad.backends.numba_cpu.single import scaled
from softgrad.backends.numba_cpu.sixteen import fine_tangents, ordinary, refer_rows, split, whole_shift
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import first_equal
from softgrad.backends.numba_cpu.wide_products import term


@kernel
def product_middle(counter, chunk, hard, stage, rows, classes, z, count_v, v, v_step, out, out_step, v_fmt, fmt):
    """J v of every tile not taken.  What float32 will not do for is listed: tangent · rows + row."""
    numbers, terms = stage + STAGE, stage + TERMS
    more = terms + 16 * stride_of(classes)  # numbers per row again
    which, tops = more + 128, more + 256
    tiles = (rows + 15) >> 4
    first = take(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = (16 * i, min(16, rows - 16 * i), classes)
            m = largest(z, tile, stage, fmt)
            exponentials(z, terms, tile, whole_shift(m), numbers, v, out, fmt)
            low, high = sums(terms, tile, stage)
            factor, rest = split(1.0 / low, 1.0 / high)
            ordinary_rows = ordinary(m, tile)
            first_largest(z, tile, m, ordinary_rows, numbers, which, fmt)
            for n in range(count_v):
                of_v = (v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5])
                of_out = (out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5])
                v_k = tangents_at(of_v, tile, which, numbers, v_fmt)
                u_low, u_high, top = moments(terms, of_v, tile, v_k, numbers, stage, tops, v_fmt)
                keep = ordinary_rows & fine_tangents(top, u_low, u_high, tile)
                if sum_across(keep) < 16:
                    refer_rows(hard, tile, keep, n * rows)
                each_row(v_k, numbers)
                each_row(joined(u_low / low, u_high / high), numbers + 64)
                each_row(factor, more)
                each_row(rest, more + 64)
                write_products(terms, of_v, of_out, tile, keep, numbers, more, v_fmt, fmt)
        first = take(counter) * chunk


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


@helper
def moments(terms, v, tile, v_k, numbers, stage, tops, fmt):
    """Σ e u, added in the order of Σ e, of the first eight rows and of the others; the largest |u|."""
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
            x, top = term(e_at, at, j, size, reference, top, fmt)
            a += x
            x, top = term(e_at, at, j + 1, size, reference, top, fmt)
            b += x
            x, top = term(e_at, at, j + 2, size, reference, top, fmt)
            c += x
            x, top = term(e_at, at, j + 3, size, reference, top, fmt)
            d += x
            j += 4
        while j < vectors:
            x, top = term(e_at, at, j, size, reference, top, fmt)
            a, b, c, d = b, c, d, a + x
            j += 1
        if tail > 0:
            u = load_first(at + size * vectors, tail, fmt) - reference
            u = where(lane_numbers32() < tail, u, f32s(0.0))
            top = larger(absolute(u), top)
            a += load_f32(e_at + 64 * vectors) * u
        store_f32(stage + 64 * i, (a + b) + (c + d))
        store_f32(tops + 64 * i, top)
    low, high = across(stage, stage)
    transpose(tops, stage)
    top = f32s(0.0)
    for c in range(16):
        top = larger(load_f32(stage + 64 * c), top)
    return low, high, top


@helper
def write_products(terms, v, out, tile, keep, numbers, more, v_fmt, fmt):
    """out = e (u − mean) / s, but for rows whose lane of `keep` is 0."""
    first, rows, classes = tile
    v_size, size, stride = 16 * size_of(v_fmt), 16 * size_of(fmt), stride_of(classes)
    vectors, tail = classes >> 4, classes & 15
    all_kept = sum_across(keep) == 16
    for i in range(rows):
        if all_kept or lane(keep, i) != 0:
            v_at, at, e_at = row_offset(v, first + i), row_offset(out, first + i), terms + stride * i
            reference, mean = of_row(numbers, i), of_row(numbers + 64, i)
            factor, rest = of_row(more, i), of_row(more + 64, i)
            for j in range(vectors):
                u = load(v_at + v_size * j, v_fmt) - reference
                store(at + size * j, scaled(load_f32(e_at + 64 * j) * (u - mean), factor, rest), fmt)
            if tail > 0:
                u = load_first(v_at + v_size * vectors, tail, v_fmt) - reference
                y = scaled(load_f32(e_at + 64 * vectors) * (u - mean), factor, rest)
                store_first(at + size * vectors, y, tail, fmt)
