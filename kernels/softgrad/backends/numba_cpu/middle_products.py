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
from softgrad.backends.numba_cpu.flat import moments_of_four, spread, weighed, write_all
from softgrad.backends.numba_cpu.lanes import (
    f32s,
    f64s,
    i32s,
    joined,
    lane_numbers32,
    load,
    load_f32,
    load_first,
    mask_bits,
    max_of_each,
    prefetch,
    read,
    read_f32,
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
    TOPS,
    USUAL,
    add_run,
    each_row,
    exponentials_of_row,
    fill_run,
    first_class,
    keep_rows,
    largest,
    largest_of_row,
    look_at_run,
    next_largest,
    of_row,
    shift_rows,
    shifts,
    store_four,
    terms_in,
    tile_at,
    write_row_of,
)
from softgrad.backends.numba_cpu.pairs import split
from softgrad.backends.numba_cpu.past_caches import LINE, begin_lines, flush
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
    everywhere,
    fine_tangents,
    given_sums,
    ordinary_point,
    refer_rows,
)
from softgrad.backends.numba_cpu.taking import ahead, following, leave
from softgrad.backends.numba_cpu.tile_products import LOG_JVP, LOG_PROBS, LOG_VJP, PROBS, SOFTMAX
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import first_equal

# Where a row's number for the tangent under way stands: v[k].
OF_K = NUMBERS + 192


@kernel
def product_middle(
    counter, chunk, hard, stage, flat, rows, classes, operation, kind, z, count_v, v, v_step, out, out_step, streams,
    v_fmt, fmt,
):  # fmt: skip
    """One of the three of every tile not taken.  What float32 will not do for is listed: tangent · rows + row.

    `flat`: rows lie one behind the other in all arrays, those of each tangent.
    """
    terms, others, table = terms_in(stage, classes, flat)
    of_z = ahead(z, size_of(fmt), classes, AHEAD)
    distances = ahead(v, size_of(v_fmt), classes, AHEAD), ahead(out, size_of(fmt), classes, AHEAD)
    tiles = (rows + 15) >> 4
    begin_lines(stage + LINES)
    i, stop = following(counter, chunk, tiles, -1, 0)
    before, tile = tile_at(0, 0, classes, flat), tile_at(i, rows, classes, flat)
    of_v, of_out, v_before, out_before = v, out, v, out
    near_0 = operation != LOG_VJP  # Σ v / Σ e needs all the room there is below
    usual, found, whole = near_0, False, False
    m, N, low, high, ordinary_rows = f32s(0.0), f32s(0.0), f64s(1.0), f64s(1.0), i32s(1)
    while True:
        i, stop = following(counter, chunk, tiles, i, stop)
        after = tile_at(i, rows, classes, flat)
        is_run = flat and tile[1] == 16
        if not is_run:
            m = next_largest(z, tile, of_z, found, stage, fmt)
            N = shifts(m, near_0)
            shift_rows(N, m, stage)
        found = not is_run
        terms, others = others, terms
        for n in range(count_v):
            of_v = (v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5])
            of_out = (out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5])
            e_before = others if n == 0 else terms
            if is_run and n == 0:
                m, N = fill_point(z, terms, tile, kind, usual, near_0, table, of_z, stage, fmt)
                usual = near_0 and everywhere(N == USUAL)
            if whole:
                write_run(
                    operation, e_before, v_before, out_before, before, table, distances[1], stage, streams, v_fmt, fmt
                )  # fmt: skip
            to_write, to_fill = 0 if whole else before[1], 0 if is_run else tile[1]
            for r in range(max(to_write, to_fill)):
                if r < to_write:
                    write(
                        operation, e_before, v_before, out_before, before, r, distances[1], stage, streams, v_fmt, fmt
                    )
                if r < to_fill and n == 0:
                    terms_of_row(z, terms, tile, r, kind, stage, fmt)
                if r < after[1] and n == 0 and not is_run:
                    store_f32(stage + NEXT + 64 * r, largest_of_row(z, after, r, of_z, fmt))
                if r < to_fill:
                    moments_of_row(operation, terms, of_v, tile, r, distances[0], stage, v_fmt)
            if is_run:
                moments_of_run(operation, terms, of_v, tile, distances[0], stage, v_fmt)
            if tile[1] == 0:
                flush(stage + LINES, fmt)
                leave(counter)
                return
            if n == 0:
                low, high = sums_of(kind, N, stage)
                ordinary_rows = ordinary_point(m, kind, tile)
            u_low, u_high = sum_of_each(stage + MOMENTS)
            keep = ordinary_rows & fine_tangents(max_of_each(stage + TOPS), joined(u_low, u_high), tile)
            whole = is_run and all_set(keep)
            if not all_set(keep):
                refer_rows(hard, tile, keep, n * rows)
            factor, rest = split(1.0 / low, 1.0 / high)
            each_row(load_f32(stage + OF_K), stage + BEFORE)
            each_row(joined(u_low / low, u_high / high), stage + BEFORE + 64)
            each_row(factor, stage + BEFORE + 128)
            each_row(rest, stage + BEFORE + 192)
            keep_rows(keep, stage)
            before, v_before, out_before = tile, of_v, of_out
        tile = after


