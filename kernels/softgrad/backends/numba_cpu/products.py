"""Jacobian products."""

from __future__ import annotations

from softgrad.backends.numba_cpu import tile_products
from softgrad.backends.numba_cpu.memory import (
    Array,
    describe,
    describe_tangents,
    has_one_row_tiles,
    readable,
    tile_scratch,
)
from softgrad.backends.numba_cpu.threads import share


def softmax_product(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """J v = p (u − Σ p u), u = v − v[k]."""
    _by_tiles(tile_products.SOFTMAX, tile_products.LOGITS if is_logits else tile_products.PROBS, v, point, out)


def log_softmax_jvp(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """v − Σ p v, as u − Σ p u."""
    _by_tiles(tile_products.LOG_JVP, tile_products.LOGITS if is_logits else tile_products.LOG_PROBS, v, point, out)


def log_softmax_vjp(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """v − p Σ v."""
    _by_tiles(tile_products.LOG_VJP, tile_products.LOGITS if is_logits else tile_products.LOG_PROBS, v, point, out)


def _by_tiles(operation: int, point_kind: int, v: Array, point: Array, out: Array) -> None:
    if not out.size:
        return
    outer, classes, inner = point.shape
    v = readable(v)
    rows, one_row, described = outer * inner, has_one_row_tiles(point), describe(point)
    count, v_step, v_first = describe_tangents(v)
    _, out_step, out_first = describe_tangents(out)

    def run(counter: int) -> None:
        _scratch, buffers = tile_scratch(tile_products.BUFFERS, point)
        tile_products.product_tiles(
            counter, buffers, rows, classes, one_row, operation, point_kind, described,
            count, v_first, v_step, out_first, out_step,
        )  # fmt: skip

    share(4 * point.size * (1 + count), rows if one_row else -(-rows // 8), run)
