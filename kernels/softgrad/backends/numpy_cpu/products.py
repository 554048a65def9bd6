"""Jacobian products: K tangents for one read of the point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from softgrad.backends.numpy_cpu.blocks import Array, Block, blocks
from softgrad.backends.numpy_cpu.exponentials import Shift, first_largest, times_ratio
from softgrad.backends.numpy_cpu.sums import sum_classes


def softmax_product(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """J v = p (u − Σ p u), u = v − v[k]."""

    def product(v: Array, at: _Point) -> Array:
        u = centred(at.block, v, at.k, at.e, at.s, at.masked)
        u.x -= u.mean
        u.x *= at.e
        y = times_ratio(u.x, u.unit, at.s, out=u.x)
        if at.masked is not None:
            settle_masked(y, at.masked, at.s)
        return y

    _each_product(v, point, out, is_logits, None, product)


def log_softmax_jvp(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """v − Σ p v, as u − Σ p u."""

    def product(v: Array, at: _Point) -> Array:
        u = centred(at.block, v, at.k, at.e, at.s, None)
        u.x -= u.mean
        u.x *= u.unit
        return u.x

    _each_product(v, point, out, is_logits, np.exp, product)


def log_softmax_vjp(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """v − p Σ v."""

    def product(v: Array, at: _Point) -> Array:
        return v - times_ratio(at.e, sum_classes(at.block, v), at.s)

    _each_product(v, point, out, is_logits, np.exp, product)


@dataclass(slots=True)
class Centred:
    """u = v − v[reference] = unit · x with |x| < 2, and the mean Σ p x.

    The unit, a power of two per row, keeps e · x in range whatever the tangent's size, so that a probability below
    the smallest normal number is multiplied by the tangent before it is rounded, not after.
    """

    x: Array
    unit: Array
    mean: Array
    v_ref: Array


def centred(block: Block, v: Array, reference: Array, e: Array, s: Array, masked: Array | None) -> Centred:
    """The (C, n) tangents v around their entry at `reference`; a masked class adds nothing, even a NaN."""
    v_ref = v[reference, np.arange(len(reference))]
    u = v - v_ref
    if masked is not None:
        u[masked] = 0.0
    largest = np.maximum(u.max(axis=0), -u.min(axis=0))
    unit = np.ldexp(1.0, np.maximum(np.frexp(largest)[1] - 1, -1000))
    unit[~np.isfinite(largest)] = 1.0
    u *= 1.0 / unit
    return Centred(u, unit, sum_classes(block, e * u) / s, v_ref)


def settle_masked(y: Array, masked: Array, s: Array) -> None:
    """Exactly 0 at masked classes, even where the mean is not finite; but a row that is NaN is NaN throughout."""
    y[masked] = 0.0
    y[:, np.isnan(s)] = np.nan


@dataclass(slots=True)
class _Point:
    """p = e / s, with its first largest class k, and which entries are masked (None where none is)."""

    block: Block
    e: Array
    s: Array
    k: Array
    masked: Array | None


def _each_product(
    v: Array,
    point: Array,
    out: Array,
    is_logits: bool,
    to_probs: Callable[[Array], Array] | None,
    product: Callable[[Array, _Point], Array],
) -> None:
    if point.shape[1] == 0:
        return
    with np.errstate(all="ignore"):
        for block in blocks(point):
            z = block.load(point)
            k = first_largest(block, z)
            if is_logits:
                at = _at_logits(block, z, k, exact=point.dtype != np.float64)
            else:
                at = _Point(block, z if to_probs is None else to_probs(z), np.ones(len(k)), k, None)
            for tangent, result in zip(v, out, strict=True):
                block.store(result, product(block.load(tangent), at))


def _at_logits(block: Block, z: Array, k: Array, *, exact: bool) -> _Point:
    e = Shift(z, z[k, np.arange(len(k))], exact=exact).exp(block, z)
    return _Point(block, e, sum_classes(block, e), k, masked_classes(z))


def masked_classes(z: Array) -> Array | None:
    """Which logits are −inf; None where none is."""
    masked = z == -np.inf
    return masked if masked.any() else None
