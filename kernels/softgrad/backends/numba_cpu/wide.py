"""Long rows, one at a time, sixteen classes side by side.

A row is read once from memory.  Block by block, so that the second pass over a block finds it in the first-level
cache: its largest logit, then its exponentials into scratch memory, which the second-level cache holds, while the
blocks to come are asked for (without that, waiting for memory and computing add up: 1.5 times the time).  When the sum
is known the result is written, block by block while the next row's exponentials take the place of this one's: so memory
is written all the time, too.

N is chosen at the first block; a later block that exceeds it by more than 2^STEP scales down what is there.  So a
row's terms share one N, and the second pass has one factor.

Classes are added in a fixed order: eight vectors in a tree, in float32, then into sixteen float64 sums.
"""

from __future__ import annotations

import math

import numpy as np

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.functions import log1p
from softgrad.backends.numba_cpu.lanes import (
    f32s,
    f64s,
    first_bit,
    halves,
    lane,
    lane_numbers32,
    larger,
    load,
    load_f32,
    load_first,
    load_last,
    mask_bits,
    max_across,
    prefetch,
    size_of,
    store,
    store_f32,
    store_first,
    sum_across,
    take,
    where,
    write_f32,
    write_i64,
)
from softgrad.backends.numba_cpu.single import LARGEST, LN_2, LOG2_E, exp_shifted, scaled, shift, term_at

GROUP = 8  # vectors added in float32
BLOCK = 4 * GROUP  # vectors whose largest is found before their exponentials: 2 KB of float32
AHEAD = 8192  # bytes between what is computed and what is asked of memory
STEP = 16.0


@inlined
def exponentials(z_at, e_at, classes, t, asked, write, before, fmt):
    """Fill e, float32 at e_at; (Σ over the classes but t, N, m, the first block that holds m).

    Meanwhile what is made of the e `before` is written, by ``write(j, stop, before)``, as `past_caches.write_until`.
    `asked`: the address of another row that memory is asked for, and the bytes of sixteen of its numbers, or None.
    """
    return exponentials_from(math.nan, z_at, e_at, classes, t, asked, write, before, fmt)


@inlined
def shift_of(top):
    """N for a largest logit."""
    return np.rint(min(max(top, -LARGEST), LARGEST) * LOG2_E)


