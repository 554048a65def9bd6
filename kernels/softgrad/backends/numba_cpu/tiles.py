"""Tiles: float64 copies of a few rows, eight lanes wide, on which every primitive can be computed exactly enough.

A tile is H vectors of eight lanes.  It holds either

    eight rows   vector j is class j, each lane another row: for a short or a strided class axis
    one row      vector j is classes 8j … 8j + 7 of one row: for a long contiguous one

and the mathematics above is the same for both, for all that differs is hidden in some functions: where an array's
elements lie (`fill`, `spill`), which class a lane stands for (`classes_at`), and that a number per row is found
`across` the lanes or in each.  Which it is depends on C and on whether the class axis is contiguous alone, so neither
does the order in which classes are added.

An array is described by six integers: address, strides in bytes of outer, class and inner axis, kind of its numbers,
and the length of its inner axis.  A tile by five: its first row, its number of rows, C, whether it is one row, and
the address of a list of int64 that its rows are taken from, 0 if they are simply numbered.

A tile's memory is for whole eights of vectors, and one more: what is read or written beside a row's end is its own.
"""

from __future__ import annotations

from softgrad.backends.numba_cpu import lanes
from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.lanes import (
    f64s,
    i64s,
    lane,
    lane_numbers64,
    load_f64,
    store_f64,
    transposed,
    where,
    with_lane,
)

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


@inlined
def offset_of(array, tile, i):
    """Address of the tile's i-th row, of its last where there are no more."""
    return row_offset(array, row_of(tile, min(i, tile[1] - 1)))


@inlined
def is_run(array, tile):
    """Whether the tile's rows lie side by side in memory."""
    return array[5] >= 8 and array[3] == _size(array[4]) and tile[4] == 0


@helper
def fill(buffer, array, tile, padding):
    """Copy an array's rows into a tile; lanes beyond C of one row, `padding`.  Lanes without a row: any number."""
    first, rows, classes, one_row, _ = tile
    stride, kind = array[2], array[4]
    size = _size(kind)
    if one_row:
        start = row_offset(array, row_of(tile, 0))
        whole, left = classes >> 3, classes & 7
        if stride == size:
            if kind == FLOAT64:
                for j in range(whole):
                    store_f64(buffer + 64 * j, load_f64(start + 64 * j))
            else:
                for j in range(whole):
                    store_f64(buffer + 64 * j, load_some(start + 8 * size * j, 8, kind))
            if left:
                x = load_some(start + 8 * size * whole, left, kind)
                store_f64(buffer + 64 * whole, where(lane_numbers64() < left, x, f64s(padding)))
        else:
            for c in range(classes):
                lanes.write_f64(buffer + 8 * c, read_as(start + c * stride, kind))
            for c in range(classes, 8 * height(tile)):
                lanes.write_f64(buffer + 8 * c, padding)
    elif stride == size:
        _fill_transposed(buffer, array, tile)
    elif is_run(array, tile):
        start = row_offset(array, first)
        for c in range(classes):
            store_f64(buffer + 64 * c, load_some(start + c * stride, rows, kind))
    else:
        for i in range(8):
            start = offset_of(array, tile, i)
            for c in range(classes):
                lanes.write_f64(buffer + 64 * c + 8 * i, read_as(start + c * stride, kind))


@inlined
def _fill_transposed(buffer, array, tile):
    """Eight rows whose classes lie side by side."""
    classes, kind = tile[2], array[4]
    size = _size(kind)
    a, b = offset_of(array, tile, 0), offset_of(array, tile, 1)
    c, d = offset_of(array, tile, 2), offset_of(array, tile, 3)
    e, f = offset_of(array, tile, 4), offset_of(array, tile, 5)
    g, h = offset_of(array, tile, 6), offset_of(array, tile, 7)
    for j in range(0, classes, 8):
        n, at = min(8, classes - j), size * j
        columns = transposed(
            load_some(a + at, n, kind), load_some(b + at, n, kind),
            load_some(c + at, n, kind), load_some(d + at, n, kind),
            load_some(e + at, n, kind), load_some(f + at, n, kind),
            load_some(g + at, n, kind), load_some(h + at, n, kind),
        )  # fmt: skip
        for i in range(8):
            store_f64(buffer + 64 * (j + i), columns[i])


