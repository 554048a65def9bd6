"""The textbook way: the full Jacobian, (B, C, C) numbers, where it fits."""

from __future__ import annotations

from typing import Any, ClassVar

from bench.cases import DTYPES, Case
from bench.contenders.base import Call, Contender
from softgrad import naive

MOST_BYTES = 1 << 29


class Naive(Contender):
    """`softgrad.naive` on NumPy or CuPy arrays."""

    name = "naive"
    dtypes = ("float64", "float32")
    notes: ClassVar = {
        "softmax_vjp": "full Jacobian, then the product",
        "cross_entropy_value_and_grad": "full Jacobian times −T/A",
    }

    def __init__(self, device: str) -> None:
        if device == "gpu":
            import cupy

            self.library, self.array, self.numpy = "cupy", cupy.asarray, cupy.asnumpy

    def obstacle(self, case: Case) -> str | None:
        """The full Jacobian fits only where classes are few."""
        size = case.rows * case.classes**2 * DTYPES[case.dtype]
        if hasattr(self, case.operation) and size > MOST_BYTES:
            return f"its Jacobian would take {size / 2**30:,.1f} GiB"
        return super().obstacle(case)

    def softmax_vjp(self, logits: Any, tangent: Any, out: Any) -> Call:
        return lambda: naive.softmax_vjp(tangent, logits=logits)

    def cross_entropy_value_and_grad(self, logits: Any, targets: Any, out: Any) -> Call:
        return lambda: (naive.cross_entropy(logits, targets), naive.cross_entropy_grad(logits, targets))
