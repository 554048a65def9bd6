"""softmax, log_softmax and logsumexp of rows of some vectors."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numba_cpu.compiling import kernel
from softgrad.backends.numba_cpu.lanes import joined, sum_across, take
from softgrad.backends.numba_cpu.middle import TERMS, exponentials, largest, rests, write_logs, write_scaled
from softgrad.backends.numba_cpu.sixteen import log_sums, ordinary, refer_rows, split, whole_shift, write_log_sums
from softgrad.backends.numba_cpu.tile_softmax import LOGSUMEXP, SOFTMAX


@kernel
def softmax_middle(counter, chunk, hard, stage, rows, classes, operation, z, out, streams, fmt):
    """One of the three of every tile that no other thread takes; rows float32 will not do for are listed at `hard`."""
    terms = stage + TERMS
    written = z if operation == LOGSUMEXP or streams else out
    tiles = (rows + 15) >> 4
    first = take(counter) * chunk
    while first < tiles:
        for i in range(first, min(first + chunk, tiles)):
            tile = (16 * i, min(16, rows - 16 * i), classes)
            m = largest(z, tile, stage, fmt)
            N = whole_shift(m)
            low, high = exponentials(z, terms, tile, N, stage, written, written, fmt)
            keep = ordinary(m, tile)
            if sum_across(keep) < 16:
                refer_rows(hard, tile, keep, 0)
            if operation == SOFTMAX:
                factor, rest = split(1.0 / low, 1.0 / high)
                write_scaled(terms, out, tile, factor, rest, keep, stage, streams, fmt)
                continue
            low, high, ties = rests(z, terms, tile, m, stage, fmt)
            l_low, l_high = log_sums(m, N, low, high, ties)
            if operation == LOGSUMEXP:
                write_log_sums(out, tile, m, l_low, l_high)
            else:
                write_logs(z, terms, out, tile, m, joined(l_low, l_high), keep, stage, streams, fmt)
        first = take(counter) * chunk


def softmax_middle_few(z, out, hard, operation, fmt):
    """The same of a few rows, whose arrays the kernel describes itself: for calls that cost less than describing them.

    As many of its rows as hard[0] says are listed at `hard`.
    """
    outer, classes, inner = z.shape
    counter = np.zeros(1, np.int64)
    scratch = np.empty(TERMS + 64 * (classes + 16), np.uint8)
    address = scratch.ctypes.data
    hard[0] = 0
    of_z = (z.ctypes.data, z.strides[0], z.strides[1], z.strides[2], 0, inner)
    of_out = (out.ctypes.data, out.strides[0], out.strides[1], out.strides[2], 0, inner)
    stage = address + (-address & 63)
    softmax_middle(
        counter.ctypes.data, 1, hard.ctypes.data, stage, outer * inner, classes, operation, of_z, of_out, False, fmt
    )  # fmt: skip
