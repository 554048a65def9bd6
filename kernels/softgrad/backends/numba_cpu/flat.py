"""Sixteen rows that lie one behind the other, as a run of 16 C numbers: whole vectors, wherever in them rows begin.

For up to 64 classes.
For tiles of `middle`, whose arithmetic this is, number by number.  There each row begins a vector of its own, so of a
row of 20 classes every second vector is nearly empty, and pays for its exponentials all the same.  Here only what is
done across a row, its sum and its largest logit, takes rows one by one.  What a row has one of, a shift or a factor,
is spread over its classes by a table of which row each number of the run is of.

Two sets of terms: of one tile the results are written, of the next the exponentials are made and added up.
"""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    chosen,
    f32s,
    i32s,
    lane_numbers32,
    larger,
    load,
    load_f32,
    load_first,
    load_i32,
    load_part_f32,
    prefetch,
    size_of,
    store_f32,
    store_i32,
    where,
)
from softgrad.backends.numba_cpu.past_caches import write_until
from softgrad.backends.numba_cpu.single import exp_shifted, four_exp_shifted
from softgrad.backends.numba_cpu.tiles import row_offset


@inlined
def lay_rows(table, classes):
    """Write which of sixteen rows each number of a run is of."""
    for i in range(16):
        for c in range(0, classes, 16):
            store_i32(table + 4 * (classes * i + c), i32s(i))  # beyond the row's end the next row will write


@inlined
def spread(x, table, j):
    """Of a number per row, those of the sixteen numbers from j on; x itself where there is no table."""
    return x if table is None else chosen(x, load_i32(table + 4 * j))


@helper
def exponentials_of_run(z_at, e_at, classes, rounder, lowest, table, distance, fmt):
    """e of every number of a run, shifted by its row's constants, or all by the same if there is no table.

    Returns a vector among whose numbers is the largest logit of all.
    """
    size, top = 16 * size_of(fmt), f32s(-math.inf)
    j = 0
    while j + 64 <= 16 * classes:
        prefetch(z_at + distance)
        prefetch(z_at + size + distance)
        prefetch(z_at + 2 * size + distance)
        prefetch(z_at + 3 * size + distance)
        x, y = load(z_at, fmt), load(z_at + size, fmt)
        v, w = load(z_at + 2 * size, fmt), load(z_at + 3 * size, fmt)
        top = larger(w, larger(v, larger(y, larger(x, top))))  # a NaN passes over no other row's
        x, y, v, w = four_exp_shifted(x, y, v, w, spread_four(rounder, table, j), spread_four(lowest, table, j))
        store_f32(e_at + 4 * j, x)
        store_f32(e_at + 4 * j + 64, y)
        store_f32(e_at + 4 * j + 128, v)
        store_f32(e_at + 4 * j + 192, w)
        z_at += 4 * size
        j += 64
    while j < 16 * classes:
        prefetch(z_at + distance)
        x = load(z_at, fmt)
        top = larger(x, top)
        store_f32(e_at + 4 * j, exp_shifted(x, spread(rounder, table, j), spread(lowest, table, j)))
        z_at += size
        j += 16
    return top


@inlined
def spread_four(x, table, j):
    """The same of the 64 numbers from j on."""
    return spread(x, table, j), spread(x, table, j + 16), spread(x, table, j + 32), spread(x, table, j + 48)


@inlined
def sums_of_four(e_at, step, classes):
    """The vectors of the sums of four rows, added as `middle` does."""
    nothing = f32s(0.0)
    zeros = nothing, nothing, nothing, nothing
    a, b, c, d = zeros, zeros, zeros, zeros
    a = plus(a, e_at, step, classes)
    if classes > 16:
        b = plus(b, e_at + 64, step, classes - 16)
    if classes > 32:
        c = plus(c, e_at + 128, step, classes - 32)
    if classes > 48:
        d = plus(d, e_at + 192, step, classes - 48)
    return joined_sums(a, b, c, d, classes)


@inlined
def plus(sums, e_at, step, n):
    """The sums with up to sixteen terms of four rows, of which n are left."""
    a, b = some_terms(e_at, n), some_terms(e_at + step, n)
    c, d = some_terms(e_at + 2 * step, n), some_terms(e_at + 3 * step, n)
    return sums[0] + a, sums[1] + b, sums[2] + c, sums[3] + d


