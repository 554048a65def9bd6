"""The truth: every function of softgrad as the real-number function of the floating-point inputs it was given.

Imports nothing of softgrad.  Names and arguments are the library's; each function returns a `Truth`, the value and
the magnitude ("budget") in which its error is counted.  Computed to about 95 bits by `tests.real`, itself checked
against mpmath, in the forms that cancel nothing, so that a float64 result of 1e-300 can be judged to the last digit.
`tests.point` has what depends on a row's logits alone, `tests.ulps` how results are held against the truth.

    W_j          target mass: h on the integer target, D_j spread over the classes
    u_j          v_j − v_k

The other symbols are those of `tests.point`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests import real
from tests.point import Point, column
from tests.real import Real, where
from tests.ulps import EPS as EPS
from tests.ulps import Truth as Truth
from tests.ulps import assert_right as assert_right
from tests.ulps import truth_shape as truth_shape
from tests.ulps import ulp as ulp
from tests.ulps import worst_ulp as worst_ulp

# --- softmax --------------------------------------------------------------------------------------------------------


def softmax(logits: Any, *, axis: int = -1) -> Truth:
    at = Point(_last(logits, axis))
    p = where(column(at.broken), np.nan, at.p)
    return _back(Truth(p, p), logits, axis)


def log_softmax(logits: Any, *, axis: int = -1) -> Truth:
    at = Point(_last(logits, axis))
    log_p = where(column(at.broken), np.nan, -(at.gap + column(at.l)))
    largest = np.arange(log_p.shape[-1]) == at.k
    return _back(Truth(log_p, where(largest, abs(log_p), abs(log_p) + 1.0)), logits, axis)


def logsumexp(logits: Any, *, axis: int = -1, keepdims: bool = False) -> Truth:
    z = _last(logits, axis).astype(np.float64)
    if z.shape[-1] == 0:
        lse = Truth(Real(np.full(z.shape[:-1], -np.inf)), Real(np.ones(z.shape[:-1])))
    else:
        at = Point(z)
        with np.errstate(invalid="ignore"):
            lse = Truth(where(at.broken, z.max(-1), at.lse), abs(at.m) + at.l)
    return Truth(*(x.reshape(np.expand_dims(x.hi, axis).shape) for x in lse)) if keepdims else lse


# --- products -------------------------------------------------------------------------------------------------------


def softmax_jvp(tangent: Any, *, logits: Any = None, probs: Any = None, axis: int = -1) -> Truth:
    point = logits if probs is None else probs
    v = Real(_last(tangent, axis, np.ndim(point)))
    if probs is None:
        at = Point(_last(logits, axis))
        p, k, masked, broken = at.p, at.k, at.masked, column(at.broken)
    else:
        given = _last(probs, axis).astype(np.float64)
        p, k, masked, broken = (
            Real(given),
            _first_largest(given),
            np.zeros(given.shape, bool),
            np.isnan(given).any(-1, keepdims=True),
        )
    y, size = _softmax_product(v, p, k, masked)
    return _back(Truth(where(broken, np.nan, y), size), point, axis)


softmax_vjp = softmax_jvp  # J is symmetric


def _softmax_product(v: Real, p: Real, k: np.ndarray, masked: np.ndarray) -> tuple[Real, Real]:
    """p (u − Σ p u) and p (|u| + Σ p |u|); exactly 0 where masked."""
    u = where(masked, 0.0, v - _take(v, k))
    y = p * (u - column((p * u).sum()))
    size = p * (abs(u) + column((p * abs(u)).sum()))
    return where(masked, 0.0, y), where(masked, 0.0, size)


def softmax_jacobian(*, logits: Any = None, probs: Any = None, axis: int = -1) -> Truth:
    """Column j is the product with the unit vector j."""
    point = np.asarray(logits if probs is None else probs)
    axis %= point.ndim
    classes = point.shape[axis]
    units = np.eye(classes).reshape(classes, *(classes if a == axis else 1 for a in range(point.ndim)))
    units = np.broadcast_to(units, (classes, *point.shape))
    columns = softmax_jvp(units, logits=logits, probs=probs, axis=axis)
    return Truth(*(x.moveaxis(1 + axis, -1).moveaxis(0, -1) for x in columns))


def log_softmax_jvp(tangent: Any, *, logits: Any = None, log_probs: Any = None, axis: int = -1) -> Truth:
    point = logits if log_probs is None else log_probs
    v = Real(_last(tangent, axis, np.ndim(point)))
    p, k, broken = _log_point(logits, log_probs, axis)
    u = v - _take(v, k)

    # 0 · ∞ = 0 where p is 0 exactly.
    def mean(x: Real) -> Real:
        return column(where(p.hi == 0.0, 0.0, p * x).sum())

    return _back(Truth(where(broken, np.nan, u - mean(u)), abs(u) + mean(abs(u))), point, axis)


def log_softmax_vjp(cotangent: Any, *, logits: Any = None, log_probs: Any = None, axis: int = -1) -> Truth:
    point = logits if log_probs is None else log_probs
    g = Real(_last(cotangent, axis, np.ndim(point)))
    p, _, broken = _log_point(logits, log_probs, axis)
    value = where(broken, np.nan, g - p * column(g.sum()))
    return _back(Truth(value, abs(g) + p * column(abs(g).sum())), point, axis)


def _log_point(logits: Any, log_probs: Any, axis: int) -> tuple[Real, np.ndarray, np.ndarray]:
    """p, k, broken."""
    if log_probs is None:
        at = Point(_last(logits, axis))
        return at.p, at.k, column(at.broken)
    given = _last(log_probs, axis).astype(np.float64)
    return real.exp(Real(given)), _first_largest(given), np.isnan(given).any(-1, keepdims=True)


# --- cross-entropy --------------------------------------------------------------------------------------------------


def cross_entropy(logits: Any, targets: Any, **loss: Any) -> Truth:
    return _Loss(logits, targets, **loss).value()


def cross_entropy_grad(logits: Any, targets: Any, *, grad_output: Any = None, **loss: Any) -> Truth:
    problem = _Loss(logits, targets, **loss)
    value, size = problem.grad(problem.scale(grad_output))
    slope = problem.at.slope
    return problem.per_class(value * slope, size * slope)


def cross_entropy_value_and_grad(
    logits: Any, targets: Any, *, grad_output: Any = None, **loss: Any
) -> tuple[Truth, Truth]:
    return cross_entropy(logits, targets, **loss), cross_entropy_grad(logits, targets, grad_output=grad_output, **loss)


def cross_entropy_jvp(tangent: Any, *, logits: Any, targets: Any, **loss: Any) -> Truth:
    return _Loss(logits, targets, **loss).jvp(tangent)


def cross_entropy_hvp(tangent: Any, *, logits: Any, targets: Any, grad_output: Any = None, **loss: Any) -> Truth:
    problem = _Loss(logits, targets, **loss)
    return problem.hvp(tangent, problem.scale(grad_output))


class _Loss:
    """Σ_j W_j (lse − z_j) + z_loss · lse² of each row, W = h [j = t] + D."""

    def __init__(
        self, logits: Any, targets: Any, *, axis: int = -1, weight: Any = None, ignore_index: int | None = -100,
        label_smoothing: float = 0.0, z_loss: float = 0.0, softcap: float | None = None, reduction: str = "mean",
        check_targets: bool | None = None,
    ) -> None:  # fmt: skip
        z, t = _last(logits, axis), np.asarray(targets)
        classes = z.shape[-1]
        self.axis, self.logits, self.reduction = axis, logits, reduction
        self.at = Point(z, softcap)
        w = Real(np.ones(classes) if weight is None else np.asarray(weight))
        smooth = Real(label_smoothing)
        rows = z.shape[:-1]
        self.dense = t.ndim == z.ndim
        if self.dense:
            self.t, self.h = np.zeros((*rows, 1), int), Real(np.zeros(rows))
            self.D = w * (Real(_last(t, axis)) * (1.0 - smooth) + smooth / float(classes))
            self.ignored = self.bad = np.zeros(rows, bool)
            counts = Real(np.ones(rows))
        else:
            self.ignored = np.zeros(rows, bool) if ignore_index is None else t == ignore_index
            self.bad = ~self.ignored & ((t < 0) | (t >= classes))
            self.t = np.where(self.ignored | self.bad, 0, t).astype(int)[..., None]
            w_t = _take(w.broadcast_to(z.shape), self.t)[..., 0]
            self.h = w_t * (1.0 - smooth)
            self.D = (w * smooth / float(classes)).broadcast_to(z.shape)
            counts = where(self.ignored | self.bad, 0.0, w_t)
        self.counting = float((~(self.ignored | self.bad)).sum())
        # The loss proper is divided by D and the z_loss part by n.
        self.divisor, self.n = (counts.reshape(-1).sum(), self.counting) if reduction == "mean" else (Real(1.0), 1.0)
        self.void = bool(self.divisor.hi == 0.0)
        self.zeta = Real(z_loss)
        self.has_z_loss, self.certain = z_loss != 0.0, not self.dense and not label_smoothing and not z_loss
        self.softcapped = softcap is not None
        self.W = where(np.arange(classes) == self.t, column(self.h), 0.0) + self.D

    def scale(self, grad_output: Any) -> Real:
        return Real(np.broadcast_to(np.asarray(1.0 if grad_output is None else grad_output), self.ignored.shape))

    def value(self) -> Truth:
        at = self.at
        gap = where((self.W.hi == 0.0) & at.masked, 0.0, at.gap + column(at.l))
        proper = (self.W * gap).sum() / self.divisor
        size = abs(proper) if self.certain else (abs(self.W) * gap).sum() / abs(self.divisor)
        if self.has_z_loss:
            proper = proper + self.zeta * at.lse * at.lse / self.n
            # lse = m + l itself subtracts where m < 0.
            size = size + abs(self.zeta) * (abs(at.lse) + 2.0 * (abs(at.m) + at.l)) * abs(at.lse) / self.n
        return self._reduced(self._settle(proper), self._settle(size), np.nan)

    def grad(self, g: Real) -> tuple[Real, Real]:
        """With respect to the softcapped logits, times g."""
        at = self.at
        h, g = column(self.h), column(g / self.divisor)
        is_t = np.arange(at.e.shape[-1]) == self.t
        p_minus_1 = -column(at.others(self.t) / at.s)
        value = h * where(is_t, p_minus_1, at.p) + (at.p * column(self.D.sum()) - self.D)
        size = at.p * column(abs(self.W).sum()) + abs(self.W)
        if self.has_z_loss:
            # g (loss / D + zeta lse² / n): the second part is not divided by D.
            twice = column(self.zeta * at.lse * 2.0 * self.divisor / self.n)
            value, size = value + at.p * twice, size + at.p * abs(twice)
        return value * g, abs(value * g) if self.certain else size * abs(g)

    def jvp(self, tangent: Any) -> Truth:
        at = self.at
        v = self._tangent(tangent) * at.slope
        reference = _take(v, at.k if self.dense else self.t)
        idle = at.masked & (self.W.hi == 0.0)
        u = where(idle, 0.0, v - reference)
        # A softcapped tangent is itself rounded.
        sizes = where(idle, 0.0, abs(v) + abs(reference)) if self.softcapped else abs(u)
        proper = self.W.sum() * (at.p * u).sum() - (self.W * u).sum()
        size = abs(self.W).sum() * (at.p * sizes).sum() + (abs(self.W) * sizes * abs(u.hi != 0.0)).sum()
        value, size = proper / self.divisor, size / abs(self.divisor)
        if self.has_z_loss:
            zeta = self.zeta * at.lse * 2.0 / self.n
            value = value + zeta * (at.p * where(at.masked, 0.0, v)).sum()
            size = size + abs(zeta) * (at.p * abs(where(at.masked, 0.0, v))).sum()
        return self._reduced(self._settle(value), self._settle(size), 0.0)

    def hvp(self, tangent: Any, g: Real) -> Truth:
        at = self.at
        v = self._tangent(tangent)
        moved = where(at.masked, 0.0, v * at.slope)
        y, size = _softmax_product(moved, at.p, at.k, at.masked)
        if self.softcapped:
            size = at.p * (abs(moved) + abs(_take(moved, at.k)))
            size = size + at.p * column(size.sum())
        scale = column(g / self.divisor)
        F, F_size = column(self.W.sum()), column(abs(self.W).sum())
        if self.has_z_loss:
            twice = column(self.zeta * 2.0 * self.divisor / self.n)
            lse = column(at.lse)
            mean, mean_size = (column((at.p * x).sum()) for x in (moved, abs(moved)))
            value = y * (F + twice * lse) + at.p * mean * twice
            size = size * (F_size + abs(twice * lse)) + at.p * mean_size * abs(twice)
        else:
            value, size = y * F, size * F_size
        value, size = value * scale * at.slope, size * abs(scale) * at.slope
        if self.softcapped:
            grad, grad_size = self.grad(g)
            bend = at.curvature * where(at.masked, 0.0, v)
            value, size = value + grad * bend, size + grad_size * abs(bend)
        return self.per_class(where(at.masked, 0.0, value), where(at.masked, 0.0, size))

    # --- rows that are not ordinary, and the way back ---------------------------------------------------------------

    def _tangent(self, tangent: Any) -> Real:
        v = _last(tangent, self.axis, np.ndim(self.logits)).astype(np.float64)
        return Real(np.where(column(self.ignored), 0.0, v))

    def _settle(self, per_row: Real) -> Real:
        return where(self.ignored, 0.0, where(self.bad | self.at.broken, np.nan, per_row))

    def _reduced(self, value: Real, size: Real, when_void: float) -> Truth:
        if self.reduction == "none":
            return Truth(value, size)
        lead = value.shape[: value.ndim - self.ignored.ndim]
        value, size = (x.reshape(*lead, -1).sum() for x in (value, size))
        if self.void:
            value = where(True, when_void, value)
        return Truth(value, size)

    def per_class(self, value: Real, size: Real) -> Truth:
        value = where(column(self.bad | self.at.broken), np.nan, value)
        dead = column(self.ignored) | self.void
        return _back(Truth(where(dead, 0.0, value), where(dead, 0.0, size)), self.logits, self.axis)


# --- axes -----------------------------------------------------------------------------------------------------------


def _last(array: Any, axis: int, ndim: int | None = None) -> np.ndarray:
    """The class axis, counted in the last `ndim` axes, moved to the end."""
    array = np.asarray(array)
    ndim = array.ndim if ndim is None else ndim
    return np.moveaxis(array, axis % ndim + array.ndim - ndim, -1)


def _back(truth: Truth, point: Any, axis: int) -> Truth:
    ndim = np.ndim(point)
    value = truth.value
    at = axis % ndim + value.ndim - ndim
    return Truth(*(x.broadcast_to(value.shape).moveaxis(-1, at) for x in truth))


def _take(x: Real, indices: np.ndarray) -> Real:
    return x.take(np.broadcast_to(indices, (*x.shape[:-1], 1)))


def _first_largest(p: np.ndarray) -> np.ndarray:
    return p.argmax(-1)[..., None]
