"""Multinomial logistic regression on scikit-learn's digits, fitted three ways to the same optimum.

The model: logits = X W + b.  The objective, scikit-learn's with C = 1: mean cross-entropy + ‖W‖² / (2n).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table
from scipy.optimize import minimize
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

import softgrad
from softgrad import naive

STEPS = 6
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Fit:
    """One optimiser's result."""

    name: str
    parameters: np.ndarray
    objective: float
    evaluations: int
    seconds: float
    in_derivatives: float | None  # of these, in the loss and its derivatives
    history: tuple[float, ...]  # the objective after each iteration


@dataclass(frozen=True)
class Fits:
    """All results on the same data."""

    problem: Problem
    fits: list[Fit]
    reference: Fit
    seconds_per_gradient: dict[str, float]

    @property
    def agree(self) -> bool:
        """Whether every fit reaches scikit-learn's optimum: same objective, same coefficients."""
        return all(
            abs(fit.objective - self.reference.objective) < 1e-8 and self._difference(fit) < 1e-3 for fit in self.fits
        )

    def _difference(self, fit: Fit) -> float:
        return float(np.abs(self.problem.standard(fit.parameters) - self.reference.parameters).max())

    def table(self) -> Table:
        """As a table."""
        n, features, classes = self.problem.sizes
        table = Table(
            "fitted by", "objective", "accuracy", "calls", "seconds", "in derivatives", "max |Δ coefficient|",
            title=f"Multinomial logistic regression on {n} handwritten digits ({features} features, {classes} classes)",
            title_justify="left",
            caption="Per gradient of the loss: " + ", ".join(
                f"{name} {1e3 * seconds:.2f} ms" for name, seconds in self.seconds_per_gradient.items()
            ),
            caption_justify="left",
        )  # fmt: skip
        for fit in [*self.fits, self.reference]:
            table.add_row(
                fit.name,
                f"{fit.objective:.12f}",
                f"{self.problem.accuracy(fit.parameters):.2%}",
                str(fit.evaluations),
                f"{fit.seconds:.2f}",
                "" if fit.in_derivatives is None else f"{fit.in_derivatives:.3f}",
                "" if fit is self.reference else f"{self._difference(fit):.1e}",
            )
        return table


class Problem:
    """Data, objective, gradient and Hessian product; parameters are W and b in one vector."""

    def __init__(self) -> None:
        x, self.y = load_digits(return_X_y=True)
        self.x = x / 16.0
        n, features, classes = self.sizes = (*x.shape, int(self.y.max()) + 1)
        self.parameters = (features + 1) * classes
        self.penalty = 1.0 / n
        self.in_derivatives = 0.0  # seconds spent in the loss and its derivatives

    def split(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """W (features, classes) and b (classes,)."""
        _, features, classes = self.sizes
        return parameters[: features * classes].reshape(features, classes), parameters[features * classes :]

    def logits(self, parameters: np.ndarray) -> np.ndarray:
        """X W + b."""
        w, b = self.split(parameters)
        return self.x @ w + b

    def value_and_grad(self, parameters: np.ndarray, fused: bool = True) -> tuple[float, np.ndarray]:
        """Objective and gradient; by the full Jacobian if not `fused`."""
        logits = self.logits(parameters)
        started = time.perf_counter()
        if fused:
            loss, grad = softgrad.cross_entropy_value_and_grad(logits, self.y)
        else:
            loss, grad = naive.cross_entropy(logits, self.y), naive.cross_entropy_grad(logits, self.y)
        self.in_derivatives += time.perf_counter() - started
        w, _ = self.split(parameters)
        return float(loss) + 0.5 * self.penalty * np.sum(w * w), self._pull_back(grad, w)

    def hessian_product(self, parameters: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Hessian of the objective times a direction."""
        w, _ = self.split(direction)
        tangent, logits = self.logits(direction), self.logits(parameters)
        started = time.perf_counter()
        moved = softgrad.cross_entropy_hvp(tangent, logits=logits, targets=self.y)
        self.in_derivatives += time.perf_counter() - started
        return self._pull_back(moved, w)

    def _pull_back(self, grad: np.ndarray, w: np.ndarray) -> np.ndarray:
        return np.concatenate([(self.x.T @ grad + self.penalty * w).ravel(), grad.sum(axis=0)])

    def accuracy(self, parameters: np.ndarray) -> float:
        """Share of the digits recognised."""
        return float((self.logits(parameters).argmax(axis=1) == self.y).mean())

    def standard(self, parameters: np.ndarray) -> np.ndarray:
        """With b centred: adding one number to every logit changes nothing, so b is free by a constant."""
        w, b = self.split(parameters)
        return np.concatenate([w.ravel(), b - b.mean()])


@threadpool_limits.wrap(limits=1, user_api="blas")  # for matrices so small, BLAS threads wait more than they work
def run(step: Callable[[str], None]) -> Fits:
    """Fit by L-BFGS with fused gradients and with the full Jacobian's, by Newton, and by scikit-learn."""
    problem = Problem()
    step("compiling what is called for the first time")
    start = np.zeros(problem.parameters)
    problem.value_and_grad(start)
    problem.hessian_product(start, start)
    step("fitting: L-BFGS, fused gradient")
    fits = [_minimize(problem, "L-BFGS, fused", problem.value_and_grad, method="L-BFGS-B")]
    step("fitting: Newton, Hessian products")
    newton = {"method": "trust-ncg", "hessp": problem.hessian_product}
    fits.append(_minimize(problem, "Newton, fused", problem.value_and_grad, **newton))
    step("fitting: L-BFGS, full Jacobian")
    by_jacobian = {"args": (False,), "method": "L-BFGS-B"}
    fits.append(_minimize(problem, "L-BFGS, full Jacobian", problem.value_and_grad, **by_jacobian))
    step("fitting: scikit-learn")
    reference = _scikit_learn(problem)
    step("timing one gradient")
    logits = problem.logits(reference.parameters)
    seconds = {
        "fused": _median_seconds(lambda: softgrad.cross_entropy_grad(logits, problem.y)),
        "full Jacobian": _median_seconds(lambda: naive.cross_entropy_grad(logits, problem.y)),
    }
    return Fits(problem, fits, reference, seconds)


def _minimize(problem: Problem, name: str, value_and_grad: Callable[..., Any], **how: Any) -> Fit:
    history = []
    options = {"gtol": TOLERANCE, "maxiter": 5000}
    if how["method"] == "L-BFGS-B":
        options |= {"ftol": 0.0, "maxfun": 50000, "maxcor": 30}
    problem.in_derivatives = 0.0
    started = time.perf_counter()
    result = minimize(
        value_and_grad,
        np.zeros(problem.parameters),
        jac=True,
        options=options,
        callback=lambda intermediate_result: history.append(float(intermediate_result.fun)),
        **how,
    )
    seconds = time.perf_counter() - started
    return Fit(name, result.x, float(result.fun), int(result.nfev), seconds, problem.in_derivatives, tuple(history))


def _scikit_learn(problem: Problem) -> Fit:
    started = time.perf_counter()
    model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-12, max_iter=1000).fit(problem.x, problem.y)
    seconds = time.perf_counter() - started
    parameters = problem.standard(np.concatenate([model.coef_.T.ravel(), model.intercept_]))
    objective, _ = problem.value_and_grad(parameters)
    return Fit("scikit-learn", parameters, objective, int(model.n_iter_.max()), seconds, None, ())


def _median_seconds(call: Callable[[], Any], times: int = 9) -> float:
    call()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))
