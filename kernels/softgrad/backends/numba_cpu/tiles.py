"""Tiles: float64 copies of a few rows, eight lanes wide, on which every primitive can be computed exactly enough.

A tile is H vectors of eight lanes.  It holds either

    eight rows   vector j is class j, each lane another row: for a short or a strided class axis
    one row      vector j is classes 8j … 8j + 7 of one row: for a long contiguous one

and the mathematics above is the same for both, for all that differs is hidden in four functions: where an array's
elements lie (`fill`, `spill`), which class a lane stands for (`classes_at`), and that a number per row is found
`across` the lanes or in each.  Which it is depends on C and on whether the class axis is contiguous alone, so neither
does the order in which classes are added.

An array is described by six integers: address, strides in bytes of outer, class and inner axis, kind of its numbers,
and the length of its inner axis.  A tile by five: its first row, its number of rows, C, whether it is one row, and
the address of a list of int64 that its rows are taken from, 0 if they are simply numbered.
"""

from __future__ import annotations

import numpy as np

from softgrad.backends.numba_cpu import lanes
from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.functions import two_sum
from softgrad.backends.numba_cpu.lanes import f64s, i64s, lane, lane_numbers64, load_f64, store_f64, where, with_lane

# Kinds of numbers.
FLOAT64, FLOAT32, FLOAT16, BFLOAT16 = range(4)
# From this many classes on a contiguous row has a tile of its own: at most an eighth of its last vector is idle.
ONE_ROW = 64


@helper
def load_some(address, n, kind):
    """The first n of eight numbers side by side in memory, the others 0."""
    if kind == FLOAT64:
        return lanes.load_part_f64(address, n)
    if kind == FLOAT32:
        return lanes.load_part_f64_of_f32(address, n)
    if kind == FLOAT16:
        return lanes.load_part_f64_of_half(address, n)
    return lanes.load_part_f64_of_bfloat(address, n)


@helper
def store_some(address, x, n, kind):
    """The first n of eight numbers, side by side in memory, rounded once (16-bit ones from float32)."""
    if kind == FLOAT64:
        lanes.store_part_f64(address, x, n)
    elif kind == FLOAT32:
        lanes.store_part_f64_to_f32(address, x, n)
    elif kind == FLOAT16:
        lanes.store_part_f64_to_half(address, x, n)
    else:
        lanes.store_part_f64_to_bfloat(address, x, n)


@helper
def read_as(address, kind):
    """One number."""
    if kind == FLOAT64:
        return lanes.read_f64(address)
    if kind == FLOAT32:
        return lanes.read_f64_of_f32(address)
    return lanes.read_f64_of_half(address) if kind == FLOAT16 else lanes.read_f64_of_bfloat(address)


@helper
def write_as(address, x, kind):
    """One number, rounded once (16-bit ones from float32)."""
    if kind == FLOAT64:
        lanes.write_f64(address, x)
    elif kind == FLOAT32:
        lanes.write_f64_to_f32(address, x)
    elif kind == FLOAT16:
        lanes.write_f64_to_half(address, x)
    else:
        lanes.write_f64_to_bfloat(address, x)


@inlined
def height(tile):
    """H."""
    return (tile[2] + 7) >> 3 if tile[3] else tile[2]


@inlined
def classes_at(j, tile):
    """Which class each lane of vector j stands for."""
    if tile[3]:
        return lane_numbers64() + 8 * j
    return i64s(j)


@inlined
def across(x, tile):
    """The sum over the row of what each lane has summed."""
    if tile[3]:
        return f64s(lanes.sum_across(x))
    return x


@helper
def row_offset(array, row):
    """Address of a row's first class."""
    inner = array[5]
    if inner == 1:
        return array[0] + row * array[1]
    return array[0] + row // inner * array[1] + row % inner * array[3]


@inlined
def row_of(tile, i):
    """Number of the tile's i-th row."""
    return tile[0] + i if tile[4] == 0 else lanes.read_i64(tile[4] + 8 * (tile[0] + i))


@helper
def fill(buffer, array, tile, padding):
    """Copy an array's rows into a tile; lanes beyond C of one row, `padding`.  Lanes without a row repeat the last."""
    _, rows, classes, one_row, _ = tile
    stride, kind = array[2], array[4]
    if one_row and stride == _size(kind):
        start = row_offset(array, row_of(tile, 0))
        for j in range(classes >> 3):
            store_f64(buffer + 64 * j, load_some(start + 8 * j * stride, 8, kind))
        left = classes & 7
        if left:
            j = classes >> 3
            x = load_some(start + 8 * j * stride, left, kind)
            store_f64(buffer + 64 * j, where(lane_numbers64() < left, x, f64s(padding)))
        return
    for i in range(8):
        if one_row:
            start, step = row_offset(array, row_of(tile, 0)) + i * stride, 8 * stride
        else:
            start, step = row_offset(array, row_of(tile, min(i, rows - 1))), stride
        count = (classes - i + 7) >> 3 if one_row else classes
        for j in range(count):
            lanes.write_f64(buffer + 64 * j + 8 * i, read_as(start + j * step, kind))
        if one_row and count < height(tile):
            lanes.write_f64(buffer + 64 * count + 8 * i, padding)


