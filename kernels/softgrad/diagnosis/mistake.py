"""One row of the catalogue: a mistake, in words, in a formula, as a corrected line, and as the numbers it leads to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from softgrad.diagnosis.question import LOSSES, PRODUCTS, Question

Changes = Mapping[str, Any]
Ways = Callable[[Question], Iterable[tuple[str, Changes]]]

# The corrected line for each question: z the logits, A = softmax(z), T the targets (one-hot), N the rows that count.
RIGHT_LINE = {
    "softmax": "e = np.exp(z - z.max(axis, keepdims=True)); A = e / e.sum(axis, keepdims=True)",
    "log_softmax": "u = z - z.max(axis, keepdims=True); log_A = u - np.log(np.exp(u).sum(axis, keepdims=True))",
    "jacobian": "J = A[..., :, None] * (np.eye(C) - A[..., None, :])        # A = softmax(z), not z",
    "softmax_jvp": "Jv = A * (v - (A * v).sum(axis, keepdims=True))        # A = softmax(z), not z",
    "softmax_vjp": "dz = A * (g - (A * g).sum(axis, keepdims=True))        # A = softmax(z), not z",
    "cross_entropy": "loss = -log_A[np.arange(B), t].sum() / N        # log_A = log_softmax(z)",
    "cross_entropy_grad": "dz = A.copy(); dz[np.arange(B), t] -= 1; dz /= N        # A = softmax(z)",
}


def _never(question: Question) -> Iterable[tuple[str, Changes]]:
    return ()


@dataclass(frozen=True)
class Mistake:
    """A mistake that people make: in words, as a corrected line, and as changes of the recipe."""

    id: str
    title: str
    why: str
    formula: str
    fix: Mapping[str, str]  # by question; "*" for all others; RIGHT_LINE where neither is there
    ways: Ways = _never
    """The ways of making it at this question: a note, and the changes of the recipe.  None for mistakes that are
    recognised otherwise (a factor, a layout, an error)."""
    rare_ways: Ways = _never
    """Ways that are looked for alone, or with a factor or a layout, but not together with others, and that are
    believed only where no usual way gives the same numbers."""

    def corrected(self, what: str) -> str:
        """The corrected line of code."""
        return self.fix.get(what) or self.fix.get("*") or RIGHT_LINE[what]


@dataclass(frozen=True)
class Way:
    """One way of making a mistake: applicable, with the changes it makes to the recipe."""

    mistake: str
    note: str
    changes: Changes
    rare: bool = False


def has_jacobian(q: Question) -> bool:
    """Whether a product with the Jacobian, or the matrix itself, is asked for."""
    return q.what in PRODUCTS or q.what == "jacobian"


def derivative(q: Question) -> bool:
    """Whether a Jacobian can enter: the loss's gradient may be written dE/dA · J."""
    return has_jacobian(q) or q.what == "cross_entropy_grad"


def is_loss(q: Question) -> bool:
    """Whether the loss or its gradient is asked for."""
    return q.what in LOSSES
