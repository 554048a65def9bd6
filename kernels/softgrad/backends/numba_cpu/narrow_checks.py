"""Whether short rows are surely probability distributions: in float32, with a margin for what that rounds."""

from __future__ import annotations

import math

from softgrad.backends.numba_cpu.compiling import inlined, kernel
from softgrad.backends.numba_cpu.dense import PART, source_of
from softgrad.backends.numba_cpu.dense import tile_at as dense_tile_at
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    anywhere,
    f32s,
    fold,
    lane_numbers32,
    larger,
    load_dense,
    load_f32,
)
from softgrad.backends.numba_cpu.narrow import tile_at, tiles_of
from softgrad.backends.numba_cpu.narrow_memory import COLUMNS, fill_columns
from softgrad.backends.numba_cpu.single import LIFT, LN_2, REACH, ROUNDER, exp_shifted
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.wide import refer

MARGIN = 1e-5  # far more than 32 float32 near 1 lose in their sum, and an exponential beside


@kernel
def doubt_columns(counter, chunk, doubts, stage, rows, classes, log, tolerance, probs, fmt):
    """List the first row of tiles that hold one with a NaN, a negative entry, or a sum that may be too far from 1."""
    columns = stage + COLUMNS
    tiles = tiles_of(probs, rows)
    first = next_share(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = tile_at(i, probs, rows, classes)
            fill_columns(columns, stage, probs, tile, fmt)
            found = f32s(0.0), f32s(-math.inf)
            for c in range(classes):
                found = _seen(c, found, log, load_f32(columns + 64 * c))
            if not _are_sure(found, tolerance, tile):
                refer(doubts, tile[0])
        first = next_share(counter) * chunk
    leave(counter)


@kernel
def doubt_dense(counter, chunk, doubts, stage, rows, log, tolerance, at, like):
    """The same of dense rows."""
    tiles = (rows + 15) >> 4
    first = next_share(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = dense_tile_at(i, rows, like)
            p = load_dense(source_of(at, tile, stage + PART, like), like)
            if not _are_sure(fold(_seen, (f32s(0.0), f32s(-math.inf)), log, (p,)), tolerance, tile):
                refer(doubts, tile[0])
        first = next_share(counter) * chunk
    leave(counter)


@inlined
def _seen(c, found, log, x):
    """Σ p; the largest −p."""
    p = exp_shifted(x, f32s(ROUNDER), f32s(-REACH * LN_2)) * 2.0**-LIFT if log else x
    return found[0] + p, larger(f32s(0.0) - p, found[1])


@inlined
def _are_sure(found, tolerance, tile):
    sure = (absolute(found[0] - 1.0) < tolerance - MARGIN) & (found[1] <= 0.0)
    return not anywhere(~sure & (lane_numbers32() < tile[1]))
