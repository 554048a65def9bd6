"""Jacobian products of sixteen rows side by side."""

from __future__ import annotations

import numpy as np

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
    i32s,
    larger,
    load_f32,
    read_i64,
    store_f32,
)
from softgrad.backends.numba_cpu.narrow import (
    exponentials,
    first_largest,
    pick,
    tile_at,
    tiles_of,
    whole,
)
from softgrad.backends.numba_cpu.narrow_memory import COLUMNS, are_packed, fill_columns, write_columns
from softgrad.backends.numba_cpu.pairs import added, reciprocal, rounded_product, split
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
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_products import LOG_JVP, LOG_PROBS, LOG_VJP, PROBS, SOFTMAX

FLOAT32 = np.float32(0)


@kernel
def product_columns(
    counter, chunk, hard, stage, rows, classes, operation, kind, z, count_v, v, v_step, out, out_step, streams,
    v_fmt, fmt,
):  # fmt: skip
    """One of the three of every tile not taken.  What float32 will not do for is listed: tangent · rows + row."""
    columns = stage + COLUMNS
    v_columns = columns + 64 * whole(classes)
    tiles = tiles_of(z, rows)
    filled, packed = 0, are_packed(out, classes, streams and count_v == 1, fmt)
    first = next_share(counter) * chunk
    while first < tiles:
        stop = min(first + chunk, tiles)
        for i in range(first, stop):
            tile = tile_at(i, z, rows, classes)
            fill_columns(columns, stage, z, tile, fmt)
            m, k = first_largest(columns, classes)
            over = terms_of(columns, classes, m, kind)
            ordinary_rows = ordinary_point(m, kind, tile)
            for n in range(count_v):
                fill_columns(v_columns, stage, (v[0] + n * v_step, v[1], v[2], v[3], v[4], v[5]), tile, v_fmt)
                v_k = f32s(0.0)
                if operation == LOG_VJP:
                    moment, top = moments(unweighted, columns, v_columns, classes, v_k)
                else:
                    v_k = pick(v_columns, classes, k)
                    moment, top = moments(weighted, columns, v_columns, classes, v_k)
                keep = ordinary_rows & fine_tangents(top, moment[0], tile)
                if not all_set(keep):
                    refer_rows(hard, tile, keep, n * rows)
                of = columns, v_columns, v_k, rounded_product(moment, over), *over, FLOAT32
                if operation == SOFTMAX:
                    replace(softmax_product, of, classes)
                elif operation == LOG_JVP:
                    replace(log_softmax_jvp, of, classes)
                else:
                    replace(log_softmax_vjp, of, classes)
                of_out = (out[0] + n * out_step, out[1], out[2], out[3], out[4], out[5])
                filled = write_columns(v_columns, stage, of_out, tile, keep, filled, packed, i + 1 == stop, fmt)
        first = next_share(counter) * chunk
    leave(counter)


@inlined
def terms_of(columns, classes, m, kind):
    """Replace z by e, or probabilities by themselves, lifted; 1 / Σ e, a pair."""
    if kind == PROBS:
        for c in range(classes):
            store_f32(columns + 64 * c, load_f32(columns + 64 * c) * 2.0**LIFT)
        return f32s(2.0**-LIFT), f32s(0.0)
    N = whole_shift(m)
    total, _ = exponentials(columns, columns, classes, N, i32s(-1))
    if kind == LOG_PROBS:
        low, high = given_sums(N)
        return split(1.0 / low, 1.0 / high)
    return reciprocal(total)


@inlined
def replace(vector, of, classes):
    """Replace v by a product."""
    for c in range(classes):
        store_f32(of[1] + 64 * c, vector(16 * c, 16, of))


@inlined
def moments(weigh, columns, v_columns, classes, v_k):
    """The sums, pairs, added in the order of Σ e; and the largest |u|."""
    total, top = (f32s(0.0), f32s(0.0)), f32s(0.0)
    for c in range(0, classes, 4):
        group = f32s(0.0)
        for i in range(c, min(c + 4, classes)):
            u = load_f32(v_columns + 64 * i) - v_k
            top = larger(absolute(u), top)
            group = weigh(group, load_f32(columns + 64 * i), u)
        total = added(total, group)
    return total, top


@entry(lambda z, v: (reads(v, 4), reads(z, 3), writes(z, 4), INT, INT, INT))
def product_columns_few(v, z, out, operation, kind, scratch):
    """The same of a few rows; how many results are listed behind the counter."""
    rows, classes, of_z = z.shape[0] * z.shape[2], z.shape[1], described(z, 0)
    count, v_step, of_v = described_tangents(v, 0)
    _, out_step, of_out = described_tangents(out, 0)
    hard, stage = begin(scratch, count * rows)
    product_columns(
        scratch, ALL, hard, stage, rows, classes, operation, kind, of_z, count, of_v, v_step, of_out, out_step, False,
        v.dtype.type(0), z.dtype.type(0),
    )  # fmt: skip
    return read_i64(hard)