@inlined
def fill_point(z, terms, tile, kind, usual, may_be_usual, table, distance, stage, fmt):
    """Fill the terms of a tile that is a run, with what `sums_of` and `moments_of_row` need; m and N of each row."""
    if kind == PROBS:
        m = largest(z, tile, distance, stage, fmt)
        N = f32s(USUAL)
        shift_rows(N, m, stage)
        for r in range(16):
            terms_of_row(z, terms, tile, r, kind, stage, fmt)
        return m, N
    N, _ = fill_run(z, terms, tile, usual, may_be_usual, table, distance, stage, fmt)
    look_at_run(z, tile, stage, fmt)
    add_run(terms, tile, stage)
    m = max_of_each(stage + TOPS)
    wanted = shifts(m, may_be_usual)
    shift_rows(wanted, m, stage)
    if everywhere(wanted == N):
        for r in range(16):
            k = first_equal(row_offset(z, tile[0] + r), tile[2], read_f32(stage + NUMBERS + 128 + 4 * r), 0, fmt)
            write_i64(stage + CLASSES + 8 * r, k)
    else:
        for r in range(16):
            terms_of_row(z, terms, tile, r, kind, stage, fmt)
    return m, wanted


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
    at, e_at, m = row_offset(p, tile[0] + i), terms + tile[3] * i, of_row(stage + NUMBERS + 128, i)
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
def moments_of_run(operation, terms, v, tile, distance, stage, fmt):
    """The same of a tile that is a run."""
    size, e_step = size_of(fmt), tile[3]
    step = size * tile[2]
    for i in range(0, 16, 4):
        e_at, at = terms + e_step * i, row_offset(v, tile[0] + i)
        for ahead_of in range(0, 4 * step, LINE):
            prefetch(at + distance + ahead_of)
        if operation == LOG_VJP:
            nothing = f32s(0.0)
            v_k = nothing, nothing, nothing, nothing
            moment, top = moments_of_four(unweighted, e_at, e_step, at, step, tile[2], v_k, fmt)
        else:
            for r in range(4):
                k = read_i64(stage + CLASSES + 8 * (i + r))
                write_f32(stage + OF_K + 4 * (i + r), read(at + step * r + size * k, fmt))
            numbers = stage + OF_K
            v_k = of_row(numbers, i), of_row(numbers, i + 1), of_row(numbers, i + 2), of_row(numbers, i + 3)
            moment, top = moments_of_four(weighted, e_at, e_step, at, step, tile[2], v_k, fmt)
        store_four(stage + MOMENTS + 64 * i, *moment)
        store_four(stage + TOPS + 64 * i, *top)


@inlined
def moments(weigh, terms, v, tile, i, v_k, distance, fmt):
    """The same, added in the order of Σ e."""
    size, classes = 16 * size_of(fmt), tile[2]
    at, e_at = row_offset(v, tile[0] + i), terms + tile[3] * i
    a, b, c, d, top = f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0)
    j = 0
    while j + 64 <= classes:
        a, top = add(weigh, a, top, e_at, at, 16, v_k, distance, fmt)
        b, top = add(weigh, b, top, e_at + 64, at + size, 16, v_k, distance, fmt)
        c, top = add(weigh, c, top, e_at + 128, at + 2 * size, 16, v_k, distance, fmt)
        d, top = add(weigh, d, top, e_at + 192, at + 3 * size, 16, v_k, distance, fmt)
        e_at += 256
        at += 4 * size
        j += 64
    left = classes - j
    if left > 0:
        a, top = add(weigh, a, top, e_at, at, left, v_k, distance, fmt)
    if left > 16:
        b, top = add(weigh, b, top, e_at + 64, at + size, left - 16, v_k, distance, fmt)
    if left > 32:
        c, top = add(weigh, c, top, e_at + 128, at + 2 * size, left - 32, v_k, distance, fmt)
    if left > 48:
        d, top = add(weigh, d, top, e_at + 192, at + 3 * size, left - 48, v_k, distance, fmt)
    return (a + b) + (c + d), top


