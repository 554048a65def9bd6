"""Mistakes in the Jacobian and in the chain rule: what is multiplied by what."""

from __future__ import annotations

from collections.abc import Iterable

from softgrad.diagnosis.mistake import Changes, Mistake, Ways, derivative
from softgrad.diagnosis.question import PRODUCTS, Question


def _jacobian(*kinds: str, matrix: bool = True, product: bool = True) -> Ways:
    def ways(q: Question) -> Iterable[tuple[str, Changes]]:
        if derivative(q) and (matrix if q.what == "jacobian" else product):
            for kind in kinds:
                yield "", {"jacobian": kind}

    return ways


def _overwritten(q: Question) -> Iterable[tuple[str, Changes]]:
    if derivative(q):
        yield "", {"jacobian": "diagonal overwritten"}
        yield "and nothing is written off the diagonal", {"jacobian": "diagonal overwritten, nothing else"}


def _diagonal_only(q: Question) -> Iterable[tuple[str, Changes]]:
    if derivative(q):
        yield "only the derivatives aᵢ(1 − aᵢ)", {"jacobian": "diagonal only"}
    if q.what == "jacobian":
        yield "only the diagonal aᵢ(1 − aᵢ), as a vector", {"output": "diagonal"}
    elif q.what in PRODUCTS or q.what == "cross_entropy_grad":
        for output in ("broadcast", "broadcast columns"):
            yield "`*` multiplies the vector into the matrix entry by entry", {"output": output}


def _unweighted(q: Question) -> Iterable[tuple[str, Changes]]:
    if derivative(q):
        yield "", {"jacobian": "unweighted sum"}


MISTAKES = (
    Mistake(
        "diagonal-overwritten",
        "a lost `else`: −aᵢ² on the diagonal",
        "The diagonal is written as aᵢ(1 − aᵢ) and then overwritten, in the same pass of the loop, by −aᵢaⱼ. What is "
        "left is −A Aᵀ, without diag(A).",
        "∂aᵢ/∂zᵢ = aᵢ(1 − aᵢ);  ∂aᵢ/∂zⱼ = −aᵢaⱼ only for i ≠ j",
        {
            "jacobian": "J[i][j] = a[i] * (1 - a[i]) if i == j else -a[i] * a[j]",
            "softmax_jvp": "Jv = A * v - A * (A * v).sum(axis, keepdims=True)        # A * v is the diagonal's part",
            "softmax_vjp": "dz = A * g - A * (A * g).sum(axis, keepdims=True)        # A * g is the diagonal's part",
            "*": "J[i][j] = a[i] * (1 - a[i]) if i == j else -a[i] * a[j]",
        },
        _overwritten,
    ),
    Mistake(
        "diagonal-only",
        "an elementwise product in place of the matrix product",
        "Each aᵢ depends on every zⱼ, so the derivative is a matrix and the chain rule a matrix product; multiplying "
        "entry by entry drops everything off the diagonal.",
        "(J v)ᵢ = Σⱼ Jᵢⱼ vⱼ = aᵢ(vᵢ − Σⱼ aⱼvⱼ)",
        {
            "jacobian": "J = np.diag(a) - np.outer(a, a)",
            "cross_entropy_grad": "dz = dE_dA @ J        # row by row; equals A - T. Not dE_dA * J",
        },
        _diagonal_only,
    ),
    Mistake(
        "jacobian-ignored",
        "the Jacobian left out",
        "What was returned is the derivative with respect to A; softmax still stands between A and Z.",
        "dE/dZ = Jᵀ dE/dA",
        {"cross_entropy_grad": "dz = (A - T) / N        # −T/A is dE/dA; times J it becomes A − T"},
        _jacobian("identity"),
    ),
    Mistake(
        "outer-product-forgotten",
        "diag(A) alone: −A Aᵀ is missing",
        "Raising zⱼ lowers every other probability: that is the term −aᵢaⱼ.",
        "J = diag(A) − A Aᵀ",
        {"jacobian": "J = np.diag(a) - np.outer(a, a)"},
        _jacobian("no outer product"),
    ),
    Mistake(
        "outer-product-added",
        "diag(A) + A Aᵀ: the sign of the second term",
        "Raising zⱼ lowers the other probabilities, so the outer product is subtracted.",
        "J = diag(A) − A Aᵀ",
        {"jacobian": "J = np.diag(a) - np.outer(a, a)"},
        _jacobian("outer product added", "off-diagonal positive"),
    ),
    Mistake(
        "diagonal-zero",
        "zeros on the diagonal",
        "The off-diagonal −aᵢaⱼ is there, the diagonal aᵢ(1 − aᵢ) is not.",
        "∂aᵢ/∂zᵢ = aᵢ(1 − aᵢ)",
        {"jacobian": "J[i][i] = a[i] * (1 - a[i])"},
        _jacobian("diagonal zero"),
    ),
    Mistake(
        "diagonal-formula-everywhere",
        "aᵢ(1 − aⱼ) for i ≠ j too",
        "The 1 belongs to the diagonal only: it is the Kronecker delta [i = j].",
        "Jᵢⱼ = aᵢ([i=j] − aⱼ)",
        {"jacobian": "J = a[:, None] * (np.eye(C) - a[None, :])        # not 1 - a"},
        _jacobian("p_i (1 - p_j)", "p_j (1 - p_i)"),
    ),
    Mistake(
        "sum-not-weighted",
        "Σv in place of ΣA·v",
        "The subtracted mean is weighted by the probabilities.",
        "(J v)ᵢ = aᵢ(vᵢ − Σⱼ aⱼvⱼ)",
        {},
        _unweighted,
    ),
    Mistake(
        "log-softmax-derivative",
        "the derivative of log-softmax",
        "log-softmax's Jacobian is I − 1 Aᵀ: it lacks the factor aᵢ.",
        "softmax: aᵢ(vᵢ − Σⱼ aⱼvⱼ);  log-softmax: vᵢ − Σⱼ aⱼvⱼ",
        {},
        _jacobian("log-softmax", "log-softmax, transposed"),
    ),
)
