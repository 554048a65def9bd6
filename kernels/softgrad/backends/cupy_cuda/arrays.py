"""The caller's CUDA arrays as CuPy's over the same memory, and results as the caller's kind.

Each call belongs to one library, that of its main input, which every other array of the call must be of.  CuPy's own
arrays live on CuPy's current stream, torch's on torch's; what `adopt` learns of it when the main input arrives is kept
per thread until the next call.
"""

from __future__ import annotations

import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import cupy
import numpy as np
from cupy.cuda.memory import PooledMemory

from softgrad import host
from softgrad.backends.cuda.libraries import is_plain_tensor, library_of, stream_of_numba, stream_of_tensor
from softgrad.backends.cuda.plans import is_whole, unaligned_out
from softgrad.registry import unserved

# Targets and probabilities are judged on request only: it would synchronise.
CHECKS_VALUES = False
TAKES_TWO_AXES = True


class _Call(threading.local):
    """The library and stream of this thread's present call."""

    library = "cupy"
    stream: int | None = None  # None: CuPy's current one


call = _Call()


class _Stream:
    """A stream by its handle, as CuPy's protocol for foreign streams has it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, self._handle)


def on_stream() -> AbstractContextManager[Any]:
    """CuPy's own operations, too, on the call's stream, while the context lasts."""
    if call.stream is None:
        return nullcontext()
    if hasattr(cupy.cuda.Stream, "from_external"):  # CuPy 14
        return cupy.cuda.Stream.from_external(_Stream(call.stream))
    return cupy.cuda.ExternalStream(call.stream)


class _Guest(cupy.ndarray):  # type: ignore[misc]  # CuPy has no annotations
    """Another library's memory: what CuPy computes of it belongs on the call's stream, not on CuPy's current one.

    These are the operations with which the code above the backends may copy (`softgrad.protocol`).
    """

    def reshape(self, *shape: Any) -> cupy.ndarray:
        if self.flags.c_contiguous:  # a view
            return super().reshape(*shape)
        with self.device, on_stream():
            return _guest(super().reshape(*shape))

    def astype(self, dtype: Any, **options: Any) -> cupy.ndarray:
        with self.device, on_stream():
            return _guest(super().astype(dtype, **options))

    def __setitem__(self, at: Any, value: Any) -> None:
        with self.device, on_stream():
            super().__setitem__(at, value)


def _guest(array: cupy.ndarray) -> cupy.ndarray:
    same = isinstance(array, _Guest)
    return array if same else _Guest(array.shape, array.dtype, array.data, array.strides)


def adopt(name: str, array: Any, like: Any = None) -> cupy.ndarray:
    """`array`, the argument `name`, as cupy.ndarray over the same memory, on the device of `like`."""
    if type(array) is cupy.ndarray:
        adopted, library, stream = array, "cupy", None
    else:
        library = library_of(array)
        if like is not None and library != call.library:
            raise TypeError(unserved(name, array, like))
        adopted, stream = _foreign(name, array, library, like)
    if like is None:
        call.library, call.stream = library, stream
    elif library != call.library:
        raise TypeError(unserved(name, array, like))
    elif adopted.data.device_id != like.data.device_id:
        here, there = adopted.data.device_id, like.data.device_id
        raise ValueError(f"`{name}` is on device {here}; expected device {there}, where the main input is")
    # CuPy's own arrays are aligned, unless they are views.
    if adopted.base is None and library == "cupy":
        return adopted
    whole = aligned(adopted)
    if name == "out" and whole is not adopted:
        raise unaligned_out(adopted.dtype)
    return whole


def aligned(array: cupy.ndarray) -> cupy.ndarray:
    """The array, or a copy of its bytes where a GPU could not load its elements: they start anywhere."""
    if is_whole(array.itemsize, array.strides) and array.data.ptr % array.itemsize == 0:
        return array
    with array.device, on_stream():
        whole = cupy.ndarray((*array.shape, array.itemsize), np.uint8, array.data, (*array.strides, 1)).copy()
    return whole.view(array.dtype).reshape(array.shape)


def _foreign(name: str, array: Any, library: str, like: Any) -> tuple[cupy.ndarray, int | None]:
    """A CUDA array of another library, and the stream it lives on (None: CuPy's current one, which now follows it)."""
    try:
        if library == "torch":
            if is_plain_tensor(array):
                return _guest(cupy.from_dlpack(Unsynchronised(array))), stream_of_tensor(array)
        elif library == "numba":
            return _guest(_numba_memory(array)), stream_of_numba(array)
        elif library == "jax" and name == "out":
            pass  # XLA takes its arrays for constants
        elif name == "out" and _is_read_only(array):
            raise ValueError("`out` is read-only; expected an array that can be written to")
        elif hasattr(array, "__dlpack__") and int(array.__dlpack_device__()[0]) in (2, 13):
            return cupy.from_dlpack(array), None
        elif hasattr(array, "__cuda_array_interface__"):
            return cupy.asarray(array), None
    except (BufferError, RuntimeError, AttributeError, TypeError) as error:
        raise TypeError(f"{unserved(name, array, like)} ({error})") from error
    raise TypeError(unserved(name, array, like))


def _is_read_only(array: Any) -> bool:
    """Whether the CUDA array interface says so; CuPy does not ask."""
    described = getattr(array, "__cuda_array_interface__", None)
    return bool(described and described["data"][1])


class Unsynchronised:
    """An array as DLPack hands it over between users of one and the same stream: nobody waits for anybody."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **_: Any) -> Any:
        return self._array.__dlpack__(stream=-1)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


class _Described:
    """Memory as the CUDA array interface describes it: without a stream to wait for, and bfloat16, which has no code
    there, as its bits.
    """

    def __init__(self, array: Any) -> None:
        described = array.__cuda_array_interface__ | {"stream": None}
        if array.dtype.name == "bfloat16":
            described |= {"typestr": "<u2", "descr": [("", "<u2")]}
        self.__cuda_array_interface__ = described
        self.owner = array


def _numba_memory(array: Any) -> cupy.ndarray:
    bits = cupy.asarray(_Described(array))
    return bits if bits.dtype == array.dtype else bits.view(array.dtype)


def _to_numba(array: cupy.ndarray, like: Any) -> Any:
    cuda = sys.modules["numba.cuda"]
    with cuda.gpus[array.data.device_id]:
        bits = cuda.as_cuda_array(_Described(array), sync=False)
    result = bits if bits.dtype == array.dtype else bits.view(array.dtype)
    return result.bind(like.stream)


def release(array: cupy.ndarray, like: Any) -> Any:
    """A result as the kind of array that `like`, the caller's main input, is."""
    if type(like) is cupy.ndarray:
        return array
    library = library_of(like)
    if library == "torch":
        return sys.modules["torch"].from_dlpack(Unsynchronised(array))
    if library == "numba":
        return _to_numba(array, like)
    namespace = getattr(like, "__array_namespace__", None)
    return namespace().from_dlpack(array) if namespace else array


def empty(shape: tuple[int, ...], dtype: Any, like: cupy.ndarray) -> cupy.ndarray:
    """A new C-contiguous array on the device of `like`, from the memory pool of the call's library."""
    if call.library == "torch":
        torch = sys.modules["torch"]
        dtype = getattr(torch, np.dtype(dtype).name)
        return cupy.from_dlpack(Unsynchronised(torch.empty(shape, dtype=dtype, device=f"cuda:{like.data.device_id}")))
    if like.data.device_id == cupy.cuda.runtime.getDevice():
        return cupy.empty(shape, dtype)
    with like.device:
        return cupy.empty(shape, dtype)


def unit_tangents(shape: tuple[int, int, int], like: cupy.ndarray) -> cupy.ndarray:
    """The C unit vectors as tangents for rows of `shape`: (C, outer, C, inner), one C × C in memory."""
    outer, classes, inner = shape
    with like.device, on_stream():
        units = cupy.eye(classes, dtype=like.dtype)[:, None, :, None]
    return cupy.broadcast_to(units, (classes, outer, classes, inner))


def overlap(a: cupy.ndarray, b: cupy.ndarray) -> Literal["none", "same", "partial"]:
    """How the memory of two arrays overlaps: no element shared, the very same view, or anything else."""
    if a is b:
        return "same"
    one, other = a.data, b.data
    mine, others = one.mem, other.mem
    if mine is not others and type(mine) is type(others) is PooledMemory:
        return "none"  # each has a piece of the pool for itself
    first, second = one.ptr, other.ptr
    if (first + a.nbytes <= second or second + b.nbytes <= first) and a.flags.c_contiguous and b.flags.c_contiguous:
        return "none"
    return host.overlap(_shadow(a), _shadow(b))


def _shadow(array: cupy.ndarray) -> np.ndarray:
    return np.asarray(host.Shadow(array.data.ptr, array.shape, array.strides, array.itemsize))