@inlined
def exponentials_from(N, z_at, e_at, classes, t, asked, write, before, fmt):
    """The same from an N on; NaN: that of the first block."""
    size = 16 * size_of(fmt)
    vectors, tail = classes >> 4, classes & 15
    blocks = max((vectors + BLOCK - 1) // BLOCK, 1)
    m, block_of_m = -math.inf, 0
    rounder, lowest = shift(N)
    low, high = f64s(0.0), f64s(0.0)
    written = 0
    for b in range(blocks):
        start, stop = b * BLOCK, min((b + 1) * BLOCK, vectors)
        # First, so that what is written comes while the largest of a vector's lanes is waited for.
        top = largest(z_at, start, stop, tail if b == blocks - 1 else 0, fmt)
        written = write(written, classes if b == blocks - 1 else 16 * stop, before)
        if asked is not None:
            for j in range(start, stop):
                prefetch(asked[0] + asked[1] * j)
        if top > m:
            m, block_of_m = top, b
        n = shift_of(top)
        if not n <= N + STEP:
            if b > 0:
                low, high = scale_down(e_at, start, N - n, low, high)
            N = n
            rounder, lowest = shift(N)
        j = start
        while j + GROUP <= stop:
            if j * 16 <= t < (j + GROUP) * 16:
                x, y = halves(group(z_at, e_at, j, size, rounder, lowest, t, True, fmt))
            else:
                x, y = halves(group(z_at, e_at, j, size, rounder, lowest, t, False, fmt))
            low += x
            high += y
            j += GROUP
        even, odd = f32s(0.0), f32s(0.0)
        while j < stop:
            even, odd = odd, even + without(step(z_at, e_at, j, size, rounder, lowest, fmt), j, t)
            j += 1
        if b == blocks - 1 and tail > 0:
            e = exp_shifted(load_first(z_at + size * j, tail, fmt), rounder, lowest)
            store_f32(e_at + 64 * j, e)
            odd += without(e, j, t)
        x, y = halves(even + odd)
        low += x
        high += y
    return sum_across(low + high), N, m, block_of_m


@inlined
def largest(z_at, start, stop, tail, fmt):
    """The largest of some vectors and a tail; NaNs are passed over, they will show in the sum."""
    size = 16 * size_of(fmt)
    a = f32s(-math.inf)
    b, c, d = a, a, a
    j = start
    while j + 4 <= stop:
        a = larger(load(z_at + size * j, fmt), a)
        b = larger(load(z_at + size * (j + 1), fmt), b)
        c = larger(load(z_at + size * (j + 2), fmt), c)
        d = larger(load(z_at + size * (j + 3), fmt), d)
        j += 4
    while j < stop:
        a = larger(load(z_at + size * j, fmt), a)
        j += 1
    if tail > 0:
        b = larger(load_first(z_at + size * stop, tail, fmt), b)
    return max_across(larger(larger(a, b), larger(c, d)))


@inlined
def group(z_at, e_at, j, size, rounder, lowest, t, has_target, fmt):
    """Σ of eight vectors of exponentials, without class t if it is among them."""
    a = pair(z_at, e_at, j, size, rounder, lowest, t, has_target, fmt)
    b = pair(z_at, e_at, j + 2, size, rounder, lowest, t, has_target, fmt)
    c = pair(z_at, e_at, j + 4, size, rounder, lowest, t, has_target, fmt)
    d = pair(z_at, e_at, j + 6, size, rounder, lowest, t, has_target, fmt)
    return (a + b) + (c + d)


@inlined
def pair(z_at, e_at, j, size, rounder, lowest, t, has_target, fmt):
    """Σ of two."""
    a = step(z_at, e_at, j, size, rounder, lowest, fmt)
    b = step(z_at, e_at, j + 1, size, rounder, lowest, fmt)
    if has_target:
        return without(a, j, t) + without(b, j + 1, t)
    return a + b


@inlined
def step(z_at, e_at, j, size, rounder, lowest, fmt):
    """Vector j of the exponentials; memory is asked for what comes later."""
    prefetch(z_at + size * j + AHEAD)
    e = exp_shifted(load(z_at + size * j, fmt), rounder, lowest)
    store_f32(e_at + 64 * j, e)
    return e


@inlined
def without(e, j, t):
    """Vector j with 0 at class t."""
    return where(lane_numbers32() == t - 16 * j, f32s(0.0), e)


@helper
def scale_down(e_at, count, power, low, high):
    """Multiply what is there by 2^power, in two steps, because that may be below the smallest normal number."""
    power = max(power, -240.0)
    first, second = 2.0 ** math.floor(power / 2.0), 2.0 ** (power - math.floor(power / 2.0))
    for j in range(count):
        store_f32(e_at + 64 * j, load_f32(e_at + 64 * j) * first * second)
    return low * first * second, high * first * second


@inlined
def is_ordinary(m):
    """Whether float32 will do for a row whose largest logit is m."""
    return -LARGEST < m < LARGEST


@helper
def first_equal(z_at, classes, m, block, fmt):
    """k: the first class whose logit is m, not before that block of vectors; 0 if there is none."""
    size, each = 16 * size_of(fmt), f32s(m)
    j = 16 * block * BLOCK
    while j < classes:
        at = z_at + size_of(fmt) * j
        word = equal_bits(at, classes - j, each, fmt)
        if classes - j > 16:
            word |= equal_bits(at + size, classes - j - 16, each, fmt) << 16
        if classes - j > 32:
            word |= equal_bits(at + 2 * size, classes - j - 32, each, fmt) << 32
        if classes - j > 48:
            word |= equal_bits(at + 3 * size, classes - j - 48, each, fmt) << 48
        if word != 0:
            return j + first_bit(word)
        j += 64
    return 0


@inlined
def equal_bits(z_at, n, m, fmt):
    """Where up to sixteen logits, of which n are left, are m."""
    return mask_bits((load(z_at, fmt) if n >= 16 else load_first(z_at, n, fmt)) == m)


@helper
def log_sum(z_at, e_at, classes, s, N, m, block, fmt):
    """l = log1p(rest_k / e_k); e without e_k is added up anew where s − e_k would not have its digits."""
    e_k = lane(term_at(f64s(m - N * LN_2)), 0)
    rest = s - e_k
    if not s > 4.0 * e_k:
        write_f32(e_at + 4 * first_equal(z_at, classes, m, block, fmt), 0.0)
        rest = total(e_at, classes)
    return lane(log1p(f64s(rest / e_k)), 0)


@helper
def total(e_at, classes):
    """Σ e."""
    vectors = (classes + 15) >> 4
    low, high = f64s(0.0), f64s(0.0)
    j = 0
    while j + 4 <= vectors:
        a, b = load_f32(e_at + 64 * j), load_f32(e_at + 64 * (j + 1))
        c, d = load_f32(e_at + 64 * (j + 2)), load_f32(e_at + 64 * (j + 3))
        x, y = halves((a + b) + (c + d))
        low += x
        high += y
        j += 4
    while j < vectors:
        x, y = halves(load_f32(e_at + 64 * j))
        low += x
        high += y
        j += 1
    return sum_across(low + high)


@inlined
def logs(j, n, of):
    """(z − m) − l."""
    z_at, m, l, fmt = of
    return (some(z_at + size_of(fmt) * j, n, fmt) - m) - l


@inlined
def some(at, n, fmt):
    """Sixteen numbers, or the first n < 16 of them, or if n < 0 all but the first −n."""
    if n == 16:
        return load(at, fmt)
    return load_first(at, n, fmt) if n > 0 else load_last(at, -n, fmt)


@inlined
def in_two_parts(x):
    """x as a float32 and what that leaves over."""
    factor = f32s(x)
    return factor, f32s(x - lane(factor, 0))


@inlined
def multiple(j, n, of):
    """e times a factor in two parts."""
    e_at, factor, rest = of
    return scaled(load_f32(e_at + 4 * j), factor, rest)


@inlined
def refer(hard, r):
    """Add row r to the list of those that float32 will not do for: their number, then the rows, in any order."""
    write_i64(hard + 8 * (1 + take(hard)), r)


@helper
def fill_row(out_at, classes, x, fmt):
    """The same number everywhere."""
    size = size_of(fmt)
    j = 0
    while j + 16 <= classes:
        store(out_at + size * j, f32s(x), fmt)
        j += 16
    store_first(out_at + size * j, f32s(x), classes - j, fmt)
