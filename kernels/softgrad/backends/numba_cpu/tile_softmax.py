"""softmax, log_softmax and logsumexp on tiles."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.entries import COUNTER, INT, described, entry, reads, writes
from softgrad.backends.numba_cpu.lanes import absolute, i64s, load_f64, store_f64, take, where
from softgrad.backends.numba_cpu.tile_exponentials import exponentials
from softgrad.backends.numba_cpu.tiles import begin_tiles, fill, height, spill, store_per_row, tile_number, tiles_in

SOFTMAX, LOG_SOFTMAX, LOGSUMEXP = range(3)
BUFFERS = 2


@kernel
def softmax_tiles(counter, scratch, work, operation, z, out):
    """One of the three operations on every tile that no other thread takes."""
    z_at, e_at = scratch
    count = tiles_in(work)
    i = take(counter)
    while i < count:
        tile = tile_number(i, work)
        fill(z_at, z, tile, -float("inf"))
        m, _, s, _, _, _, l = exponentials(z_at, 0, e_at, i64s(-1), tile)
        if operation == LOGSUMEXP:
            store_per_row(out, where(absolute(m) == float("inf"), m, m + l), tile)
        else:
            for j in range(height(tile)):
                if operation == SOFTMAX:
                    store_f64(e_at + 64 * j, load_f64(e_at + 64 * j) / s)
                else:
                    store_f64(e_at + 64 * j, (load_f64(z_at + 64 * j) - m) - l)
            spill(e_at, out, tile)
        i = take(counter)


@entry(lambda z: (reads(z, 3), INT, writes(z, 3), INT, INT))
def softmax_tiles_few(z, kind, out, operation, scratch):
    """The same of a few rows; logsumexp as (outer, 1, inner)."""
    size, work = begin_tiles(z, scratch)
    z_at = scratch + COUNTER
    softmax_tiles(scratch, (z_at, z_at + size), work, operation, described(z, kind), described(out, kind))
