"""Cross-entropy of long rows with an integer target: loss and gradient for one read of the logits.

The target's gradient is −rest_t / s, from the sum of the others: it takes the place of e_t in scratch memory, so that
one pass writes everything.
"""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import inlined, kernel
from softgrad.backends.numba_cpu.lanes import f64s, lane, read, read_f64, read_i64, size_of, take, write_f32
from softgrad.backends.numba_cpu.single import LN_2, is_in_range, target_terms
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD
from softgrad.backends.numba_cpu.tiles import read_as, row_offset, write_as
from softgrad.backends.numba_cpu.wide import exponentials, fill_row, is_ordinary, refer, write_scaled


@kernel
def cross_entropy_rows(
    counter, chunk, hard, scratch, rows, classes, z, indices, weights, scales, by, loss, grad, streams, fmt
):
    """Loss and gradient, each where there is an array (address not 0), of every row that no other thread takes."""
    first = take(counter) * chunk
    while first < rows:
        for r in range(first, min(first + chunk, rows)):
            t = read_i64(indices + 8 * r)
            if t < 0:
                x = math.nan if t == BAD else 0.0
                if loss[0] != 0:
                    write_as(row_offset(loss, r), x, loss[4])
                if grad[0] != 0:
                    fill_row(row_offset(grad, r), classes, 0.0 if by == 0.0 else x, fmt)
                continue
            z_at = row_offset(z, r)
            rest, N, m, _ = exponentials(z_at, scratch, classes, t, fmt)
            z_t = read(z_at + size_of(fmt) * t, fmt)
            e_t, value = target_terms(f64s(rest), f64s(z_t - N * LN_2))
            h = 1.0 if weights == 0 else read_f64(weights + 8 * t)
            scale = h * read_as(row_offset(scales, r), scales[4]) / by
            factor = 0.0 if by == 0.0 else scale / (rest + lane(e_t, 0))
            if not (is_ordinary(m) and (by == 0.0 or is_in_range(scale, factor) or factor != factor)):
                refer(hard, r)
                continue
            if loss[0] != 0:
                write_as(row_offset(loss, r), weighted(h, lane(value, 0)), loss[4])
            if grad[0] != 0:
                if by == 0.0:
                    fill_row(row_offset(grad, r), classes, 0.0, fmt)
                else:
                    write_f32(scratch + 4 * t, -rest)
                    write_scaled(scratch, row_offset(grad, r), classes, factor, streams, fmt)
        first = take(counter) * chunk


@inlined
def weighted(h, loss):
    """h · loss, with 0 · ∞ = 0: a masked target without mass."""
    return 0.0 if h == 0.0 and loss == math.inf else h * loss
