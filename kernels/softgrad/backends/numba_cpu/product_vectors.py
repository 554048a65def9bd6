"""Jacobian products of sixteen classes of a row, or of a class of sixteen rows: for all kernels alike.

of = (address of e, address of v, v[k], Σ e u / s, 1 / s in two parts, format of v).  `log_softmax_vjp` needs no
reference class: its v[k] is 0, and Σ u takes the place of Σ e u.
"""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import inlined
from softgrad.backends.numba_cpu.lanes import f32s, fma, load_f32, size_of
from softgrad.backends.numba_cpu.single import LARGEST, scaled
from softgrad.backends.numba_cpu.tile_products import LOGITS
from softgrad.backends.numba_cpu.wide import some

# Outside, e u or its sums might leave float32's range, or a flushed e not be negligible.
LARGEST_TANGENT, SMALLEST_TANGENT = 2.0**40, 2.0**-60
# Of given probabilities or their logarithms, whose sum is not asked, the largest must not lie outside these.
LARGEST_GIVEN, SMALLEST_GIVEN = 16.0, -600.0


@inlined
def softmax_product(j, n, of):
    """p (u − Σ p u)."""
    e_at, _, _, mean, factor, rest, _ = of
    return scaled(load_f32(e_at + 4 * j) * (tangent(j, n, of) - mean), factor, rest)


@inlined
def log_softmax_jvp(j, n, of):
    """u − Σ p u."""
    return tangent(j, n, of) - of[3]


@inlined
def log_softmax_vjp(j, n, of):
    """v − p Σ v."""
    return fma(load_f32(of[0] + 4 * j), f32s(0.0) - of[3], tangent(j, n, of))


@inlined
def tangent(j, n, of):
    """u of the n ≤ 16 numbers from j on."""
    _, v_at, reference, _, _, _, fmt = of
    return some(v_at + size_of(fmt) * j, n, fmt) - reference


@inlined
def weighted(total, e, u):
    """A sum with what of u is summed: e u."""
    return fma(e, u, total)


@inlined
def unweighted(total, e, u):
    """With u itself, for `log_softmax_vjp`."""
    return total + u


@inlined
def bounds(kind):
    """Between which numbers a row's largest must lie, by what is given: logits, probabilities or their logarithms."""
    if kind == LOGITS:
        return -LARGEST, LARGEST
    return SMALLEST_GIVEN, LARGEST_GIVEN


@inlined
def is_fine(top, moment):
    """Whether float32 will do for tangents whose largest |u| is `top`, of sums whose value is `moment`."""
    return (top < LARGEST_TANGENT) & ((top > SMALLEST_TANGENT) | (top == 0.0)) & (moment - moment == 0.0)
