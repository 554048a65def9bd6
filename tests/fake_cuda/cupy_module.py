"""What stands for the module `cupy`, version 14.

Its arrays live in the machine's memory; what they compute themselves, NumPy computes.
"""

from __future__ import annotations

import ctypes
import types
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np

from softgrad.backends.cuda.kernels import Kernel
from tests.fake_cuda.machine import DEVICES, LEGACY, Block, Capsule, CudaError, Machine, address_of, array_at, placed


class MemoryPointer:
    """A place in a block."""

    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self._offset = mem, offset

    @property
    def ptr(self) -> int:
        return self.mem.pointer + self._offset

    @property
    def device_id(self) -> int:
        return self.mem.device

    def __add__(self, offset: int) -> MemoryPointer:
        return MemoryPointer(self.mem, self._offset + offset)


class Foreign:
    """Another library's memory, which it keeps alive."""

    def __init__(self, pointer: int, device: int, owner: Any) -> None:
        self.pointer, self.device, self.owner = pointer, device, owner


class Flags:
    """CuPy's have no `writeable`."""

    def __init__(self, flags: Any) -> None:
        self.c_contiguous, self.f_contiguous = flags.c_contiguous, flags.f_contiguous


def module(machine: Machine, run: Any) -> types.ModuleType:
    """The module; `run(kernel, grid, arguments)` runs a kernel."""
    cupy: Any = types.ModuleType("cupy")
    cupy.__version__, cupy.__spec__ = "14.2.0", ModuleSpec("cupy", None)
    thread = machine.thread

    # --- arrays -------------------------------------------------------------------------------------------------------

    class ndarray:  # noqa: N801
        def __init__(
            self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C"
        ) -> None:
            shape = (shape,) if isinstance(shape, int) else tuple(shape)
            dtype = np.dtype(dtype)
            if memptr is None:
                memptr = MemoryPointer(machine.alloc(int(np.prod(shape)) * dtype.itemsize), 0)
            if strides is None:
                strides = np.empty(shape, dtype, order).strides  # type: ignore[call-overload]
            self.data = memptr
            self.base: Any = None
            self._host = array_at(memptr.ptr, shape, strides, dtype, memptr.mem)

        shape = property(lambda self: self._host.shape)
        strides = property(lambda self: self._host.strides)
        dtype = property(lambda self: self._host.dtype)
        ndim = property(lambda self: self._host.ndim)
        size = property(lambda self: self._host.size)
        itemsize = property(lambda self: self._host.itemsize)
        nbytes = property(lambda self: self._host.nbytes)
        flags = property(lambda self: Flags(self._host.flags))
        device = property(lambda self: Device(self.data.device_id))
        T = property(lambda self: self.transpose())

        def _of(self, host: np.ndarray) -> Any:
            """An array over a view of this one's memory; a new one where NumPy had to copy."""
            if host.size and not np.may_share_memory(host, self._host):
                machine.computed.append(current().ptr)
                return _new(host, self.data.device_id)
            offset = address_of(host) - self.data.ptr if host.size else 0
            part = type(self)(host.shape, host.dtype, self.data + offset, host.strides)
            part.base = self
            return part

        def reshape(self, *shape: Any) -> Any:
            return self._of(self._host.reshape(*shape))

        def transpose(self, *axes: Any) -> Any:
            return self._of(self._host.transpose(*axes))

        def view(self, dtype: Any) -> Any:
            return self._of(self._host.view(dtype))

        def __getitem__(self, at: Any) -> Any:
            found = self._host[at]
            if isinstance(found, np.ndarray):
                return self._of(found)
            keys = at if isinstance(at, tuple) else (at,)
            return self._of(self._host[tuple(slice(k, k + 1 or None) for k in keys)].reshape(()))

        def __setitem__(self, at: Any, value: Any) -> None:
            if isinstance(value, np.ndarray) and value.ndim:
                raise TypeError(f"Unsupported type {type(value)}")
            self._compute()
            source = value._host if isinstance(value, ndarray) else value

            def assign() -> None:
                self._host[at] = source

            machine.do(assign, current().ptr, self.data.device_id)

        def _compute(self) -> None:
            """One of CuPy's own kernels, which load whole elements."""
            machine.computed.append(current().ptr)
            if self.data.ptr % self.itemsize or any(stride % self.itemsize for stride in self.strides):
                raise CudaError("cudaErrorMisalignedAddress: misaligned address")

        def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> Any:
            self._compute()
            if np.dtype(dtype).name not in TYPES or self.dtype.name not in TYPES:
                raise TypeError(f"Unsupported dtype {dtype}")
            with np.errstate(all="ignore"):
                made = self._host.astype(dtype, order=order)  # type: ignore[call-overload]
            return _new(made, self.data.device_id)

        def copy(self) -> Any:
            return self.astype(self.dtype, "C")

        def get(self) -> np.ndarray:
            machine.host_copies += 1
            return self._host.copy()

        def tobytes(self) -> bytes:
            return self.get().tobytes()

        def tolist(self) -> Any:
            return self.get().tolist()

        def __int__(self) -> int:
            return int(self.get())

        def __float__(self) -> float:
            return float(self.get())

        def __bool__(self) -> bool:
            return bool(self.get())

        def __len__(self) -> int:
            return len(self._host)

        def __array__(self, *_: Any, **__: Any) -> Any:
            raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

        def __iadd__(self, other: Any) -> Any:
            self[...] = _new(self._host + (other._host if isinstance(other, ndarray) else other))
            return self

        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, self.data.device_id)

        def __dlpack__(
            self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
        ) -> Capsule:
            if stream is not None and stream < -1:
                raise ValueError("On CUDA, the valid stream for the DLPack protocol is -1, 1, 2, or any larger value")
            return Capsule(self.data.ptr, self._host, self.data.device_id, self)

        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return {
                "shape": self.shape, "typestr": self.dtype.str, "descr": self.dtype.descr, "version": 3,
                "strides": None if self.flags.c_contiguous else self.strides,
                "data": (self.data.ptr if self.size else 0, False), "stream": current().ptr or 1,
            }  # fmt: skip

    ndarray.__module__, ndarray.__qualname__ = "cupy", "ndarray"

    def _new(host: Any, device: int | None = None) -> Any:
        host = np.array(host, order="K")  # the order of the axes is kept, no gap between elements
        made = ndarray(host.shape, host.dtype, MemoryPointer(machine.alloc(host.nbytes, device), 0), host.strides)
        made._host[...] = host
        return made

    def asarray(array: Any, dtype: Any = None) -> Any:
        if isinstance(array, ndarray):
            return array
        described = getattr(array, "__cuda_array_interface__", None)
        if described is None:
            machine.host_copies += 1
            return _new(np.asarray(array, dtype))
        if described.get("stream") is not None:
            machine.host_copies += 1  # it waits for the stream
        pointer = described["data"][0]
        owners = [b for b in machine.blocks if b.pointer <= pointer < b.pointer + max(b.size, 1)]
        device = owners[0].device if owners else thread.device
        memory = MemoryPointer(Foreign(pointer, device, array), 0)
        return ndarray(described["shape"], np.dtype(described["typestr"]), memory, described.get("strides"))

    def from_dlpack(array: Any, *, device: Any = None, copy: Any = None) -> Any:
        kind, number = array.__dlpack_device__()
        if kind not in (2, 13):
            raise TypeError("CPU arrays cannot be directly imported to CuPy.")
        before, thread.device = thread.device, number
        try:
            stream = current().ptr or 1
            try:
                capsule = array.__dlpack__(stream=stream, max_version=(1, 0), copy=copy)
            except TypeError:
                capsule = array.__dlpack__(stream=stream)
        finally:
            thread.device = before
        found = capsule.consume()
        memory = MemoryPointer(Foreign(found.pointer, found.device, found), 0)
        return ndarray(found.host.shape, found.host.dtype, memory, found.host.strides)

    TYPES = {"float64", "float32", "float16", "bfloat16", "bool"} | {
        f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
    }
    cupy.ndarray, cupy.asarray, cupy.from_dlpack = ndarray, asarray, from_dlpack

    def view(array: np.ndarray) -> Any:
        """A view with these values and these strides, which CuPy itself makes by slicing."""
        block, host = placed(machine, array, thread.device)
        made = ndarray(host.shape, host.dtype, MemoryPointer(block, address_of(host) - block.pointer), host.strides)
        made.base = made
        return made

    cupy.view_like = view
    cupy.asnumpy = lambda array: array.get()
    cupy.empty = lambda shape, dtype=float: ndarray(shape, dtype)
    cupy.zeros = lambda shape, dtype=float: _new(np.zeros(shape, dtype))
    cupy.empty_like = lambda array: ndarray(array.shape, array.dtype)
    cupy.zeros_like = lambda array: _new(np.zeros(array.shape, array.dtype))
    cupy.eye = lambda n, dtype=float: _new(np.eye(n, dtype=dtype)).copy()
    cupy.ascontiguousarray = lambda array: array if array.flags.c_contiguous else array.copy()
    cupy.broadcast_to = lambda array, shape: array._of(np.broadcast_to(array._host, shape))
    cupy.get_default_memory_pool = lambda: types.SimpleNamespace(
        free_all_blocks=lambda: None, used_bytes=lambda: machine.allocated, total_bytes=lambda: machine.allocated
    )

    # --- cupy.cuda ----------------------------------------------------------------------------------------------------

    class Device:
        compute_capability = "90"

        def __init__(self, number: int | None = None) -> None:
            self.id = thread.device if number is None else number

        def __enter__(self) -> Any:
            self._before, thread.device = thread.device, self.id
            return self

        def __exit__(self, *_: object) -> None:
            thread.device = self._before

        def synchronize(self) -> None:
            thread.has_context = True

    class Graph:
        def __init__(self, steps: list[Any]) -> None:
            self.steps = steps  # the original's are its own affair

        def launch(self, stream: Any = None) -> None:
            for step in self.steps:
                step()

    class Stream:
        def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
            self.ptr = LEGACY if null else machine.handle()
            self.device_id = -1 if null else thread.device

        @classmethod
        def from_external(cls, other: Any) -> Stream:
            version, pointer = other.__cuda_stream__()
            assert version == 0
            stream = cls(null=True)
            stream.ptr = pointer
            return stream

        def __enter__(self) -> Any:
            thread.streams[thread.device].append(self)
            return self

        def __exit__(self, *_: object) -> None:
            thread.streams[thread.device].pop()

        def __cuda_stream__(self) -> tuple[int, int]:
            return (0, self.ptr)

        def synchronize(self) -> None:
            if self.ptr in machine.capturing:
                raise CudaError("cudaErrorStreamCaptureUnsupported")

        def begin_capture(self) -> None:
            if self.ptr == LEGACY:
                raise RuntimeError("cannot capture on the default (legacy) stream")
            machine.begin_capture(self.ptr)

        def end_capture(self) -> Graph:
            return Graph(machine.capturing.pop(self.ptr))

    Stream.null = Stream(null=True)  # type: ignore[attr-defined]

    def current(device_id: int = -1) -> Stream:
        streams = thread.streams[thread.device if device_id == -1 else device_id]
        return streams[-1] if streams else Stream.null  # type: ignore[attr-defined, no-any-return]

    class CUDADriverError(RuntimeError):
        pass

    def context_device() -> int:
        if not thread.has_context:
            raise CUDADriverError("CUDA_ERROR_INVALID_CONTEXT: invalid device context")
        return thread.device

    def get_device() -> int:
        return thread.device

    def set_device(number: int) -> None:
        assert 0 <= number < DEVICES
        thread.device, thread.has_context = number, True

    def memory_info() -> tuple[int, int]:
        thread.has_context = True
        return 2**30, 2**31

    functions: dict[int, tuple[Kernel, int]] = {}

    class RawKernel:
        def __init__(self, kernel: Kernel) -> None:
            self._kernel = kernel

        @property
        def kernel(self) -> Any:
            pointer = 0xF0000 + len(functions)
            functions[pointer] = self._kernel, thread.device
            thread.has_context = True
            return types.SimpleNamespace(ptr=pointer)

    class RawModule:
        def __init__(self, *, code: Any, options: tuple[str, ...] = ()) -> None:
            self._kernel = code.kernel  # of the noted text

        def get_function(self, name: str) -> RawKernel:
            assert name == self._kernel.name
            return RawKernel(self._kernel)

    def launch_kernel(
        f: int, grid: int, grid_y: int, grid_z: int, block: int, block_y: int, block_z: int, shared_mem: int,
        stream: int, kernel_params: int, extra: int,
    ) -> None:  # fmt: skip
        kernel, device = functions[f]
        assert device == context_device(), "a function of another context"
        assert (grid_y, grid_z, block_y, block_z, extra) == (1, 1, 1, 1, 0)
        assert (block, shared_mem) == (kernel.regime.threads, kernel.shared_bytes)
        (pointer,) = (ctypes.c_void_p * 1).from_address(kernel_params)
        arguments = ctypes.string_at(pointer, argument_bytes(kernel))
        machine.do(lambda: run(kernel, grid, arguments), stream, device, kernel.function)

    cuda: Any = types.ModuleType("cupy.cuda")
    cuda.is_available = lambda: True
    cuda.alloc = lambda size: MemoryPointer(machine.alloc(size), 0)
    cuda.set_allocator = lambda allocator: None
    cuda.Device, cuda.Stream, cuda.get_current_stream = Device, Stream, current
    cuda.UnownedMemory = lambda ptr, size, owner, device_id=0: Foreign(ptr, device_id, owner)
    cuda.MemoryPointer, cuda.memory = MemoryPointer, types.ModuleType("cupy.cuda.memory")
    cuda.memory.PooledMemory = Block
    cuda.runtime = types.SimpleNamespace(
        getDevice=get_device, setDevice=set_device, memGetInfo=memory_info, getDeviceCount=lambda: DEVICES
    )
    cuda.driver = types.SimpleNamespace(
        launchKernel=launch_kernel, ctxGetDevice=context_device, CUDADriverError=CUDADriverError
    )
    cupy.cuda, cupy.RawModule = cuda, RawModule
    return cupy


def argument_bytes(kernel: Kernel) -> int:
    """Of the struct that a kernel takes."""
    from softgrad.backends.cuda import checks, loss_plans, plans

    structs = {
        "SoftmaxArgs": plans.SOFTMAX_ARGS, "ProductArgs": plans.PRODUCT_ARGS, "LossArgs": loss_plans.LOSS_ARGS,
        "TotalArgs": loss_plans.LOSS_ARGS + loss_plans.TOTAL_ARGS, "CheckArgs": checks.CHECK_ARGS,
    }  # fmt: skip
    return 8 * (len(structs[kernel.takes]) + (7 if kernel.regime.cut else 0))
