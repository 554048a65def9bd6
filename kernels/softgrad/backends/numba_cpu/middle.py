"""Rows of some vectors: classes side by side, and what a row needs but once for sixteen rows at a time.

A row by itself would pay more for its largest logit and its sum across lanes, its division and its logarithm than for
its exponentials.  So sixteen rows leave the vector of their partial results behind, these are folded into one another,
and from there on each row is a lane, as in `narrow`, whose arithmetic it shares.

Classes are added in a fixed order: a row's vectors in turn into four sums, (a + b) + (c + d), then lanes as
`sum_of_each` adds them.
"""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.lanes import (
    f32s,
    i32s,
    joined,
    lane,
    lane_numbers32,
    larger,
    load,
    load_f32,
    load_first,
    max_of_each,
    prefetch,
    read_f32,
    read_i64,
    size_of,
    store,
    store_f32,
    store_first,
    sum_of_each,
    where,
    write_f32,
    write_i64,
    write_mask,
)
from softgrad.backends.numba_cpu.past_caches import runs, write_run
from softgrad.backends.numba_cpu.single import LN_2, REACH, ROUNDER, exp_shifted, scaled
from softgrad.backends.numba_cpu.sixteen import all_set
from softgrad.backends.numba_cpu.tiles import row_offset

# A tile, as in `narrow`: (first row, number of rows up to 16, C).  Scratch memory, by bytes: a vector for each row,
# and another; numbers per row, of up to four kinds; 64 bytes for each row; then the terms, whole vectors for each row.
MORE, NUMBERS, MARKS, TERMS = 1024, 2048, 2304, 3328


@inlined
def stride_of(classes):
    """Bytes of a row of terms."""
    return 64 * ((classes + 15) >> 4)


@inlined
def each_row(x, numbers):
    """Leave a vector of numbers per row where `of_row` finds them."""
    store_f32(numbers, x)


@inlined
def of_row(numbers, i):
    """Row i's number, in every lane."""
    return f32s(read_f32(numbers + 4 * i))


@helper
def largest(z, tile, stage, fmt):
    """m of each row; NaNs are passed over, they will show in the sum."""
    first, rows, classes = tile
    size = 16 * size_of(fmt)
    vectors, tail = classes >> 4, classes & 15
    for i in range(rows):
        at = row_offset(z, first + i)
        a = load_first(at + size * vectors, tail, fmt) if tail > 0 else f32s(-math.inf)
        b = f32s(-math.inf)
        j = 0
        while j + 2 <= vectors:
            a = larger(load(at + size * j, fmt), a)
            b = larger(load(at + size * (j + 1), fmt), b)
            j += 2
        if j < vectors:
            b = larger(load(at + size * j, fmt), b)
        # A tail that is NaN would stay.
        store_f32(stage + 64 * i, larger(a, larger(b, f32s(-math.inf))))
    return max_of_each(stage)


@helper
def exponentials(z, terms, tile, N, stage, one, other, fmt):
    """Fill the terms of each row with e; Σ e, float64, of the first eight rows and of the others.

    Meanwhile memory is asked for the next tile of z, and for these rows of two arrays.
    """
    each_row(f32s(0.0), stage + NUMBERS + 128)
    return _exponentials(z, terms, tile, N, stage, 0, False, one, other, fmt)


@helper
def exponentials_of_others(z, terms, tile, N, stage, indices, one, other, fmt):
    """The same, the target's term left out of the sum."""
    each_row(f32s(0.0), stage + NUMBERS + 128)
    return _exponentials(z, terms, tile, N, stage, indices, False, one, other, fmt)


@helper
def exponentials_and_marks(z, terms, tile, N, stage, m, one, other, fmt):
    """The same, and for each row 64 bytes of marks, a bit for each class, set where z is m."""
    each_row(m, stage + NUMBERS + 128)
    return _exponentials(z, terms, tile, N, stage, 0, True, one, other, fmt)


@inlined
def _exponentials(z, terms, tile, N, stage, indices, marks, one, other, fmt):
    first, rows, classes = tile
    size, stride, numbers = 16 * size_of(fmt), stride_of(classes), stage + NUMBERS
    vectors, tail = classes >> 4, classes & 15
    each_row(ROUNDER - N, numbers)
    each_row((N - REACH) * LN_2, numbers + 64)
    for i in range(rows):
        at, e_at, marks_at = row_offset(z, first + i), terms + stride * i, stage + MARKS + 64 * i
        one_at, other_at = row_offset(one, first + i), row_offset(other, first + i)
        of = of_row(numbers, i), of_row(numbers + 64, i), of_row(numbers + 128, i)
        t = i32s(0)
        if indices != 0:
            t = lane_numbers32() - i32s(read_i64(indices + 8 * (first + i)))
        if marks:
            write_i64(marks_at + (vectors >> 2 << 3), 0)
        a, b, c, d = f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0)
        j = 0
        while j + 4 <= vectors:
            a += _term(at, e_at, marks_at, j, of, t, 0, indices, marks, fmt)
            b += _term(at, e_at, marks_at, j + 1, of, t, 16, indices, marks, fmt)
            c += _term(at, e_at, marks_at, j + 2, of, t, 32, indices, marks, fmt)
            d += _term(at, e_at, marks_at, j + 3, of, t, 48, indices, marks, fmt)
            for k in range(4):
                prefetch(at + size * (j + k) + 16 * z[1])
                prefetch(one_at + size * (j + k))
                prefetch(other_at + size * (j + k))
            if indices != 0:
                t += 64
            j += 4
        while j < vectors:
            a, b, c, d = b, c, d, a + _term(at, e_at, marks_at, j, of, t, 0, indices, marks, fmt)
            prefetch(at + size * j + 16 * z[1])
            prefetch(one_at + size * j)
            prefetch(other_at + size * j)
            if indices != 0:
                t += 16
            j += 1
        if tail > 0:
            x = load_first(at + size * vectors, tail, fmt)
            a += _kept(x, e_at, marks_at, vectors, of, t, 0, indices, marks)
        store_f32(stage + 64 * i, (a + b) + (c + d))
    return sum_of_each(stage)


