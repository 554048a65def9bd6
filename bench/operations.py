"""What is measured: each operation's inputs, results and byte model.

The byte model counts what has to cross memory once: every input read, every output written.  The time to copy as many
bytes, measured in the same run with as many threads, is the limit that each figure is a percentage of.
"""

from __future__ import annotations

from dataclasses import dataclass

INDEX_BYTES = 8  # class indices are int64


@dataclass(frozen=True, slots=True)
class Operation:
    """One public function of softgrad, as the benchmark calls it on (B, C) logits."""

    name: str
    inputs: tuple[str, ...]  # arguments of a contender's method of this name: logits, probs, tangent, targets
    formula: str
    target_reads: int = 0  # the mean's divisor costs a second read
    writes_rows: bool = True  # a (B, C) result; otherwise one number per row

    def bytes_moved(self, rows: int, classes: int, itemsize: int) -> int:
        """Bytes read and written, each once."""
        full = sum(name in ("logits", "probs", "tangent") for name in self.inputs)
        result = rows * classes * itemsize if self.writes_rows else rows * max(itemsize, 4)
        return full * rows * classes * itemsize + self.target_reads * rows * INDEX_BYTES + result

    @property
    def byte_model(self) -> str:
        """The model in words."""
        reads = [name if name != "targets" else f"targets ×{self.target_reads}" for name in self.inputs]
        return f"read {', '.join(reads)}; write {'B·C' if self.writes_rows else 'B'}"


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("softmax", ("logits",), "p"),
        Operation("log_softmax", ("logits",), "log p"),
        Operation("logsumexp", ("logits",), "log Σ exp z", writes_rows=False),
        Operation("softmax_vjp", ("logits", "tangent"), "Jᵀ·v at the logits"),
        Operation("softmax_vjp_from_probs", ("probs", "tangent"), "Jᵀ·v at the probabilities"),
        Operation("softmax_jvp", ("logits", "tangent"), "J·v at the logits"),
        Operation("cross_entropy_value_and_grad", ("logits", "targets"), "mean loss and (A − T) / B", target_reads=2),
        Operation(
            "cross_entropy_hvp", ("logits", "tangent", "targets"), "Hessian of the mean loss · v", target_reads=2
        ),
    )
}
