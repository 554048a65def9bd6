"""Compiles the kernels for the device at hand, once each, and launches them on the call's stream."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import cupy
import numpy as np

from softgrad.backends.cuda.kernels import Kernel
from softgrad.backends.cuda.scratch import SCRATCH_BYTES
from softgrad.backends.cupy_cuda import arrays

# --fmad=false: multiplications and additions are fused where the source says so, the same in every variant of a kernel.
# CuPy adds -ftz=true; the kernels stay clear of subnormal numbers.
OPTIONS = ("-std=c++17", "--fmad=false")


class _Stream:
    """A stream by its handle: all that a launch asks for, and CuPy's protocol for foreign streams."""

    def __init__(self, pointer: int) -> None:
        self.ptr = pointer

    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, self.ptr)


class CupyRuntime:
    """What the primitives need of CuPy; see `softgrad.backends.cuda.primitives.Runtime`."""

    def __init__(self) -> None:
        # By the kernel's identity, which is quicker to look up than its value: kernels are made once and kept.
        self._functions: dict[tuple[int, int], tuple[Kernel, Any]] = {}
        self._scratch: dict[tuple[int, int], cupy.ndarray] = {}
        self._clusters: dict[int, bool] = {}

    def pointer(self, array: cupy.ndarray) -> int:
        """Address of the first element."""
        return int(array.data.ptr)

    def empty(self, shape: tuple[int, ...], dtype: Any, like: cupy.ndarray) -> cupy.ndarray:
        """A new C-contiguous array on the device of `like`."""
        return arrays.empty(shape, dtype, like)

    def convert(self, array: cupy.ndarray, dtype: Any) -> cupy.ndarray:
        """A C-contiguous copy in another dtype."""
        with array.device, _current():
            return array.astype(dtype, order="C")

    def has_clusters(self, like: cupy.ndarray) -> bool:
        """Whether blocks of the device of `like` can form clusters."""
        device = like.device.id
        known = self._clusters.get(device)
        if known is None:
            # sm_120 has clusters, but its kernels want more registers than a multiprocessor can give to the largest.
            known = self._clusters[device] = 90 <= int(like.device.compute_capability) < 120
        return known

    def scratch(self, like: cupy.ndarray) -> int:
        """Address of `SCRATCH_BYTES` that belong to the call's stream, zero at first."""
        # Kept for ever: a captured graph may write to it at any time.
        key = like.device.id, _stream_pointer()
        memory = self._scratch.get(key)
        if memory is None:
            with like.device, _current():
                memory = self._scratch[key] = cupy.zeros(SCRATCH_BYTES, np.uint8)
        return int(memory.data.ptr)

    def launch(self, kernel: Kernel, grid: int, arguments: bytes, like: cupy.ndarray) -> None:
        """Run a kernel, compiled on its first use on a device."""
        device = like.device.id
        if device != cupy.cuda.runtime.getDevice():
            with like.device:
                return self.launch(kernel, grid, arguments, like)
        known = self._functions.get((id(kernel), device))
        if known is None:
            module = cupy.RawModule(code=kernel.text(), options=OPTIONS)
            known = self._functions[id(kernel), device] = kernel, module.get_function(kernel.name)
        function = known[1]
        # CuPy passes a NumPy array of one element by value, whatever its size.
        by_value = np.frombuffer(arguments, np.dtype((np.void, len(arguments))))
        stream = None if arrays.call.stream is None else _Stream(arrays.call.stream)
        function((grid,), (kernel.regime.threads,), (by_value,), shared_mem=kernel.regime.shared_bytes, stream=stream)
        return None

    def on_stream(self) -> AbstractContextManager[Any]:
        """CuPy's own operations on the call's stream, while the context lasts."""
        return _current()


def _stream_pointer() -> int:
    pointer = arrays.call.stream
    return int(cupy.cuda.get_current_stream().ptr) if pointer is None else pointer


def _current() -> AbstractContextManager[Any]:
    """CuPy's own operations, too, on the call's stream."""
    pointer = arrays.call.stream
    if pointer is None:
        return nullcontext()
    if hasattr(cupy.cuda.Stream, "from_external"):
        return cupy.cuda.Stream.from_external(_Stream(pointer))
    return cupy.cuda.ExternalStream(pointer)
