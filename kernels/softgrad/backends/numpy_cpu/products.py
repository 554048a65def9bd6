"""Jacobian products: K tangents for one read of the point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from softgrad.backends.numpy_cpu.blocks import Array, Block, blocks
from softgrad.backends.numpy_cpu.exponentials import exp_from_largest, first_largest, scale_of, times
from softgrad.backends.numpy_cpu.sums import sum_classes, sum_closely

# Given probabilities are scaled up by this, so that in sums none is below the smallest normal number.
LIFT = 2.0**128


def softmax_product(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """J v = p (u − Σ p u), u = v − v[k]."""

    def product(v: Array, at: _Point) -> Array:
        u = centred(at.block, v, at.k, at.e, at.bound, at.masked)
        u.x -= u.moment / at.s
        u.x *= at.e
        y = times(u.x, u.unit, over=at.s, out=u.x)
        y[at.entry_k] = times(-u.moment * (at.e[at.entry_k] / at.s), u.unit, over=at.s)
        if at.masked is not None:
            settle_masked(y, at.masked, at.s)
        return y

    _each_product(v, point, out, is_logits, _lifted, product)


def log_softmax_jvp(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """v − Σ p v, as u − Σ p u."""

    def product(v: Array, at: _Point) -> Array:
        u = centred(at.block, v, at.k, at.e, at.bound, None)
        u.x -= u.moment / at.s
        u.x *= u.unit
        u.x[at.entry_k] = times(-u.moment, u.unit, over=at.s)
        return u.x

    _each_product(v, point, out, is_logits, _lifted_exp, product)


def log_softmax_vjp(v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
    """v − p Σ v."""

    def product(v: Array, at: _Point) -> Array:
        mass = sum_classes(at.block, v)
        for piece in at.block.pieces(len(v)):
            v[piece] -= times(at.e[piece], mass, over=at.s)
        return v

    _each_product(v, point, out, is_logits, _lifted_exp, product)


@dataclass(slots=True)
class Centred:
    """u = v − v[reference] = unit · x with |x| < 2, and the moment Σ e x.

    The unit, a power of two per row, keeps e · x in range whatever the tangent's size.  Σ p u is moment · unit / s,
    divided only where it is used: at the reference, where u = 0, it is all there is, and may be a number that has
    its digits only once the other factors are on it.
    """

    x: Array
    unit: Array
    moment: Array


def centred(block: Block, v: Array, reference: Array, e: Array, bound: float | None, masked: Array | None) -> Centred:
    """The (C, n) tangents v around their entry at `reference`; a masked class adds nothing, even a NaN.

    x takes the memory of v.
    """
    u = np.subtract(v, v[reference, np.arange(len(reference))], out=v)
    if masked is not None:
        u[masked] = 0.0
    unit = unit_of(u)
    u *= 1.0 / unit
    bound = None if bound is None else 2.0 * bound
    return Centred(u, unit, sum_closely(block, len(u), lambda piece: e[piece] * u[piece], bound))


def unit_of(u: Array) -> Array:
    """The power of two just below each row's largest |u|; 1 where that is not finite."""
    largest = np.maximum(u.max(axis=0), -u.min(axis=0))
    unit = np.ldexp(1.0, np.maximum(np.frexp(largest)[1] - 1, -1000))
    unit[~np.isfinite(largest)] = 1.0
    return unit


def settle_masked(y: Array, masked: Array, s: Array) -> None:
    """Exactly 0 at masked classes, even where the mean is not finite; but a row that is NaN is NaN throughout."""
    y[masked] = 0.0
    y[:, np.isnan(s)] = np.nan


@dataclass(slots=True)
class _Point:
    """p = e / s, with its first largest class k, and which entries are masked (None where none is).

    e ≤ bound, None where sums need not be that close.
    """

    block: Block
    e: Array
    bound: float | None
    s: Array
    k: Array
    masked: Array | None

    @property
    def entry_k(self) -> tuple[Array, Array]:
        """Indices of the first largest class of each row."""
        return self.k, np.arange(len(self.k))


def _each_product(
    v: Array,
    point: Array,
    out: Array,
    is_logits: bool,
    lifted: Callable[[Array], Array],
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
                at = _Point(block, lifted(z), LIFT, np.full(len(k), LIFT), k, None)
            for tangent, result in block.reusing(zip(v, out, strict=True)):
                block.store(result, product(block.load(tangent), at))


def _at_logits(block: Block, z: Array, k: Array, *, exact: bool) -> _Point:
    e = exp_from_largest(block, z, z[k, np.arange(len(k))], exact=exact)
    bound = None if exact else scale_of(e)
    return _Point(block, e, bound, sum_closely(block, len(e), lambda piece: e[piece], bound), k, masked_classes(z))


def _lifted(p: Array) -> Array:
    p *= LIFT
    return p


def _lifted_exp(log_p: Array) -> Array:
    """exp(log p) · LIFT, of halves, because exp(log p) may be below the smallest normal number."""
    log_p *= 0.5
    root = np.exp(log_p, out=log_p)
    return root * LIFT * root


def masked_classes(z: Array) -> Array | None:
    """Which logits are −inf; None where none is."""
    masked = z == -np.inf
    return masked if masked.any() else None
