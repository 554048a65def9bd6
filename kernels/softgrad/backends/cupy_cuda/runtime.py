"""Compiles the kernels for the device at hand, once each, and launches them on the call's stream."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import cupy
import numpy as np
from cupy.cuda import driver

from softgrad.backends.cuda import capture
from softgrad.backends.cuda.buffers import StreamBuffers
from softgrad.backends.cuda.kernels import Kernel
from softgrad.backends.cuda.parcel import Parcels
from softgrad.backends.cuda.scratch import SCRATCH_BYTES
from softgrad.backends.cuda.spare import offset, part
from softgrad.backends.cupy_cuda import arrays

# --fmad=false: multiplications and additions are fused where the source says so, the same in every variant of a kernel.
# CuPy adds -ftz=true; the kernels stay clear of subnormal numbers.
OPTIONS = ("-std=c++17", "--fmad=false")
# Shared memory that a block may have without a word to the driver.
UNASKED = 48 * 1024


class _Function(NamedTuple):
    """A kernel on the device that it was compiled for."""

    pointer: int
    threads: int
    shared_bytes: int
    kept: tuple[Any, ...]  # alive


class CupyRuntime:
    """What the primitives need of CuPy; see `softgrad.backends.cuda.primitives.Runtime`."""

    def __init__(self) -> None:
        # By the kernel's identity, which is quicker to look up than its value: kernels are made once and kept.
        self._functions: dict[tuple[int, int], _Function] = {}
        self._parcels = Parcels()
        self._scratch = StreamBuffers(SCRATCH_BYTES, self._zeros)
        self._kept: list[cupy.ndarray] = []
        self._clusters: dict[int, bool] = {}

    def pointer(self, array: cupy.ndarray) -> int:
        """Address of the first element."""
        return array.data.ptr

    def empty(self, shape: tuple[int, ...], dtype: Any, like: cupy.ndarray, spare: int = 0) -> cupy.ndarray:
        """A new C-contiguous array on the device of `like`, and spare bytes behind it."""
        if not spare:
            return arrays.empty(shape, dtype, like)
        if arrays.call.library == "torch":
            return part(partial(arrays.empty, like=like), shape, dtype, spare)
        size = offset(shape, dtype) + spare
        if like.data.device_id == cupy.cuda.runtime.getDevice():
            return cupy.ndarray(shape, dtype, cupy.cuda.alloc(size))
        with like.device:
            return cupy.ndarray(shape, dtype, cupy.cuda.alloc(size))

    def convert(self, array: cupy.ndarray, dtype: Any) -> cupy.ndarray:
        """A C-contiguous copy in another dtype."""
        array = arrays.aligned(array)
        with array.device, arrays.on_stream():
            return array.astype(dtype, order="C")

    def has_clusters(self, like: cupy.ndarray) -> bool:
        """Whether blocks of the device of `like` can form clusters."""
        device = like.data.device_id
        known = self._clusters.get(device)
        if known is None:
            # sm_120 has clusters, but its kernels want more registers than a multiprocessor can give to the largest.
            known = self._clusters[device] = 90 <= int(like.device.compute_capability) < 120
        return known

    def scratch(self, like: cupy.ndarray) -> int:
        """Address of `SCRATCH_BYTES` that belong to the call's stream and capture, zero at first."""
        device, stream = like.data.device_id, arrays.call.stream
        if stream is None:
            stream = cupy.cuda.get_current_stream(device).ptr
        return self._scratch.of(device, stream, capture.capture_of(stream) if stream else 0)

    def _zeros(self, size: int, device: int) -> int:
        # On a stream of its own: the call's may be one that captures.
        with cupy.cuda.Device(device), cupy.cuda.Stream(non_blocking=True) as stream:
            memory = cupy.zeros(size, np.uint8)
            stream.synchronize()  # for the other streams
        self._kept.append(memory)
        return int(memory.data.ptr)

    def launch(self, kernel: Kernel, grid: int, arguments: bytes, like: cupy.ndarray) -> None:
        """Run a kernel, compiled on its first use on a device."""
        device = like.data.device_id
        try:  # whether this thread's context is the device's; it may have none yet
            elsewhere = driver.ctxGetDevice() != device
        except driver.CUDADriverError:
            elsewhere = True
        if elsewhere:
            with cupy.cuda.Device(device):
                cupy.cuda.runtime.memGetInfo()  # makes the device's context this thread's, where it has none yet
                return self.launch(kernel, grid, arguments, like)
        function = self._functions.get((id(kernel), device))
        if function is None:
            function = self._functions[id(kernel), device] = _compiled(kernel)
        stream = arrays.call.stream
        if stream is None:
            stream = cupy.cuda.get_current_stream().ptr
        pointer, threads, shared_bytes, _ = function
        parameters = self._parcels.mine.parameters(arguments)
        # The driver itself: `RawKernel.__call__` would look at every argument, and at the stream, again.
        driver.launchKernel(pointer, grid, 1, 1, threads, 1, 1, shared_bytes, stream, parameters, 0)
        return None

    def on_stream(self) -> AbstractContextManager[Any]:
        """CuPy's own operations on the call's stream, while the context lasts."""
        return arrays.on_stream()


def _compiled(kernel: Kernel) -> _Function:
    """For the current device."""
    raw = cupy.RawModule(code=kernel.text(), options=OPTIONS).get_function(kernel.name)
    if kernel.shared_bytes > UNASKED:
        raw.max_dynamic_shared_size_bytes = kernel.shared_bytes
    return _Function(raw.kernel.ptr, kernel.regime.threads, kernel.shared_bytes, (raw, kernel))
