"""scipy.special, and cupyx.scipy.special on a GPU."""

from __future__ import annotations

from typing import Any

from bench.contenders.base import Call, Contender


class Special(Contender):
    """softmax, log_softmax, logsumexp: no derivative, no `out`."""

    dtypes = ("float64", "float32")

    def __init__(self, device: str) -> None:
        self.name = "cupyx" if device == "gpu" else "scipy"
        if device == "gpu":
            import cupy
            from cupyx.scipy import special

            self.library, self.array, self.numpy = "cupy", cupy.asarray, cupy.asnumpy
        else:
            from scipy import special
        self._special = special

    def softmax(self, logits: Any, out: Any) -> Call:
        return lambda: self._special.softmax(logits, axis=-1)

    def log_softmax(self, logits: Any, out: Any) -> Call:
        return lambda: self._special.log_softmax(logits, axis=-1)

    def logsumexp(self, logits: Any, out: Any) -> Call:
        return lambda: self._special.logsumexp(logits, axis=-1)
