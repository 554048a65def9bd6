"""softmax, log_softmax, logsumexp."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from softgrad.backends.numba_cpu.dense_softmax import softmax_dense
from softgrad.backends.numba_cpu.entries import COUNTER
from softgrad.backends.numba_cpu.huge_rows import Together, share_segments
from softgrad.backends.numba_cpu.huge_softmax import softmax_segments
from softgrad.backends.numba_cpu.memory import (
    FORMATS,
    KINDS,
    Array,
    describe,
    scratch,
    tile_bytes,
)
from softgrad.backends.numba_cpu.middle_softmax import softmax_middle, softmax_middle_few
from softgrad.backends.numba_cpu.narrow_softmax import softmax_columns, softmax_columns_few
from softgrad.backends.numba_cpu.single_rows import (
    are_dense,
    are_flat,
    few_sixteen,
    has_huge_rows,
    has_long_rows,
    has_middle_rows,
    is_few,
    is_single,
    share_rows,
    share_sixteen,
    streams,
    write_contiguous,
)
from softgrad.backends.numba_cpu.tile_rows import share_tiles
from softgrad.backends.numba_cpu.tile_softmax import (
    BUFFERS,
    LOG_SOFTMAX,
    LOGSUMEXP,
    SOFTMAX,
    softmax_tiles,
    softmax_tiles_few,
)
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
    if not classes:
        return np.full((outer, inner), -np.inf, loss_dtype(z.dtype))
    out = np.empty((outer, 1, inner), loss_dtype(z.dtype))
    if not out.size:
        pass
    elif not is_single(z):
        _in_float64(LOGSUMEXP, z, out)
    elif has_long_rows(z):
        _by_rows(LOGSUMEXP, z, out, past_caches=False)
    else:
        _by_sixteen(LOGSUMEXP, z, out)
    return out.reshape(outer, inner)


def _of_each_class(operation: int, z: Array, out: Array) -> None:
    if not z.size:
        return
    if not is_single(z):
        _in_float64(operation, z, out)
    elif has_long_rows(z):
        write_contiguous(
            out, lambda result: _by_rows(operation, z, result, past_caches=streams(result, z))
        )  # fmt: skip
    elif has_middle_rows(z):
        write_contiguous(out, lambda result: _by_sixteen(operation, z, result))
    else:
        _by_sixteen(operation, z, out)


def _by_rows(operation: int, z: Array, out: Array, *, past_caches: bool) -> None:
    outer, classes, inner = z.shape
    fmt, of_z, of_out = FORMATS[z.dtype], describe(z), describe(out)

    def run(counter: int, chunk: int, hard: int, scratch: int) -> None:
        softmax_rows(counter, chunk, hard, scratch, outer * inner, classes, operation, of_z, of_out, past_caches, fmt)

    def steps(some: Together) -> list[Callable[[int, int], None]]:
        def write(counter: int, scratch: int) -> None:
            softmax_segments(counter, some, scratch, classes, operation, of_z, of_out, past_caches, fmt)

        return [write]

    hard = share_segments(z, 0, steps, apart=operation != SOFTMAX) if has_huge_rows(z) else share_rows(z, run)
    if hard is not None:
        _by_tiles(operation, z, out, hard)


def _by_sixteen(operation: int, z: Array, out: Array) -> None:
    fmt = FORMATS[z.dtype]
    if is_few(z):
        few = softmax_middle_few if has_middle_rows(z) else softmax_columns_few
        of_out = np.float32(0) if operation == LOGSUMEXP else fmt
        hard = few_sixteen(few[fmt.dtype, of_out.dtype], z, (z, out), operation)
    else:
        hard = share_sixteen(z, _for_sixteen(operation, z, out))
    if hard is not None:
        _by_tiles(operation, z, out, hard)


def _for_sixteen(operation: int, z: Array, out: Array) -> Callable[[int, int, int, int], None]:
    """The kernel of rows of which sixteen are worked on at a time."""
    outer, classes, inner = z.shape
    fmt, of_z, of_out = FORMATS[z.dtype], describe(z), describe(out)
    past_caches = operation != LOGSUMEXP and streams(out, z)
    task = outer * inner, classes, operation, of_z, of_out, past_caches, fmt
    if has_middle_rows(z):
        flat = are_flat(z) if operation == LOGSUMEXP else are_flat(z, out)
        return lambda *shared: softmax_middle(*shared, flat, *task)
    if operation == LOGSUMEXP or not are_dense(z, out):
        return lambda *shared: softmax_columns(*shared, *task)
    dense = outer, operation, of_z[0], of_out[0], past_caches, (fmt,) * classes
    return lambda *shared: softmax_dense(*shared, *dense)


def _in_float64(operation: int, z: Array, out: Array) -> None:
    """Where float32 will not do for any row."""
    if is_few(z):
        memory = scratch(COUNTER + BUFFERS * tile_bytes(z))
        softmax_tiles_few[z.dtype,](z, KINDS[z.dtype], out, operation, memory.address)
    else:
        _by_tiles(operation, z, out)


def _by_tiles(operation: int, z: Array, out: Array, which: Array | None = None) -> None:
    share_tiles(softmax_tiles, BUFFERS, z, operation, describe(z), describe(out), which=which)
