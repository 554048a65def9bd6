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
from softgrad.backends.numba_cpu.entries import BOOL, INT, described_per_row, entry, reads
from softgrad.backends.numba_cpu.functions import two_sum
from softgrad.backends.numba_cpu.lanes import (
    anywhere,
    f64s,
    i64s,
    lane,
    load_f64,
    load_i64,
    load_part_f64,
    read_f64,
    store_i64,
    sum_across,
    where,
    write_i64,
)
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD, IGNORED
from softgrad.backends.numba_cpu.tiles import FLOAT64, add, row_offset, write_as

# Kinds of integers.
INTEGERS = {np.dtype(f"{sign}{size}"): kind for kind, (sign, size) in enumerate(product("iu", (1, 2, 4, 8)))}
RANGES = {dtype: (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) for dtype in INTEGERS}


def _loader(bits: int, signed: bool) -> Any:
    @intrinsic
    def load(typing_context, address):
        def codegen(context, builder, sig, args):
            integer = ir.IntType(bits)
            x = builder.load(builder.inttoptr(args[0], integer.as_pointer()), align=bits // 8)
            if bits == 64:
                # An unsigned target beyond int64 is out of range, and never one that could be ignored.
                return x if signed else builder.select(builder.icmp_signed("<", x, x.type(0)), x.type(2**63 - 1), x)
            return (builder.sext if signed else builder.zext)(x, ir.IntType(64))

        return signature(types.int64, types.int64), codegen

    return load


_i1, _i2, _i4, _i8 = (_loader(bits, True) for bits in (8, 16, 32, 64))
_u1, _u2, _u4, _u8 = (_loader(bits, False) for bits in (8, 16, 32, 64))


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
def is_flat(targets):
    """Whether they are int64 numbers side by side, which are looked at eight at a time."""
    stride = targets[1] if targets[5] == 1 else targets[3]
    return targets[4] == 3 and stride == 8 and (targets[5] == 1 or targets[1] == 8 * targets[5])


@inlined
def judged(t, classes, ignores, ignore_index):
    """IGNORED, BAD, or t; and whether each is a class."""
    ignored = (t == ignore_index) & (i64s(1 if ignores else 0) == 1)
    inside = (t >= 0) & (t < classes) & ~ignored
    return where(ignored, i64s(IGNORED), where(inside, t, i64s(BAD))), inside


@entry(lambda integer: (reads(integer, 2), INT, INT, BOOL, INT))
def first_bad(array, kind, classes, ignores, ignore_index):
    """The first row whose target is neither in [0, C) nor ignored; −1 if there is none."""
    targets, rows, r = described_per_row(array, kind), array.size, 0
    if is_flat(targets):
        while r + 8 <= rows:
            t, _ = judged(load_i64(targets[0] + 8 * r), classes, ignores, ignore_index)
            if anywhere(t == BAD):
                break
            r += 8
    while r < rows:
        t = load_integer(row_offset(targets, r), targets[4])
        if (t < 0 or t >= classes) and not (ignores and t == ignore_index):
            return r
        r += 1
    return -1


@kernel
def classify(targets, rows, classes, ignores, ignore_index, weights, indices):
    """Write each row's target as int64, or IGNORED, or BAD; how many rows count, and the sum of their weights.

    Without weights (address 0) each is 1.
    """
    count, high, low = 0, 0.0, 0.0
    r = 0
    if weights == 0 and is_flat(targets):
        counts = i64s(0)
        while r + 8 <= rows:
            t, inside = judged(load_i64(targets[0] + 8 * r), classes, ignores, ignore_index)
            store_i64(indices + 8 * r, t)
            counts += where(inside, i64s(1), i64s(0))
            r += 8
        count = sum_across(counts)
    while r < rows:
        t = load_integer(row_offset(targets, r), targets[4])
        if ignores and t == ignore_index:
            t = IGNORED
        elif t < 0 or t >= classes:
            t = BAD
        else:
            count += 1
            if weights != 0:
                high, error = two_sum(high, read_f64(weights + 8 * t))
                low += error
        write_i64(indices + 8 * r, t)
        r += 1
    return count, high + low if weights != 0 else float(count)


@helper
def sum_rows(address, rows, unit):
    """Σ of float64 numbers side by side, times `unit`, to twice their precision, in an order fixed by their count."""
    high, low = f64s(0.0), f64s(0.0)
    for j in range(rows >> 3):
        high, low = add(high, low, load_f64(address + 64 * j) * unit)
    high, low = add(high, low, load_part_f64(address + 64 * (rows >> 3), rows & 7) * unit)
    high_sum, low_sum = lane(high, 0), lane(low, 0)
    for i in range(1, 8):
        high_sum, error = two_sum(high_sum, lane(high, i))
        low_sum += lane(low, i) + error
    return high_sum + low_sum if high_sum - high_sum == 0.0 else high_sum


@kernel
def reduce_rows(values, lead, rows, unit, by, when_nothing_counts, out, kind):
    """Σ of each of `lead` times `rows` float64 numbers, over `by` and `unit`, rounded once."""
    for n in range(lead):
        x = when_nothing_counts
        if by != 0.0:
            at = values + 8 * rows * n
            x = sum_rows(at, rows, 1.0) / by
            # Their sum may overflow though their mean does not.
            if not abs(x) < math.inf:
                x = sum_rows(at, rows, 2.0**-64) / by * 2.0**64
            x = x / unit
        write_as(out + (8 if kind == FLOAT64 else 4) * n, x, kind)
