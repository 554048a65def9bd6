"""How far a candidate may be from the truth and still be right, and when its digits are lost.

The textbook formulas, carried out in the candidate's own dtype, err by a few eps of the magnitudes they add: `rough`.
An entry may agree with the truth to within that and still have no correct digit, where the magnitudes cancel:
`fine` is the magnitude that a careful computation errs by a few eps of.  When more than three quarters of the digits
of `fine` are gone, they are lost.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from softgrad import softmax_ops
from softgrad.diagnosis.question import PRODUCTS, Floats, Question
from softgrad.diagnosis.recipe import RIGHT, Evaluator, z_of
from softgrad.dispatch import use_backend

_EPS32 = 2.0**-23


class Precision(NamedTuple):
    """What a floating-point format resolves."""

    eps: float
    tiny: float  # the smallest normal number


def precision_of(dtype: Any) -> Precision:
    """The precision of a floating dtype; of an integer one, float64's, in which it is computed."""
    if dtype.kind == "f":
        info = np.finfo(dtype)
        return Precision(float(info.eps), float(info.tiny))
    return Precision(2.0**-7, 2.0**-126) if dtype.name == "bfloat16" else Precision(2.0**-52, 2.0**-1022)


def candidate_precision(numbers: Floats, dtype: Any, q: Question) -> Precision:
    """The coarsest of: the candidate's dtype, the logits' dtype, and what the numbers themselves betray.

    A float64 array of numbers that are all exact in float32 was computed in float32; one of short decimals was
    pasted from a print-out.
    """
    found = max(precision_of(dtype), precision_of(q.logits.dtype))
    finite = numbers[np.isfinite(numbers)]
    if found.eps < _EPS32 and finite.size:
        with np.errstate(all="ignore"):
            if np.all(finite.astype(np.float32) == finite):
                found = max(found, precision_of(np.dtype(np.float32)))
    return found


def printed_step(numbers: Floats) -> float:
    """Half a unit in the last decimal, where every number has at most 4 to 8 of them (a print-out); else 0."""
    finite = numbers[np.isfinite(numbers)]
    if finite.size == 0 or np.abs(finite).max() > 1e6:
        return 0.0
    for decimals in range(9):
        if np.all(np.round(finite, decimals) == finite):
            return 0.5 * 10.0**-decimals if decimals >= 4 else 0.0
    return 0.0


class Scales(NamedTuple):
    """Magnitudes, in the shape of the answer."""

    rough: Floats  # a few eps of it is what the textbook formula errs by
    fine: Floats  # a few eps of it is what a careful computation errs by


def scales(q: Question) -> Scales:
    """`rough` and `fine` of a question."""
    with np.errstate(all="ignore"):
        rough, fine = _scales(q)
    return Scales(np.nan_to_num(rough, nan=0.0, posinf=0.0), np.nan_to_num(fine, nan=0.0, posinf=0.0))


def _scales(q: Question) -> tuple[Floats, Floats]:
    z, truth = z_of(q, RIGHT), np.abs(q.truth)
    finite = np.where(np.isfinite(z), np.abs(z), 0.0)
    # exp(z − m) inherits the rounding of z − m, exp(z − lse) that of lse; C terms are added.
    row = 16.0 + 0.5 * np.sqrt(z.shape[-1]) + 2.0 * finite.max(axis=-1, keepdims=True)
    with use_backend("numpy"):
        p = np.asarray(softmax_ops.softmax(z, axis=-1))
        log_p = np.asarray(softmax_ops.log_softmax(z, axis=-1))
    if q.what == "softmax":
        return q.restore(p * row), truth
    top = np.arange(z.shape[-1]) == z.argmax(axis=-1)[..., None]
    if q.what == "log_softmax":
        magnitude = 1.0 + np.where(np.isfinite(log_p), np.abs(log_p), 0.0)
        return q.restore(magnitude + row), q.restore(np.where(top, np.abs(log_p), magnitude))
    if q.what == "jacobian":
        outer = p[..., :, None] * p[..., None, :]
        diagonal = np.eye(z.shape[-1]) * p[..., None, :]
        fine = np.where(np.eye(z.shape[-1], dtype=bool), truth, outer)
        return (diagonal + outer) * row[..., None], fine
    if q.what in PRODUCTS:
        v = np.abs(q.v)
        k = np.broadcast_to(z.argmax(axis=-1)[..., None], (*q.v.shape[:-1], 1))
        u = np.abs(q.v - np.take_along_axis(q.v, k, axis=-1))
        rough = p * (v + (p * v).sum(axis=-1, keepdims=True)) * row
        return q.restore(rough), q.restore(p * (u + (p * u).sum(axis=-1, keepdims=True)))
    return _loss_scales(q, p, log_p, row)


def _loss_scales(q: Question, p: Floats, log_p: Floats, row: Floats) -> tuple[Floats, Floats]:
    truth = np.abs(q.truth)
    evaluator = Evaluator(q)
    W, total, of_row, counts = evaluator.masses(RIGHT)
    W, total = np.abs(W), np.abs(total)
    lse = np.abs(evaluator.softmax(RIGHT)[2])
    divisor = count = 1.0
    if q.reduction == "mean":
        divisor, count = max(float(of_row.sum()), 1e-300), max(float(counts.sum()), 1.0)
    if q.what == "cross_entropy":
        log_p = np.where(np.isfinite(log_p), np.abs(log_p), 0.0)
        per_row = ((W * (log_p + row)).sum(axis=-1, keepdims=True) + total)[..., 0]
        extra = (abs(q.z_loss) * lse**2 * row)[..., 0]
        if q.reduction == "none":
            return per_row + extra, truth
        many = 1.0 + 0.1 * np.sqrt(prod(q.rows))
        return np.asarray(many * (per_row.sum() / divisor + extra.sum() / count)), truth
    capped = 1.0 + (q.softcap or 0.0)
    rough = (p * total + W) * row * capped / divisor + 2.0 * abs(q.z_loss) * lse * p * row * capped / count
    one_target = (np.count_nonzero(W, axis=-1, keepdims=True) == 1) & (q.z_loss == 0.0) & (q.softcap is None)
    fine = np.where(one_target, np.moveaxis(truth, q.axis, -1), rough)
    return q.restore(rough), q.restore(fine)