@inlined
def add(weigh, total, top, e_at, v_at, n, v_k, distance, fmt):
    """The sum, and the largest |u|, with up to sixteen classes, of which n are left."""
    prefetch(v_at + distance)
    return weighed(weigh, total, top, e_at, v_at, n, v_k, fmt)


@inlined
def write_run(operation, terms, v, out, tile, table, distance, stage, streams, v_fmt, fmt):
    """A tile of a product that is a run, all of it."""
    numbers, begun = stage + BEFORE, stage + LINES if streams else 0
    v_k = f32s(0.0) if operation == LOG_VJP else load_f32(numbers)
    mean, factor, rest = load_f32(numbers + 64), load_f32(numbers + 128), load_f32(numbers + 192)
    of = (terms, row_offset(v, tile[0]), v_k, mean, factor, rest, v_fmt), table
    if operation == SOFTMAX:
        write_all(softmax_product_of_run, of, out, tile, distance, begun, fmt)
    elif operation == LOG_JVP:
        write_all(log_softmax_jvp_of_run, of, out, tile, distance, begun, fmt)
    else:
        write_all(log_softmax_vjp_of_run, of, out, tile, distance, begun, fmt)


@inlined
def softmax_product_of_run(j, n, of):
    """`softmax_product`, with each row's numbers."""
    return softmax_product(j, n, of_classes(j, of))


@inlined
def log_softmax_jvp_of_run(j, n, of):
    """`log_softmax_jvp`, with each row's numbers."""
    return log_softmax_jvp(j, n, of_classes(j, of))


@inlined
def log_softmax_vjp_of_run(j, n, of):
    """`log_softmax_vjp`, with each row's numbers."""
    return log_softmax_vjp(j, n, of_classes(j, of))


@inlined
def of_classes(j, of):
    """What a product is made of, for the sixteen numbers from j on."""
    (e_at, v_at, v_k, mean, factor, rest, fmt), table = of
    v_k, mean, factor, rest = (
        spread(v_k, table, j), spread(mean, table, j), spread(factor, table, j), spread(rest, table, j),
    )  # fmt: skip
    return e_at, v_at, v_k, mean, factor, rest, fmt


@inlined
def write(operation, terms, v, out, tile, i, distance, stage, streams, v_fmt, fmt):
    """Row i of a product."""
    e_at, v_at, numbers = terms + tile[3] * i, row_offset(v, tile[0] + i), stage + BEFORE
    begun = stage + LINES if streams else 0
    v_k, mean = of_row(numbers, i), of_row(numbers + 64, i)
    if operation == LOG_VJP:
        v_k = f32s(0.0)
    of = e_at, v_at, v_k, mean, of_row(numbers + 128, i), of_row(numbers + 192, i), v_fmt
    if operation == SOFTMAX:
        write_row_of(softmax_product, of, out, tile, i, distance, stage, begun, fmt)
    elif operation == LOG_JVP:
        write_row_of(log_softmax_jvp, of, out, tile, i, distance, stage, begun, fmt)
    else:
        write_row_of(log_softmax_vjp, of, out, tile, i, distance, stage, begun, fmt)


@entry(lambda z, v: (reads(v, 4), reads(z, 3), writes(z, 4), INT, INT, INT))
def product_middle_few(v, z, out, operation, kind, scratch):
    """The same of a few rows; how many results are listed behind the counter."""
    rows, classes, of_z = z.shape[0] * z.shape[2], z.shape[1], described(z, 0)
    count, v_step, of_v = described_tangents(v, 0)
    _, out_step, of_out = described_tangents(out, 0)
    hard, stage = begin(scratch, count * rows)
    product_middle(
        scratch, ALL, hard, stage, False, rows, classes, operation, kind, of_z, count, of_v, v_step, of_out, out_step,
        False, v.dtype.type(0), z.dtype.type(0),
    )  # fmt: skip
    return read_i64(hard)
