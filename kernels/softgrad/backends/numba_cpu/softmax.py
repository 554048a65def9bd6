"""softmax, log_softmax, logsumexp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

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
from softgrad.backends.numba_cpu.tile_softmax import BUFFERS, LOG_SOFTMAX, LOGSUMEXP, SOFTMAX, softmax_tiles
from softgrad.backends.numba_cpu.wide_softmax import softmax_rows
from softgrad.protocol import loss_dtype


def softmax(z: Array, out: Array) -> None:
    """p = exp(z) / Σ exp(z)."""
    _of_each_class(SOFTMAX, z, out)


def log_softmax(z: Array, out: Array) -> None:
    """log p."""
    _of_each_class(LOG_SOFTMAX, z, out)


def logsumexp(z: Array) -> Array:
    """log Σ exp(z), (outer, inner)."""
    outer, classes, inner = z.shape
    out = np.full((outer, inner), -np.inf, loss_dtype(z.dtype))
    if not (classes and out.size):
        return out
    of_out = describe_per_row(out)
    if not is_single(z):
        _by_tiles(LOGSUMEXP, z, of_out)
    elif has_long_rows(z):
        _by_rows(LOGSUMEXP, z, of_out, past_caches=False)
    else:
        kernel = softmax_middle if has_middle_rows(z) else softmax_columns
        _by_sixteen(kernel, LOGSUMEXP, z, of_out, past_caches=False)
    return out


def _of_each_class(operation: int, z: Array, out: Array) -> None:
    if not z.size:
        return
    if not is_single(z):
        _by_tiles(operation, z, describe(out))
    elif has_long_rows(z):
        write_contiguous(
            out, lambda result: _by_rows(operation, z, describe(result), past_caches=streams(result, z))
        )  # fmt: skip
    elif has_middle_rows(z):
        write_contiguous(out, lambda result: _side_by_side(softmax_middle, softmax_middle_few, operation, z, result))
    else:
        _side_by_side(softmax_columns, softmax_columns_few, operation, z, out)


def _by_rows(operation: int, z: Array, of_out: Described, *, past_caches: bool) -> None:
    outer, classes, inner = z.shape
    fmt, of_z = FORMATS[z.dtype], describe(z)

    def run(counter: int, chunk: int, hard: int, scratch: int) -> None:
        softmax_rows(counter, chunk, hard, scratch, outer * inner, classes, operation, of_z, of_out, past_caches, fmt)

    def steps(some: Together) -> list[Callable[[int, int], None]]:
        first, totals, segments, hard = some

        def write(counter: int, scratch: int) -> None:
            softmax_segments(
                counter, first, scratch, hard, classes, operation, of_z, of_out, past_caches, segments, totals, fmt
            )  # fmt: skip

        return [write]

    hard = share_segments(z, 0, steps, apart=operation != SOFTMAX) if has_huge_rows(z) else share_rows(z, run)
    if hard is not None:
        _by_tiles(operation, z, of_out, hard)


def _side_by_side(kernel: Any, few: Any, operation: int, z: Array, out: Array) -> None:
    if z.size <= FEW and z.flags.aligned and out.flags.aligned:
        _few(few, operation, z, out)
    else:
        _by_sixteen(kernel, operation, z, describe(out), past_caches=streams(out, z))


def _by_sixteen(kernel: Any, operation: int, z: Array, of_out: Described, *, past_caches: bool) -> None:
    outer, classes, inner = z.shape
    fmt, of_z = FORMATS[z.dtype], describe(z)

    def run(counter: int, chunk: int, hard: int, scratch: int) -> None:
        kernel(counter, chunk, hard, scratch, outer * inner, classes, operation, of_z, of_out, past_caches, fmt)

    hard = share_sixteen(z, run)
    if hard is not None:
        _by_tiles(operation, z, of_out, hard)


def _few(kernel: Any, operation: int, z: Array, out: Array) -> None:
    outer, _, inner = z.shape
    fmt = FORMATS[z.dtype]
    hard = np.empty(1 + outer * inner, np.int64)
    if z.itemsize == 2:
        for_few(kernel, fmt.dtype)(z.view(fmt.dtype), out.view(fmt.dtype), hard, operation, fmt)
    else:
        for_few(kernel, fmt.dtype)(z, out, hard, operation, fmt)
    if count := int(hard[0]):
        _by_tiles(operation, z, describe(out), hard[1 : 1 + count])


def _by_tiles(operation: int, z: Array, of_out: Described, which: Array | None = None) -> None:
    tiles, work = tile_work(z, which)
    of_z = describe(z)

    def run(counter: int) -> None:
        _scratch, buffers = tile_scratch(BUFFERS, z)
        softmax_tiles(counter, buffers, work, operation, of_z, of_out)

    share(4 * z.size, tiles, run)