@helper
def spill(buffer, array, tile):
    """Write a tile to an array's rows."""
    _, rows, classes, one_row, _ = tile
    stride, kind = array[2], array[4]
    if one_row and stride == _size(kind):
        start = row_offset(array, row_of(tile, 0))
        for j in range(height(tile)):
            store_some(start + 8 * j * stride, load_f64(buffer + 64 * j), min(8, classes - 8 * j), kind)
        return
    for i in range(8 if one_row else rows):
        if one_row:
            start, step = row_offset(array, row_of(tile, 0)) + i * stride, 8 * stride
        else:
            start, step = row_offset(array, row_of(tile, i)), stride
        for j in range((classes - i + 7) >> 3 if one_row else classes):
            write_as(start + j * step, lanes.read_f64(buffer + 64 * j + 8 * i), kind)


@inlined
def _size(kind):
    return 8 if kind == FLOAT64 else 4 if kind == FLOAT32 else 2


@helper
def pick(buffer, which, tile):
    """The entry of each row at class `which`."""
    if tile[3]:
        return f64s(lanes.read_f64(buffer + 8 * lane(which, 0)))
    x = f64s(0.0)
    for i in range(8):
        x = with_lane(x, i, lanes.read_f64(buffer + 64 * lane(which, i) + 8 * i))
    return x


@helper
def largest(buffer, tile):
    """m and k of each row: the first largest class; m is NaN where there is one, k then any class."""
    m, k, lost = f64s(-np.inf), i64s(0), i64s(0)
    for j in range(height(tile)):
        z = load_f64(buffer + 64 * j)
        k = where(z > m, classes_at(j, tile), k)
        m = where(z > m, z, m)
        lost = where(z != z, i64s(1), lost)
    if tile[3]:
        best = f64s(lanes.max_across(m))
        k = i64s(-lanes.max_across(where(m == best, -k, i64s(-tile[2]))))
        m, lost = best, i64s(lanes.max_across(lost))
    return where(lost > 0, f64s(np.nan), m), where(k < tile[2], k, i64s(0))


@inlined
def add(high, low, x):
    """(high, low) + x, exact to twice the precision: the error of a sum does not grow with C."""
    high, error = two_sum(high, x)
    return high, low + error


@inlined
def value(high, low):
    """high + low; an infinite sum has no error term."""
    return where(high - high == 0.0, high + low, high)


@helper
def sum_tile(buffer, tile):
    """Σ over the classes; lanes beyond C must hold 0."""
    high, low = f64s(0.0), f64s(0.0)
    for j in range(height(tile)):
        high, low = add(high, low, load_f64(buffer + 64 * j))
    return total(high, low, tile)


@helper
def total(high, low, tile):
    """The sum of a row from those of its lanes."""
    if not tile[3]:
        return value(high, low)
    high_sum, low_sum = lane(high, 0), lane(low, 0)
    for i in range(1, 8):
        high_sum, error = two_sum(high_sum, lane(high, i))
        low_sum += lane(low, i) + error
    return value(f64s(high_sum), f64s(low_sum))


# --- numbers per row ---


@helper
def load_per_row(array, tile):
    """One number per row of an array without a class axis."""
    if tile[3]:
        return f64s(read_as(row_offset(array, row_of(tile, 0)), array[4]))
    x = f64s(0.0)
    for i in range(8):
        x = with_lane(x, i, read_as(row_offset(array, row_of(tile, min(i, tile[1] - 1))), array[4]))
    return x


@helper
def store_per_row(array, x, tile):
    """Write one number per row."""
    for i in range(tile[1]):
        write_as(row_offset(array, row_of(tile, i)), lane(x, i), array[4])


# --- sharing tiles out to threads ---


@helper
def begin_tiles(z, counter):
    """Set the counter at this address to nothing; bytes of a tile of z, and what kernels are asked to do: all rows."""
    lanes.write_i64(counter, 0)
    classes = z.shape[1]
    one_row = classes >= ONE_ROW and z.strides[1] == z.itemsize
    height = (classes + 7) >> 3 if one_row else classes
    return 64 * max(height, 1), (z.shape[0] * z.shape[2], classes, one_row, 0)


# What a kernel is asked to do: (number of rows, C, whether a tile is one row, address of a list of rows or 0).


@inlined
def tiles_in(work):
    """How many tiles hold the rows."""
    return work[0] if work[2] else (work[0] + 7) >> 3


@inlined
def tile_number(i, work):
    """The i-th tile."""
    rows, classes, one_row, which = work
    if one_row:
        return i, 1, classes, 1, which
    return 8 * i, min(8, rows - 8 * i), classes, 0, which
