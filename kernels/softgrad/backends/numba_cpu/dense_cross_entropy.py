"""Cross-entropy of dense short rows with an integer target in each, without options: loss and gradient."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import inlined, kernel
from softgrad.backends.numba_cpu.dense import (
    PART,
    exponentials,
    largest,
    source_of,
    sum_of,
    tile_at,
    write_tile,
)
from softgrad.backends.numba_cpu.lanes import (
    each,
    f32s,
    f64s,
    i32s,
    lane_numbers32,
    load_dense,
    sum_across,
    where,
    write_f64,
)
from softgrad.backends.numba_cpu.single import scaled
from softgrad.backends.numba_cpu.sixteen import all_set, ordinary, refer_rows, whole_shift
from softgrad.backends.numba_cpu.sixteen_targets import (
    SUMS,
    minus_log_p,
    of_rows_without_targets,
    plain_factor,
    sum_of_losses,
    targets_of,
    write_losses,
)
from softgrad.backends.numba_cpu.sixteen_task import one_scale, told
from softgrad.backends.numba_cpu.taking import following, leave
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD


@kernel
def cross_entropy_dense(counter, chunk, hard, stage, task, like):
    """Loss and gradient, each where there is an array (address not 0), of every tile that no other thread takes.

    Losses of kind SUMS: their sum over each chunk of tiles.
    """
    rows, _, z, indices, _, _, _, loss, grad, packed = told(task)
    g = one_scale(task)
    tiles = (rows + 15) >> 4
    filled, sums = 0, f64s(0.0)
    i, stop = following(counter, chunk, tiles, -1, 0)
    before = terms_of(i, stop, rows, z, indices, stage, like)
    while before[0][1] > 0:
        at = i
        i, stop = following(counter, chunk, tiles, i, stop)
        current = terms_of(i, stop, rows, z, indices, stage, like)
        tile, is_last, t, m, N, e, others, e_t = before
        counts = where((t < 0) | (lane_numbers32() >= tile[1]), i32s(0), i32s(1))
        keep = where(counts == 0, i32s(1), ordinary(m, tile))
        if not all_set(keep):
            refer_rows(hard, tile, keep, 0)
        if loss[0] != 0:
            l_low, l_high = minus_log_p(tile, t, N, e_t, others, z, like[0])
            if not all_set(counts):
                l_low, l_high = of_rows_without_targets(l_low, l_high, t)
            if loss[4] == SUMS:
                sums += sum_of_losses(tile, keep, l_low, l_high)
                if is_last:
                    write_f64(loss[0] + 8 * (at // chunk), sum_across(sums))
                    sums = f64s(0.0)
            else:
                write_losses(loss, tile, l_low, l_high)
        if grad[0] != 0:
            factor, at_t = plain_factor(others, e_t, g)
            gradient = each(_gradient, (t, at_t, factor), (e,))
            if not all_set(counts):
                gradient = each(_without_target, (counts, where(t == BAD, f32s(math.nan), f32s(0.0))), (gradient,))
            filled = write_tile(gradient, stage, grad[0], tile, keep, filled, packed, is_last, like)
        before = current
    leave(counter)


@inlined
def terms_of(i, stop, rows, z, indices, stage, like):
    """What the i-th tile's loss and gradient are made of: while one's are, the next one's exponentials are."""
    tile = tile_at(i, rows, like)
    t = targets_of(indices, tile)
    x = load_dense(source_of(z[0], tile, stage + PART, like), like)
    m = largest(x)
    N = whole_shift(m)
    e = exponentials(x, N)
    others, e_t = sum_of(e, t)
    return tile, i + 1 >= stop, t, m, N, e, others, e_t


@inlined
def _gradient(c, of, e):
    t, at_t, factor = of
    return scaled(where(t == c, at_t, e), factor[0], factor[1])


@inlined
def _without_target(c, of, g):
    counts, nothing = of
    return where(counts == 0, nothing, g)
