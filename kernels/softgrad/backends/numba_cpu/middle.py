"""Rows of some vectors: classes side by side, and what a row needs but once for sixteen rows at a time.

A row by itself would pay more for its largest logit and its sum across lanes, its division and its logarithm than for
its exponentials.  So sixteen rows leave the vector of their partial results behind, sixteen by sixteen are transposed,
and from there on each row is a lane, as in `narrow`, whose arithmetic it shares.

Classes are added in a fixed order: a row's vectors in turn into four sums, then lanes as `narrow` adds classes.
"""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.lanes import (
    f32s,
    f64s,
    halves,
    joined,
    lane,
    larger,
    load,
    load_f32,
    load_first,
    prefetch,
    read_f32,
    read_i64,
    size_of,
    store,
    store_f32,
    store_first,
    sum_across,
    transpose,
    where,
    write_f32,
)
from softgrad.backends.numba_cpu.single import LN_2, REACH, ROUNDER, exp_shifted, scaled
from softgrad.backends.numba_cpu.tiles import row_offset

# A tile, as in `narrow`: (first row, number of rows up to 16, C).  Scratch memory: STAGE bytes to transpose in, 128
# for numbers per row, then the terms, a whole number of vectors for each row.
STAGE = 2048
TERMS = STAGE + 128


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
        if vectors == 0:
            store_f32(stage + 64 * i, load_first(at, tail, fmt))
            continue
        a = load_first(at + size * vectors, tail, fmt) if tail > 0 else f32s(-math.inf)
        b = f32s(-math.inf)
        j = 0
        while j + 2 <= vectors:
            a = larger(load(at + size * j, fmt), a)
            b = larger(load(at + size * (j + 1), fmt), b)
            j += 2
        if j < vectors:
            a = larger(load(at + size * j, fmt), a)
        # A NaN is passed over only as the first of the two.
        store_f32(stage + 64 * i, larger(a, larger(b, f32s(-math.inf))))
    transpose(stage, stage + 1024)
    m = f32s(-math.inf)
    for c in range(16):
        m = larger(load_f32(stage + 1024 + 64 * c), m)
    return m


@helper
def exponentials(z, terms, tile, N, numbers, one, other, fmt):
    """Fill the terms of each row with e; meanwhile ask memory for the next tile, and for these rows of two arrays."""
    first, rows, classes = tile
    size, stride = 16 * size_of(fmt), stride_of(classes)
    vectors, tail = classes >> 4, classes & 15
    each_row(ROUNDER - N, numbers)
    each_row((N - REACH) * LN_2, numbers + 64)
    for i in range(rows):
        at, e_at = row_offset(z, first + i), terms + stride * i
        rounder, lowest = of_row(numbers, i), of_row(numbers + 64, i)
        one_at, other_at = row_offset(one, first + i), row_offset(other, first + i)
        for j in range(vectors):
            prefetch(at + size * j + 16 * z[1])
            prefetch(one_at + size * j)
            prefetch(other_at + size * j)
            store_f32(e_at + 64 * j, exp_shifted(load(at + size * j, fmt), rounder, lowest))
        if tail > 0:
            z_tail = load_first(at + size * vectors, tail, fmt)
            store_f32(e_at + 64 * vectors, exp_shifted(z_tail, rounder, lowest))


@helper
def sums(terms, tile, stage):
    """Σ of each row's terms, float64, of the first eight rows and of the others."""
    _, rows, classes = tile
    stride = stride_of(classes)
    vectors = (classes + 15) >> 4
    if vectors == 1:  # the terms lie as partial sums would
        return across(terms, stage)
    for i in range(rows):
        e_at = terms + stride * i
        a, b, c, d = f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0)
        j = 0
        while j + 4 <= vectors:
            a += load_f32(e_at + 64 * j)
            b += load_f32(e_at + 64 * (j + 1))
            c += load_f32(e_at + 64 * (j + 2))
            d += load_f32(e_at + 64 * (j + 3))
            j += 4
        while j < vectors:
            a, b, c, d = b, c, d, a + load_f32(e_at + 64 * j)
            j += 1
        store_f32(stage + 64 * i, (a + b) + (c + d))
    return across(stage, stage)


@helper
def rests(z, terms, tile, m, numbers, stage, more, fmt):
    """Σ of each row's terms without the classes whose logit is m, as above; how many these are."""
    first, rows, classes = tile
    size, stride = 16 * size_of(fmt), stride_of(classes)
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
        store_f32(more + 64 * i, ties)
    low, high = across(stage, stage)
    ties_low, ties_high = across(more, stage)
    return low, high, joined(ties_low, ties_high)


@helper
def across(source, stage):
    """Σ over the lanes of each of sixteen vectors, float64."""
    transpose(source, stage + 1024)
    low, high = f64s(0.0), f64s(0.0)
    for c in range(0, 16, 4):
        at = stage + 1024 + 64 * c
        x, y = halves((load_f32(at) + load_f32(at + 64)) + (load_f32(at + 128) + load_f32(at + 192)))
        low += x
        high += y
    return low, high


@helper
def write_scaled(terms, out, tile, factor, rest, keep, numbers, fmt):
    """out = terms (factor + rest), but for rows whose lane of `keep` is 0."""
    first, rows, classes = tile
    size, stride = 16 * size_of(fmt), stride_of(classes)
    vectors, tail = classes >> 4, classes & 15
    each_row(factor, numbers)
    each_row(rest, numbers + 64)
    all_kept = sum_across(keep) == 16
    for i in range(rows):
        if all_kept or lane(keep, i) != 0:
            at, e_at = row_offset(out, first + i), terms + stride * i
            f, g = of_row(numbers, i), of_row(numbers + 64, i)
            for j in range(vectors):
                store(at + size * j, scaled(load_f32(e_at + 64 * j), f, g), fmt)
            if tail > 0:
                store_first(at + size * vectors, scaled(load_f32(e_at + 64 * vectors), f, g), tail, fmt)


@helper
def write_logs(z, out, tile, m, l, keep, numbers, fmt):
    """out = (z − m) − l, likewise."""
    first, rows, classes = tile
    size = 16 * size_of(fmt)
    vectors, tail = classes >> 4, classes & 15
    each_row(m, numbers)
    each_row(l, numbers + 64)
    all_kept = sum_across(keep) == 16
    for i in range(rows):
        if all_kept or lane(keep, i) != 0:
            z_at, at = row_offset(z, first + i), row_offset(out, first + i)
            m_i, l_i = of_row(numbers, i), of_row(numbers + 64, i)
            for j in range(vectors):
                store(at + size * j, (load(z_at + size * j, fmt) - m_i) - l_i, fmt)
            if tail > 0:
                store_first(at + size * vectors, (load_first(z_at + size * vectors, tail, fmt) - m_i) - l_i, tail, fmt)


@helper
def set_at_target(terms, tile, indices, x, numbers):
    """Put a number per row in place of the target's term."""
    stride = stride_of(tile[2])
    each_row(x, numbers)
    for i in range(tile[1]):
        t = read_i64(indices + 8 * (tile[0] + i))
        if t >= 0:
            write_f32(terms + stride * i + 4 * t, read_f32(numbers + 4 * i))
