"""Jacobian products of rows of some vectors."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import inlined, kernel
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
    i32s,
    joined,
    lane_numbers32,
    larger,
    load,
    load_f32,
    load_first,
    mask_bits,
    max_of_each,
    prefetch,
    read,
    read_i64,
    size_of,
    store_f32,
    sum_of_each,
    where,
    write_f32,
    write_i64,
)
from softgrad.backends.numba_cpu.middle import (
    AHEAD,
    BEFORE,
    CLASSES,
    LINES,
    MOMENTS,
    NEXT,
    NUMBERS,
    SUMS,
    TERMS,
    TOPS,
    each_row,
    exponentials_of_row,
    first_class,
    keep_rows,
    largest,
    largest_of_row,
    of_row,
    shift_rows,
    stride_of,
    tile_at,
    write_row_of,
)
from softgrad.backends.numba_cpu.pairs import split
from softgrad.backends.numba_cpu.past_caches import begin_lines, flush
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
from softgrad.backends.numba_cpu.taking import ahead, following
from softgrad.backends.numba_cpu.tile_products import LOG_JVP, LOG_PROBS, LOG_VJP, PROBS, SOFTMAX
from softgrad.backends.numba_cpu.tiles import row_offset

# Where a row's number for the tangent under way stands: v[k].
OF_K = NUMBERS + 192


@kernel
def product_middle(
    counter, chunk, hard, stage, rows, classes, operation, kind, z, count_v, v, v_step, out, out_step, streams,
    v_fmt, fmt,
):  # fmt: skip
    """One of the three of every tile not taken.  What float32 will not do for is listed: tangent · rows + row."""
    terms = stage + TERMS
    of_z = ahead(z, size_of(fmt), classes, AHEAD)
    distances = ahead(v, size_of(v_fmt), classes, AHEAD), ahead(out, size_of(fmt), classes, AHEAD)
    tiles = (rows + 15) >> 4
    begin_lines(stage + LINES)
    i, stop = following(counter, chunk, tiles, -1, 0)
    before, tile = (0, 0, classes), tile_at(i, rows, classes)
    of_v, of_out, v_before, out_before = v, out, v, out
    m = largest(z, tile, of_z, stage, fmt)
    low, high, ordinary_rows = f64s(1.0), f64s(1.0), i32s(1)
    while True:
        i, stop = following(counter, chunk, tiles, i, stop)
        after, N = tile_at(i, rows, classes), whole_shift(m)
        shift_rows(N, m, stage)
        for n in range(count_v):
            of_v = (v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5])
            of_out = (out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5])
            for r in range(max(before[1], tile[1])):
                if r < before[1]:
                    write(operation, terms, v_before, out_before, before, r, distances[1], stage, streams, v_fmt, fmt)
                if r < tile[1] and n == 0:
                    terms_of_row(z, terms, tile, r, kind, stage, fmt)
                if r < after[1] and n == 0:
                    store_f32(stage + NEXT + 64 * r, largest_of_row(z, after, r, of_z, fmt))
                if r < tile[1]:
                    moments_of_row(operation, terms, of_v, tile, r, distances[0], stage, v_fmt)
            if tile[1] == 0:
                flush(stage + LINES, fmt)
                return
            if n == 0:
                low, high = sums_of(kind, N, stage)
                ordinary_rows = ordinary_point(m, kind, tile)
            u_low, u_high = sum_of_each(stage + MOMENTS)
            keep = ordinary_rows & fine_tangents(max_of_each(stage + TOPS), joined(u_low, u_high), tile)
            if not all_set(keep):
                refer_rows(hard, tile, keep, n * rows)
            factor, rest = split(1.0 / low, 1.0 / high)
            each_row(load_f32(stage + OF_K), stage + BEFORE)
            each_row(joined(u_low / low, u_high / high), stage + BEFORE + 64)
            each_row(factor, stage + BEFORE + 128)
            each_row(rest, stage + BEFORE + 192)
            keep_rows(keep, stage)
            before, v_before, out_before = tile, of_v, of_out
        m, tile = max_of_each(stage + NEXT), after


@inlined
def terms_of_row(z, terms, tile, i, kind, stage, fmt):
    """Fill e, or probabilities as they are, lifted; their sum, and k."""
    if kind == PROBS:
        k = lift(z, terms, tile, i, stage, fmt)
    else:
        e, _, k = exponentials_of_row(z, terms, tile, i, 0, stage, True, fmt)
        store_f32(stage + SUMS + 64 * i, e)
    write_i64(stage + CLASSES + 8 * i, k)


@inlined
def lift(p, terms, tile, i, stage, fmt):
    """e = p · 2^LIFT; k."""
    size, vectors, tail = 16 * size_of(fmt), tile[2] >> 4, tile[2] & 15
    at, e_at, m = row_offset(p, tile[0] + i), terms + stride_of(tile[2]) * i, of_row(stage + NUMBERS + 128, i)
    k = -1
    for j in range(vectors):
        x = load(at + size * j, fmt)
        store_f32(e_at + 64 * j, x * 2.0**LIFT)
        k = first_class(k, mask_bits(x == m), 16 * j)
    if tail > 0:
        x = load_first(at + size * vectors, tail, fmt)
        store_f32(e_at + 64 * vectors, where(lane_numbers32() < tail, x, f32s(0.0)) * 2.0**LIFT)
        k = first_class(k, mask_bits(x == m), 16 * vectors)
    return max(k, 0)


@inlined
def sums_of(kind, N, stage):
    """Σ e of the first eight rows and of the others."""
    if kind == PROBS:
        return f64s(2.0**LIFT), f64s(2.0**LIFT)
    return given_sums(N) if kind == LOG_PROBS else sum_of_each(stage + SUMS)


@inlined
def moments_of_row(operation, terms, v, tile, i, distance, stage, fmt):
    """The vectors of Σ e u, or Σ u, and of the largest |u|."""
    v_k = f32s(0.0)
    if operation == LOG_VJP:
        moment, top = moments(unweighted, terms, v, tile, i, v_k, distance, fmt)
    else:
        k = read_i64(stage + CLASSES + 8 * i)
        x = read(row_offset(v, tile[0] + i) + size_of(fmt) * k, fmt)
        write_f32(stage + OF_K + 4 * i, x)
        v_k = f32s(x)
        moment, top = moments(weighted, terms, v, tile, i, v_k, distance, fmt)
    store_f32(stage + MOMENTS + 64 * i, moment)
    store_f32(stage + TOPS + 64 * i, top)


@inlined
def moments(weigh, terms, v, tile, i, v_k, distance, fmt):
    """The same, added in the order of Σ e."""
    size, vectors, tail = 16 * size_of(fmt), tile[2] >> 4, tile[2] & 15
    at, e_at = row_offset(v, tile[0] + i), terms + stride_of(tile[2]) * i
    a, b, c, d, top = f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0)
    j = 0
    while j + 4 <= vectors:
        a, top = add(weigh, a, e_at, at, j, size, v_k, top, distance, fmt)
        b, top = add(weigh, b, e_at, at, j + 1, size, v_k, top, distance, fmt)
        c, top = add(weigh, c, e_at, at, j + 2, size, v_k, top, distance, fmt)
        d, top = add(weigh, d, e_at, at, j + 3, size, v_k, top, distance, fmt)
        j += 4
    while j < vectors:
        x, top = add(weigh, a, e_at, at, j, size, v_k, top, distance, fmt)
        a, b, c, d = b, c, d, x
        j += 1
    if tail > 0:
        u = load_first(at + size * vectors, tail, fmt) - v_k
        u = where(lane_numbers32() < tail, u, f32s(0.0))
        top = larger(absolute(u), top)
        a = weigh(a, e_at + 64 * vectors, u)
    return (a + b) + (c + d), top


@inlined
def add(weigh, total, e_at, v_at, j, size, v_k, top, distance, fmt):
    """The sum with vector j; the largest |u|."""
    prefetch(v_at + size * j + distance)
    u = load(v_at + size * j, fmt) - v_k
    return weigh(total, e_at + 64 * j, u), larger(absolute(u), top)


@inlined
def write(operation, terms, v, out, tile, i, distance, stage, streams, v_fmt, fmt):
    """Row i of a product."""
    e_at, v_at, numbers = terms + stride_of(tile[2]) * i, row_offset(v, tile[0] + i), stage + BEFORE
    v_k, mean = of_row(numbers, i), of_row(numbers + 64, i)
    if operation == LOG_VJP:
        v_k = f32s(0.0)
    of = e_at, v_at, v_k, mean, of_row(numbers + 128, i), of_row(numbers + 192, i), v_fmt
    if operation == SOFTMAX:
        write_row_of(softmax_product, of, out, tile, i, distance, stage, streams, fmt)
    elif operation == LOG_JVP:
        write_row_of(log_softmax_jvp, of, out, tile, i, distance, stage, streams, fmt)
    else:
        write_row_of(log_softmax_vjp, of, out, tile, i, distance, stage, streams, fmt)


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
