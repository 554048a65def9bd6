"""Jacobian products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from softgrad.backends.numba_cpu import tile_products
from softgrad.backends.numba_cpu.huge_products import moment_segments, product_segments
from softgrad.backends.numba_cpu.memory import (
    FORMATS,
    Array,
    describe,
    describe_tangents,
    readable,
    tile_scratch,
    tile_work,
)
from softgrad.backends.numba_cpu.middle_products import product_middle
from softgrad.backends.numba_cpu.narrow_products import product_columns
from softgrad.backends.numba_cpu.single_rows import (
    Together,
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
from softgrad.backends.numba_cpu.wide_products import product_rows


def softmax_product(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """J v = p (u − Σ p u), u = v − v[k]."""
    if not out.size:
        return
    # Tangents of a wider dtype may have digits that float32 has not.
    if not (is_logits and is_single(point) and is_single(v)):  # wider tangents may have digits that float32 has not
        kind = tile_products.LOGITS if is_logits else tile_products.PROBS
        _by_tiles(tile_products.SOFTMAX, kind, v, point, out)
    elif has_long_rows(point):
        write_contiguous(out, lambda result: _by_rows(_class_last(v), point, result))
    elif has_middle_rows(point):
        write_contiguous(out, lambda result: _by_sixteen(product_middle, _class_last(v), point, result))
    else:
        _by_sixteen(product_columns, v, point, out)


def log_softmax_jvp(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """v − Σ p v, as u − Σ p u."""
    _by_tiles(tile_products.LOG_JVP, tile_products.LOGITS if is_logits else tile_products.LOG_PROBS, v, point, out)


def log_softmax_vjp(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """v − p Σ v."""
    _by_tiles(tile_products.LOG_VJP, tile_products.LOGITS if is_logits else tile_products.LOG_PROBS, v, point, out)


def _class_last(v: Array) -> Array:
    """The same with a contiguous class axis."""
    return v if v.strides[2] == v.itemsize else np.ascontiguousarray(v.swapaxes(-1, -2)).swapaxes(-1, -2)


def _by_rows(v: Array, z: Array, out: Array) -> None:
    outer, classes, inner = z.shape
    rows = outer * inner
    count, v_step, of_v = describe_tangents(v)
    _, out_step, of_out = describe_tangents(out)
    of_z, past_caches = describe(z), streams(out, v, z)
    v_fmt, fmt = FORMATS[v.dtype], FORMATS[z.dtype]

    def run(counter: int, chunk: int, hard: int, scratch: int) -> None:
        product_rows(
            counter, chunk, hard, scratch, rows, classes, of_z, count, of_v, v_step, of_out, out_step, past_caches,
            v_fmt, fmt,
        )  # fmt: skip

    def steps(some: Together) -> list[Callable[[int, int], None]]:
        first, totals, segments, hard = some
        moments = np.empty((len(totals), segments, count, 3))

        def moment(counter: int, scratch: int) -> None:
            moment_segments(counter, first, scratch, classes, of_z, count, of_v, v_step, totals, moments, v_fmt, fmt)

        def write(counter: int, scratch: int) -> None:
            product_segments(
                counter, first, scratch, hard, rows, classes, of_z, count, of_v, v_step, of_out, out_step, past_caches,
                totals, moments, v_fmt, fmt,
            )  # fmt: skip

        return [moment, write]

    hard = share_segments(z, 0, steps, count) if has_huge_rows(z) else share_rows(z, run, count)
    _redo(hard, v, z, out)


def _by_sixteen(kernel: Any, v: Array, z: Array, out: Array) -> None:
    outer, classes, inner = z.shape
    count, v_step, of_v = describe_tangents(v)
    _, out_step, of_out = describe_tangents(out)
    of_z, v_fmt, fmt = describe(z), FORMATS[v.dtype], FORMATS[z.dtype]

    def run(counter: int, chunk: int, hard: int, scratch: int) -> None:
        kernel(
            counter, chunk, hard, scratch, outer * inner, classes, of_z, count, of_v, v_step, of_out, out_step,
            v_fmt, fmt,
        )  # fmt: skip

    _redo(share_sixteen(z, run, count), v, z, out)


def _redo(hard: Array | None, v: Array, z: Array, out: Array) -> None:
    """The products listed, as tangent · rows + row, by tiles."""
    if hard is None:
        return
    rows = z.shape[0] * z.shape[2]
    for n in np.unique(hard // rows):
        which = hard[hard // rows == n] - n * rows
        _by_tiles(tile_products.SOFTMAX, tile_products.LOGITS, v[n : n + 1], z, out[n : n + 1], which)


def _by_tiles(operation: int, kind: int, v: Array, point: Array, out: Array, which: Array | None = None) -> None:
    if not out.size:
        return
    v = readable(v)
    tiles, work = tile_work(point, which)
    of_point = describe(point)
    count, v_step, of_v = describe_tangents(v)
    _, out_step, of_out = describe_tangents(out)

    def run(counter: int) -> None:
        _scratch, buffers = tile_scratch(tile_products.BUFFERS, point)
        tile_products.product_tiles(
            counter, buffers, work, operation, kind, of_point, count, of_v, v_step, of_out, out_step
        )

    share(4 * point.size * (1 + count), tiles, run)