@helper
def spill(buffer, array, tile):
    """Write a tile to an array's rows."""
    first, rows, classes, one_row, _ = tile
    stride, kind = array[2], array[4]
    size = _size(kind)
    if one_row:
        start = row_offset(array, row_of(tile, 0))
        if stride == size:
            for j in range(height(tile)):
                store_some(start + 8 * j * stride, load_f64(buffer + 64 * j), min(8, classes - 8 * j), kind)
        else:
            for c in range(classes):
                write_as(start + c * stride, lanes.read_f64(buffer + 8 * c), kind)
    elif stride == size:
        for j in range(0, classes, 8):
            at = buffer + 64 * j
            columns = transposed(
                load_f64(at), load_f64(at + 64), load_f64(at + 128), load_f64(at + 192),
                load_f64(at + 256), load_f64(at + 320), load_f64(at + 384), load_f64(at + 448),
            )  # fmt: skip
            n = min(8, classes - j)
            for i in range(rows):
                store_some(row_offset(array, row_of(tile, i)) + size * j, columns[i], n, kind)
    elif is_run(array, tile):
        start = row_offset(array, first)
        for c in range(classes):
            store_some(start + c * stride, load_f64(buffer + 64 * c), rows, kind)
    else:
        for i in range(rows):
            start = row_offset(array, row_of(tile, i))
            for c in range(classes):
                write_as(start + c * stride, lanes.read_f64(buffer + 64 * c + 8 * i), kind)


@inlined
def write(vector, of, buffer, array, tile):
    """Write vector(j, of) of every vector j to an array's rows: one row straight, else by way of a tile's memory.

    Never past the caches: most rows do not begin where a line of the caches does, and a line that is written half past
    the caches and half through them is waited for.
    """
    if tile[3] and array[4] == FLOAT64 and array[2] == 8:
        start, whole, left = row_offset(array, row_of(tile, 0)), tile[2] >> 3, tile[2] & 7
        for j in range(whole):
            store_f64(start + 64 * j, vector(j, of))
        if left:
            lanes.store_part_f64(start + 64 * whole, vector(whole, of), left)
    else:
        for j in range(height(tile)):
            store_f64(buffer + 64 * j, vector(j, of))
        spill(buffer, array, tile)


@inlined
def coming(z, other, tile, alone):
    """What memory should be asked for while a tile is computed: the next row of z, this one of another array.

    For one row: its address in either, and the bytes of a vector.
    """
    z_at = row_offset(z, row_of(tile, 0)) + z[1]
    return z_at, z_at if alone else row_offset(other, row_of(tile, 0)), 8 * _size(z[4])


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


# --- numbers per row ---


@helper
def load_per_row(array, tile):
    """One number per row of an array without a class axis."""
    kind = array[4]
    if tile[3]:
        return f64s(read_as(row_offset(array, row_of(tile, 0)), kind))
    if array[1] == 0 and array[3] == 0:
        return f64s(read_as(array[0], kind))
    x = f64s(0.0)
    for i in range(8):
        x = with_lane(x, i, read_as(offset_of(array, tile, i), kind))
    return x


@helper
def store_per_row(array, x, tile):
    """Write one number per row."""
    size, rows = _size(array[4]), tile[1]
    if tile[4] == 0 and (array[1] == size if array[5] == 1 else is_run(array, tile)):
        store_some(row_offset(array, tile[0]), x, rows, array[4])
        return
    for i in range(rows):
        write_as(row_offset(array, row_of(tile, i)), lane(x, i), array[4])


# --- sharing tiles out to threads ---


@inlined
def bytes_of(classes, one_row):
    """Memory that a tile takes."""
    return 64 * (((classes + 7) >> 3 if one_row else (classes + 7) >> 3 << 3) + 1)


@helper
def begin_tiles(z, counter):
    """Set the counter at this address to nothing; bytes of a tile of z, and what kernels are asked to do: all rows."""
    lanes.write_i64(counter, 0)
    classes, inner = z.shape[1], z.shape[2]
    one_row = classes >= ONE_ROW and z.strides[1] == z.itemsize
    return bytes_of(classes, one_row), (z.shape[0] * inner, classes, one_row, 0, inner)


# What a kernel is asked to do: (number of rows, C, whether a tile is one row, address of a list of rows or 0, length
# of the inner axis).  Where that is long no tile crosses its end, so that a tile's rows lie side by side.


@inlined
def tiles_in(work):
    """How many tiles hold the rows."""
    rows, _, one_row, listed, inner = work
    if one_row:
        return rows
    if inner >= 8 and listed == 0:
        return rows // inner * ((inner + 7) >> 3)
    return (rows + 7) >> 3


@inlined
def tile_number(i, work):
    """The i-th tile."""
    rows, classes, one_row, which, inner = work
    if one_row:
        return i, 1, classes, 1, which
    if inner >= 8 and which == 0:
        runs = (inner + 7) >> 3
        return i // runs * inner + i % runs * 8, min(8, inner - i % runs * 8), classes, 0, which
    return 8 * i, min(8, rows - 8 * i), classes, 0, which
