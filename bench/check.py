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
from tests import truth
from tests.truth import Truth

PROMISED_ULP = 4.0
PLAINLY_WRONG = {"float64": 1e-3, "float32": 1e-3, "float16": 3e-2, "bfloat16": 3e-2}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check found: the worst error, and why a timing is refused, if it is."""

    worst_ulp: float
    worst_relative: float  # to the largest true value
    refusal: str | None = None


def judge(case: Case, results: tuple[Any, ...], true: tuple[Truth, ...], *, ours: bool) -> Verdict:
    """Compare NumPy results with the truth: every distinct row in ulp, every repeat with its first."""
    if len(results) != len(true):
        return Verdict(np.inf, np.inf, f"gave {len(results)} results, expected {len(true)}")
    ulp, relative, repeats = 0.0, 0.0, True
    for result, expected in zip(results, true, strict=True):
        result = np.asarray(result)
        per_row = expected.value.ndim > 0
        shape = (case.rows, *expected.value.shape[1:]) if per_row else ()
        if result.shape != shape:
            return Verdict(np.inf, np.inf, f"gave shape {result.shape}, expected {shape}")
        known = result[: expected.value.shape[0]] if per_row else result
        true_floats = expected.value.float()
        scale = np.abs(true_floats).max()
        deviation = _deviation(result, len(known)) if per_row else 0.0
        repeats = repeats and deviation == 0.0
        ulp = max(ulp, truth.worst_ulp(known, expected))
        relative = max(relative, (_largest(known, true_floats) + deviation) / scale)
    bound = PLAINLY_WRONG[case.dtype]
    if ours and not ulp <= PROMISED_ULP:
        return Verdict(ulp, relative, f"off by {ulp:.3g} ulp, where {PROMISED_ULP:g} are promised")
    if ours and not repeats:
        return Verdict(ulp, relative, "gave different bits for the same row")
    if not relative <= bound:
        return Verdict(ulp, relative, f"off by {relative:.2g} of the largest value, where {bound:g} are allowed")
    return Verdict(ulp, relative)


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference; infinite where one is NaN."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(a.astype(np.float64) - b)
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))


def _deviation(result: np.ndarray, distinct: int) -> float:
    """How far repeats of a row are from its first: 0 only where they have the same bits."""
    bits = result.view(f"u{result.dtype.itemsize}")
    worst = 0.0
    for start in range(distinct, len(result), distinct):
        n = min(distinct, len(result) - start)
        if not np.array_equal(bits[start : start + n], bits[:n]):
            difference = _largest(result[start : start + n], result[:n].astype(np.float64))
            worst = max(worst, difference, np.finfo(np.float64).tiny)  # −0 for 0 is other bits too
    return worst
