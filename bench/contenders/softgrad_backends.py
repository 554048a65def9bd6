"""softgrad itself, one contender per backend: `out` given, targets checked as by default."""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

import softgrad
from bench.cases import DTYPES
from bench.contenders.base import Call, Contender


class Backend(Contender):
    """A backend over NumPy arrays."""

    ours = True

    def __init__(self, backend: str) -> None:
        self.name = backend

    def active(self) -> AbstractContextManager[Any]:
        """The backend is forced: several serve the same arrays."""
        return softgrad.use_backend(self.name)

    def softmax(self, logits: Any, out: Any) -> Call:
        return lambda: softgrad.softmax(logits, out=out)

    def log_softmax(self, logits: Any, out: Any) -> Call:
        return lambda: softgrad.log_softmax(logits, out=out)

    def logsumexp(self, logits: Any, out: Any) -> Call:
        return lambda: softgrad.logsumexp(logits)

    def softmax_vjp(self, logits: Any, tangent: Any, out: Any) -> Call:
        return lambda: softgrad.softmax_vjp(tangent, logits=logits, out=out)

    def softmax_jvp(self, logits: Any, tangent: Any, out: Any) -> Call:
        return lambda: softgrad.softmax_jvp(tangent, logits=logits, out=out)

    def softmax_vjp_from_probs(self, probs: Any, tangent: Any, out: Any) -> Call:
        return lambda: softgrad.softmax_vjp(tangent, probs=probs, out=out, check_probs=False)

    def cross_entropy_value_and_grad(self, logits: Any, targets: Any, out: Any) -> Call:
        return lambda: softgrad.cross_entropy_value_and_grad(logits, targets, out=out)

    def cross_entropy_hvp(self, logits: Any, tangent: Any, targets: Any, out: Any) -> Call:
        return lambda: softgrad.cross_entropy_hvp(tangent, logits=logits, targets=targets, out=out)


class CudaBackend(Backend):
    """A backend over device arrays: CuPy's where CuPy is installed, else Numba's."""

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        if importlib.util.find_spec("cupy") is not None:
            import cupy

            self.library, self._to_device, self._to_host = "cupy", cupy.asarray, cupy.asnumpy
            if int(cupy.__version__.partition(".")[0]) < 14:  # it has no bfloat16
                self.dtypes = tuple(name for name in DTYPES if name != "bfloat16")
        else:
            from numba import cuda

            # NumPy exports no buffer of bfloat16, which Numba would copy from: its bits then.
            self.library = "numba"
            self._to_device = lambda x: (
                cuda.to_device(x.view(np.uint16)).view(x.dtype) if x.dtype.name == "bfloat16" else cuda.to_device(x)
            )
            self._to_host = lambda x: x.copy_to_host()

    def array(self, x: np.ndarray) -> Any:
        """A NumPy array copied to the device."""
        return self._to_device(x)

    def numpy(self, x: Any) -> np.ndarray:
        """A result copied back to the host."""
        return np.asarray(x) if isinstance(x, (np.ndarray, np.generic)) else self._to_host(x)
