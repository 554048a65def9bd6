"""softmax, log_softmax, logsumexp."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numba_cpu import tile_softmax
from softgrad.backends.numba_cpu.memory import Array, describe, describe_per_row, has_one_row_tiles, tile_scratch
from softgrad.backends.numba_cpu.threads import share
from softgrad.protocol import loss_dtype


def softmax(z: Array, out: Array) -> None:
    """p = exp(z) / Σ exp(z)."""
    if z.size:
        _by_tiles(tile_softmax.SOFTMAX, z, describe(out))


def log_softmax(z: Array, out: Array) -> None:
    """log p."""
    if z.size:
        _by_tiles(tile_softmax.LOG_SOFTMAX, z, describe(out))


def logsumexp(z: Array) -> Array:
    """log Σ exp(z), (outer, inner)."""
    outer, classes, inner = z.shape
    out = np.full((outer, inner), -np.inf, loss_dtype(z.dtype))
    if classes and out.size:
        _by_tiles(tile_softmax.LOGSUMEXP, z, describe_per_row(out))
    return out


def _by_tiles(operation: int, z: Array, out: tuple[int, ...]) -> None:
    outer, classes, inner = z.shape
    rows, one_row, described = outer * inner, has_one_row_tiles(z), describe(z)

    def run(counter: int) -> None:
        _scratch, buffers = tile_scratch(tile_softmax.BUFFERS, z)
        tile_softmax.softmax_tiles(counter, buffers, rows, classes, one_row, operation, described, out)

    share(4 * z.size, rows if one_row else -(-rows // 8), run)