@inlined
def _term(at, e_at, marks_at, j, of, t, lanes, indices, marks, fmt):
    """Vector j: what is added to the sum."""
    return _kept(load(at + 16 * size_of(fmt) * j, fmt), e_at, marks_at, j, of, t, lanes, indices, marks)


@inlined
def _kept(x, e_at, marks_at, j, of, t, lanes, indices, marks):
    rounder, lowest, m = of
    e = exp_shifted(x, rounder, lowest)
    store_f32(e_at + 64 * j, e)
    if marks:
        write_mask(marks_at + 2 * j, x == m)
    return where(t == -lanes, f32s(0.0), e) if indices != 0 else e


@helper
def rests(z, terms, tile, m, stage, fmt):
    """Σ of each row's terms without the classes whose logit is m, as above; how many these are."""
    first, rows, classes = tile
    size, stride, numbers = 16 * size_of(fmt), stride_of(classes), stage + NUMBERS
    vectors, tail = classes >> 4, classes & 15
    each_row(m, numbers)
    for i in range(rows):
        at, e_at = row_offset(z, first + i), terms + stride * i
        m_i = of_row(numbers, i)
        a, b, ties = f32s(0.0), f32s(0.0), f32s(0.0)
        for j in range(vectors):
            is_m = load(at + size * j, fmt) == m_i
            ties += where(is_m, f32s(1.0), f32s(0.0))
            a, b = b, a + where(is_m, f32s(0.0), load_f32(e_at + 64 * j))
        if tail > 0:
            is_m = load_first(at + size * vectors, tail, fmt) == m_i
            ties += where(is_m, f32s(1.0), f32s(0.0))
            a += where(is_m, f32s(0.0), load_f32(e_at + 64 * vectors))
        store_f32(stage + 64 * i, a + b)
        store_f32(stage + MORE + 64 * i, ties)
    low, high = sum_of_each(stage)
    ties_low, ties_high = sum_of_each(stage + MORE)
    return low, high, joined(ties_low, ties_high)


@helper
def write_scaled(terms, out, tile, factor, rest, keep, stage, streams, fmt):
    """out = terms (factor + rest), but for rows whose lane of `keep` is 0; past the caches if `streams`."""
    first, rows, classes = tile
    size, stride, numbers = 16 * size_of(fmt), stride_of(classes), stage + NUMBERS
    vectors, tail = classes >> 4, classes & 15
    each_row(factor, numbers)
    each_row(rest, numbers + 64)
    if streams and runs(out, tile, keep, fmt):
        for i in range(rows):
            at, e_at = terms + 4 * classes * i, terms + stride * i  # never ahead of what is still to be read
            f, g = of_row(numbers, i), of_row(numbers + 64, i)
            for j in range(stride >> 6):
                store_f32(at + 64 * j, scaled(load_f32(e_at + 64 * j), f, g))
        write_run(terms, row_offset(out, first), rows * classes, fmt)
        return
    all_kept = all_set(keep)
    for i in range(rows):
        if all_kept or lane(keep, i) != 0:
            at, e_at = row_offset(out, first + i), terms + stride * i
            f, g = of_row(numbers, i), of_row(numbers + 64, i)
            for j in range(vectors):
                store(at + size * j, scaled(load_f32(e_at + 64 * j), f, g), fmt)
            if tail > 0:
                store_first(at + size * vectors, scaled(load_f32(e_at + 64 * vectors), f, g), tail, fmt)


@helper
def write_logs(z, terms, out, tile, m, l, keep, stage, streams, fmt):
    """out = (z − m) − l, likewise; the terms are lost."""
    first, rows, classes = tile
    size, numbers = 16 * size_of(fmt), stage + NUMBERS
    vectors, tail = classes >> 4, classes & 15
    each_row(m, numbers)
    each_row(l, numbers + 64)
    if streams and runs(out, tile, keep, fmt):
        for i in range(rows):
            z_at, at = row_offset(z, first + i), terms + 4 * classes * i
            m_i, l_i = of_row(numbers, i), of_row(numbers + 64, i)
            for j in range(vectors):
                store_f32(at + 64 * j, (load(z_at + size * j, fmt) - m_i) - l_i)
            if tail > 0:
                store_f32(at + 64 * vectors, (load_first(z_at + size * vectors, tail, fmt) - m_i) - l_i)
        write_run(terms, row_offset(out, first), rows * classes, fmt)
        return
    all_kept = all_set(keep)
    for i in range(rows):
        if all_kept or lane(keep, i) != 0:
            z_at, at = row_offset(z, first + i), row_offset(out, first + i)
            m_i, l_i = of_row(numbers, i), of_row(numbers + 64, i)
            for j in range(vectors):
                store(at + size * j, (load(z_at + size * j, fmt) - m_i) - l_i, fmt)
            if tail > 0:
                store_first(at + size * vectors, (load_first(z_at + size * vectors, tail, fmt) - m_i) - l_i, tail, fmt)


@helper
def set_at_target(terms, tile, indices, x, stage):
    """Put a number per row in place of the target's term."""
    stride, numbers = stride_of(tile[2]), stage + NUMBERS
    each_row(x, numbers)
    for i in range(tile[1]):
        t = read_i64(indices + 8 * (tile[0] + i))
        if t >= 0:
            write_f32(terms + stride * i + 4 * t, read_f32(numbers + 4 * i))
