"""The caller's CUDA arrays as CuPy's over the same memory, and results as the caller's kind.

Each call belongs to one library, that of its main input, which every other array of the call must be of.  CuPy's own
arrays live on CuPy's current stream, torch's on torch's; what `adopt` learns of it when the main input arrives is kept
per thread until the next call.
"""

from __future__ import annotations

import sys
import threading
from typing import Any, Literal

import cupy
import numpy as np

from softgrad import host
from softgrad.registry import unserved

# Targets and probabilities are judged on request only: it would synchronise.
CHECKS_VALUES = False


class _Call(threading.local):
    """The library and stream of this thread's present call."""

    library = "cupy"
    stream: int | None = None  # None: CuPy's current one


call = _Call()


def adopt(name: str, array: Any, like: Any = None) -> cupy.ndarray:
    """`array`, the argument `name`, as cupy.ndarray over the same memory, on the device of `like`."""
    if type(array) is cupy.ndarray:
        adopted, library, stream = array, "cupy", None
    else:
        library = type(array).__module__.partition(".")[0]
        if like is not None and library != call.library:
            raise TypeError(unserved(name, array, like))
        adopted, stream = _foreign(name, array, library, like)
    if like is None:
        call.library, call.stream = library, stream
    elif library != call.library or adopted.data.device_id != like.data.device_id:
        if library != call.library:
            raise TypeError(unserved(name, array, like))
        here, there = adopted.data.device_id, like.data.device_id
        raise ValueError(f"`{name}` is on device {here}; expected device {there}, where the main input is")
    return adopted


def _foreign(name: str, array: Any, library: str, like: Any) -> tuple[cupy.ndarray, int | None]:
    """A CUDA array of another library, and the stream it lives on."""
    if getattr(array, "requires_grad", False) or (library == "jax" and name == "out"):
        raise TypeError(
            unserved(name, array, like)
        )  # not for the caller to see change behind autograd's, or XLA's, back
    try:
        if library == "torch":
            stream = sys.modules["torch"].cuda.current_stream(array.device).cuda_stream
            return cupy.from_dlpack(Unsynchronised(array)), int(stream)
        if hasattr(array, "__dlpack__") and int(array.__dlpack_device__()[0]) in (2, 13):
            return cupy.from_dlpack(array), None
        if hasattr(array, "__cuda_array_interface__"):
            return cupy.asarray(array), None
    except (BufferError, RuntimeError, AttributeError) as error:
        raise TypeError(f"{unserved(name, array, like)} ({error})") from error
    raise TypeError(unserved(name, array, like))


class Unsynchronised:
    """An array as DLPack hands it over between users of one and the same stream: nobody waits for anybody."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **_: Any) -> Any:
        return self._array.__dlpack__(stream=-1)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def release(array: cupy.ndarray, like: Any) -> Any:
    """A result as the kind of array that `like`, the caller's main input, is."""
    if type(like) is cupy.ndarray:
        return array
    library = type(like).__module__.partition(".")[0]
    if library == "torch":
        return sys.modules["torch"].from_dlpack(Unsynchronised(array))
    if library == "numba":
        return sys.modules["numba.cuda"].as_cuda_array(array)
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
    with like.device:
        units = cupy.eye(classes, dtype=like.dtype)[:, None, :, None]
    return cupy.broadcast_to(units, (classes, outer, classes, inner))


class _Shadow:
    """What NumPy must know of a device array to reason about its memory; it is never read."""

    def __init__(self, array: cupy.ndarray) -> None:
        self.__array_interface__ = {
            "shape": array.shape,
            "typestr": f"|V{array.itemsize}",
            "data": (array.data.ptr, False),
            "strides": array.strides,
            "version": 3,
        }


def overlap(a: cupy.ndarray, b: cupy.ndarray) -> Literal["none", "same", "partial"]:
    """How the memory of two arrays overlaps: no element shared, the very same view, or anything else."""
    if a is b:
        return "same"
    if a.flags.c_contiguous and b.flags.c_contiguous:
        start_a, start_b = a.data.ptr, b.data.ptr
        if start_a + a.nbytes <= start_b or start_b + b.nbytes <= start_a:
            return "none"
    return host.overlap(np.asarray(_Shadow(a)), np.asarray(_Shadow(b)))
