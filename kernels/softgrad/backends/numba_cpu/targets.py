"""Integer targets of any dtype as int64, judged, counted and weighed in one pass; and sums over rows."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature

from softgrad.backends.numba_cpu.compiling import helper, inlined, intrinsic, kernel
from softgrad.backends.numba_cpu.functions import two_sum
from softgrad.backends.numba_cpu.lanes import (
    anywhere,
    f64s,
    floats,
    i64,
    i64s,
    lane,
    lane_numbers64,
    load_f64,
    load_i64,
    load_part_f64,
    load_part_i64,
    read_f64,
    store_i64,
    store_part_i64,
    stream_f64,
    sum_across,
    where,
    with_lane,
)
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD, IGNORED
from softgrad.backends.numba_cpu.tile_sums import add
from softgrad.backends.numba_cpu.tiles import FLOAT64, row_offset, write_as

# From this many targets on they are not kept in the caches of the thread that classifies them.
MANY = 4096
# Kinds of integers.
INTEGERS = {np.dtype(f"{sign}{size}"): kind for kind, (sign, size) in enumerate(product("iu", (1, 2, 4, 8)))}
INT64 = INTEGERS[np.dtype(np.int64)]
# Rows whose targets a thread judges at a time.
PART = 2**15
RANGES = {dtype: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) for dtype in INTEGERS}


def _loaders(bits: int, signed: bool) -> tuple[Any, Any]:
    """What loads an integer as int64, and eight of them side by side."""
    integer = ir.IntType(bits)

    def emit(builder, address, count):
        stored, wide = (ir.VectorType(t, count) if count > 1 else t for t in (integer, ir.IntType(64)))
        x = builder.load(builder.inttoptr(address, stored.as_pointer()), align=bits // 8)
        if bits == 64 and not signed:
            # A target beyond int64 is out of range, and never one that could be ignored.
            zero, highest = (ir.Constant(wide, n if count == 1 else [n] * count) for n in (0, 2**63 - 1))
            return builder.select(builder.icmp_signed("<", x, zero), highest, x)
        return x if bits == 64 else (builder.sext if signed else builder.zext)(x, wide)

    @intrinsic
    def load(typing_context, address):
        return signature(types.int64, types.int64), lambda context, builder, sig, args: emit(builder, args[0], 1)

    @intrinsic
    def load_eight(typing_context, address):
        return signature(i64, types.int64), lambda context, builder, sig, args: emit(builder, args[0], 8)

    return load, load_eight


(_i1, _v_i1), (_i2, _v_i2), (_i4, _v_i4), (_i8, _v_i8) = (_loaders(bits, True) for bits in (8, 16, 32, 64))
(_u1, _v_u1), (_u2, _v_u2), (_u4, _v_u4), (_u8, _v_u8) = (_loaders(bits, False) for bits in (8, 16, 32, 64))


@helper
def load_integer(address, kind):
    """An integer of any kind as int64, its value kept."""
    if kind == 3:
        return _i8(address)
    if kind == 2:
        return _i4(address)
    if kind < 2:
        return _i2(address) if kind else _i1(address)
    if kind == 4:
        return _u1(address)
    if kind == 5:
        return _u2(address)
    return _u4(address) if kind == 6 else _u8(address)


@inlined
def load_integers(address, kind):
    """Eight of them, side by side."""
    if kind == 3:
        return _v_i8(address)
    if kind == 2:
        return _v_i4(address)
    if kind < 2:
        return _v_i2(address) if kind else _v_i1(address)
    if kind == 4:
        return _v_u1(address)
    if kind == 5:
        return _v_u2(address)
    return _v_u4(address) if kind == 6 else _v_u8(address)


@inlined
def side_by_side(targets):
    """Bytes from one number to the next where they lie side by side, else 0."""
    size = 1 << (targets[4] & 3)
    stride = targets[1] if targets[5] == 1 else targets[3]
    return size if stride == size and (targets[5] == 1 or targets[1] == size * targets[5]) else 0


@helper
def some_targets(targets, r, n):
    """Up to eight of them, from the r-th on; the last is repeated."""
    t = i64s(0)
    for i in range(8):
        t = with_lane(t, i, load_integer(row_offset(targets, r + min(i, n - 1)), targets[4]))
    return t


@helper
def weights_of(weights, t, inside):
    """The weights of eight targets, 0 for what is none."""
    w = f64s(0.0)
    for i in range(8):
        w = with_lane(w, i, read_f64(weights + 8 * max(lane(t, i), 0)))
    return where(inside, w, f64s(0.0))


@kernel
def classify(targets, rows, classes, ignores, ignore_index, check, weights, indices):
    """Write each row's target as int64, or IGNORED, or BAD, if there is an address, and find how many rows count.

    (The first row that is BAD if `check`, else −1; how many count; the sum of their weights, each 1 without any.)
    """
    counts, high, low = i64s(0), f64s(0.0), f64s(0.0)
    # Many were last read by other processors, from whose caches each line would have to be called back.
    past_caches = rows >= MANY and indices % 64 == 0
    size = side_by_side(targets)
    for r in range(0, rows, 8):
        n = min(8, rows - r)
        t = load_integers(targets[0] + size * r, targets[4]) if size > 0 and n == 8 else some_targets(targets, r, n)
        ignored = (t == ignore_index) & (i64s(1 if ignores else 0) == 1)
        inside = (t >= 0) & (t < classes) & ~ignored
        t = where(inside, t, where(ignored, i64s(IGNORED), i64s(BAD)))
        if check and anywhere(t == BAD):
            i = 0
            while lane(t, i) != BAD:
                i += 1
            return r + i, 0, 0.0
        inside = inside & (lane_numbers64() < n)
        counts += where(inside, i64s(1), i64s(0))
        if weights != 0:
            high, low = add(high, low, weights_of(weights, t, inside))
        if indices == 0:
            continue
        if n < 8:
            store_part_i64(indices + 8 * r, t, n)
        elif past_caches:
            stream_f64(indices + 8 * r, floats(t))
        else:
            store_i64(indices + 8 * r, t)
    count = sum_across(counts)
    return -1, count, sum_lanes(high, low) if weights != 0 else float(count)


@kernel
def judge(at, rows, classes, ignores, ignore_index, check):
    """Find the first BAD one of int64 targets side by side if `check`, else −1, and how many count."""
    if not (ignores and 0 <= ignore_index < classes) and are_inside(at, rows, classes):
        return -1, rows
    bad, count, _ = classify((at, 8, 0, 8, INT64, 1), rows, classes, ignores, ignore_index, check, 0, 0)
    return bad, count


@kernel
def indexed(targets, rows, classes, ignores, ignore_index, check, count, weights, room):
    """Judge the targets: where each is a class, and they are int64 side by side, they are taken as they are.

    `count`: how many count, if that is known, else −1.  `room`: address of memory for an int64 per row, 0 without.

    (The first BAD row if `check`, else −1; how many rows count; the sum of their weights, each 1 without any; address
    of each row's class, IGNORED or BAD, 0 where there was no room for them.)
    """
    if targets[4] == INT64 and targets[0] & 7 == 0 and side_by_side(targets) == 8:
        bad, mass = -1, float(count)
        if weights != 0:
            bad, count, mass = classify(targets, rows, classes, ignores, ignore_index, check, weights, 0)
        elif count < 0:
            bad, count = judge(targets[0], rows, classes, ignores, ignore_index, check)
            mass = float(count)
        if bad >= 0 or count == rows:
            return bad, count, mass, targets[0]
    if room == 0:
        return -1, 0, 0.0, 0
    bad, count, mass = classify(targets, rows, classes, ignores, ignore_index, check, weights, room)
    return bad, count, mass, room


@kernel
def judge_parts(counter, at, rows, classes, ignores, ignore_index, check, found):
    """The same for each PART of them."""
    i = next_share(counter)
    while i * PART < rows:
        first = PART * i
        bad, count = judge(at + 8 * first, min(PART, rows - first), classes, ignores, ignore_index, check)
        found[i, 0], found[i, 1] = bad + first if bad >= 0 else -1, count
        i = next_share(counter)
    leave(counter)


@helper
def are_inside(at, count, classes):
    """Whether all of so many int64 side by side are classes."""
    signs, last = i64s(0), i64s(classes - 1)
    for r in range(0, count - 7, 8):
        t = load_i64(at + 8 * r)
        signs |= t | (last - t)
    t = load_part_i64(at + 8 * (count & -8), count & 7)
    return not anywhere((signs | t | (last - t)) < 0)


@helper
def sum_lanes(high, low):
    """Σ of eight pairs."""
    high_sum, low_sum = lane(high, 0), lane(low, 0)
    for i in range(1, 8):
        high_sum, error = two_sum(high_sum, lane(high, i))
        low_sum += lane(low, i) + error
    return high_sum + low_sum if high_sum - high_sum == 0.0 else high_sum


@helper
def sum_rows(address, rows, unit):
    """Σ of float64 numbers side by side, times `unit`, to twice their precision, in an order fixed by their count."""
    high, low = f64s(0.0), f64s(0.0)
    for j in range(rows >> 3):
        high, low = add(high, low, load_f64(address + 64 * j) * unit)
    high, low = add(high, low, load_part_f64(address + 64 * (rows >> 3), rows & 7) * unit)
    return sum_lanes(high, low)


@helper
def reduced(address, rows, unit, by, when_nothing_counts):
    """Σ of float64 numbers side by side, over `by` and `unit`."""
    if by == 0.0:
        return when_nothing_counts
    x = sum_rows(address, rows, 1.0) / by
    # Their sum may overflow though their mean does not.
    if not abs(x) < math.inf:
        x = sum_rows(address, rows, 2.0**-64) / by * 2.0**64
    return x / unit


@kernel
def reduce_rows(values, lead, rows, unit, by, when_nothing_counts, out, kind):
    """The same of each of `lead` times `rows` numbers, rounded once."""
    for n in range(lead):
        x = reduced(values + 8 * rows * n, rows, unit, by, when_nothing_counts)
        write_as(out + (8 if kind == FLOAT64 else 4) * n, x, kind)
