"""Short rows, and rows whose class axis is strided: sixteen rows side by side, a lane for each.

Everything a row needs but its terms, sums, a division, a logarithm, is then done for sixteen at once, where a short
row by itself would pay more for these than for its exponentials.  Columns, one vector per class, lie in scratch
memory; rows whose classes lie side by side are transposed in registers, sixteen by sixteen.

Classes are added in a fixed order: four in a tree, in float32, then into a pair for each row.
"""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.lanes import (
    f32s,
    i32s,
    larger,
    load_f32,
    store_f32,
    where,
)
from softgrad.backends.numba_cpu.pairs import added
from softgrad.backends.numba_cpu.single import LN_2, REACH, ROUNDER, exp_shifted


@inlined
def tiles_of(array, rows):
    """How many tiles hold that many rows; where the inner axis is long no tile crosses its end."""
    inner = array[5]
    return rows // inner * ((inner + 15) >> 4) if inner >= 16 else (rows + 15) >> 4


@inlined
def tile_at(i, array, rows, classes):
    """The i-th tile."""
    inner = array[5]
    if inner >= 16:
        runs = (inner + 15) >> 4
        return i // runs * inner + i % runs * 16, min(16, inner - i % runs * 16), classes
    return 16 * i, min(16, rows - 16 * i), classes


@inlined
def whole(classes):
    """Classes up to a whole number of sixteens: of so many columns scratch memory has two sets."""
    return (classes + 15) >> 4 << 4


@inlined
def largest(columns, classes):
    """m of each row; NaNs are passed over, they will show in the sum."""
    m = f32s(-math.inf)
    for c in range(classes):
        m = larger(load_f32(columns + 64 * c), m)
    return m


@inlined
def first_largest(columns, classes):
    """m and k of each row: the first largest class."""
    m, k = f32s(-math.inf), i32s(0)
    for c in range(classes):
        z = load_f32(columns + 64 * c)
        k = where(z > m, i32s(c), k)
        m = where(z > m, z, m)
    return m, k


@helper
def exponentials(columns, terms, classes, N, t):
    """Fill e, in place of z if terms is columns; (Σ over the classes but t, a pair; e_t, 0 where t is no class)."""
    rounder, lowest = ROUNDER - N, (N - REACH) * LN_2
    total, e_t = (f32s(0.0), f32s(0.0)), f32s(0.0)
    c = 0
    while c + 4 <= classes:
        x, e_t = two_terms(columns, terms, c, rounder, lowest, t, e_t)
        y, e_t = two_terms(columns, terms, c + 2, rounder, lowest, t, e_t)
        total = added(total, x + y) if c > 0 else (x + y, f32s(0.0))
        c += 4
    if c < classes:
        rest, e_t = term(columns, terms, c, rounder, lowest, t, e_t)
        for following in range(c + 1, classes):
            x, e_t = term(columns, terms, following, rounder, lowest, t, e_t)
            rest += x
        total = added(total, rest) if c > 0 else (rest, f32s(0.0))
    return total, e_t


@inlined
def two_terms(columns, terms, c, rounder, lowest, t, e_t):
    """Σ of two."""
    a, e_t = term(columns, terms, c, rounder, lowest, t, e_t)
    b, e_t = term(columns, terms, c + 1, rounder, lowest, t, e_t)
    return a + b, e_t


@inlined
def term(columns, terms, c, rounder, lowest, t, e_t):
    """e of class c, stored, 0 in rows whose class t it is; and e_t there."""
    e = exp_shifted(load_f32(columns + 64 * c), rounder, lowest)
    store_f32(terms + 64 * c, e)
    return where(t == c, f32s(0.0), e), where(t == c, e, e_t)


@helper
def pick(columns, classes, which):
    """Each row's entry at class `which`."""
    x = f32s(0.0)
    for c in range(classes):
        x = where(which == c, load_f32(columns + 64 * c), x)
    return x
