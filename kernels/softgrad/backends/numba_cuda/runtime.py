"""What the primitives need of an array library and its device, for arrays of Numba, CuPy and torch."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from softgrad import host
from softgrad.backends.cuda import capture
from softgrad.backends.cuda.buffers import StreamBuffers
from softgrad.backends.cuda.kernels import C_TYPES, TOTALS, Kernel
from softgrad.backends.cuda.libraries import library_of
from softgrad.backends.cuda.scratch import SCRATCH_BYTES
from softgrad.backends.cuda.spare import offset
from softgrad.backends.numba_cuda import binaries, kernels
from softgrad.backends.numba_cuda.arguments import CopyArgs, layout
from softgrad.backends.numba_cuda.copies import AXES
from softgrad.backends.numba_cuda.device_array import DeviceArray, Home, contiguous_strides, merged
from softgrad.backends.numba_cuda.libraries import LIBRARIES
from softgrad.backends.numba_cuda.rows import Place
from softgrad.registry import unserved


class Runtime:
    """Arrays, kernels and launches; `driver` is the CUDA driver, or what plays it."""

    CHECKS_VALUES = False  # targets and probabilities are judged on request only: it would synchronise
    TAKES_TWO_AXES = True

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self._functions: dict[tuple[int, bytes, int], tuple[Any, int, Kernel]] = {}  # and the kernel, kept alive
        self._modules: dict[tuple[Kernel, Place, int], Any] = {}
        self._capabilities: dict[int, tuple[int, int]] = {}
        self._limits: dict[int, int] = {}
        self._scratch = StreamBuffers(SCRATCH_BYTES, driver.zeros)

    # --- the caller's arrays ------------------------------------------------------------------------------------------

    def adopt(self, name: str, array: Any, like: DeviceArray | None = None) -> DeviceArray:
        """`array`, the argument `name`, over the same memory, on the device and stream of `like`."""
        library = LIBRARIES.get(library_of(array))
        memory = None if library is None else library.memory(array)
        if library is None or memory is None or (like is not None and library is not like.home.library):
            raise TypeError(unserved(name, array, None if like is None else like.owner))
        pointer, shape, strides, dtype, device = memory
        if like is None:
            home = Home(library, device, library.stream(array), self)
        else:
            home = like.home
            if device != home.device:
                raise ValueError(
                    f"`{name}` is on device {device}; expected device {home.device}, where the main input is"
                )
        return DeviceArray(pointer, shape, strides, dtype, array, home)

    def release(self, array: DeviceArray, like: Any) -> Any:
        """A result as an array of its library."""
        return array.home.library.array(array, like)

    def empty(self, shape: tuple[int, ...], dtype: Any, like: DeviceArray, spare: int = 0) -> DeviceArray:
        """A new C-contiguous array of the library and on the device of `like`, and spare bytes behind it."""
        home, dtype = like.home, np.dtype(dtype)
        whole = (-(-(offset(shape, dtype) + spare) // dtype.itemsize),) if spare else shape
        owner, pointer = home.library.allocate(whole, dtype, home.device)
        return DeviceArray(pointer, shape, contiguous_strides(shape, dtype.itemsize), dtype, owner, home)

    def unit_tangents(self, shape: tuple[int, int, int], like: DeviceArray) -> DeviceArray:
        """The C unit vectors as tangents for rows of `shape`: (C, outer, C, inner), one C × C in memory."""
        outer, classes, inner = shape
        units = self.empty((classes, classes), like.dtype, like)
        self.write(units, np.eye(classes, dtype=like.dtype))
        row, column = units.strides
        return units.view_of(units.pointer, (classes, outer, classes, inner), (row, 0, column, 0))

    def overlap(self, a: DeviceArray, b: DeviceArray) -> Literal["none", "same", "partial"]:
        """How the memory of two arrays overlaps: no element shared, the very same view, or anything else."""
        if a.is_contiguous() and b.is_contiguous():
            ends = a.pointer + a.size * a.itemsize, b.pointer + b.size * b.itemsize
            if ends[0] <= b.pointer or ends[1] <= a.pointer:
                return "none"
        if a.home.device != b.home.device:
            return "none"
        return host.overlap(_shadow(a), _shadow(b))

    # --- copies and values --------------------------------------------------------------------------------------------

    def convert(self, array: DeviceArray, dtype: Any) -> DeviceArray:
        """A C-contiguous copy in another dtype."""
        copy = self.empty(array.shape, dtype, array)
        self.copy(array, copy)
        return copy

    def copy(self, source: DeviceArray, target: DeviceArray) -> None:
        """Element by element, rounded once where the dtypes differ."""
        if target.size == 0:
            return None
        if not (source.is_aligned() and target.is_aligned()):
            # A GPU cannot load or store what does not start at a multiple of its size: byte by byte, then.
            if source.dtype == target.dtype and source.shape == target.shape:
                source, target = source.bytes(), target.bytes()
            else:
                whole = self.empty(target.shape, target.dtype, target)
                self.copy(source if source.is_aligned() else self.convert(source, source.dtype), whole)
                return self.copy(whole, target)
        # A source of fewer or shorter axes is repeated, as NumPy does.
        new = target.ndim - source.ndim
        steps = [0] * new + [s if n > 1 else 0 for n, s in zip(source.shape, source.strides, strict=True)]
        lengths, (from_steps, to_steps) = merged(target.shape, steps, target.strides)
        if len(lengths) > AXES:
            raise ValueError(f"an array of {target.ndim} axes that cannot be walked as {AXES} is not copied")
        short = AXES - len(lengths)
        shape, from_, to = [1] * short + lengths, [0] * short + from_steps, [0] * short + to_steps
        names = [C_TYPES.get(array.dtype.name, array.dtype.name) for array in (source, target)]
        if source.dtype == target.dtype:
            names = [str(source.itemsize)] * 2
        kernel = kernels.copying(*names)
        arguments = layout(CopyArgs).pack(target.size, source.pointer, target.pointer, *shape, *from_, *to)
        return self.launch(kernel, -(-target.size // TOTALS.threads), arguments, target)

    def read(self, array: DeviceArray) -> np.ndarray:
        """The values, once everything before has run."""
        if not array.is_contiguous():
            array = self.convert(array, array.dtype)
        data = self.driver.read(array.pointer, array.size * array.itemsize, array.home.stream, array.home.device)
        return np.frombuffer(data, array.dtype).reshape(array.shape)

    def write(self, array: DeviceArray, values: np.ndarray) -> None:
        """Values of the array's dtype, repeated where they are fewer."""
        values = np.ascontiguousarray(np.broadcast_to(values, array.shape))
        if array.is_contiguous():
            self.driver.write(array.pointer, values.tobytes(), array.home.stream, array.home.device)
        else:
            whole = self.empty(array.shape, array.dtype, array)
            self.driver.write(whole.pointer, values.tobytes(), array.home.stream, array.home.device)
            self.copy(whole, array)

    # --- kernels ------------------------------------------------------------------------------------------------------

    def pointer(self, array: DeviceArray) -> int:
        """Address of the first element."""
        return array.pointer

    def has_clusters(self, like: DeviceArray) -> bool:
        """Numba has none."""
        return False

    def scratch(self, like: DeviceArray) -> int:
        """Address of `SCRATCH_BYTES` that belong to the call's stream and capture, zero at first."""
        _, device, stream, _ = like.home
        return self._scratch.of(device, stream, capture.capture_of(stream))

    def launch(self, kernel: Kernel, grid: int, arguments: bytes, like: DeviceArray) -> None:
        """Run a kernel, compiled on its first use on a device."""
        _, device, stream, _ = like.home
        # By the kernel's identity, which is quicker to look up than its value: kernels are made once and kept.
        found = self._functions.get((id(kernel), arguments[kernels.CLASSES], device))
        if found is None:
            found = self._loaded(kernel, kernels.classes(kernel, arguments), device)
            self._functions[id(kernel), arguments[kernels.CLASSES], device] = found
        function, shared_bytes, _ = found
        self.driver.launch(function, grid, shared_bytes, stream, arguments, device)

    def _loaded(self, kernel: Kernel, classes: int, device: int) -> tuple[Any, int, Kernel]:
        if device not in self._capabilities:
            self._capabilities[device] = self.driver.capability(device)
            self._limits[device] = self.driver.shared_limit(device)
        place, shared_bytes = kernels.place(kernel, classes, self._limits[device])
        key = kernel, place, device
        if key not in self._modules:
            binary = binaries.binary(kernel, place, self._capabilities[device])
            self._modules[key] = self.driver.load(binary, kernel.regime.threads, device)
        return self._modules[key], shared_bytes, kernel


def _shadow(array: DeviceArray) -> np.ndarray:
    return np.asarray(host.Shadow(array.pointer, array.shape, array.strides, array.itemsize))
