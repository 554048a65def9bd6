"""Rows of some vectors: classes side by side, and what a row needs but once for sixteen rows at a time.

A row by itself would pay more for its largest logit and its sum across lanes, its division and its logarithm than for
its exponentials.  So sixteen rows leave the vector of their partial results behind, these are folded into one another,
and from there on each row is a lane, as in `narrow`, whose arithmetic it shares.

Logits are read once, if their row's largest is near 0, as it mostly is: e is made with one N for all such rows, which
changes nothing but its exponents, while the largest is looked for.  Other rows are passed over again with their own N.

Where rows are not long and lie one behind the other, `flat` makes whole vectors of them.  Else two tiles are under way
at once, row by row: of one the results are written, of the next the exponentials are made.  So memory is read and
written all the time, while the processor computes.  A row's exponentials take the place of those of the row that has
just been written.  After a tile whose rows are not all near 0, and of products, which need to know where the largest
logit is, three: of the one after that the largest logits are found.

Classes are added in a fixed order: a row's vectors in turn into four sums, (a + b) + (c + d), then lanes as
`sum_of_each` adds them.
"""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.flat import exponentials_of_run, largest_of_four, lay_rows, sums_of_four
from softgrad.backends.numba_cpu.lanes import (
    anywhere,
    f32s,
    first_bit,
    joined,
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
    where,
    write_f32,
)
from softgrad.backends.numba_cpu.past_caches import BEGUN, write_until
from softgrad.backends.numba_cpu.single import LN_2, REACH, ROUNDER, exp_shifted, four_exp_shifted
from softgrad.backends.numba_cpu.sixteen import everywhere, whole_shift
from softgrad.backends.numba_cpu.tiles import row_offset

# A tile: (first row, number of rows up to 16, C, bytes from a row's terms to the next one's).  Scratch memory, by
# bytes: a vector for each row of what is summed, of tangents' sums and largest numbers, of the next tile's largest;
# numbers per row, of up to four kinds, of the tile under way and of the one to be written; of the latter which rows
# are, and what `past_caches` keeps; a class for each row; then the terms, whole vectors for each row, or, for `flat`,
# two sets of them row behind row, and the table of rows.
SUMS, MOMENTS, TOPS, NEXT, NUMBERS, BEFORE, KEPT, LINES, CLASSES, TERMS = (
    0, 1024, 2048, 3072, 4096, 4352, 4608, 4672, 4672 + BEGUN, 4800 + BEGUN,
)  # fmt: skip
AHEAD = 4096  # bytes between what is computed and what is asked of memory
# Rows whose largest logit is this near to 0 have one N.  Their e reaches down to 2^−162 of the largest: what is below
# is nothing to any float32 but for a factor beyond 1; and a factor from 2^−24 on leaves 1 / Σ e a normal number.
USUAL, NEAR = 5.0, 16.0


@inlined
def terms_in(stage, classes, flat):
    """Where terms are, those of the tile before, and the table of rows."""
    size = 64 * (classes + 16)
    terms, table = stage + TERMS, stage + TERMS + 2 * size + 64
    if flat:
        lay_rows(table, classes)
        return terms, terms + size, table
    return terms, terms, table


@inlined
def each_row(x, numbers):
    """Leave a vector of numbers per row where `of_row` finds them."""
    store_f32(numbers, x)


@inlined
def of_row(numbers, i):
    """Row i's number, in every lane."""
    return f32s(read_f32(numbers + 4 * i))


@inlined
def tile_at(i, rows, classes, flat):
    """The i-th tile; one of no rows behind the last."""
    count = max(min(16, rows - 16 * i), 0)
    return 16 * i, count, classes, 4 * classes if flat and count == 16 else 64 * ((classes + 15) >> 4)


@inlined
def next_largest(z, tile, distance, found, stage, fmt):
    """m of each row, which has been `found` while the tile before was under way, or is found now."""
    return max_of_each(stage + NEXT) if found else largest(z, tile, distance, stage, fmt)


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
def shifts(m, usual):
    """N of each row whose largest logit is m: of most rows the same, if `usual` allows for it."""
    N = whole_shift(m)
    return where((m > -NEAR) & (m < NEAR), f32s(USUAL), N) if usual else N


