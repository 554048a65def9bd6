"""Jacobian products."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from softgrad.backends.numba_cpu.dense_products import product_dense
from softgrad.backends.numba_cpu.entries import COUNTER, as_stored
from softgrad.backends.numba_cpu.huge_products import moment_segments, product_segments
from softgrad.backends.numba_cpu.huge_rows import Together, share_segments
from softgrad.backends.numba_cpu.memory import (
    FORMATS,
    KINDS,
    Array,
    describe,
    describe_tangents,
    readable,
    scratch,
    tile_bytes,
)
from softgrad.backends.numba_cpu.middle_products import product_middle, product_middle_few
from softgrad.backends.numba_cpu.narrow_products import product_columns, product_columns_few
from softgrad.backends.numba_cpu.single_rows import (
    SHORT_POINT,
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
from softgrad.backends.numba_cpu.tile_products import (
    BUFFERS,
    LOG_JVP,
    LOG_PROBS,
    LOG_VJP,
    LOGITS,
    PROBS,
    SOFTMAX,
    product_tiles,
    product_tiles_few,
)
from softgrad.backends.numba_cpu.tile_rows import share_tiles
from softgrad.backends.numba_cpu.wide_products import product_rows


def softmax_product(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """J v = p (u − Σ p u), u = v − v[k]."""
    _product(SOFTMAX, LOGITS if is_logits else PROBS, v, point, out)


def log_softmax_jvp(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """v − Σ p v, as u − Σ p u."""
    _product(LOG_JVP, LOGITS if is_logits else LOG_PROBS, v, point, out)


def log_softmax_vjp(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """v − p Σ v."""
    _product(LOG_VJP, LOGITS if is_logits else LOG_PROBS, v, point, out)


def _product(operation: int, kind: int, v: Array, point: Array, out: Array) -> None:
    if not out.size:
        return
    if not (is_single(point) and is_single(v)):  # wider tangents may have digits that float32 has not
        _in_float64(operation, kind, v, point, out)
    elif has_long_rows(point):
        write_contiguous(out, lambda result: _by_rows(operation, kind, _class_last(v), point, result))
    elif has_middle_rows(point, SHORT_POINT):
        write_contiguous(out, lambda result: _by_sixteen(operation, kind, _class_last(v), point, result))
    else:
        _by_sixteen(operation, kind, v, point, out)


def _class_last(v: Array) -> Array:
    """The same with a contiguous class axis."""
    return v if v.strides[2] == v.itemsize else np.ascontiguousarray(v.swapaxes(-1, -2)).swapaxes(-1, -2)


def _by_rows(operation: int, kind: int, v: Array, z: Array, out: Array) -> None:
    outer, classes, inner = z.shape
    rows = outer * inner
    count, v_step, of_v = describe_tangents(v)
    _, out_step, of_out = describe_tangents(out)
    of_z, past_caches = describe(z), streams(out, v, z)
    v_fmt, fmt = FORMATS[v.dtype], FORMATS[z.dtype]

    def run(counter: int, chunk: int, hard: int, scratch: int) -> None:
        product_rows(
            counter, chunk, hard, scratch, rows, classes, operation, kind, of_z, count, of_v, v_step, of_out, out_step,
            past_caches, v_fmt, fmt,
        )  # fmt: skip

    def steps(some: Together) -> list[Callable[[int, int], None]]:
        moments = np.empty((*some.parts.shape[:2], count, 3))

        def moment(counter: int, scratch: int) -> None:
            moment_segments(
                counter, some, scratch, classes, operation, kind, of_z, count, of_v, v_step, moments, v_fmt, fmt
            )  # fmt: skip

        def write(counter: int, scratch: int) -> None:
            product_segments(
                counter, some, scratch, rows, classes, operation, kind, of_z, count, of_v, v_step, of_out, out_step,
                past_caches, moments, v_fmt, fmt,
            )  # fmt: skip

        return [moment, write]

    hard = share_segments(z, 0, steps, count) if has_huge_rows(z) else share_rows(z, run, count)
    _redo(operation, kind, hard, v, z, out)


def _by_sixteen(operation: int, kind: int, v: Array, z: Array, out: Array) -> None:
    v_fmt, fmt = FORMATS[v.dtype], FORMATS[z.dtype]
    if is_few(out):
        few = product_middle_few if has_middle_rows(z, SHORT_POINT) else product_columns_few
        hard = few_sixteen(few[fmt.dtype, v_fmt.dtype], z, (v, z, out), operation, kind, results=len(v))
    else:
        hard = share_sixteen(z, _for_sixteen(operation, kind, v, z, out), len(v))
    _redo(operation, kind, hard, v, z, out)


def _for_sixteen(operation: int, kind: int, v: Array, z: Array, out: Array) -> Callable[[int, int, int, int], None]:
    """The kernel of rows of which sixteen are worked on at a time."""
    outer, classes, inner = z.shape
    v_fmt, fmt = FORMATS[v.dtype], FORMATS[z.dtype]
    count, v_step, of_v = describe_tangents(v)
    _, out_step, of_out = describe_tangents(out)
    of_z, past_caches = describe(z), streams(out, v, z)
    task = (
        outer * inner, classes, operation, kind, of_z, count, of_v, v_step, of_out, out_step, past_caches, v_fmt, fmt,
    )  # fmt: skip
    if has_middle_rows(z, SHORT_POINT):
        flat = are_flat(z, v[0], out[0])
        return lambda *shared: product_middle(*shared, flat, *task)
    if count != 1 or not are_dense(z, v[0], out[0]):
        return lambda *shared: product_columns(*shared, *task)
    dense = outer, operation, kind, of_z[0], of_v[0], of_out[0], past_caches, (fmt,) * classes
    return lambda *shared: product_dense(*shared, *dense)


def _redo(operation: int, kind: int, hard: Array | None, v: Array, z: Array, out: Array) -> None:
    """The products listed, as tangent · rows + row, by tiles."""
    if hard is None:
        return
    rows = z.shape[0] * z.shape[2]
    for n in np.unique(hard // rows):
        which = hard[hard // rows == n] - n * rows
        _by_tiles(operation, kind, v[n : n + 1], z, out[n : n + 1], which)


def _in_float64(operation: int, kind: int, v: Array, point: Array, out: Array) -> None:
    """Where float32 will not do for any product."""
    v = readable(v)
    if is_few(out):
        count, v_step, of_v = describe_tangents(v)
        stored = as_stored(point)
        memory = scratch(COUNTER + BUFFERS * tile_bytes(point))
        product_tiles_few[stored.dtype,](
            count, of_v, v_step, stored, KINDS[point.dtype], as_stored(out), operation, kind, memory.address
        )
    else:
        _by_tiles(operation, kind, v, point, out)


def _by_tiles(operation: int, kind: int, v: Array, point: Array, out: Array, which: Array | None = None) -> None:
    if not out.size:
        return
    v = readable(v)
    count, v_step, of_v = describe_tangents(v)
    _, out_step, of_out = describe_tangents(out)
    share_tiles(
        product_tiles, BUFFERS, point, operation, kind, describe(point), count, of_v, v_step, of_out, out_step,
        which=which, passes=1 + count,
    )  # fmt: skip
