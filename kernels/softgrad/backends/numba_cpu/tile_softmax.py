"""softmax, log_softmax and logsumexp on tiles."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import inlined, kernel
from softgrad.backends.numba_cpu.entries import ALL, COUNTER, INT, described, entry, reads, writes
from softgrad.backends.numba_cpu.functions import in_two_parts
from softgrad.backends.numba_cpu.lanes import absolute, i64s, load_f64, where
from softgrad.backends.numba_cpu.single import scaled
from softgrad.backends.numba_cpu.taking import leave, next_share
from softgrad.backends.numba_cpu.tile_exponentials import exponentials, exponentials_and_sum
from softgrad.backends.numba_cpu.tiles import (
    begin_tiles,
    coming,
    fill,
    store_per_row,
    tile_number,
    tiles_in,
    write,
)

SOFTMAX, LOG_SOFTMAX, LOGSUMEXP = range(3)
BUFFERS = 2


@kernel
def softmax_tiles(counter, chunk, scratch, work, operation, z, out):
    """One of the three operations on every tile that no other thread takes."""
    z_at, e_at = scratch
    if work[2] and operation == SOFTMAX:
        e_at = z_at
    count = tiles_in(work)
    first = next_share(counter) * chunk
    while first < count:
        for i in range(first, min(first + chunk, count)):
            tile = tile_number(i, work)
            fill(z_at, z, tile, -float("inf"))
            ahead = coming(z, out, tile, operation == LOGSUMEXP)
            if operation == SOFTMAX:
                _, s = exponentials_and_sum(z_at, e_at, tile, ahead)
                write(multiple, (e_at, *in_two_parts(s)), e_at, out, tile)
                continue
            m, _, _, _, _, _, l = exponentials(z_at, 0, e_at, i64s(-1), tile, ahead)
            if operation == LOGSUMEXP:
                store_per_row(out, where(absolute(m) == float("inf"), m, m + l), tile)
            else:
                write(log, (z_at, m, l), e_at, out, tile)
        first = next_share(counter) * chunk
    leave(counter)


@inlined
def multiple(j, of):
    """e / s."""
    e_at, factor, rest = of
    return scaled(load_f64(e_at + 64 * j), factor, rest)


@inlined
def log(j, of):
    """(z − m) − l."""
    z_at, m, l = of
    return (load_f64(z_at + 64 * j) - m) - l


@entry(lambda z: (reads(z, 3), INT, writes(z, 3), INT, INT))
def softmax_tiles_few(z, kind, out, operation, scratch):
    """The same of a few rows; logsumexp as (outer, 1, inner)."""
    size, work = begin_tiles(z, scratch)
    z_at = scratch + COUNTER
    softmax_tiles(
        scratch, ALL, (z_at, z_at + size), work, operation, described(z, kind), described(out, kind)
    )  # fmt: skip
