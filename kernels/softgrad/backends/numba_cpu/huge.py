"""Rows so long that one alone occupies every thread: cut into segments of a length that nothing changes.

    sums       of each segment: the lifted sum of its exponentials, with an N of its own
    totals     of each row, from those of its segments, in their order
    results    of each segment, its exponentials made again with the N of the row

The segments of some rows are shared out, one step after the other.  Exponentials are made twice because a row does not
fit the caches: keeping them would cost more memory traffic than a second reading of the logits.
"""

from __future__ import annotations

import math

import numpy as np

from softgrad.backends.numba_cpu.compiling import helper, kernel
from softgrad.backends.numba_cpu.lanes import (
    load,
    load_first,
    prefetch,
    read,
    read_i64,
    size_of,
    store_f32,
    take,
    write_f32,
)
from softgrad.backends.numba_cpu.single import exp_shifted, shift
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import AHEAD, exponentials, first_equal, is_ordinary, total

# From how many classes on: below, one row is no gain on two threads, and many rows pay for the second exponential.
HUGE = 2**20
# How many classes a segment has: its exponentials stay in the second-level cache.
SEGMENT = 2**16

# What is known of a segment, and of a row: Σ over the classes but t, N, m; where m first stands (for a segment the
# block of vectors, for a row the class); the target's logit; Σ over the classes but the first largest, if it is to
# stand `apart`.  Eight numbers, so that no two segments share a line.
SUM, SHIFT, TOP, FIRST, OF_TARGET, REST = range(6)
KNOWN = 8


@kernel
def sum_segments(counter, first, scratch, classes, z, indices, apart, parts, fmt):
    """Fill parts, (rows, segments, KNOWN), for rows from `first` on; indices 0: no targets."""
    rows, segments, _ = parts.shape
    i = take(counter)
    while i < rows * segments:
        r, g = i // segments, i % segments
        t = read_i64(indices + 8 * (first + r)) if indices != 0 else -1
        start = g * SEGMENT
        z_at = row_offset(z, first + r) + size_of(fmt) * start
        length = min(SEGMENT, classes - start)
        s, N, m, block = exponentials(z_at, scratch, length, t - start, fmt)
        if apart:
            write_f32(scratch + 4 * first_equal(z_at, length, m, block, fmt), 0.0)
            parts[r, g, REST] = total(scratch, length)
        parts[r, g, SUM], parts[r, g, SHIFT], parts[r, g, TOP], parts[r, g, FIRST] = s, N, m, block
        i = take(counter)


@kernel
def total_rows(first, classes, z, indices, apart, parts, totals, fmt):
    """Fill totals, (rows, KNOWN), from parts: what later steps need of logits that they may overwrite."""
    rows, segments, _ = parts.shape
    for r in range(rows):
        best, N = 0, -math.inf
        for g in range(segments):
            if parts[r, g, TOP] > parts[r, best, TOP]:
                best = g
            N = max(N, parts[r, g, SHIFT])
        s, rest = 0.0, 0.0
        for g in range(segments):
            unit = 2.0 ** (parts[r, g, SHIFT] - N)
            s += parts[r, g, SUM] * unit
            if apart:
                rest += parts[r, g, REST if g == best else SUM] * unit
        m, k = parts[r, best, TOP], 0
        z_at = row_offset(z, first + r)
        if is_ordinary(m):
            start = best * SEGMENT
            length = min(SEGMENT, classes - start)
            k = start + first_equal(z_at + size_of(fmt) * start, length, m, np.int64(parts[r, best, FIRST]), fmt)
        t = read_i64(indices + 8 * (first + r)) if indices != 0 else -1
        totals[r, SUM], totals[r, SHIFT], totals[r, TOP], totals[r, FIRST] = s, N, m, k
        totals[r, REST] = rest
        totals[r, OF_TARGET] = read(z_at + size_of(fmt) * t, fmt) if t >= 0 else 0.0


@helper
def exponentials_again(z_at, e_at, classes, N, fmt):
    """Fill e, float32 at e_at, with a given N."""
    size = 16 * size_of(fmt)
    vectors, tail = classes >> 4, classes & 15
    rounder, lowest = shift(N)
    for j in range(vectors):
        prefetch(z_at + size * j + AHEAD)
        store_f32(e_at + 64 * j, exp_shifted(load(z_at + size * j, fmt), rounder, lowest))
    if tail > 0:
        e = exp_shifted(load_first(z_at + size * vectors, tail, fmt), rounder, lowest)
        store_f32(e_at + 64 * vectors, e)
