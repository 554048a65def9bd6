"""The textbook computation with a switch at every step at which people go wrong.

A mistake is a change of switches; several mistakes at once are the union of their changes.  Whatever people write
in place of the Jacobian J = diag(p) − p pᵀ is of the form

    diag(d) + outer · p pᵀ + left · p 1ᵀ + right · 1 pᵀ          (d, outer, left, right: the table JACOBIANS)

so its product with a vector u costs no matrix: d u + outer · p Σpu + left · p Σu + right · Σpu.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from softgrad.diagnosis.question import Bools, Floats, Question


class Jacobian(NamedTuple):
    """diag(d(p)) + outer · p pᵀ + left · p 1ᵀ + right · 1 pᵀ."""

    d: Callable[[Floats], Floats]
    outer: float = 0.0
    left: float = 0.0
    right: float = 0.0


JACOBIANS = {
    "right": Jacobian(lambda p: p, outer=-1.0),
    "diagonal overwritten": Jacobian(np.zeros_like, outer=-1.0),
    "diagonal overwritten, nothing else": Jacobian(lambda p: -p * p),
    "diagonal only": Jacobian(lambda p: p * (1.0 - p)),
    "identity": Jacobian(np.ones_like),
    "no outer product": Jacobian(lambda p: p),
    "outer product added": Jacobian(lambda p: p, outer=1.0),
    "off-diagonal positive": Jacobian(lambda p: p - 2.0 * p * p, outer=1.0),
    "diagonal zero": Jacobian(lambda p: p * p, outer=-1.0),
    "p_i (1 - p_j)": Jacobian(np.zeros_like, outer=-1.0, left=1.0),
    "p_j (1 - p_i)": Jacobian(np.zeros_like, outer=-1.0, right=1.0),
    "unweighted sum": Jacobian(lambda p: p, left=-1.0),
    "log-softmax": Jacobian(np.ones_like, right=-1.0),
    "log-softmax, transposed": Jacobian(np.ones_like, left=-1.0),
}


@dataclass(frozen=True)
class Recipe:
    """One way of computing the answer; the defaults are the right one."""

    # The logits.
    cap: str = "smooth"  # softcap: "smooth", "ignored", "clipped"
    slope: bool = True  # whether the gradient goes through the softcap
    fed: str = "logits"  # what softmax is applied to: "logits", "probs", "negated", "through" (probs, and their J)
    temperature: float = 1.0
    # Softmax.
    form: str = "softmax"  # or "exp", "exp shifted", "linear", "sigmoid", "hardmax"
    base: float = math.e
    shifted: bool = True  # whether the maximum is subtracted first
    over: int | None = -1  # the axis of its sum; None is all of them
    keepdims: bool = True
    log: str = "direct"  # log p: z − lse, or "of probs"
    log_base: float = math.e
    gain: float = 1.0  # of the derivative: ln 2 where 2ᶻ is differentiated
    added: float = 0.0  # ε added to p under the logarithm or in a quotient
    clipped: bool = False  # p clipped to [ε, 1 − ε] instead
    # The derivative.
    point: str = "probs"  # where it is taken; "logits" everywhere, "logits in J", "logits in dE/dA"
    outer: str = "same"  # dE/dA = −T/A is taken at the p of the Jacobian; or at the "right" one
    jacobian: str = "right"
    sum_over: int | None = -1  # the axis of Σpu
    sum_keepdims: bool = True
    # The target mass.
    targets: str = "given"
    shift: int = 0
    smoothing: str = "given"
    weight: str = "given"
    target_sum: str = "given"
    subtracted: bool = True  # whether T enters A·ΣT − T (ΣT·lse − ΣT·z) at all
    divide: str = "given"  # the mean's divisors: "one", "rows", "counted"
    ignored: str = "left out"  # or "kept", "modulo" (an index from the end), "first class"
    z_loss: float = 1.0  # share of its derivative that is taken
    z_loss_power: int = 2
    # What is handed back.
    output: str = "asked"


RIGHT = Recipe()
LARGER = {"broadcast", "broadcast columns", "every pair"}  # outputs that are larger than the answer
_KEPT_UP_TO = 100_000  # elements of the logits; with more, only the right intermediate results are kept


class Evaluator:
    """Computes recipes for one question; what recipes share is computed once."""

    def __init__(self, question: Question) -> None:
        self.q = question
        self._kept: dict[Any, Any] = {}

    def numbers(self, r: Recipe) -> Floats | None:
        """What the recipe gives, in the caller's layout; None where it gives nothing (shapes that do not broadcast)."""
        with np.errstate(all="ignore"):
            try:
                return self._numbers(r)
            except (ValueError, IndexError):
                return None

    def _numbers(self, r: Recipe) -> Floats:
        q = self.q
        if q.what == "softmax":
            p, log_p, _ = self.softmax(r)
            shown = {"asked": p, "log": log_p, "derivative": p * (1.0 - p)}[r.output]
            return q.restore(z_of(q, r) if r.point == "logits" else shown)
        if q.what == "log_softmax":
            p, _, _ = self.softmax(r)
            return q.restore(p if r.output == "exp" else self._log_probs(r))
        if q.what == "jacobian":
            return self._matrix(r)
        if q.what in ("softmax_jvp", "softmax_vjp"):
            return self._chain(q.v, r)
        if q.what == "cross_entropy":
            return self._loss(r)
        return self._grad(r)

    # --- softmax ---------------------------------------------------------------------------------------------------

    def softmax(self, r: Recipe) -> tuple[Floats, Floats, Floats]:
        """p, log p and log Σ exp z."""
        key = (r.cap, r.fed, r.temperature, r.form, r.base, r.shifted, r.over, r.keepdims)
        found: tuple[Floats, Floats, Floats] | None = self._kept.get(key)
        if found is None:
            found = self._new_softmax(r)
            self._keep(key, found, right=r == RIGHT)
        return found

    def _keep(self, key: Any, value: Any, *, right: bool) -> None:
        if right or self.q.z.size <= _KEPT_UP_TO:
            self._kept[key] = value

    def _new_softmax(self, r: Recipe) -> tuple[Floats, Floats, Floats]:
        z = self._fed(r)
        if r.form == "linear":
            p = z / z.sum(axis=-1, keepdims=True)
        elif r.form == "sigmoid":
            p = 1.0 / (1.0 + np.exp(-z))
        elif r.form == "hardmax":
            p = (z == z.max(axis=-1, keepdims=True)).astype(np.float64)
        else:
            if r.shifted:
                m = z.max(axis=r.over, keepdims=True)
            else:  # overflows where the caller's dtype does
                z = z.astype(self.q.logits.dtype if self.q.logits.dtype.kind != "i" else np.float64)
                m = np.zeros((), z.dtype)
            e = np.exp(z - m) if r.base == math.e else np.power(np.asarray(r.base, z.dtype), z - m)
            if r.form == "exp":
                p = np.exp(z)
                return p, z, np.zeros_like(z[..., :1])
            if r.form == "exp shifted":
                return e, z - m, m
            total = e.sum(axis=r.over, keepdims=r.keepdims or r.over is None)
            p = (e / total).astype(np.float64)
            lse = (m.astype(np.float64) if r.shifted else 0.0) * math.log(r.base) + np.log(total).astype(np.float64)
            return p, z.astype(np.float64) * math.log(r.base) - lse, lse
        return p, np.log(p), np.zeros_like(z[..., :1])

    def _fed(self, r: Recipe) -> Floats:
        z = z_of(self.q, r)
        if r.fed == "negated":
            z = -z
        elif r.fed in ("probs", "through"):
            e = np.exp(z - z.max(axis=-1, keepdims=True))
            z = e / e.sum(axis=-1, keepdims=True)
        return z / r.temperature if r.temperature != 1.0 else z

    def _log_probs(self, r: Recipe) -> Floats:
        p, log_p, _ = self.softmax(r)
        if r.point == "logits":
            log_p = np.log(z_of(self.q, r))
        elif r.clipped:
            log_p = np.log(np.clip(p, r.added, 1.0 - r.added))
        elif r.added:
            log_p = np.log(p + r.added)
        elif r.log == "of probs":
            dtype = self.q.logits.dtype
            log_p = np.log(p if dtype.kind == "i" else p.astype(dtype)).astype(np.float64)
        return log_p if r.log_base == math.e else log_p / math.log(r.log_base)

    # --- derivatives -----------------------------------------------------------------------------------------------

    def _at(self, r: Recipe) -> Floats:
        """The p at which the Jacobian is taken."""
        return z_of(self.q, r) if r.point in ("logits", "logits in J") else self.softmax(r)[0]

    def _matrix(self, r: Recipe) -> Floats:
        p = self._at(r)
        if p.shape != self.q.z.shape:
            raise ValueError
        if r.over not in (-1, None) and r.output == "other axis":
            p = np.moveaxis(p, r.over, -1)
        if r.gain != 1.0:
            return r.gain * self._matrix(replace(r, gain=1.0))
        j = JACOBIANS[r.jacobian]
        if r.output == "diagonal":
            return self.q.restore(j.d(p) + (j.outer * p + j.left + j.right) * p)
        matrix = j.outer * p[..., :, None] * p[..., None, :] + j.left * p[..., :, None] + j.right * p[..., None, :]
        diagonal = np.arange(p.shape[-1])
        matrix[..., diagonal, diagonal] += j.d(p)
        if r.fed == "through":
            first = self.softmax(RIGHT)[0]
            matrix = matrix @ (first[..., :, None] * (np.eye(p.shape[-1]) - first[..., None, :]))
        if r.output == "every pair":
            rows, classes = matrix.size // p.shape[-1] ** 2, p.shape[-1]
            full = np.zeros((rows, classes, rows, classes))
            full[np.arange(rows), :, np.arange(rows), :] = matrix.reshape(rows, classes, classes)
            return full.reshape(p.shape + p.shape)
        return matrix

    def _chain(self, u: Floats, r: Recipe) -> Floats:
        """J u, in the caller's layout."""
        p = self._at(r)
        if r.output in ("broadcast", "broadcast columns"):
            matrix = self._matrix(RIGHT if r.point == "probs" else r)
            return matrix * (u[..., None, :] if r.output == "broadcast" else u[..., :, None])
        return self.q.restore(self._product(u, p, r))

    def _product(self, u: Floats, p: Floats, r: Recipe) -> Floats:
        j = JACOBIANS[r.jacobian]
        total = j.d(p) * u * r.gain
        u = u * r.gain
        if j.outer or j.right:
            mean = (p * u).sum(axis=r.sum_over, keepdims=r.sum_keepdims or r.sum_over is None)
            total = total + j.outer * p * mean + j.right * mean
        if j.left:
            total = total + j.left * p * u.sum(axis=r.sum_over, keepdims=True)
        if r.fed == "through":
            first = self.softmax(RIGHT)[0]
            total = first * (total - (first * total).sum(axis=-1, keepdims=True))
        return total

    # --- cross-entropy ---------------------------------------------------------------------------------------------

    def masses(self, r: Recipe) -> tuple[Floats, Floats, Floats, Bools]:
        """W, (*R, C); ΣW and the weight of each row in the mean, (*R, 1); which rows count, (*R, 1)."""
        key = (r.targets, r.shift, r.smoothing, r.weight, r.target_sum, r.ignored)
        found: tuple[Floats, Floats, Floats, Bools] | None = self._kept.get(key)
        if found is None:
            found = self._new_masses(r)
            self._keep(key, found, right=r == RIGHT)
        return found

    def _new_masses(self, r: Recipe) -> tuple[Floats, Floats, Floats, Bools]:
        q, classes = self.q, self.q.z.shape[-1]
        counts = np.ones((*q.rows, 1), bool)
        if q.indices is not None:
            t = q.indices
            if q.ignore_index is not None and r.ignored == "left out":
                counts = (t != q.ignore_index)[..., None]
            elif r.ignored == "modulo":
                t = np.where(t == q.ignore_index, t % classes, t)
            elif r.ignored == "first class":
                t = np.where(t == q.ignore_index, 0, t)
            T = shifted_one_hot(t, classes, r)
        else:
            assert q.probabilities is not None
            T = np.roll(q.probabilities, r.shift, axis=-1)
        w = np.ones(classes) if q.weight is None or r.weight == "ignored" else q.weight.astype(np.float64)
        weighted = q.indices is not None and q.weight is not None and r.weight != "ignored"
        of_row = (w * T).sum(axis=-1, keepdims=True) if weighted else np.ones((*q.rows, 1))
        T = other_targets(T, q, r)
        if r.target_sum == "normalised":
            T = T / T.sum(axis=-1, keepdims=True)
        eps = q.label_smoothing
        if eps and r.smoothing == "given":
            T = (1.0 - eps) * T + eps / classes
        elif eps and r.smoothing == "others":
            T = (1.0 - eps) * T + eps / max(classes - 1, 1) * (1.0 - T)
        elif eps and r.smoothing == "added":
            T = T + eps / classes
        elif eps and r.smoothing == "target only":
            T = (1.0 - eps) * T
        W = T if r.weight in ("numerator", "columns") else w * T
        total = np.ones_like(of_row) if r.target_sum == "one" else W.sum(axis=-1, keepdims=True)
        return np.where(counts, W, 0.0), np.where(counts, total, 0.0), np.where(counts, of_row, 0.0), counts

    def divisors(self, r: Recipe) -> tuple[float, float]:
        """What a mean divides the loss proper, and the z_loss part, by; 1 where nothing is averaged."""
        if self.q.reduction != "mean" or r.divide == "one":
            return 1.0, 1.0
        _, _, of_row, counts = self.masses(r)
        if r.divide != "given":
            count = float(counts.sum() if r.divide == "counted" else counts.size)
            return count, count
        return float(of_row.sum()), float(counts.sum())

    def _loss(self, r: Recipe) -> Floats:
        q = self.q
        W, total, _, counts = self.masses(r)
        log_p = self._log_probs(r)
        lse = self.softmax(r)[2]
        rows = -np.where(W == 0.0, 0.0, W * log_p).sum(axis=-1)
        if not r.subtracted:
            rows = (lse * total)[..., 0]
        elif r.target_sum == "one":
            rows = rows + (lse * (np.where(counts, 1.0, 0.0) - W.sum(axis=-1, keepdims=True)))[..., 0]
        divisor, count = self.divisors(r)
        extra = np.zeros_like(rows)
        if q.z_loss and r.z_loss:
            extra = r.z_loss * q.z_loss * np.where(counts, lse**r.z_loss_power, 0.0)[..., 0]
        per_row = (q.reduction == "none") != (r.output == "other reduction")
        return rows + extra if per_row else np.asarray(rows.sum() / divisor + extra.sum() / count)

    def _grad(self, r: Recipe) -> Floats:
        q = self.q
        W, total, _, counts = self.masses(r)
        p, _, lse = self.softmax(r)
        divisor, count = self.divisors(r)
        if (
            r.jacobian != "right"
            or r.outer == "right"
            or r.point in ("logits in J", "logits in dE/dA")
            or r.output != "asked"
            or r.added
        ):
            a = z_of(q, r) if r.point in ("logits", "logits in dE/dA") else p
            if r.outer == "right":
                a = self.softmax(RIGHT)[0]
            if r.added:
                a = np.clip(a, r.added, 1.0 - r.added) if r.clipped else a + r.added
            g = -np.where(W == 0.0, 0.0, W / a) / divisor
            if r.output != "asked":
                return self._chain(g, r)
            grad = self._product(g, z_of(q, r) if r.point in ("logits", "logits in J") else p, r)
        else:
            at = z_of(q, r) if r.point == "logits" else p
            grad = np.where(counts, at * total - (W if r.subtracted else 0.0), 0.0) / divisor
            if r.fed == "through":
                grad = self._product(grad, self.softmax(RIGHT)[0], RIGHT)
        if r.gain != 1.0 and r.jacobian == "right":
            grad = r.gain * grad
        if r.log_base != math.e:
            grad = grad / math.log(r.log_base)
        if q.weight is not None and r.weight == "columns":
            grad = grad * q.weight.astype(np.float64)
        if q.z_loss and r.z_loss:
            power = 2.0 * lse if r.z_loss_power == 2 else 1.0
            grad = grad + np.where(counts, r.z_loss * q.z_loss * power * p, 0.0) / count
        if q.softcap is not None and r.slope and r.cap == "smooth":
            grad = grad * (1.0 - np.tanh(q.z / q.softcap) ** 2)
        return q.restore(grad)


