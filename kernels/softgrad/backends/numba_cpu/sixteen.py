"""What sixteen rows, a lane for each, need once: their N, their logarithms, which must be referred.

For kernels that keep a row in a lane (`narrow`) and those that keep it in vectors (`middle`) alike.
"""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.functions import log1p, power_of_two
from softgrad.backends.numba_cpu.lanes import (
    anywhere,
    f32s,
    halves,
    i32s,
    joined,
    lane,
    lane_numbers32,
    store_part_f32,
    to_integers,
    where,
)
from softgrad.backends.numba_cpu.pairs import in_float64, log1p_of_quotient
from softgrad.backends.numba_cpu.product_vectors import bounds, is_fine
from softgrad.backends.numba_cpu.single import LARGEST, LIFT, LN_2, LOG2_E, term_at
from softgrad.backends.numba_cpu.wide import refer

# A tile: (first row, number of rows up to 16, C).


@inlined
def whole_shift(m):
    """N of each row."""
    x = where(m > -LARGEST, where(m < LARGEST, m, f32s(LARGEST)), f32s(-LARGEST)) * LOG2_E
    return (x + 1.5 * 2.0**23) - 1.5 * 2.0**23


@inlined
def ordinary(m, tile):
    """1 for rows that float32 will do for, by their largest logit, and for lanes without a row; else 0."""
    return where((m > -LARGEST) & (m < LARGEST) | (lane_numbers32() >= tile[1]), i32s(1), i32s(0))


@inlined
def ordinary_point(m, kind, tile):
    """The same at any point of products."""
    lowest, highest = bounds(kind)
    return where((m > lowest) & (m < highest) | (lane_numbers32() >= tile[1]), i32s(1), i32s(0))


@inlined
def given_sums(N):
    """Σ e, e lifted and shifted, where p sums to 1."""
    n_low, n_high = halves(N)
    return power_of_two(to_integers(LIFT - n_low)), power_of_two(to_integers(LIFT - n_high))


@inlined
def everywhere(mask):
    """Whether all lanes of a mask are set."""
    return not anywhere(~mask)


@inlined
def all_set(flags):
    """Whether no lane of `flags` is 0."""
    return not anywhere(flags == 0)


@helper
def log_sums(m, N, low, high, ties):
    """l = log1p(rest_k / e_k), float64, from sums without the classes whose logit is m, of which there are `ties`."""
    m_low, m_high = halves(m)
    n_low, n_high = halves(N)
    ties_low, ties_high = halves(ties)
    e_low, e_high = term_at(m_low - n_low * LN_2), term_at(m_high - n_high * LN_2)
    return log1p(low / e_low + (ties_low - 1.0)), log1p(high / e_high + (ties_high - 1.0))


@inlined
def log_sums_of(m, N, others, e_k):
    """The same, float32, from the sum over the classes but the first largest, a pair, and that one's e."""
    l = log1p_of_quotient(others, e_k)
    if anywhere((others[0] < 2.0**-30) & (others[0] > 0.0)):
        l = where(others[0] < 2.0**-30, joined(*log_sums(m, N, *in_float64(others), f32s(1.0))), l)
    return l


@inlined
def write_log_sums(out, tile, m, l_low, l_high):
    """log Σ exp(z) = m + l, to float32 numbers side by side."""
    m_low, m_high = halves(m)
    store_part_f32(out[0] + 4 * tile[0], joined(m_low + l_low, m_high + l_high), tile[1])


@helper
def refer_rows(hard, tile, keep, base):
    """List the rows whose lane of `keep` is 0: base + row."""
    for i in range(tile[1]):
        if lane(keep, i) == 0:
            refer(hard, base + tile[0] + i)


@inlined
def fine_tangents(top, moment, tile):
    """1 for rows whose |u| float32 will do for and whose sum is finite, and for lanes without a row; else 0."""
    return where(is_fine(top, moment) | (lane_numbers32() >= tile[1]), i32s(1), i32s(0))
