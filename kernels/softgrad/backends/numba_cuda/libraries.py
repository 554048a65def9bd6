"""The libraries whose CUDA arrays are served: how each one's arrays are looked into, made, and given back.

Nothing is imported here: a library whose array has arrived is in `sys.modules`.
"""

from __future__ import annotations

import sys
from functools import cache
from math import prod
from typing import Any, Protocol

import numpy as np

from softgrad.backends.cuda.libraries import is_plain_tensor, stream_of_numba, stream_of_tensor
from softgrad.backends.numba_cuda.device_array import DeviceArray

Memory = tuple[int, tuple[int, ...], tuple[int, ...], np.dtype[Any], int]
"""What there is to know of an array: address, shape, strides in bytes, dtype, device."""


class Library(Protocol):
    """One array library."""

    def memory(self, array: Any) -> Memory | None:
        """Of an array; None if it is not one whose memory a caller may see read and written on a device."""

    def stream(self, array: Any) -> int:
        """Handle of the stream in whose order the caller works."""

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> tuple[Any, int]:
        """Memory for a C-contiguous array, in the order of the current stream: what owns it, and its address."""

    def array(self, of: DeviceArray, like: Any) -> Any:
        """An array of the library, of the kind and stream of `like`, over contiguous memory that it has allocated."""


class Numba:
    """numba.cuda's device arrays."""

    def memory(self, array: Any) -> Memory | None:
        """Of a device array."""
        if not getattr(array, "__cuda_ndarray__", False) or not isinstance(array.dtype, np.dtype):
            return None
        memory = array.gpu_data
        return int(memory.device_pointer), array.shape, array.strides, array.dtype, memory.context.device.id

    def stream(self, array: Any) -> int:
        """The array's own if it is bound to one, else the default stream."""
        return stream_of_numba(array)

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> tuple[Any, int]:
        """From Numba's memory manager."""
        size = prod(shape) * dtype.itemsize
        if size == 0:
            return None, 0
        cuda = sys.modules["numba.cuda"]
        with cuda.gpus[device]:
            memory = cuda.current_context().memalloc(size)
        return memory, memory.device_ctypes_pointer.value

    def array(self, of: DeviceArray, like: Any) -> Any:
        """A device array, bound to the stream of `like` if that is."""
        memory, make = of.owner, sys.modules["numba.cuda.cudadrv.devicearray"].DeviceNDArray
        if of.size == 0:
            with sys.modules["numba.cuda"].gpus[of.home.device]:
                return make(of.shape, of.strides, of.dtype, stream=like.stream)
        first = of.pointer - memory.device_ctypes_pointer.value
        if first:
            memory = memory.view(first, first + of.size * of.itemsize)
        return make(of.shape, of.strides, of.dtype, stream=like.stream, gpu_data=memory)


class Cupy:
    """CuPy's arrays."""

    def memory(self, array: Any) -> Memory | None:
        """Of an array."""
        cupy = sys.modules["cupy"]
        if type(array) is not cupy.ndarray:
            return None
        return array.data.ptr, array.shape, array.strides, array.dtype, array.data.device_id

    def stream(self, array: Any) -> int:
        """CuPy's current one of the array's device."""
        return int(sys.modules["cupy"].cuda.get_current_stream(array.data.device_id).ptr)

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> tuple[Any, int]:
        """From CuPy's memory pool."""
        cupy = sys.modules["cupy"]
        with cupy.cuda.Device(device):
            memory = cupy.cuda.alloc(prod(shape) * dtype.itemsize)
        return memory, memory.ptr

    def array(self, of: DeviceArray, like: Any) -> Any:
        """An array over it."""
        memory = of.owner
        return sys.modules["cupy"].ndarray(of.shape, of.dtype, memory + (of.pointer - memory.ptr), of.strides)


class Torch:
    """torch's CUDA tensors."""

    def memory(self, array: Any) -> Memory | None:
        """Of a plain tensor."""
        dtype = _torch_dtypes(False).get(array.dtype) if is_plain_tensor(array) else None
        if dtype is None:
            return None
        strides = tuple(stride * dtype.itemsize for stride in array.stride())
        return array.data_ptr(), tuple(array.shape), strides, dtype, array.device.index

    def stream(self, array: Any) -> int:
        """torch's current one of the tensor's device."""
        return stream_of_tensor(array)

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any], device: int) -> tuple[Any, int]:
        """From torch's allocator."""
        made = sys.modules["torch"].empty(shape, dtype=_torch_dtypes(True)[dtype], device=f"cuda:{device}")
        return made, made.data_ptr()

    def array(self, of: DeviceArray, like: Any) -> Any:
        """The tensor that was made, or another over a part of its memory: none is a view in the eyes of autograd."""
        made = of.owner
        steps = tuple(stride // of.itemsize for stride in of.strides)
        if (of.pointer, of.shape, steps) == (made.data_ptr(), made.shape, made.stride()):
            return made
        first = (of.pointer - made.untyped_storage().data_ptr()) // of.itemsize
        bare = sys.modules["torch"].empty(0, dtype=made.dtype, device=made.device)
        return bare.set_(made.untyped_storage(), first, of.shape, steps)


LIBRARIES: dict[str, Library] = {"numba": Numba(), "cupy": Cupy(), "torch": Torch()}


@cache
def _torch_dtypes(from_numpy: bool) -> dict[Any, Any]:
    torch = sys.modules["torch"]
    names = ("float64", "float32", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    pairs = [(getattr(torch, name), np.dtype(name)) for name in names if hasattr(torch, name)]
    try:
        import ml_dtypes

        pairs.append((torch.bfloat16, np.dtype(ml_dtypes.bfloat16)))
    except ImportError:  # NumPy alone has no bfloat16
        pass
    return {numpy: of_torch for of_torch, numpy in pairs} if from_numpy else dict(pairs)
