"""Arrays in host memory, for every backend that computes on the CPU: NumPy arrays, numbers, nested sequences."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softgrad.registry import unserved

CHECKS_VALUES = True
TAKES_TWO_AXES = False
_SEQUENCES = (list, tuple, range)
_NUMBERS = (np.generic, int, float)
_SOMEWHERE = 1 << 46  # an address, for what is never read
_BOUNDED_WORK: Any = 1000  # NumPy's annotation knows only its two named limits


def is_host(array: Any) -> bool:
    """Whether this is an array of the CPU backends.

    Subclasses of ndarray carry meaning that would be lost (a mask, units, matrix products); np.memmap carries none.
    """
    return type(array) in (np.ndarray, np.memmap) or isinstance(array, _SEQUENCES + _NUMBERS)


def adopt(name: str, array: Any, like: Any = None) -> NDArray[Any]:
    """`array`, the argument `name`, as np.ndarray, over the same memory where it has one."""
    if type(array) is np.ndarray:
        return array
    if not is_host(array):
        raise TypeError(unserved(name, array, like))
    if type(array) is np.memmap:
        return array.view(np.ndarray)
    if isinstance(array, _SEQUENCES):
        _judge_elements(name, array)
    try:
        adopted = np.asarray(array)
    except ValueError as error:
        raise ValueError(f"`{name}` is a ragged nested sequence: {error}") from None
    # Sequences become float64 (or stay integers) whatever NumPy scalars they hold, as the contract of lists is.
    kind = adopted.dtype.kind
    if kind == "f" or (kind == "V" and adopted.dtype.name == "bfloat16"):  # to spell a name takes 2 µs
        with np.errstate(over="ignore", under="ignore"):
            return adopted.astype(np.float64)
    return adopted


def _judge_elements(name: str, sequence: Any) -> None:
    """TypeError for an array of another library in a nested sequence, which np.asarray would convert unasked."""
    for i, element in enumerate(sequence):
        kind = type(element)
        if kind is float or kind is int:
            continue
        if isinstance(element, _SEQUENCES):
            _judge_elements(f"{name}[{i}]", element)
        elif not is_host(element) and any(hasattr(kind, speaks) for speaks in ("__array__", "__dlpack__")):
            raise TypeError(unserved(f"{name}[{i}]", element))


def release(array: NDArray[Any], like: Any) -> NDArray[Any]:
    """A result for a caller who passed host arrays: it already is one; a 0-d one becomes a scalar."""
    return array if type(array) is not np.ndarray or array.ndim else array[()]


def empty(shape: tuple[int, ...], dtype: Any, like: NDArray[Any]) -> NDArray[Any]:
    """A new C-contiguous array."""
    return np.empty(shape, dtype)


def overlap(a: NDArray[Any], b: NDArray[Any]) -> Literal["none", "same", "partial"]:
    """How the memory of two arrays overlaps: no element shared, the very same view, or anything else.

    Decided exactly where that is cheap; arrays too intricate for a bounded search count as overlapping.
    """
    if a is b:
        return "same"
    if a.flags.owndata and b.flags.owndata:
        return "none"
    try:
        if not np.shares_memory(a, b, _BOUNDED_WORK):
            return "none"
    except np.exceptions.TooHardError:
        return "partial"
    same = (
        a.__array_interface__["data"][0] == b.__array_interface__["data"][0]
        and a.shape == b.shape
        and a.strides == b.strides
        and a.dtype == b.dtype
    )
    return "same" if same else "partial"


class Shadow:
    """Memory of any device as NumPy must know it to reason about its layout; it is never read."""

    def __init__(self, pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> None:
        self.__array_interface__ = {
            "shape": shape,
            "strides": strides,
            "data": (pointer, False),
            "typestr": f"|V{itemsize}",
            "version": 3,
        }


@lru_cache(256)
def overlaps_itself(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Whether two elements of an array share memory; True as well where bounded work does not tell.

    Axis by axis, the first half is held against the second; the halves are alike but for their place, so what is left
    to find is within one of them.
    """
    lengths = list(shape)
    for axis in range(len(lengths)):
        while lengths[axis] > 1:
            half = (lengths[axis] + 1) // 2
            rest = [*lengths[:axis], lengths[axis] - half, *lengths[axis + 1 :]]
            lengths[axis] = half
            first = Shadow(_SOMEWHERE, tuple(lengths), strides, itemsize)
            second = Shadow(_SOMEWHERE + half * strides[axis], tuple(rest), strides, itemsize)
            try:
                if np.shares_memory(np.asarray(first), np.asarray(second), _BOUNDED_WORK):
                    return True
            except np.exceptions.TooHardError:
                return True
    return False


def unit_tangents(shape: tuple[int, int, int], like: NDArray[Any]) -> NDArray[Any]:
    """The C unit vectors as tangents for rows of `shape`: (C, outer, C, inner), one C × C in memory."""
    outer, classes, inner = shape
    dtype = like.dtype
    size = dtype.itemsize
    strides = (classes * size, 0, size, 0)
    return np.ndarray((classes, outer, classes, inner), dtype, np.eye(classes, dtype=dtype), 0, strides)
