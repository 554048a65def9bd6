"""The way the textbooks write it, with the full Jacobian: to learn from, to test against and to measure against.

A = softmax(Z), J = diag(A) − A Aᵀ of every row, dE/dA = −T/A, and the chain rule dE/dZ = dE/dA · J as a product of
matrices.  The names and signatures are those of softgrad's own functions; no line is shared with them.

It is written to be read.  J costs C² numbers per row, where the product needs C; and the textbook formulas are not
accurate: A rounds to 1 in a sure row, so log A and the target's gradient become 0; A that underflows makes −T/A
infinite and its product with J NaN.  That is what the rest of the library is for.

Works on NumPy arrays, and on those of a library with the same functions under the same names, such as CuPy.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "cross_entropy",
    "cross_entropy_grad",
    "log_softmax",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "softmax",
    "softmax_jacobian",
    "softmax_jvp",
    "softmax_vjp",
]

# --- softmax, its Jacobian, and products with it ----------------------------------------------------------------------


@np.errstate(all="ignore")
def softmax(logits: Any, *, axis: int = -1, out: Any = None) -> Any:
    """A = exp(Z) / Σ exp(Z); the largest logit is subtracted first, so that exp does not overflow.

    Examples
    --------
    >>> from softgrad import naive
    >>> naive.softmax([1.75, 1.75])
    array([0.5, 0.5])
    """
    z, place = _classes_last(logits, axis)
    return _finish(_softmax(z), place, out)


@np.errstate(all="ignore")
def log_softmax(logits: Any, *, axis: int = -1, out: Any = None) -> Any:
    """log A.

    Examples
    --------
    >>> from softgrad import naive
    >>> naive.log_softmax([40.0, 0.0])  # the first entry is −4.2e−18
    array([  0., -40.])
    """
    z, place = _classes_last(logits, axis)
    return _finish(_library(z).log(_softmax(z)), place, out)


@np.errstate(all="ignore")
def softmax_jacobian(*, logits: Any = None, probs: Any = None, axis: int = -1, check_probs: bool | None = None) -> Any:
    """J_ij = ∂A_i/∂Z_j = A_i ([i = j] − A_j) of every row: diag(A) − A Aᵀ.

    Examples
    --------
    >>> from softgrad import naive
    >>> naive.softmax_jacobian(probs=[0.5, 0.5])
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    a, place = _probabilities(logits, probs, axis, check_probs)
    return _jacobian(a).astype(place.dtype)


@np.errstate(all="ignore")
def softmax_jvp(
    tangent: Any,
    *,
    logits: Any = None,
    probs: Any = None,
    axis: int = -1,
    out: Any = None,
    check_probs: bool | None = None,
) -> Any:
    """J · tangent, by multiplying with the matrix.

    Examples
    --------
    >>> from softgrad import naive
    >>> naive.softmax_jvp([1.0, 0.0], logits=[1.75, 1.75])
    array([ 0.25, -0.25])
    """
    a, place = _probabilities(logits, probs, axis, check_probs)
    return _finish(_matrix_times(_jacobian(a), _tangent(tangent, a, place)), place, out)


@np.errstate(all="ignore")
def softmax_vjp(
    cotangent: Any,
    *,
    logits: Any = None,
    probs: Any = None,
    axis: int = -1,
    out: Any = None,
    check_probs: bool | None = None,
) -> Any:
    """cotangent · J: the chain rule.

    Examples
    --------
    >>> from softgrad import naive
    >>> naive.softmax_vjp([0.0, -2.0], probs=[0.5, 0.5])  # −T/A · J = A − T
    array([ 0.5, -0.5])
    """
    a, place = _probabilities(logits, probs, axis, check_probs)
    return _finish(_times_matrix(_tangent(cotangent, a, place), _jacobian(a)), place, out)


@np.errstate(all="ignore")
def log_softmax_jvp(
    tangent: Any,
    *,
    logits: Any = None,
    log_probs: Any = None,
    axis: int = -1,
    out: Any = None,
    check_probs: bool | None = None,
) -> Any:
    """L · tangent, L_ij = ∂ log A_i/∂Z_j = [i = j] − A_j.

    Examples
    --------
    >>> from softgrad import naive
    >>> naive.log_softmax_jvp([1.0, 0.0], logits=[1.75, 1.75])
    array([ 0.5, -0.5])
    """
    a, place = _probabilities(logits, log_probs, axis, check_probs, log=True)
    return _finish(_matrix_times(_log_jacobian(a), _tangent(tangent, a, place)), place, out)


