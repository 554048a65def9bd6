"""Rows of some vectors: classes side by side, and what a row needs but once for sixteen rows at a time.

A row by itself would pay more for its largest logit and its sum across lanes, its division and its logarithm than for
its exponentials.  So sixteen rows leave the vector of their partial results behind, these are folded into one another,
and from there on each row is a lane, as in `narrow`, whose arithmetic it shares.

Three tiles are under way at once, row by row: of one the results are written, of the next the exponentials are made,
of the one after that the largest logits are found.  So memory is read and written all the time, while the processor
computes, where one pass after the other would wait for it by turns.  A row's exponentials take the place of those of
the row that has just been written.

Classes are added in a fixed order: a row's vectors in turn into four sums, (a + b) + (c + d), then lanes as
`sum_of_each` adds them.
"""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.lanes import (
    f32s,
    first_bit,
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
    read_f32,
    read_i64,
    size_of,
    store_f32,
    sum_of_each,
    where,
    write_f32,
)
from softgrad.backends.numba_cpu.past_caches import BEGUN, write_until
from softgrad.backends.numba_cpu.single import LN_2, REACH, ROUNDER, exp_shifted
from softgrad.backends.numba_cpu.tiles import row_offset

# A tile, as in `narrow`: (first row, number of rows up to 16, C).  Scratch memory, by bytes: a vector for each row of
# what is summed, of tangents' sums and largest numbers, of the next tile's largest; numbers per row, of up to four
# kinds, of the tile under way and of the one to be written; of the latter which rows are, and what `past_caches` keeps;
# a class for each row; then the terms, whole vectors for each row.
SUMS, MOMENTS, TOPS, NEXT, NUMBERS, BEFORE, KEPT, LINES, CLASSES, TERMS = (
    0, 1024, 2048, 3072, 4096, 4352, 4608, 4672, 4672 + BEGUN, 4800 + BEGUN,
)  # fmt: skip
AHEAD = 4096  # bytes between what is computed and what is asked of memory


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


@inlined
def tile_at(i, rows, classes):
    """The i-th tile; one of no rows behind the last."""
    return 16 * i, max(min(16, rows - 16 * i), 0), classes


@helper
def largest(z, tile, distance, stage, fmt):
    """m of each row; NaNs are passed over, they will show in the sum."""
    for i in range(tile[1]):
        store_f32(stage + NEXT + 64 * i, largest_of_row(z, tile, i, distance, fmt))
    return max_of_each(stage + NEXT)


@inlined
def largest_of_row(z, tile, i, distance, fmt):
    """The largest of a row's vectors."""
    size, classes = 16 * size_of(fmt), tile[2]
    vectors, tail = classes >> 4, classes & 15
    at = row_offset(z, tile[0] + i)
    a = load_first(at + size * vectors, tail, fmt) if tail > 0 else f32s(-math.inf)
    b = f32s(-math.inf)
    j = 0
    while j + 2 <= vectors:
        a = larger(load(at + size * j, fmt), a)
        b = larger(load(at + size * (j + 1), fmt), b)
        prefetch(at + size * j + distance)
        prefetch(at + size * (j + 1) + distance)
        j += 2
    if j < vectors:
        b = larger(load(at + size * j, fmt), b)
        prefetch(at + size * j + distance)
    # A tail that is NaN would stay.
    return larger(a, larger(b, f32s(-math.inf)))


@inlined
def shift_rows(N, m, stage):
    """Leave the constants of each row where `exponentials_of_row` finds them."""
    each_row(ROUNDER - N, stage + NUMBERS)
    each_row((N - REACH) * LN_2, stage + NUMBERS + 64)
    each_row(m, stage + NUMBERS + 128)


