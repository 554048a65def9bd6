"""The check before the timing: a contender outside its accuracy class is refused.

softgrad's backends promise 4 ulp of every entry's budget, and the same bits for the same row.  A peer promises
nothing; it must not be plainly wrong: every entry within 1e-3 (16-bit types 3e-2) of the largest true value.  That
leaves room for what peers do lose, on sure rows all digits of the small entries: the accuracy table tells it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.cases import Case
from bench.inputs import Inputs, known_rows
from tests import truth
from tests.real import Real
from tests.truth import Truth

PROMISED_ULP = 4.0
PLAINLY_WRONG = {"float64": 1e-3, "float32": 1e-3, "float16": 3e-2, "bfloat16": 3e-2}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check found: the worst error, and why a timing is refused, if it is."""

    worst_ulp: float
    worst_relative: float  # to the largest true value
    refusal: str | None = None


def true_results(case: Case, inputs: Inputs) -> tuple[Truth, ...]:
    """The truth of set 0's distinct rows; a mean loss is that of all rows."""
    distinct = known_rows(case)
    known = {name: array[:distinct] for name, array in inputs.items() if name != "out"}
    if case.operation == "cross_entropy_value_and_grad":
        per_row = truth.cross_entropy(known["logits"], known["targets"], reduction="none")
        repeats = Real(np.bincount(np.arange(case.rows) % distinct, minlength=distinct))
        loss = Truth(*((part * repeats).sum() / float(case.rows) for part in per_row))
        grad = truth.cross_entropy_grad(known["logits"], known["targets"], reduction="sum")
        return loss, _divided(grad, case.rows)
    if case.operation == "cross_entropy_hvp":
        product = truth.cross_entropy_hvp(
            known["tangent"], logits=known["logits"], targets=known["targets"], reduction="sum"
        )
        return (_divided(product, case.rows),)
    if case.operation == "softmax_vjp_from_probs":
        return (truth.softmax_vjp(known["tangent"], probs=known["probs"]),)
    if case.operation in ("softmax_vjp", "softmax_jvp"):
        return (truth.softmax_jvp(known["tangent"], logits=known["logits"]),)
    return (getattr(truth, case.operation)(known["logits"]),)


def judge(case: Case, results: tuple[Any, ...], true: tuple[Truth, ...], *, ours: bool) -> Verdict:
    """Compare NumPy results with the truth: every distinct row in ulp, every repeat with its first."""
    if len(results) != len(true):
        return Verdict(np.inf, np.inf, f"gave {len(results)} results, expected {len(true)}")
    ulp = relative = 0.0
    for result, expected in zip(results, true, strict=True):
        result = np.asarray(result)
        per_row = expected.value.ndim > 0
        shape = (case.rows, *expected.value.shape[1:]) if per_row else ()
        if result.shape != shape:
            return Verdict(np.inf, np.inf, f"gave shape {result.shape}, expected {shape}")
        known = result[: expected.value.shape[0]] if per_row else result
        ulp = max(ulp, truth.worst_ulp(known, expected))
        relative = max(relative, _relative(result, expected.value.float()))
        if ours and per_row and not _repeats(result, len(known)):
            return Verdict(ulp, relative, "gave different bits for the same row")
    bound = PLAINLY_WRONG[case.dtype]
    if ours and not ulp <= PROMISED_ULP:
        return Verdict(ulp, relative, f"off by {ulp:.3g} ulp, where {PROMISED_ULP:g} are promised")
    if not relative <= bound:
        return Verdict(ulp, relative, f"off by {relative:.2g} of the largest value, where {bound:g} are allowed")
    return Verdict(ulp, relative)


def _divided(of: Truth, by: int) -> Truth:
    return Truth(*(part / float(by) for part in of))


def _relative(result: np.ndarray, expected: np.ndarray) -> float:
    """The largest error of all rows, block by block, counted in the largest true value."""
    scale = np.abs(expected).max()
    if expected.ndim == 0:
        return float(abs(result.astype(np.float64) - expected) / scale)
    worst, distinct = 0.0, len(expected)
    for start in range(0, len(result), distinct):
        block = result[start : start + distinct].astype(np.float64)
        n = len(block)
        error = np.abs(block - expected[:n]) / scale
        worst = max(worst, float(np.where(np.isnan(error), np.inf, error).max()))
    return worst


def _repeats(result: np.ndarray, distinct: int) -> bool:
    """Whether every repeat of a row has the bits of its first."""
    bits = result.view(f"u{result.dtype.itemsize}")
    return all(
        np.array_equal(bits[start : start + distinct], bits[: min(distinct, len(bits) - start)])
        for start in range(0, len(bits), distinct)
    )
