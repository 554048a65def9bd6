"""Jacobian products of rows of some vectors."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.entries import (
    ALL,
    INT,
    begin,
    described,
    described_tangents,
    entry,
    reads,
    writes,
)
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    f32s,
    f64s,
    first_bit,
    joined,
    lane,
    lane_numbers32,
    larger,
    load,
    load_first,
    max_of_each,
    read,
    read_i64,
    size_of,
    store,
    store_f32,
    store_first,
    sum_of_each,
    take,
    where,
    write_f32,
    write_i64,
    write_mask,
)
from softgrad.backends.numba_cpu.middle import (
    MARKS,
    MORE,
    NUMBERS,
    TERMS,
    each_row,
    exponentials_and_marks,
    largest,
    of_row,
    stride_of,
)
from softgrad.backends.numba_cpu.pairs import split
from softgrad.backends.numba_cpu.past_caches import runs, write_run
from softgrad.backends.numba_cpu.product_vectors import (
    log_softmax_jvp,
    log_softmax_vjp,
    softmax_product,
    unweighted,
    weighted,
)
from softgrad.backends.numba_cpu.single import LIFT
from softgrad.backends.numba_cpu.sixteen import (
    all_set,
    fine_tangents,
    given_sums,
    ordinary_point,
    refer_rows,
    whole_shift,
)
from softgrad.backends.numba_cpu.tile_products import LOG_JVP, LOG_PROBS, LOG_VJP, PROBS, SOFTMAX
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide_products import lift


@kernel
def product_middle(
    counter, chunk, hard, stage, rows, classes, operation, kind, z, count_v, v, v_step, out, out_step, streams,
    v_fmt, fmt,
):  # fmt: skip
    """One of the three of every tile not taken.  What float32 will not do for is listed: tangent · rows + row."""
    terms = stage + TERMS
    products = terms + 16 * stride_of(classes) if count_v > 1 else terms
    written = z if streams else out
    tiles = (rows + 15) >> 4
    first = take(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = (16 * i, min(16, rows - 16 * i), classes)
            m = largest(z, tile, stage, fmt)
            low, high = terms_of(z, terms, tile, m, kind, stage, v, written, fmt)
            factor, rest = split(1.0 / low, 1.0 / high)
            ordinary_rows = ordinary_point(m, kind, tile)
            if operation != LOG_VJP:
                first_marked(stage, tile)
            for n in range(count_v):
                of_v = (v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5])
                of_out = (out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5])
                if operation == LOG_VJP:
                    each_row(f32s(0.0), stage + NUMBERS)
                    u_low, u_high, top = moments(unweighted, terms, of_v, tile, stage, v_fmt)
                else:
                    tangents_at_k(of_v, tile, stage, v_fmt)
                    u_low, u_high, top = moments(weighted, terms, of_v, tile, stage, v_fmt)
                keep = ordinary_rows & fine_tangents(top, joined(u_low, u_high), tile)
                if not all_set(keep):
                    refer_rows(hard, tile, keep, n * rows)
                each_row(joined(u_low / low, u_high / high), stage + NUMBERS + 64)
                each_row(factor, stage + NUMBERS + 128)
                each_row(rest, stage + NUMBERS + 192)
                at = terms, products
                if operation == SOFTMAX:
                    write_products(softmax_product, at, of_v, of_out, tile, keep, stage, streams, v_fmt, fmt)
                elif operation == LOG_JVP:
                    write_products(log_softmax_jvp, at, of_v, of_out, tile, keep, stage, streams, v_fmt, fmt)
                else:
                    write_products(log_softmax_vjp, at, of_v, of_out, tile, keep, stage, streams, v_fmt, fmt)
        first = take(counter) * chunk


@inlined
def terms_of(z, terms, tile, m, kind, stage, v, out, fmt):
    """Fill e, or probabilities as they are, lifted, and mark where z is m; Σ e of the first eight rows and others."""
    if kind == PROBS:
        for i in range(tile[1]):
            lift(row_offset(z, tile[0] + i), terms + stride_of(tile[2]) * i, tile[2], fmt)
        mark(z, tile, m, stage, fmt)
        return f64s(2.0**LIFT), f64s(2.0**LIFT)
    N = whole_shift(m)
    low, high = exponentials_and_marks(z, terms, tile, N, stage, m, v, out, fmt)
    return given_sums(N) if kind == LOG_PROBS else (low, high)


@helper
def mark(z, tile, m, stage, fmt):
    """The marks that `exponentials_and_marks` makes."""
    size, vectors, tail = 16 * size_of(fmt), tile[2] >> 4, tile[2] & 15
    each_row(m, stage + NUMBERS)
    for i in range(tile[1]):
        at, marks_at, m_i = row_offset(z, tile[0] + i), stage + MARKS + 64 * i, of_row(stage + NUMBERS, i)
        write_i64(marks_at + (vectors >> 2 << 3), 0)
        for j in range(vectors):
            write_mask(marks_at + 2 * j, load(at + size * j, fmt) == m_i)
        if tail > 0:
            write_mask(marks_at + 2 * vectors, load_first(at + size * vectors, tail, fmt) == m_i)


@helper
def first_marked(stage, tile):
    """k of each row, the first class that is marked, in place of its marks."""
    groups = (tile[2] + 63) >> 6
    for i in range(tile[1]):
        marks_at = stage + MARKS + 64 * i
        k = 0
        for g in range(groups - 1, -1, -1):
            marks = read_i64(marks_at + 8 * g)
            k = k if marks == 0 else 64 * g + first_bit(marks)
        write_i64(marks_at, min(k, tile[2] - 1))


@helper
def tangents_at_k(v, tile, stage, fmt):
    """v_k of each row."""
    for i in range(tile[1]):
        at = row_offset(v, tile[0] + i) + size_of(fmt) * read_i64(stage + MARKS + 64 * i)
        write_f32(stage + NUMBERS + 4 * i, read(at, fmt))


@inlined
def moments(weigh, terms, v, tile, stage, fmt):
    """The sums, added in the order of Σ e, of the first eight rows and of the others; the largest |u|."""
    first, rows, classes = tile
    size, stride = 16 * size_of(fmt), stride_of(classes)
    vectors, tail = classes >> 4, classes & 15
    for i in range(rows):
        at, e_at = row_offset(v, first + i), terms + stride * i
        v_k = of_row(stage + NUMBERS, i)
        a, b, c, d, top = f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0)
        j = 0
        while j + 4 <= vectors:
            x, top = term(weigh, e_at, at, j, size, v_k, top, fmt)
            a += x
            x, top = term(weigh, e_at, at, j + 1, size, v_k, top, fmt)
            b += x
            x, top = term(weigh, e_at, at, j + 2, size, v_k, top, fmt)
            c += x
            x, top = term(weigh, e_at, at, j + 3, size, v_k, top, fmt)
            d += x
            j += 4
        while j < vectors:
            x, top = term(weigh, e_at, at, j, size, v_k, top, fmt)
            a, b, c, d = b, c, d, a + x
            j += 1
        if tail > 0:
            u = load_first(at + size * vectors, tail, fmt) - v_k
            u = where(lane_numbers32() < tail, u, f32s(0.0))
            top = larger(absolute(u), top)
            a += weigh(e_at + 64 * vectors, u)
        store_f32(stage + 64 * i, (a + b) + (c + d))
        store_f32(stage + MORE + 64 * i, top)
    low, high = sum_of_each(stage)
    return low, high, max_of_each(stage + MORE)


@inlined
def term(weigh, e_at, v_at, j, size, v_k, top, fmt):
    """Vector j of what is summed; the largest |u|."""
    u = load(v_at + size * j, fmt) - v_k
    return weigh(e_at + 64 * j, u), larger(absolute(u), top)


@inlined
def write_products(vector, at, v, out, tile, keep, stage, streams, v_fmt, fmt):
    """One of the products, but for rows whose lane of `keep` is 0; past the caches, by way of `products`."""
    terms, products = at
    first, rows, classes = tile
    size, vectors, tail = 16 * size_of(fmt), classes >> 4, classes & 15
    if streams and runs(out, tile, keep, fmt):
        for i in range(rows):
            # If the products take the terms' place: never ahead of what is still to be read.
            of, at = of_this_row(terms, v, tile, stage, i, v_fmt), products + 4 * classes * i
            for j in range(vectors):
                store_f32(at + 64 * j, vector(16 * j, 16, of))
            if tail > 0:
                store_f32(at + 64 * vectors, vector(16 * vectors, tail, of))
        write_run(products, row_offset(out, first), rows * classes, fmt)
        return
    all_kept = all_set(keep)
    for i in range(rows):
        if all_kept or lane(keep, i) != 0:
            of, at = of_this_row(terms, v, tile, stage, i, v_fmt), row_offset(out, first + i)
            for j in range(vectors):
                store(at + size * j, vector(16 * j, 16, of), fmt)
            if tail > 0:
                store_first(at + size * vectors, vector(16 * vectors, tail, of), tail, fmt)


@inlined
def of_this_row(terms, v, tile, stage, i, v_fmt):
    """What `product_vectors` asks for."""
    e_at, v_at, numbers = terms + stride_of(tile[2]) * i, row_offset(v, tile[0] + i), stage + NUMBERS
    v_k, mean = of_row(numbers, i), of_row(numbers + 64, i)
    return e_at, v_at, v_k, mean, of_row(numbers + 128, i), of_row(numbers + 192, i), v_fmt


@entry(lambda z, v: (reads(v, 4), reads(z, 3), writes(z, 4), INT, INT, INT))
def product_middle_few(v, z, out, operation, kind, scratch):
    """The same of a few rows; how many results are listed behind the counter."""
    rows, classes, of_z = z.shape[0] * z.shape[2], z.shape[1], described(z, 0)
    count, v_step, of_v = described_tangents(v, 0)
    _, out_step, of_out = described_tangents(out, 0)
    hard, stage = begin(scratch, count * rows)
    product_middle(
        scratch, ALL, hard, stage, rows, classes, operation, kind, of_z, count, of_v, v_step, of_out, out_step, False,
        v.dtype.type(0), z.dtype.type(0),
    )  # fmt: skip
    return read_i64(hard)
