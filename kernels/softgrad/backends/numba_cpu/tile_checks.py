"""Which rows are no probability distribution."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.entries import ALL, BOOL, COUNTER, FLOAT, INT, described, entry, in_lines, reads
from softgrad.backends.numba_cpu.functions import ONE, exp_lifted
from softgrad.backends.numba_cpu.lanes import (
    absolute,
    f64s,
    larger,
    load_f64,
    max_across,
    read_f64,
    store_f64,
    where,
)
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_sums import sum_tile
from softgrad.backends.numba_cpu.tiles import FLOAT64, begin_tiles, fill, height, store_per_row, tile_number, tiles_in

BUFFERS = 1


@kernel
def bad_rows(counter, chunk, scratch, work, log, tolerance, probs, out):
    """1 for a row with a negative entry, or that does not sum to 1; else, and where there is a NaN, 0."""
    (p_at,) = scratch
    tiles = tiles_in(work)
    first = next_share(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = tile_number(i, work)
            fill(p_at, probs, tile, -float("inf") if log else 0.0)
            lowest = f64s(0.0)
            for j in range(height(tile)):
                p = load_f64(p_at + 64 * j)
                if log:
                    p = exp_lifted(p, f64s(0.0)) * (1.0 / ONE)
                    store_f64(p_at + 64 * j, p)
                lowest = larger(-p, lowest)
            if tile[3]:
                lowest = f64s(max_across(lowest))
            total = sum_tile(p_at, tile)
            off = (absolute(total - 1.0) > tolerance) | (lowest > 0.0)
            bad = where(off & (total == total), f64s(1.0), f64s(0.0))
            store_per_row(out, bad, tile)
        first = next_share(counter) * chunk
    leave(counter)


@entry(lambda probs: (reads(probs, 3), INT, BOOL, FLOAT, INT))
def first_bad_few(probs, kind, log, tolerance, scratch):
    """The first such row of a few, −1 if there is none."""
    _, work = begin_tiles(probs, scratch)
    rows, bad = work[0], scratch + COUNTER
    tile = bad + in_lines(rows)
    bad_rows(scratch, ALL, (tile,), work, log, tolerance, described(probs, kind), (bad, 8, 0, 8, FLOAT64, 1))
    for row in range(rows):
        if read_f64(bad + 8 * row) != 0.0:
            return row
    return -1
