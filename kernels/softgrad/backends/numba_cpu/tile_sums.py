"""The largest entry of each row of a tile, the first class that has it, and sums over the classes."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numba_cpu import lanes
from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.functions import two_sum
from softgrad.backends.numba_cpu.lanes import anywhere, f64s, i64s, lane_numbers64, larger, load_f64, where
from softgrad.backends.numba_cpu.tiles import height


@helper
def largest(buffer, tile):
    """m of each row; NaNs are passed over."""
    n = height(tile)
    a = f64s(-np.inf)
    b, c, d = a, a, a
    j = 0
    while j + 4 <= n:
        a = larger(load_f64(buffer + 64 * j), a)
        b = larger(load_f64(buffer + 64 * (j + 1)), b)
        c = larger(load_f64(buffer + 64 * (j + 2)), c)
        d = larger(load_f64(buffer + 64 * (j + 3)), d)
        j += 4
    while j < n:
        a = larger(load_f64(buffer + 64 * j), a)
        j += 1
    m = larger(larger(a, b), larger(c, d))
    return f64s(lanes.max_across(m)) if tile[3] else m


@helper
def first_equal(buffer, m, tile):
    """k of each row, its first class that is m; 0 if none is."""
    k = i64s(0)
    if tile[3]:
        for j in range(height(tile)):
            equal = load_f64(buffer + 64 * j) == m
            if anywhere(equal):
                k = i64s(8 * j + 8 - lanes.max_across(where(equal, 8 - lane_numbers64(), i64s(0))))
                break
    else:
        for j in range(tile[2] - 1, -1, -1):
            k = where(load_f64(buffer + 64 * j) == m, i64s(j), k)
    return where(k < tile[2], k, i64s(0))


@inlined
def add(high, low, x):
    """(high, low) + x, exact to twice the precision: the error of a sum does not grow with C."""
    high, error = two_sum(high, x)
    return high, low + error


@inlined
def value(high, low):
    """high + low; an infinite sum has no error term."""
    return where(high - high == 0.0, high + low, high)


@inlined
def summed(vector, of, tile):
    """Σ of vector(j, of) over each row's classes: eight vectors in a tree, and these sums to twice the precision."""
    n = height(tile)
    high, low = f64s(0.0), f64s(0.0)
    j = 0
    while j + 8 <= n:
        a, b = vector(j, of) + vector(j + 1, of), vector(j + 2, of) + vector(j + 3, of)
        c, d = vector(j + 4, of) + vector(j + 5, of), vector(j + 6, of) + vector(j + 7, of)
        high, low = add(high, low, (a + b) + (c + d))
        j += 8
    even, odd = f64s(0.0), f64s(0.0)
    while j < n:
        even, odd = odd, even + vector(j, of)
        j += 1
    high, low = add(high, low, even + odd)
    return total(high, low, tile)


@inlined
def vector_of(j, buffer):
    """Vector j of a tile, for `summed`."""
    return load_f64(buffer + 64 * j)


@helper
def sum_tile(buffer, tile):
    """Σ over the classes; lanes beyond C must hold 0."""
    return summed(vector_of, buffer, tile)


@helper
def total(high, low, tile):
    """The sum of a row from those of its lanes."""
    if tile[3]:
        high, low = f64s(lanes.sum_across(high)), f64s(lanes.sum_across(low))
    return value(high, low)
