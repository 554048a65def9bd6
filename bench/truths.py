"""The truth of every operation, from tests/truth.py."""

from __future__ import annotations

import numpy as np

from bench.cases import Case
from bench.inputs import Inputs, known_rows
from tests import truth
from tests.real import Real
from tests.truth import Truth


def truths(operation: str, given: Inputs, reduction: str = "mean") -> tuple[Truth, ...]:
    """An operation's true results for inputs by name."""
    loss = {"targets": given.get("targets"), "reduction": reduction}
    if operation == "cross_entropy_value_and_grad":
        return truth.cross_entropy_value_and_grad(given["logits"], **loss)
    if operation == "cross_entropy_hvp":
        return (truth.cross_entropy_hvp(given["tangent"], logits=given["logits"], **loss),)
    if operation == "softmax_vjp_from_probs":
        return (truth.softmax_vjp(given["tangent"], probs=given["probs"]),)
    if operation in ("softmax_vjp", "softmax_jvp"):
        return (truth.softmax_jvp(given["tangent"], logits=given["logits"]),)
    return (getattr(truth, operation)(given["logits"]),)


def truths_of_distinct_rows(case: Case, inputs: Inputs) -> tuple[Truth, ...]:
    """The truth of set 0's distinct rows; a mean is over all rows, so each counts as often as it is repeated."""
    distinct = known_rows(case)
    known = {name: array[:distinct] for name, array in inputs.items() if name != "out"}
    if "targets" not in known:
        return truths(case.operation, known)
    *_, product = truths(case.operation, known, "sum")
    product = Truth(*(part / float(case.rows) for part in product))
    if case.operation == "cross_entropy_hvp":
        return (product,)
    repeats = Real(np.bincount(np.arange(case.rows) % distinct, minlength=distinct))
    per_row = truth.cross_entropy(known["logits"], known["targets"], reduction="none")
    return Truth(*((part * repeats).sum() / float(case.rows) for part in per_row)), product