@np.errstate(all="ignore")
def log_softmax_vjp(
    cotangent: Any,
    *,
    logits: Any = None,
    log_probs: Any = None,
    axis: int = -1,
    out: Any = None,
    check_probs: bool | None = None,
) -> Any:
    """cotangent · L, L_ij = ∂ log A_i/∂Z_j = [i = j] − A_j.

    Examples
    --------
    >>> from softgrad import naive
    >>> naive.log_softmax_vjp([0.0, -1.0], logits=[1.75, 1.75])
    array([ 0.5, -0.5])
    """
    a, place = _probabilities(logits, log_probs, axis, check_probs, log=True)
    return _finish(_times_matrix(_tangent(cotangent, a, place), _log_jacobian(a)), place, out)


# --- cross-entropy, and its gradient by the chain rule ----------------------------------------------------------------


@np.errstate(all="ignore")
def cross_entropy(
    logits: Any,
    targets: Any,
    *,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: str = "mean",
    check_targets: bool | None = None,
) -> Any:
    """E = −Σ_j T_j log A_j per row; the options as in `softgrad.cross_entropy`.

    Examples
    --------
    >>> from softgrad import naive
    >>> round(float(naive.cross_entropy([[1.75, 1.75]], [[0, 1]])), 6)
    0.693147
    """
    _known_reduction(reduction)
    z, place = _classes_last(logits, axis)
    xp = _library(z)
    t, counts, divisor, n = _target_masses(z, targets, place, weight, ignore_index, label_smoothing, check_targets)
    z, _ = _cap(z, softcap)
    loss = xp.where(t == 0, 0, -t * xp.log(_softmax(z))).sum(-1)
    loss = xp.where(counts, loss, 0)
    z_part = xp.where(counts, z_loss * _logsumexp(z) ** 2, 0) if z_loss else xp.zeros_like(loss)
    if reduction == "mean":
        loss = loss.sum() / divisor + z_part.sum() / n
    else:
        loss = loss + z_part
        loss = loss.sum() if reduction == "sum" else loss
    return loss.astype(np.float64 if place.dtype == np.float64 else np.float32)[()]


@np.errstate(all="ignore")
def cross_entropy_grad(
    logits: Any,
    targets: Any,
    *,
    grad_output: Any = None,
    out: Any = None,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: str = "mean",
    check_targets: bool | None = None,
) -> Any:
    """dE/dZ = dE/dA · J with dE/dA = −T/A: the chain rule, which comes to A − T.

    Examples
    --------
    >>> from softgrad import naive
    >>> naive.cross_entropy_grad([[1.75, 1.75]], [[0, 1]])
    array([[ 0.5, -0.5]])
    >>> naive.cross_entropy_grad([[0.0, 40.0]], [[0, 1]])  # A_2 rounds to 1, and A − T to 0
    array([[4.24835426e-18, 0.00000000e+00]])
    """
    _known_reduction(reduction)
    z, place = _classes_last(logits, axis)
    xp = _library(z)
    t, counts, divisor, n = _target_masses(z, targets, place, weight, ignore_index, label_smoothing, check_targets)
    z, slope = _cap(z, softcap)
    a = _softmax(z)
    de_da = xp.where(t == 0, 0, -t / a)
    grad = _times_matrix(de_da, _jacobian(a))
    z_part = 2 * z_loss * _logsumexp(z)[..., None] * a if z_loss else 0
    grad = (grad / divisor + z_part / n if reduction == "mean" else grad + z_part) * slope
    if grad_output is not None:
        grad = grad * xp.asarray(grad_output).astype(z.dtype)[..., None]
    nothing_counts = (divisor == 0) & (reduction == "mean")
    return _finish(xp.where(counts[..., None] & ~nothing_counts, grad, 0), place, out)


# --- the formulas, classes last ---------------------------------------------------------------------------------------


def _softmax(z: Any) -> Any:
    e = _library(z).exp(z - _largest(z)[..., None])
    return e / e.sum(-1, keepdims=True)


def _logsumexp(z: Any) -> Any:
    m = _largest(z)
    return m + _library(z).log(_library(z).exp(z - m[..., None]).sum(-1))


def _largest(z: Any) -> Any:
    return z.max(-1) if z.shape[-1] else z.sum(-1)  # there is no largest of no classes, nor is it needed


def _jacobian(a: Any) -> Any:
    identity = _library(a).eye(a.shape[-1], dtype=a.dtype)
    return a[..., :, None] * identity - a[..., :, None] * a[..., None, :]


def _log_jacobian(a: Any) -> Any:
    return _library(a).eye(a.shape[-1], dtype=a.dtype) - a[..., None, :]


