"""Z = (1.75, 1.75), T = (0, 1): the chain rule through the softmax Jacobian gives A − T."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rich.table import Table

import softgrad
from softgrad import naive


@dataclass(frozen=True)
class Example:
    """The numbers of the worked example, and whether the three ways agree."""

    rows: dict[str, str]
    agrees: bool

    def table(self) -> Table:
        """As a table."""
        table = Table(
            "", "", title="The chain rule, worked: dE/dA · J = A − T", title_justify="left", show_header=False
        )
        for name, value in self.rows.items():
            table.add_row(name, value)
        return table


def run() -> Example:
    """Work the example three ways: matrix product, Jacobian-vector product, fused gradient."""
    z, t = np.array([1.75, 1.75]), np.array([0.0, 1.0])
    a = softgrad.softmax(z)
    error = -t / a
    jacobian = naive.softmax_jacobian(logits=z)
    by_matrix = error @ jacobian
    by_product = softgrad.softmax_vjp(error, logits=z)
    fused = softgrad.cross_entropy_grad(z, t)
    return Example(
        {
            "Z, the logits": _spell(z),
            "A = softmax(Z)": _spell(a),
            "T, the targets": _spell(t),
            "dE/dA = −T/A": _spell(error),
            "J = diag(A) − A Aᵀ": _spell(jacobian),
            "dE/dA · J, the matrix product": _spell(by_matrix),
            "softmax_vjp(dE/dA, logits=Z)": _spell(by_product),
            "cross_entropy_grad(Z, T)": _spell(fused),
        },
        agrees=bool(np.allclose([by_matrix, by_product, fused], a - t, rtol=0, atol=1e-15)),
    )


def _spell(array: np.ndarray) -> str:
    return np.array2string(array, separator=", ").replace("\n", "")
