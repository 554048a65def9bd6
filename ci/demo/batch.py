"""One large batch on the best backend of the machine, against a copy of the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

import softgrad

# A language model's vocabulary; 256 MiB of logits.
SHAPE = (1335, 50257)
TIMES = 7
STEPS = TIMES + 1


@dataclass(frozen=True)
class Batch:
    """What one value-and-gradient of the batch took."""

    backend: str
    bytes: int
    seconds: float
    copy: float
    loss: float

    def table(self) -> Table:
        """As a table."""
        b, c = SHAPE
        table = Table(
            "", "seconds", "GB/s", "tokens/s",
            title=f"Cross-entropy and its gradient, {b} × {c} float32, backend {self.backend}: loss {self.loss:.6f}",
            title_justify="left",
            caption="A copy reads and writes the same bytes and computes nothing: the limit.",
            caption_justify="left",
        )  # fmt: skip
        for name, seconds in (("cross_entropy_value_and_grad", self.seconds), ("copy", self.copy)):
            table.add_row(name, f"{seconds:.4f}", f"{self.bytes / seconds / 1e9:.1f}", f"{b / seconds:,.0f}")
        return table


def run(step: Callable[[str], None]) -> Batch:
    """Time the batch and a copy of as many bytes in turn; medians."""
    xp, synchronize, name = _best()
    random = np.random.default_rng(0)
    logits = xp.asarray(random.standard_normal(SHAPE, dtype=np.float32))
    targets = xp.asarray(random.integers(SHAPE[1], size=SHAPE[0]))
    out = xp.empty_like(logits)
    ours: list[float] = []
    copies: list[float] = []
    step(f"one large batch: {name}, first call")
    loss, _ = softgrad.cross_entropy_value_and_grad(logits, targets, out=out)
    for _ in range(TIMES):
        step(f"one large batch: {name}")
        for seconds, call in (
            (ours, lambda: softgrad.cross_entropy_value_and_grad(logits, targets, out=out)),
            (copies, lambda: xp.copyto(out, logits)),
        ):
            synchronize()
            started = time.perf_counter()
            call()
            synchronize()
            seconds.append(time.perf_counter() - started)
    return Batch(name, 2 * logits.nbytes, float(np.median(ours)), float(np.median(copies)), float(loss))


def _best() -> tuple[Any, Callable[[], None], str]:
    """Array module, what waits for the device, and the backend's name."""
    state = softgrad.available_backends()
    if state.get("cupy") == "available":
        import cupy

        return cupy, cupy.cuda.get_current_stream().synchronize, "cupy"
    return np, lambda: None, "numba" if state["numba"] == "available" else "numpy"
