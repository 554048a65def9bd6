"""JAX: `jax.jit` over jax.nn and optax, on the CPU or a GPU."""

from __future__ import annotations

import os
from typing import Any, ClassVar

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else JAX takes most of a GPU for itself

import jax
import numpy as np
import optax

from bench.contenders.base import Call, Contender

jax.config.update("jax_enable_x64", True)  # float64 cases; float32 stays float32


def _loss(z: Any, targets: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(z, targets).mean()


def _softmax(z: Any) -> Any:
    return jax.nn.softmax(z, axis=-1)


class Jax(Contender):
    """Every operation is one jitted function; on the CPU each call is waited for with `block_until_ready`."""

    name = library = "jax"
    notes: ClassVar = {
        "softmax_vjp": "jit of jax.vjp",
        "softmax_jvp": "jit of jax.jvp",
        "cross_entropy_value_and_grad": "jit of value_and_grad of optax's loss",
        "cross_entropy_hvp": "jit of jvp of grad",
    }

    def __init__(self, device: str) -> None:
        self._device = jax.devices("cuda" if device == "gpu" else "cpu")[0]
        if device == "gpu":  # where it has streams of its own
            self.wait = jax.block_until_ready
        self._jitted = {
            "softmax": jax.jit(_softmax),
            "log_softmax": jax.jit(lambda z: jax.nn.log_softmax(z, axis=-1)),
            "logsumexp": jax.jit(lambda z: jax.nn.logsumexp(z, axis=-1)),
            "softmax_vjp": jax.jit(lambda z, v: jax.vjp(_softmax, z)[1](v)[0]),
            "softmax_jvp": jax.jit(lambda z, v: jax.jvp(_softmax, (z,), (v,))[1]),
            "cross_entropy_value_and_grad": jax.jit(jax.value_and_grad(_loss)),
            "cross_entropy_hvp": jax.jit(
                lambda z, v, t: jax.jvp(lambda z: jax.grad(_loss)(z, t), (z,), (v,))[1],
            ),
        }

    def array(self, x: np.ndarray) -> Any:
        """Class indices as int32, JAX's own."""
        return jax.device_put(x.astype(np.int32) if x.dtype == np.int64 else x, self._device)

    def prepare(self, case: Any, inputs: Any, shared: Any = None) -> Call:
        """The call without `out`, which JAX does not have."""
        function = self._jitted[case.operation]
        arrays = [self.given(name, inputs, shared) for name in case.spec.inputs]
        return (lambda: function(*arrays)) if self.wait else lambda: jax.block_until_ready(function(*arrays))

    def obstacle(self, case: Any) -> str | None:
        """Only the operations in the table above take part."""
        return None if case.operation in self._jitted else f"has no {case.operation}"