@inlined
def some_terms(e_at, n):
    """Sixteen terms, or the n left and zeros."""
    return load_f32(e_at) if n >= 16 else load_part_f32(e_at, n)


@inlined
def joined_sums(a, b, c, d, classes):
    """(a + b) + (c + d) of four rows; of those that there are, the others being 0."""
    if classes <= 16:
        return a
    both = a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]
    if classes <= 32:
        return both
    others = c[0] + d[0], c[1] + d[1], c[2] + d[2], c[3] + d[3]
    return both[0] + others[0], both[1] + others[1], both[2] + others[2], both[3] + others[3]


@inlined
def largest_of_four(z_at, step, classes, fmt):
    """The vectors of the largest logits of four rows."""
    size, nothing = size_of(fmt), f32s(-math.inf)
    a, b, c, d = nothing, nothing, nothing, nothing
    j = 0
    while j + 16 <= classes:
        a, b = larger(load(z_at, fmt), a), larger(load(z_at + step, fmt), b)
        c, d = larger(load(z_at + 2 * step, fmt), c), larger(load(z_at + 3 * step, fmt), d)
        z_at += 16 * size
        j += 16
    if j < classes:
        n = classes - j
        a, b = larger(load_first(z_at, n, fmt), a), larger(load_first(z_at + step, n, fmt), b)
        c, d = larger(load_first(z_at + 2 * step, n, fmt), c), larger(load_first(z_at + 3 * step, n, fmt), d)
    return a, b, c, d


@inlined
def moments_of_four(weigh, e_at, e_step, v_at, v_step, classes, v_k, fmt):
    """The vectors of Σ e u, or what `weigh` sums, of four rows, added in the same order, and of the largest |u|."""
    nothing = f32s(0.0)
    zeros = nothing, nothing, nothing, nothing
    a, b, c, d, top = zeros, zeros, zeros, zeros, zeros
    size = size_of(fmt)
    a, top = weigh_four(weigh, a, top, e_at, e_step, v_at, v_step, classes, v_k, fmt)
    if classes > 16:
        b, top = weigh_four(weigh, b, top, e_at + 64, e_step, v_at + 16 * size, v_step, classes - 16, v_k, fmt)
    if classes > 32:
        c, top = weigh_four(weigh, c, top, e_at + 128, e_step, v_at + 32 * size, v_step, classes - 32, v_k, fmt)
    if classes > 48:
        d, top = weigh_four(weigh, d, top, e_at + 192, e_step, v_at + 48 * size, v_step, classes - 48, v_k, fmt)
    return joined_sums(a, b, c, d, classes), top


@inlined
def weigh_four(weigh, sums, top, e_at, e_step, v_at, v_step, n, v_k, fmt):
    """The sums, and the largest, with up to sixteen classes of four rows, of which n are left."""
    a, x = weighed(weigh, sums[0], top[0], e_at, v_at, n, v_k[0], fmt)
    b, y = weighed(weigh, sums[1], top[1], e_at + e_step, v_at + v_step, n, v_k[1], fmt)
    c, v = weighed(weigh, sums[2], top[2], e_at + 2 * e_step, v_at + 2 * v_step, n, v_k[2], fmt)
    d, w = weighed(weigh, sums[3], top[3], e_at + 3 * e_step, v_at + 3 * v_step, n, v_k[3], fmt)
    return (a, b, c, d), (x, y, v, w)


@inlined
def weighed(weigh, total, top, e_at, v_at, n, v_k, fmt):
    """The sum and the largest of a row with up to sixteen classes."""
    if n >= 16:
        u = load(v_at, fmt) - v_k
        return weigh(total, load_f32(e_at), u), larger(absolute(u), top)
    u = where(lane_numbers32() < n, load_first(v_at, n, fmt) - v_k, f32s(0.0))
    return weigh(total, some_terms(e_at, n), u), larger(absolute(u), top)


@inlined
def write_all(vector, of, out, tile, distance, begun, fmt):
    """The results of a run: vector(j, n, of), j counted through all its rows; `begun` as for `write_until`."""
    write_until(vector, of, row_offset(out, tile[0]), 16 * tile[2], 0, 16 * tile[2], distance, begun, fmt)
