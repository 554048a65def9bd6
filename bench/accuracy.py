"""Accuracy beside speed: every contender's worst error, per operation, on the adversarial rows of the tests.

Counted in ulp of the magnitudes that softgrad's promise is about (tests/truth.py), the same for all.  Rows with masked,
infinite or NaN logits are left out: libraries differ on what they ought to give.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.cases import Case
from bench.contenders import Contender
from bench.inputs import Inputs, numpy_dtype
from tests import cases as tested
from tests import truth
from tests.truth import Truth

MANY_CLASSES = [tested.rows(classes, 4 * classes) for classes in (tested.MODEL_CLASSES["Llama 2"],)]


def adversarial(dtype: str) -> list[tuple[str, Inputs, Case]]:
    """The finite adversarial cases of the tests, with everything an operation may ask for."""
    found = []
    with np.errstate(over="ignore"):
        for case in (*tested.ADVERSARIAL, *MANY_CLASSES):
            z = case.logits(numpy_dtype(dtype))
            if not np.isfinite(z.astype(np.float64)).all():
                continue
            given = {
                "logits": z,
                "probs": np.asarray(truth.softmax(z).value.float()).astype(z.dtype),
                "tangent": case.tangents(z.dtype),
                "targets": case.targets(),
            }
            found.append((case.name, given, Case("", dtype, *case.shape)))
    return found


def worst(contender: Contender, case: Case, given: Inputs, true: tuple[Truth, ...]) -> float:
    """The worst error of one contender in one case, in ulp; infinite for a NaN or infinity out of place."""
    shape = case.shape if case.spec.writes_rows else (case.rows,)
    out = np.zeros(shape, given["logits"].dtype)
    copies = {name: array.copy() for name, array in given.items()}
    results = contender.results(case, contender.prepare(case, copies | {"out": out}))
    return max(truth.worst_ulp(np.asarray(result), expected) for result, expected in zip(results, true, strict=True))


def record(operation: str, dtype: str, contender: Contender, errors: dict[str, float]) -> dict[str, Any]:
    """One entry of the accuracy table."""
    at = max(errors, key=lambda name: errors[name])
    return {
        "operation": operation, "dtype": dtype, "contender": contender.name, "ours": contender.ours,
        "worst_ulp": errors[at], "worst_case": at, "cases": len(errors),
    }  # fmt: skip