def _matrix_times(matrix: Any, v: Any) -> Any:
    return (matrix @ v[..., :, None])[..., 0]


def _times_matrix(v: Any, matrix: Any) -> Any:
    return (v[..., None, :] @ matrix)[..., 0, :]


def _cap(z: Any, softcap: float | None) -> tuple[Any, Any]:
    """s tanh(z / s), and its derivative 1 − tanh²(z / s)."""
    if softcap is None:
        return z, 1
    xp = _library(z)
    tanh = xp.tanh(z / softcap)
    return xp.where(xp.isinf(z), z, softcap * tanh), 1 - tanh**2


def _known_reduction(reduction: str) -> None:
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"`reduction` is {reduction!r}; expected 'none', 'sum' or 'mean'")


def _target_masses(
    z: Any,
    targets: Any,
    place: _Place,
    weight: Any,
    ignore_index: int | None,
    label_smoothing: float,
    check_targets: bool | None,
) -> tuple[Any, Any, Any, Any]:
    """T of every row after smoothing and weight, which rows count, and what the mean divides by: Σ w_t and how many."""
    xp = _library(z)
    classes = z.shape[-1]
    targets = xp.asarray(targets)
    w = xp.ones(classes, z.dtype) if weight is None else xp.asarray(weight).astype(z.dtype)
    if targets.ndim == z.ndim:
        t = xp.moveaxis(targets, place.axis, -1).astype(z.dtype)
        counts = xp.ones(t.shape[:-1], bool)
        n = divisor = counts.sum()
    else:
        counts = xp.ones(targets.shape, bool) if ignore_index is None else targets != ignore_index
        bad = counts & ((targets < 0) | (targets >= classes))
        if (check_targets or (check_targets is None and xp is np)) and bad.any():
            raise ValueError(f"`targets` out of range: {targets[bad][0]}; expected [0, {classes})")
        n = (counts & ~bad).sum()
        t = (targets[..., None] == xp.arange(classes)).astype(z.dtype)
        divisor = (t * w).sum(-1)[counts].sum()
        t = xp.where(bad[..., None], np.nan, t)
    t = ((1 - label_smoothing) * t + (label_smoothing / classes if label_smoothing else 0)) * w
    return t, counts, divisor, n


# --- arrays: any axis, any dtype, any library -------------------------------------------------------------------------


def _library(array: Any) -> Any:
    """The module whose array this is."""
    return sys.modules[type(array).__module__.partition(".")[0]]


class _Place(NamedTuple):
    """Where a result belongs: its dtype, and its class axis counted from the end."""

    dtype: Any
    axis: int


def _classes_last(array: Any, axis: int) -> tuple[Any, _Place]:
    """`array` with its class axis last; 16-bit ones are computed in float32."""
    if isinstance(array, list | tuple | int | float):
        array = np.asarray(array)
    dtype = np.dtype(np.float64) if array.dtype.kind in "iu" else array.dtype
    computing = np.float32 if dtype.itemsize == 2 else dtype
    place = _Place(dtype, axis if axis < 0 else axis - array.ndim)
    return _library(array).moveaxis(array.astype(computing), axis, -1), place


def _tangent(tangent: Any, a: Any, place: _Place) -> Any:
    """Tangents (*K, *shape) with classes last."""
    xp = _library(a)
    return xp.moveaxis(xp.asarray(tangent).astype(a.dtype), place.axis, -1)


def _probabilities(
    logits: Any, probs: Any, axis: int, check_probs: bool | None, *, log: bool = False
) -> tuple[Any, _Place]:
    """A with classes last."""
    if (logits is None) == (probs is None):
        raise TypeError(f"the point is exactly one of `logits` and `{'log_probs' if log else 'probs'}`")
    if probs is None:
        z, place = _classes_last(logits, axis)
        return _softmax(z), place
    a, place = _classes_last(probs, axis)
    if log:
        a = _library(a).exp(a)
    if check_probs or (check_probs is None and _library(a) is np):
        tolerance = 1e-2 if place.dtype.itemsize == 2 else 1e-3
        if ((a < 0).any(-1) | (abs(a.sum(-1) - 1) > tolerance)).any():
            raise ValueError("the rows of A must be probabilities that sum to 1. Were logits (Z) meant?")
    return a, place


def _finish(result: Any, place: _Place, out: Any) -> Any:
    """The class axis back in its place, in the dtype of results; into `out` if given."""
    result = _library(result).moveaxis(result, -1, place.axis).astype(place.dtype)
    if out is None:
        return result
    out[...] = result
    return out
