"""An array in device memory, whoever allocated it: what the code above the backends uses of an array, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from softgrad.backends.cuda.plans import KEPT, is_whole

if TYPE_CHECKING:
    from softgrad.backends.numba_cuda.libraries import Library
    from softgrad.backends.numba_cuda.runtime import Runtime


class Flags(NamedTuple):
    """As NumPy's, of what may always be written to."""

    c_contiguous: bool


class Home(NamedTuple):
    """What the arrays of a call have in common: their library, the device they are on, the stream it works in."""

    library: Library
    device: int
    stream: int
    runtime: Runtime


class DeviceArray:
    """A view of the memory of `owner`, an array of some library.  Strides are in bytes.

    What needs the device (copies, values) is done by the runtime.
    """

    __slots__ = ("dtype", "home", "owner", "pointer", "shape", "strides")

    def __init__(
        self,
        pointer: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        dtype: np.dtype[Any],
        owner: Any,
        home: Home,
    ) -> None:
        self.pointer, self.shape, self.strides, self.dtype = pointer, shape, strides, dtype
        self.owner, self.home = owner, home

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def flags(self) -> Flags:
        """Whether it is contiguous."""
        return _flags(self.shape, self.strides, self.dtype.itemsize)

    def is_contiguous(self) -> bool:
        """Whether the elements lie one after the other in C order."""
        return self.flags.c_contiguous

    def is_aligned(self) -> bool:
        """Whether every element starts at a multiple of its size."""
        size = self.dtype.itemsize
        return self.pointer % size == 0 and is_whole(size, self.strides)

    def bytes(self) -> DeviceArray:
        """The bytes of every element, along an axis of their own."""
        return self.view_of(self.pointer, (*self.shape, self.itemsize), (*self.strides, 1), np.uint8)

    def view_of(self, pointer: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any = None) -> DeviceArray:
        """Another view of the same memory."""
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        return DeviceArray(pointer, shape, strides, dtype, self.owner, self.home)

    def reshape(self, *shape: Any) -> DeviceArray:
        """A view where the strides allow one, else a copy."""
        wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        if wanted == self.shape:
            return self
        if wanted[:-1] == self.shape and wanted[-1] == 1:  # what most calls ask for
            return self.view_of(self.pointer, wanted, (*self.strides, self.dtype.itemsize))
        strides = _reshaped_strides(self.shape, self.strides, wanted, self.dtype.itemsize)
        if strides is not None:
            return self.view_of(self.pointer, wanted, strides)
        return self.home.runtime.convert(self, self.dtype).reshape(wanted)

    def transpose(self, *axes: Any) -> DeviceArray:
        """The axes in another order."""
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes or range(self.ndim)[::-1]
        return self.view_of(self.pointer, tuple(self.shape[a] for a in order), tuple(self.strides[a] for a in order))

    def view(self, dtype: Any) -> DeviceArray:
        """The memory of a contiguous array of one axis as elements of another dtype."""
        dtype = np.dtype(dtype)
        count = self.shape[0] * self.itemsize // dtype.itemsize
        return self.view_of(self.pointer, (count,), (dtype.itemsize,), dtype)

    def astype(self, dtype: Any) -> DeviceArray:
        """A copy in another dtype."""
        return self.home.runtime.convert(self, np.dtype(dtype))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, at: Any) -> Any:
        keys = at if isinstance(at, tuple) else (at,)
        if keys[-1] is Ellipsis:
            keys = keys[:-1]
        shape, strides = self.shape, self.strides
        pointer, lengths, steps = self.pointer, [], []
        for n, stride, key in zip(shape, strides, keys, strict=False):
            if isinstance(key, slice):
                start, stop, step = key.indices(n)
                pointer += start * stride
                lengths.append(len(range(start, stop, step)))
                steps.append(step * stride)
            else:
                pointer += range(n)[key] * stride
        rest = len(keys)
        return self.view_of(pointer, (*lengths, *shape[rest:]), (*steps, *strides[rest:]))

    def __setitem__(self, at: Any, value: Any) -> None:
        target = self if at is Ellipsis else self[at]
        if isinstance(value, DeviceArray):
            self.home.runtime.copy(value, target)
        else:
            self.home.runtime.write(target, np.asarray(value, self.dtype))

    def tolist(self) -> Any:
        """The values, as nested lists of Python numbers."""
        return self.home.runtime.read(self).tolist()

    def __int__(self) -> int:
        return int(self.home.runtime.read(self))

    def __float__(self) -> float:
        return float(self.home.runtime.read(self))


@lru_cache(KEPT)
def _flags(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> Flags:
    contiguous = 0 in shape or all(
        n == 1 or stride == expected
        for n, stride, expected in zip(shape, strides, contiguous_strides(shape, itemsize), strict=True)
    )
    return Flags(contiguous)


@lru_cache(KEPT)
def contiguous_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Of an array in C order."""
    strides, stride = [], itemsize
    for n in reversed(shape):
        strides.append(stride)
        stride *= max(n, 1)
    return tuple(reversed(strides))


def merged(shape: Sequence[int], *strides: Sequence[int]) -> tuple[list[int], list[list[int]]]:
    """Neighbouring axes joined wherever every one of the arrays can be walked as if they were one."""
    lengths: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, n in enumerate(shape):
        if n == 1:
            continue
        here = [of[axis] for of in strides]
        if lengths and all(last[-1] == n * step for last, step in zip(steps, here, strict=True)):
            lengths[-1] *= n
            for last, step in zip(steps, here, strict=True):
                last[-1] = step
        else:
            lengths.append(n)
            for last, step in zip(steps, here, strict=True):
                last.append(step)
    return lengths, steps


@lru_cache(KEPT)
def _reshaped_strides(
    shape: tuple[int, ...], strides: tuple[int, ...], wanted: tuple[int, ...], itemsize: int
) -> tuple[int, ...] | None:
    """Strides of the same memory in another shape; None where there are none."""
    if prod(wanted) == 0:
        return contiguous_strides(wanted, itemsize)
    lengths, (steps,) = merged(shape, strides)
    result: list[int] = []
    at = len(lengths) - 1
    left, step = (lengths[at], steps[at]) if lengths else (1, itemsize)
    for n in reversed(wanted):
        if n == 1:
            result.append(step)
            continue
        if left == 1:
            at -= 1
            left, step = lengths[at], steps[at]
        if left % n:
            return None
        result.append(step)
        left //= n
        step *= n
    return tuple(reversed(result))
