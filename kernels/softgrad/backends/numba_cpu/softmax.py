"""softmax, log_softmax, logsumexp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from softgrad.backends.numba_cpu import tile_softmax
from softgrad.backends.numba_cpu.huge_softmax import softmax_segments
from softgrad.backends.numba_cpu.memory import (
    FORMATS,
    Array,
    Described,
    describe,
    describe_per_row,
    tile_scratch,
    tile_work,
)
from softgrad.backends.numba_cpu.middle_softmax import softmax_middle, softmax_middle_few
from softgrad.backends.numba_cpu.narrow_softmax import softmax_columns, softmax_columns_few
from softgrad.backends.numba_cpu.single_rows import (
    FEW,
    Together,
    for_few,
    has_huge_rows,
    has_long_rows,
    has_middle_rows,
    is_single,
    share_rows,
    share_segments,
    share_sixteen,
    streams,
    write_contiguous,
)
from softgrad.backends.numba_cpu.threads import share
from softgrad.backends.numba_cpu.wide_softmax import softmax_rows
from softgrad.protocol import loss_dtype


def softmax(z: Array, out: Array) -> None:
    """p = exp(z) / Σ exp(z)."""
    if not z.size:
        return
    if not is_single(z):
        _by_tiles(tile_softmax.SOFTMAX, z, describe(out))
    elif has_long_rows(z):
        write_contiguous(out, lambda result: _by_rows(z, result))
    elif has_middle_rows(z):
        write_contiguous(out, lambda result: _by_sixteen(softmax_middle, softmax_middle_few, z, result))
    else:
        _by_sixteen(softmax_columns, softmax_columns_few, z, out)


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


def _by_rows(z: Array, out: Array) -> None:
    outer, classes, inner = z.shape
    fmt, of_z, of_out, past_caches = FORMATS[z.dtype], describe(z), describe(out), streams(out, z)

    def run(counter: int, chunk: int, hard: int, scratch: int) -> None:
        softmax_rows(counter, chunk, hard, scratch, outer * inner, classes, of_z, of_out, past_caches, fmt)

    def steps(some: Together) -> list[Callable[[int, int], None]]:
        first, totals, segments, hard = some

        def write(counter: int, scratch: int) -> None:
            softmax_segments(
                counter, first, scratch, hard, classes, of_z, of_out, past_caches, segments, totals, fmt
            )  # fmt: skip

        return [write]

    hard = share_segments(z, 0, steps) if has_huge_rows(z) else share_rows(z, run)
    if hard is not None:
        _by_tiles(tile_softmax.SOFTMAX, z, of_out, hard)


def _by_sixteen(kernel: Any, few: Any, z: Array, out: Array) -> None:
    outer, classes, inner = z.shape
    fmt = FORMATS[z.dtype]
    hard: Array | None
    if z.size <= FEW and z.flags.aligned and out.flags.aligned:
        hard = np.empty(1 + outer * inner, np.int64)
        if z.itemsize == 2:
            for_few(few, fmt.dtype)(z.view(fmt.dtype), out.view(fmt.dtype), hard, fmt)
        else:
            for_few(few, fmt.dtype)(z, out, hard, fmt)
        count = int(hard[0])
        hard = hard[1 : 1 + count] if count else None
    else:
        of_z, of_out = describe(z), describe(out)

        def run(counter: int, chunk: int, hard: int, scratch: int) -> None:
            kernel(counter, chunk, hard, scratch, outer * inner, classes, of_z, of_out, fmt)

        hard = share_sixteen(z, run)
    if hard is not None:
        _by_tiles(tile_softmax.SOFTMAX, z, describe(out), hard)


def _by_tiles(operation: int, z: Array, out: Described, which: Array | None = None) -> None:
    tiles, work = tile_work(z, which)
    described = describe(z)

    def run(counter: int) -> None:
        _scratch, buffers = tile_scratch(tile_softmax.BUFFERS, z)
        tile_softmax.softmax_tiles(counter, buffers, work, operation, described, out)

    share(4 * z.size, tiles, run)
