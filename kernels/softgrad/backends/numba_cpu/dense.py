"""Rows of two to sixteen classes that lie one behind the other: as in `narrow`, but columns never leave the registers.

The arithmetic is that of `narrow`, operation by operation: which of the two serves depends on how arrays lie, and no
result may.  Only the way of a number is another.  So short a row costs little more than its exponentials, where every
call, every loop and every store of a column would show.

like     a tuple of C numbers, whose type names the format: a kernel is compiled for each C
source, target    addresses of a tile's numbers: in the arrays, or in scratch memory where a tile is not whole
"""

from __future__ import annotations

import math

import numpy as np

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.lanes import (
    each,
    f32s,
    fold,
    i32s,
    lane,
    larger,
    prefetch,
    read,
    size_of,
    store_dense,
    where,
    write,
)
from softgrad.backends.numba_cpu.narrow_memory import AHEAD, COLUMNS, ENOUGH, PACKED
from softgrad.backends.numba_cpu.pairs import added
from softgrad.backends.numba_cpu.past_caches import LINE, write_run
from softgrad.backends.numba_cpu.single import LN_2, REACH, ROUNDER, exp_shifted, scaled
from softgrad.backends.numba_cpu.sixteen import all_set

FLOAT32 = np.float32(0)
# Scratch memory for what is read of a tile that is not whole: of logits; of tangents.
PART, TANGENT_PART = COLUMNS, COLUMNS + 1024


@inlined
def tile_at(i, rows, like):
    """The i-th tile; one of no rows behind the last."""
    return 16 * i, max(min(16, rows - 16 * i), 0), len(like)


@inlined
def source_of(at, tile, scratch, like):
    """Where the numbers of a tile are read; what comes after them is asked of memory."""
    first, rows, classes = tile
    size = size_of(like[0])
    at += size * classes * first
    if rows < 16:
        copy_rows(at, scratch, rows, classes, like[0])
        return scratch
    for ahead in range(0, 16 * size * classes, LINE):
        prefetch(at + AHEAD + ahead)
    return at


@helper
def copy_rows(source, target, rows, classes, fmt):
    """Rows of a tile that is not whole."""
    for i in range(rows * classes):
        at = size_of(fmt) * i
        write(target + at, read(source + at, fmt), fmt)


@helper
def copy_kept(source, target, tile, keep, fmt):
    """Those rows of a tile whose lane of `keep` is not 0."""
    for i in range(tile[1]):
        if lane(keep, i) != 0:
            at = size_of(fmt) * tile[2] * i
            copy_rows(source + at, target + at, 1, tile[2], fmt)


@inlined
def write_tile(columns, stage, at, tile, keep, filled, packed, is_last, like):
    """As `narrow_memory.write_columns`."""
    first, rows, classes = tile
    size = size_of(like[0])
    target = at + size * classes * first
    if packed and at & 3 == 0 and rows == 16:
        store_dense(columns, stage + PACKED + filled, like)
        filled += 16 * size * classes
        if filled < ENOUGH and not is_last:
            return filled
        write_run(stage + PACKED, target + 16 * size * classes - filled, filled >> 2, FLOAT32)
        return 0
    if filled > 0:
        write_run(stage + PACKED, target - filled, filled >> 2, FLOAT32)
    if rows == 16 and all_set(keep):
        store_dense(columns, target, like)
    else:
        store_dense(columns, stage, like)
        copy_kept(stage, target, tile, keep, like[0])
    return 0


@inlined
def largest(z):
    """m of each row."""
    return fold(_larger, f32s(-math.inf), 0, (z,))


@inlined
def _larger(c, m, of, x):
    return larger(x, m)


@inlined
def first_largest(z):
    """m and k of each row: the first largest class."""
    return fold(_first_larger, (f32s(-math.inf), i32s(0)), 0, (z,))


@inlined
def _first_larger(c, found, of, x):
    is_larger = x > found[0]
    return where(is_larger, x, found[0]), where(is_larger, i32s(c), found[1])


@inlined
def exponentials(z, N):
    """e of each class."""
    return each(_exponential, (ROUNDER - N, (N - REACH) * LN_2), (z,))


@inlined
def _exponential(c, of, x):
    return exp_shifted(x, of[0], of[1])


@inlined
def sum_of(e, t):
    """(Σ over the classes but t, a pair; e_t, 0 where t is no class), added as `narrow.exponentials` does."""
    nothing = f32s(0.0)
    high, low, _, _, e_t = fold(_sum, (nothing, nothing, nothing, nothing, nothing), (t, len(e)), (e,))
    return (high, low), e_t


@inlined
def _sum(c, sums, of, e):
    high, low, group, second, e_t = sums
    t, classes = of
    e_t = where(t == c, e, e_t)
    e = where(t == c, f32s(0.0), e)
    place = c & 3
    if place == 0:
        group = e
    elif place == 2 and c + 1 < classes:
        second = e
    elif place == 3:
        group += second + e
    else:
        group += e
    if place == 3 or c + 1 == classes:
        if c < 4:
            high = group
        else:
            high, low = added((high, low), group)
    return high, low, group, second, e_t


@inlined
def multiples(e, factor):
    """Each times a pair."""
    return each(_multiple, factor, (e,))


@inlined
def _multiple(c, of, e):
    return scaled(e, of[0], of[1])