@inlined
def exponentials_of_row(z, terms, tile, i, distance, stage, marks, fmt):
    """Fill the terms of row i with e; (the vectors of their sums and of the largest logits, k).

    k, the first class whose logit is m, only with `marks`.
    """
    size, classes = 16 * size_of(fmt), tile[2]
    at, e_at, numbers = row_offset(z, tile[0] + i), terms + tile[3] * i, stage + NUMBERS
    rounder, lowest, m = of_row(numbers, i), of_row(numbers + 64, i), of_row(numbers + 128, i)
    rounders, lowests = (rounder, rounder, rounder, rounder), (lowest, lowest, lowest, lowest)
    a, b, c, d = f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0)
    top, k = f32s(-math.inf), -1
    j = 0
    while j + 64 <= classes:
        prefetch(at + distance)
        prefetch(at + size + distance)
        prefetch(at + 2 * size + distance)
        prefetch(at + 3 * size + distance)
        x, y, v, w = load(at, fmt), load(at + size, fmt), load(at + 2 * size, fmt), load(at + 3 * size, fmt)
        if marks:
            k = first_class(k, bits_of_four(x, y, v, w, m), j)
        else:
            top = larger(larger(larger(x, y), larger(v, w)), top)
        x, y, v, w = four_exp_shifted(x, y, v, w, rounders, lowests)
        store_four(e_at, x, y, v, w)
        a, b, c, d = a + x, b + y, c + v, d + w
        at += 4 * size
        e_at += 256
        j += 64
    left = classes - j
    if left > 32:
        x, y = load(at, fmt), load(at + size, fmt)
        v, w = load_first(at + 2 * size, left - 32, fmt), load_first(at + 3 * size, left - 48, fmt)
        if marks:
            k = first_class(k, bits_of_four(x, y, v, w, m), j)
        else:
            top = larger(larger(larger(x, y), larger(v, w)), top)
        x, y, v, w = four_exp_shifted(x, y, v, w, rounders, lowests)
        a, b, c, d = a + x, b + y, c + v, d + w
        store_f32(e_at, x)
        store_f32(e_at + 64, y)
        store_f32(e_at + 128, v)
        if left > 48:
            store_f32(e_at + 192, w)
    else:
        while j < classes:
            x = load_first(at, classes - j, fmt)
            if marks:
                k = first_class(k, mask_bits(x == m), j)
            else:
                top = larger(x, top)
            x = exp_shifted(x, rounder, lowest)
            store_f32(e_at, x)
            a, b = b, a + x
            at += size
            e_at += 64
            j += 16
    return (a + b) + (c + d), top, max(k, 0)


@inlined
def terms_of_row(z, terms, tile, i, distance, stage, fmt):
    """Fill e; the vector of the largest logits, which is left where the row's own is found, too."""
    _, top, _ = exponentials_of_row(z, terms, tile, i, distance, stage, False, fmt)
    store_f32(stage + TOPS + 64 * i, top)
    return top


@helper
def fill_again(z, terms, tile, distance, stage, fmt):
    """Fill the terms of a tile, which may be a run, row by row."""
    for i in range(tile[1]):
        terms_of_row(z, terms, tile, i, distance, stage, fmt)


@inlined
def bits_of_four(a, b, c, d, m):
    """Where four vectors are m."""
    return (mask_bits(a == m) | mask_bits(b == m) << 16) | (mask_bits(c == m) << 32 | mask_bits(d == m) << 48)


@inlined
def store_four(at, a, b, c, d):
    """Four vectors side by side."""
    store_f32(at, a)
    store_f32(at + 64, b)
    store_f32(at + 128, c)
    store_f32(at + 192, d)


@inlined
def first_class(k, word, j):
    """k, unless it is none yet and bits are set: then the first of them, counted from class j on."""
    return j + first_bit(word) if k < 0 and word != 0 else k


