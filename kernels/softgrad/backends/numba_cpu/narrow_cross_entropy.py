"""Cross-entropy of sixteen rows side by side, with an integer target in each: loss and gradient."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.lanes import (
    f32s,
    f64s,
    halves,
    load_f32,
    store_f32,
    sum_across,
    where,
    write_f64,
)
from softgrad.backends.numba_cpu.narrow import (
    exponentials,
    largest,
    tile_at,
    tiles_of,
)
from softgrad.backends.numba_cpu.narrow_memory import COLUMNS, are_packed, fill_columns, write_columns
from softgrad.backends.numba_cpu.single import scaled
from softgrad.backends.numba_cpu.sixteen import all_set, whole_shift
from softgrad.backends.numba_cpu.sixteen_targets import SUMS, settle, sum_of_losses, targets_of, write_losses
from softgrad.backends.numba_cpu.sixteen_task import told
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_cross_entropy import BAD


@kernel
def cross_entropy_columns(counter, chunk, hard, stage, task, fmt, options=None):
    """Loss and gradient, each where there is an array (address not 0), of every tile that no other thread takes.

    Losses of kind SUMS: their sum over each chunk of tiles.
    """
    rows, classes, z, indices, weights, scales, by, loss, grad, streams = told(task)
    columns = stage + COLUMNS
    tiles = tiles_of(z, rows)
    filled, packed = 0, are_packed(grad, classes, streams, fmt)
    first = next_share(counter) * chunk
    while first < tiles:
        stop = min(first + chunk, tiles)
        sums = f64s(0.0)
        for i in range(first, stop):
            tile = tile_at(i, z, rows, classes)
            t = targets_of(indices, tile)
            fill_columns(columns, stage, z, tile, fmt)
            m = largest(columns, classes)
            N = whole_shift(m)
            gaps = f64s(0.0), f64s(0.0)
            if options is not None and loss[0] != 0 and options[0] != 0.0:
                gaps = gaps_of(columns, classes, m)
            others, e_t = exponentials(columns, columns, classes, N, t)
            counts, keep, factor, at_t, d, l_low, l_high = settle(
                tile, t, m, N, e_t, others, gaps, z, weights, scales, by, loss, hard, fmt, options
            )
            if loss[4] == SUMS:
                sums += sum_of_losses(tile, keep, l_low, l_high)
            else:
                write_losses(loss, tile, l_low, l_high)
            if grad[0] != 0:
                if options is not None and options[0] != 0.0:
                    write_gradient(columns, classes, factor, at_t, t, counts, by, d)
                else:
                    write_gradient(columns, classes, factor, at_t, t, counts, by, None)
                filled = write_columns(columns, stage, grad, tile, keep, filled, packed, i + 1 == stop, fmt)
        if loss[4] == SUMS and loss[0] != 0:
            write_f64(loss[0] + 8 * (first // chunk), sum_across(sums))
        first = next_share(counter) * chunk
    leave(counter)


@helper
def gaps_of(columns, classes, m):
    """Σ (m − z_j) of the first eight rows and of the others."""
    low, high = f64s(0.0), f64s(0.0)
    for c in range(classes):
        x, y = halves(m - load_f32(columns + 64 * c))
        low += x
        high += y
    return low, high


@inlined
def write_gradient(columns, classes, factor, at_t, t, counts, by, d):
    """Replace e by the gradient, at_t in place of e_t, less d; 0 or NaN in rows without a target."""
    for c in range(classes):
        g = scaled(where(t == c, at_t, load_f32(columns + 64 * c)), factor[0], factor[1])
        store_f32(columns + 64 * c, g if d is None else g - d)
    if by == 0.0 or not all_set(counts):
        nothing = where((t == BAD) & (f32s(by) != 0.0), f32s(math.nan), f32s(0.0))
        for c in range(classes):
            g = load_f32(columns + 64 * c)
            store_f32(columns + 64 * c, nothing if by == 0.0 else where(counts == 0, nothing, g))
