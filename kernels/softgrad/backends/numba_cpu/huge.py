"""Rows so long that one alone occupies every thread: cut into segments of a length that nothing changes.

    sums       of each segment: the lifted sum of its exponentials, with an N of its own
    totals     of each row, from those of its segments, in their order
    results    of each segment, its exponentials made again with the N of the row

Either the segments of some rows are shared out, one step after the other.  Exponentials are made twice then because a
row does not fit the caches: keeping them would cost more memory traffic than a second reading of the logits.  Or, of
shorter rows as many as threads, each thread takes all steps of a row by itself, and keeps the exponentials of segments
whose N is that of the row: as it is of nearly all, which begin with the N of the row's first block.
"""

from __future__ import annotations

import math

import numpy as np

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.lanes import (
    load,
    load_first,
    prefetch,
    read,
    read_i64,
    size_of,
    store_f32,
    write_f32,
)
from softgrad.backends.numba_cpu.past_caches import write_row
from softgrad.backends.numba_cpu.single import exp_shifted, shift
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tiles import row_offset
from softgrad.backends.numba_cpu.wide import (
    AHEAD,
    BLOCK,
    exponentials_from,
    first_equal,
    in_two_parts,
    is_ordinary,
    largest,
    multiple,
    shift_of,
    total,
)

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
def advance(counter):
    """Add one to a counter."""
    next_share(counter)


@kernel
def sum_segments(counter, first, scratch, kept, classes, z, indices, apart, parts, fmt):
    """Fill parts, (rows, segments, KNOWN), for rows from `first` on; indices 0: no targets.

    Exponentials are `kept` one segment behind the other.
    """
    rows, segments, _ = parts.shape
    i = next_share(counter)
    while i < rows * segments:
        r, g = i // segments, i % segments
        t = read_i64(indices + 8 * (first + r)) if indices != 0 else -1
        start = g * SEGMENT
        row_at = row_offset(z, first + r)
        z_at, e_at = row_at + size_of(fmt) * start, place_of(start, scratch, kept)
        length = min(SEGMENT, classes - start)
        N = shift_of(largest(row_at, 0, BLOCK, 0, fmt))
        s, N, m, block = exponentials_from(N, z_at, e_at, length, t - start, None, write_nothing, None, fmt)
        if apart:
            write_f32(e_at + 4 * first_equal(z_at, length, m, block, fmt), 0.0)
            parts[r, g, REST] = total(e_at, length)
        parts[r, g, SUM], parts[r, g, SHIFT], parts[r, g, TOP], parts[r, g, FIRST] = s, N, m, block
        i = next_share(counter)
    leave(counter)


@inlined
def write_nothing(j, stop, before):
    """For `exponentials_from`: there is no row before."""
    return j


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


@inlined
def place_of(start, scratch, kept):
    """Where the exponentials of the segment that begins there lie."""
    return scratch + 4 * start if kept else scratch


@inlined
def terms_of_segment(part, N, z_at, scratch, start, length, kept, fmt):
    """The place of a segment's exponentials with the N of its row, made again unless they are there."""
    e_at = place_of(start, scratch, kept)
    if not (kept and part[SHIFT] == N):
        exponentials_again(z_at, e_at, length, N, fmt)
    return e_at


@helper
def write_scaled(e_at, out_at, classes, factor, streams, fmt):
    """out = e · factor, past the caches if `streams`."""
    write_row(multiple, (e_at, *in_two_parts(factor)), out_at, classes, streams, fmt)


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