@inlined
def write_row_of(vector, of, out, tile, i, distance, stage, begun, fmt):
    """Row i = vector(j, n, of) for the n ≤ 16 classes from j on, for every j, if it is to be written.

    `begun` as for `write_until`.
    """
    if read_f32(stage + KEPT + 4 * i) != 0.0:
        at, classes = row_offset(out, tile[0] + i), tile[2]
        write_until(vector, of, at, classes, 0, classes, distance, begun, fmt)


@inlined
def fill_run(z, terms, tile, usual, may_be_usual, table, distance, stage, fmt):
    """Fill the terms of a tile that is a run; (N of each row, whether no logit is far above 0)."""
    start, classes = row_offset(z, tile[0]), tile[2]
    if usual:
        N = f32s(USUAL)
        top = exponentials_of_run(start, terms, classes, ROUNDER - N, (N - REACH) * LN_2, None, distance, fmt)
        return N, not anywhere(top >= NEAR)
    N = shifts(largest(z, tile, distance, stage, fmt), may_be_usual)
    exponentials_of_run(start, terms, classes, ROUNDER - N, (N - REACH) * LN_2, table, distance, fmt)
    return N, False


@inlined
def are_near(low, high):
    """Whether Σ e, made with the usual N of logits below NEAR, tells that the largest logit of each row is above −NEAR.

    Its e is at least Σ e / 512, and that of −NEAR a little less than 2³⁶.
    """
    return everywhere(joined(low, high) > 512 * 2.0**36)


@inlined
def look_at_run(z, tile, stage, fmt):
    """Leave what largest logits are found from."""
    start, step = row_offset(z, tile[0]), size_of(fmt) * tile[2]
    for i in range(0, 16, 4):
        store_four(stage + TOPS + 64 * i, *largest_of_four(start + step * i, step, tile[2], fmt))


@inlined
def add_terms(terms, tile, is_run, stage):
    """Leave what sums are found from."""
    if is_run:
        add_run(terms, tile, stage)
    else:
        add_rows(terms, tile, stage)


@inlined
def add_run(terms, tile, stage):
    """The same of a tile that is a run."""
    for i in range(0, 16, 4):
        store_four(stage + SUMS + 64 * i, *sums_of_four(terms + tile[3] * i, tile[3], tile[2]))


@helper
def add_rows(terms, tile, stage):
    """The same of one that is not: two rows at a time, as one has too few sums for the processor to be busy."""
    step, classes = tile[3], tile[2]
    for i in range(0, tile[1], 2):
        at = terms + step * i
        a, b, c, d = f32s(0.0), f32s(0.0), f32s(0.0), f32s(0.0)
        w, x, y, z = a, b, c, d
        left = classes
        while left >= 64:
            a, w = a + load_f32(at), w + load_f32(at + step)
            b, x = b + load_f32(at + 64), x + load_f32(at + step + 64)
            c, y = c + load_f32(at + 128), y + load_f32(at + step + 128)
            d, z = d + load_f32(at + 192), z + load_f32(at + step + 192)
            at += 256
            left -= 64
        if left > 0:
            a, w = a + load_f32(at), w + load_f32(at + step)
        if left > 16:
            b, x = b + load_f32(at + 64), x + load_f32(at + step + 64)
        if left > 32:
            c, y = c + load_f32(at + 128), y + load_f32(at + step + 128)
        if left > 48:
            d, z = d + load_f32(at + 192), z + load_f32(at + step + 192)
        store_f32(stage + SUMS + 64 * i, (a + b) + (c + d))
        store_f32(stage + SUMS + 64 * i + 64, (w + x) + (y + z))


@inlined
def keep_rows(keep, stage):
    """Note which rows are to be written."""
    each_row(where(keep == 0, f32s(0.0), f32s(1.0)), stage + KEPT)


@helper
def set_at_target(terms, tile, indices, x, stage):
    """Put a number per row in place of the target's term."""
    numbers = stage + NUMBERS
    each_row(x, numbers)
    for i in range(tile[1]):
        t = read_i64(indices + 8 * (tile[0] + i))
        if t >= 0:
            write_f32(terms + tile[3] * i + 4 * t, read_f32(numbers + 4 * i))