def z_of(q: Question, r: Recipe) -> Floats:
    """The logits, capped as the recipe caps them."""
    if q.softcap is None or r.cap == "ignored":
        return q.z
    return np.clip(q.z, -q.softcap, q.softcap) if r.cap == "clipped" else q.softcap * np.tanh(q.z / q.softcap)


def shifted_one_hot(t: Floats, classes: int, r: Recipe) -> Floats:
    """One-hot rows of class indices, `shift` classes off; an index outside [0, C) has no class."""
    if r.shift:
        t = t + r.shift
        if r.targets == "wrapped":
            t = t % classes
        elif r.targets == "stopped":
            t = np.clip(t, 0, classes - 1)
    return (t[..., None] == np.arange(classes)).astype(np.float64)


def other_targets(T: Floats, q: Question, r: Recipe) -> Floats:
    """What people use in place of the one-hot (or probability) targets T."""
    kind, classes = r.targets, q.z.shape[-1]
    if kind in ("given", "wrapped", "stopped"):
        return T
    if kind == "all ones":
        return np.ones_like(T)
    if kind == "uniform":
        return np.full_like(T, 1.0 / classes)
    if kind == "first class":
        return np.broadcast_to((np.arange(classes) == 0).astype(np.float64), T.shape)
    if kind == "prediction":
        return (np.arange(classes) == q.z.argmax(axis=-1)[..., None]).astype(np.float64)
    if kind == "hardened":
        return (np.arange(classes) == T.argmax(axis=-1)[..., None]).astype(np.float64)
    if kind == "truncated":
        return np.trunc(T)
    if kind == "transposed":
        if T.ndim < 2 or T.shape[-1] != T.shape[-2]:
            raise ValueError
        return np.swapaxes(T, -1, -2)
    assert q.indices is not None
    numbers = q.indices.astype(np.float64)
    if kind == "numbers":
        return np.broadcast_to(numbers[..., None], T.shape)
    if kind == "numbers across":
        if numbers.ndim == 0 or numbers.shape[-1] != classes:
            raise ValueError
        return np.broadcast_to(numbers[..., None, :], T.shape)
    if kind == "every column":  # p[:, t] in place of p[arange(B), t]
        return np.broadcast_to((T.sum(axis=tuple(range(T.ndim - 1))) > 0).astype(np.float64), T.shape)
    assert kind == "every pair"  # the mean of the matrix −log p[:, t]
    return np.broadcast_to(T.mean(axis=tuple(range(T.ndim - 1))), T.shape)
