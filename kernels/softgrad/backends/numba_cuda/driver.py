"""The few services of the CUDA driver that the backend needs, by way of `cuda.bindings`, which Numba brings.

A launch hands its arguments over as one block of bytes: no array is typed, wrapped or unpacked on the way, which is
what Numba's own dispatcher spends its time on.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from softgrad.backends.cuda.parcel import Parcels
from softgrad.backends.numba_cuda.binaries import Binary

cu: Any = import_module("cuda.bindings.driver")  # which has no annotations
_SUCCESS = cu.CUresult.CUDA_SUCCESS


def _obstacle() -> str | None:
    """Why there is no device; None if there is one."""
    try:
        (error,) = cu.cuInit(0)
        count = cu.cuDeviceGetCount()[1] if error == _SUCCESS else 0
    except RuntimeError as absent:  # no driver at all
        return str(absent).splitlines()[0]
    return None if count else "the driver finds none"


_reason = _obstacle()
if _reason:
    raise ImportError(f"numba-cuda is installed, but there is no CUDA device: {_reason}")


class Function:
    """A kernel in the memory of a device."""

    def __init__(self, handle: Any, threads: int) -> None:
        self.handle, self.threads = handle, threads
        self.shared_bytes = 48 << 10  # what every kernel may have unasked


class Driver:
    """Every call is for one device, by its number, and leaves the caller's current context as it was."""

    def __init__(self) -> None:
        self._contexts: dict[int, Any] = {}
        self._modules: list[Any] = []
        self._parcels = Parcels()

    def capability(self, device: int) -> tuple[int, int]:
        """Compute capability."""
        names = cu.CUdevice_attribute
        major = self._attribute(device, names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
        return major, self._attribute(device, names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)

    def shared_limit(self, device: int) -> int:
        """Bytes of shared memory that one block can have."""
        return self._attribute(device, cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)

    def load(self, binary: Binary, threads: int, device: int) -> Function:
        """Bring machine code to a device."""
        with self._on(device):
            module = _checked(cu.cuModuleLoadData(binary.code))
            self._modules.append(module)
            return Function(_checked(cu.cuModuleGetFunction(module, binary.entry.encode())), threads)

    def launch(
        self, function: Function, grid: int, shared_bytes: int, stream: int, arguments: bytes, device: int
    ) -> None:
        """Run a kernel on a stream."""
        if shared_bytes > function.shared_bytes:
            attribute = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            with self._on(device):
                _checked(cu.cuFuncSetAttribute(function.handle, attribute, shared_bytes))
            function.shared_bytes = shared_bytes
        extra = self._parcels.mine.extra(arguments)
        launch = (function.handle, grid, 1, 1, function.threads, 1, 1, shared_bytes, stream, 0, extra)
        if self._is_current(device):
            _checked(cu.cuLaunchKernel(*launch))
        else:
            with self._on(device):
                _checked(cu.cuLaunchKernel(*launch))

    def zeros(self, size: int, device: int) -> int:
        """Address of new memory of a device, all 0; it is never given back."""
        with self._on(device):
            pointer = _checked(cu.cuMemAlloc(size))
            _checked(cu.cuMemsetD8(pointer, 0, size))
            _checked(cu.cuStreamSynchronize(0))  # for the other streams
            return int(pointer)

    def read(self, pointer: int, size: int, stream: int, device: int) -> bytes:
        """Bytes of a device, once all that its stream was given before has run."""
        host = bytearray(size)
        if size:
            with self._on(device):
                view = (ctypes.c_char * size).from_buffer(host)
                _checked(cu.cuMemcpyDtoHAsync(ctypes.addressof(view), pointer, size, stream))
                _checked(cu.cuStreamSynchronize(stream))
        return bytes(host)

    def write(self, pointer: int, data: bytes, stream: int, device: int) -> None:
        """Bytes to a device, in its stream's order."""
        if data:
            with self._on(device):
                _checked(cu.cuMemcpyHtoDAsync(pointer, data, len(data), stream))
                _checked(cu.cuStreamSynchronize(stream))

    def _attribute(self, device: int, attribute: Any) -> int:
        return int(_checked(cu.cuDeviceGetAttribute(attribute, _checked(cu.cuDeviceGet(device)))))

    def _is_current(self, device: int) -> bool:
        error, current = cu.cuCtxGetDevice()
        return error == _SUCCESS and int(current) == device

    @contextmanager
    def _on(self, device: int) -> Iterator[None]:
        if self._is_current(device):
            yield
            return
        context = self._contexts.get(device)
        if context is None:
            context = _checked(cu.cuDevicePrimaryCtxRetain(_checked(cu.cuDeviceGet(device))))
            self._contexts[device] = context
        _checked(cu.cuCtxPushCurrent(context))
        try:
            yield
        finally:
            _checked(cu.cuCtxPopCurrent())


def _checked(result: tuple[Any, ...]) -> Any:
    """What a call of the driver returned, without the error code; RuntimeError if there is one."""
    error = result[0]
    if error != _SUCCESS:
        name = cu.cuGetErrorName(error)[1]
        raise RuntimeError(f"the CUDA driver reports {name.decode() if name else error}")
    return result[1] if len(result) > 1 else None