@inlined
def exponentials_of_row(z, terms, tile, i, stage, indices, marks, fmt):
    """Fill the terms of row i with e; (the vector of their sums, without the target's if there are indices, k).

    k, the first class whose logit is m, only with `marks`.
    """
    size, classes = 16 * size_of(fmt), tile[2]
    vectors, tail = classes >> 4, classes & 15
    at, e_at, numbers = row_offset(z, tile[0] + i), terms + stride_of(classes) * i, stage + NUMBERS
    of = of_row(numbers, i), of_row(numbers + 64, i), of_row(numbers + 128, i)
    t, k = i32s(0), -1
    if indices != 0:
        t = lane_numbers32() - i32s(read_i64(indices + 8 * (tile[0] + i)))
    a, b, c, d = f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0)
    j = 0
    while j + 4 <= vectors:
        x, first = _term(at, e_at, j, of, t, 0, indices, marks, fmt)
        a += x
        x, second = _term(at, e_at, j + 1, of, t, 16, indices, marks, fmt)
        b += x
        x, third = _term(at, e_at, j + 2, of, t, 32, indices, marks, fmt)
        c += x
        x, fourth = _term(at, e_at, j + 3, of, t, 48, indices, marks, fmt)
        d += x
        if marks:
            k = first_class(k, (first | second << 16) | (third << 32 | fourth << 48), j)
        if indices != 0:
            t += 64
        j += 4
    while j < vectors:
        x, first = _term(at, e_at, j, of, t, 0, indices, marks, fmt)
        a, b, c, d = b, c, d, a + x
        if marks:
            k = first_class(k, first, j)
        if indices != 0:
            t += 16
        j += 1
    if tail > 0:
        x, first = _kept(load_first(at + size * vectors, tail, fmt), e_at, vectors, of, t, 0, indices, marks)
        a += x
        if marks:
            k = first_class(k, first, j)
    return (a + b) + (c + d), max(k, 0)


@inlined
def _term(at, e_at, j, of, t, lanes, indices, marks, fmt):
    """Vector j: what is added to the sum; where it is m."""
    return _kept(load(at + 16 * size_of(fmt) * j, fmt), e_at, j, of, t, lanes, indices, marks)


@inlined
def _kept(x, e_at, j, of, t, lanes, indices, marks):
    rounder, lowest, m = of
    e = exp_shifted(x, rounder, lowest)
    store_f32(e_at + 64 * j, e)
    return where(t == -lanes, f32s(0.0), e) if indices != 0 else e, mask_bits(x == m) if marks else 0


@inlined
def first_class(k, word, j):
    """k, unless it is none yet and bits are set: then the first of them, counted from vector j on."""
    return 16 * j + first_bit(word) if k < 0 and word != 0 else k


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
        store_f32(stage + SUMS + 64 * i, a + b)
        store_f32(stage + TOPS + 64 * i, ties)
    low, high = sum_of_each(stage + SUMS)
    ties_low, ties_high = sum_of_each(stage + TOPS)
    return low, high, joined(ties_low, ties_high)


@inlined
def write_row_of(vector, of, out, tile, i, distance, stage, streams, fmt):
    """Row i = vector(j, n, of) for the n ≤ 16 classes from j on, for every j, if it is to be written."""
    if read_f32(stage + KEPT + 4 * i) != 0.0:
        at, classes = row_offset(out, tile[0] + i), tile[2]
        write_until(vector, of, at, classes, 0, classes, distance, stage + LINES if streams else 0, fmt)


@inlined
def keep_rows(keep, stage):
    """Note which rows are to be written."""
    each_row(where(keep == 0, f32s(0.0), f32s(1.0)), stage + KEPT)


@helper
def set_at_target(terms, tile, indices, x, stage):
    """Put a number per row in place of the target's term."""
    stride, numbers = stride_of(tile[2]), stage + NUMBERS
    each_row(x, numbers)
    for i in range(tile[1]):
        t = read_i64(indices + 8 * (tile[0] + i))
        if t >= 0:
            write_f32(terms + stride * i + 4 * t, read_f32(numbers + 4 * i))
