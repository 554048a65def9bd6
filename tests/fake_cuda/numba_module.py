"""What stands for `numba.cuda`, of numba-cuda 0.30, and its device arrays."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.fake_cuda.machine import Block, Capsule, CudaError, Machine, array_at


class Memory:
    """Of an array: `context` and, on request, a part of it."""

    def __init__(self, block: Any, pointer: int, size: int) -> None:
        self.block, self.pointer, self.size = block, pointer, size
        self.device_pointer, self.device_ctypes_pointer = pointer, ctypes.c_size_t(pointer)
        self.context = SimpleNamespace(device=SimpleNamespace(id=block.device))

    def view(self, start: int, stop: int | None = None) -> Memory:
        return Memory(self.block, self.pointer + start, (self.size if stop is None else stop) - start)


class DeviceNDArray:
    """What `numba.cuda.device_array` returns."""

    __cuda_ndarray__ = True

    def __init__(self, shape: Any, strides: Any, dtype: Any, stream: Any = 0, gpu_data: Any = None) -> None:
        self.shape, self.strides, self.dtype, self.stream = tuple(shape), tuple(strides), np.dtype(dtype), stream
        self.ndim, self.size = len(self.shape), int(np.prod(self.shape))
        self.gpu_data = gpu_data or Memory(SimpleNamespace(pointer=0, device=0), 0, 0)

    @property
    def device_ctypes_pointer(self) -> ctypes.c_size_t:
        return self.gpu_data.device_ctypes_pointer

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape, "strides": None if self.host.flags.c_contiguous else self.strides,
            "data": (self.gpu_data.pointer, False), "typestr": self.dtype.str,
            "stream": int(self.stream) if self.stream != 0 else None, "version": 3,
        }  # fmt: skip

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self.gpu_data.block.device)

    def __dlpack__(self, **_: Any) -> Capsule:
        raise AssertionError("Numba's DLPack makes the host wait")

    @property
    def host(self) -> np.ndarray:
        """The values."""
        return array_at(self.gpu_data.pointer, self.shape, self.strides, self.dtype, self.gpu_data.block)

    def copy_to_host(self) -> np.ndarray:
        return self.host.copy()

    def bind(self, stream: Any = 0) -> DeviceNDArray:
        return DeviceNDArray(self.shape, self.strides, self.dtype, stream, self.gpu_data)

    def view(self, dtype: Any) -> DeviceNDArray:
        assert np.dtype(dtype).itemsize == self.dtype.itemsize
        return DeviceNDArray(self.shape, self.strides, dtype, self.stream, self.gpu_data)

    def reshape(self, *shape: int) -> DeviceNDArray:
        host = self.host.reshape(*shape)
        return DeviceNDArray(host.shape, host.strides, self.dtype, self.stream, self.gpu_data)

    def __getitem__(self, at: Any) -> DeviceNDArray:
        part = self.host[at]
        start = part.__array_interface__["data"][0] - self.gpu_data.pointer if part.size else 0
        return DeviceNDArray(part.shape, part.strides, self.dtype, self.stream, self.gpu_data.view(start))


DeviceNDArray.__module__ = "numba.cuda.cudadrv.devicearray"


class Stream:
    """With a handle, as `numba.cuda.stream()` makes it."""

    def __init__(self, machine: Machine, handle: int) -> None:
        self._machine, self.handle = machine, ctypes.c_void_p(handle)

    def __int__(self) -> int:
        return self.handle.value or 0

    def synchronize(self) -> None:
        if int(self) in self._machine.capturing:
            raise CudaError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")


def to_device(machine: Machine, array: Any, *, device: int = 0, stream: Any = 0) -> DeviceNDArray:
    """An array with these values and these strides; views of one NumPy array share their memory here too."""
    array = np.asarray(array)
    base = array if array.base is None or not isinstance(array.base, np.ndarray) else array.base
    while isinstance(base.base, np.ndarray):
        base = base.base
    if id(base) not in machine.copies:
        block = machine.alloc(base.nbytes, device)
        machine.copies[id(base)] = base, block
        ctypes.memmove(block.pointer, base.__array_interface__["data"][0], base.nbytes)
    block = machine.copies[id(base)][1]
    offset = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return DeviceNDArray(
        array.shape, array.strides, array.dtype, stream, Memory(block, block.pointer + offset, base.nbytes)
    )


def module(machine: Machine) -> Any:
    """What stands for `numba.cuda`."""
    thread = machine.thread

    class Gpu:
        def __init__(self, number: int) -> None:
            self.number = number

        def __enter__(self) -> None:
            self._before, thread.device = thread.device, self.number

        def __exit__(self, *_: object) -> None:
            thread.device = self._before

    def device_array(shape: Any, dtype: Any, strides: Any = None, order: str = "C", stream: Any = 0) -> DeviceNDArray:
        host = np.empty(shape, dtype)
        block = machine.alloc(host.nbytes)
        return DeviceNDArray(host.shape, host.strides, host.dtype, stream, Memory(block, block.pointer, block.size))

    def as_cuda_array(of: Any, sync: bool = True) -> DeviceNDArray:
        described = of.__cuda_array_interface__
        stream = described.get("stream")
        if sync and stream is not None:
            machine.host_copies += 1
        pointer, dtype = described["data"][0], np.dtype(described["typestr"])
        strides = described.get("strides") or np.empty(described["shape"], dtype).strides
        owner: Any = SimpleNamespace(pointer=pointer, device=thread.device, owner=of)
        return DeviceNDArray(described["shape"], strides, dtype, stream or 0, Memory(owner, pointer, 0))

    def memalloc(size: int) -> Memory:
        block = machine.alloc(size)
        return Memory(block, block.pointer, size)

    def put(array: Any, stream: Any = 0, copy: bool = True, to: Any = None) -> DeviceNDArray:
        memoryview(np.asarray(array))  # which NumPy does not export for bfloat16
        return to_device(machine, np.array(array, order="C"), device=thread.device, stream=stream)

    return SimpleNamespace(
        gpus=[Gpu(0), Gpu(1)],
        device_array=device_array,
        as_cuda_array=as_cuda_array,
        to_device=put,
        current_context=lambda: SimpleNamespace(memalloc=memalloc),
        stream=lambda: Stream(machine, machine.handle()),
        synchronize=lambda: None,
        is_cuda_array=lambda array: hasattr(array, "__cuda_array_interface__"),
    )


__all__ = ["Block", "DeviceNDArray", "Memory", "Stream", "module", "to_device"]
