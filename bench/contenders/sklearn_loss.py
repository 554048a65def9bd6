"""scikit-learn's HalfMultinomialLoss, the Cython loop behind LogisticRegression."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn._loss import HalfMultinomialLoss

from bench.cases import Case
from bench.contenders.base import Call, Contender


class HalfMultinomial(Contender):
    """Loss and gradient in one pass, unreduced: the mean's factor is not applied."""

    name = "sklearn"
    dtypes = ("float64", "float32")
    notes: ClassVar = {"cross_entropy_value_and_grad": "one pass; per-row loss and unscaled gradient"}

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def obstacle(self, case: Case) -> str | None:
        """Two classes are left out: scikit-learn has another loss for them."""
        return "takes three classes or more" if case.classes < 3 else super().obstacle(case)

    def cross_entropy_value_and_grad(self, logits: Any, targets: Any, out: Any) -> Call:
        loss = HalfMultinomialLoss(n_classes=logits.shape[1])
        y, per_row = targets.astype(logits.dtype), np.empty(len(logits), logits.dtype)
        return lambda: loss.loss_gradient(
            y_true=y, raw_prediction=logits, loss_out=per_row, gradient_out=out, n_threads=self._threads
        )

    def finish(self, case: Case, results: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
        """Take the mean that the function leaves out."""
        loss, grad = results
        return loss.mean(dtype=np.float64).astype(loss.dtype), grad / loss.dtype.type(case.rows)
