"""What stands for JAX's arrays, version 0.10: read-only, on streams of their own, of a type of the module `jaxlib`."""

from __future__ import annotations

import types
from typing import Any

import numpy as np

from tests.fake_cuda.machine import Capsule, Machine, address_of, placed


def module(machine: Machine) -> types.ModuleType:
    """What stands for `jax.numpy`; `ordered` are the streams that arrays were handed over to, in order."""
    jax: Any = types.ModuleType("jax.numpy")
    jax.ordered = []

    class ArrayImpl:
        def __init__(self, host: np.ndarray, owner: Any, device: int) -> None:
            self.host, self._owner, self._device = host, owner, device
            self.dtype, self.shape, self.ndim = host.dtype, host.shape, host.ndim

        def __array_namespace__(self) -> Any:
            return jax

        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, self._device)

        def __dlpack__(
            self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
        ) -> Capsule:
            jax.ordered.append(stream)
            return Capsule(address_of(self.host), self.host, self._device, self)

    ArrayImpl.__module__ = "jaxlib._jax"

    def asarray(array: Any, *, device: int = 0) -> Any:
        block, host = placed(machine, np.asarray(array), device)
        return ArrayImpl(host, block, device)

    def from_dlpack(array: Any) -> Any:
        found = array.__dlpack__(stream=0x1A, max_version=(1, 1)).consume()
        return ArrayImpl(found.host, found, found.device)

    jax.asarray, jax.from_dlpack = asarray, from_dlpack
    return jax
