"""A CUDA device played by the CPU, for the `numba_cuda` backend's runtime: its driver, and arrays of its libraries.

Memory is NumPy's; kernels run in the emulator.  What is left untested is what only a device can answer.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.emulator import numba_runner
from tests.emulator.numba_machine import Region


class FakeDriver:
    """The services of `driver.Driver`; every call is noted."""

    def __init__(self, devices: int = 2) -> None:
        self.devices = devices
        self.launches: list[tuple[str, int, int]] = []  # kernel, stream, device
        self.loaded: list[str] = []
        self.copies = 0
        self._memory: list[np.ndarray] = []

    def own(self, array: np.ndarray) -> np.ndarray:
        """Memory that kernels may access."""
        self._memory.append(array)
        return array

    def capability(self, device: int) -> tuple[int, int]:
        return (9, 0)

    def shared_limit(self, device: int) -> int:
        return 232448

    def load(self, binary: Any, threads: int, device: int) -> Any:
        kernel, place = binary
        assert threads == kernel.regime.threads
        self.loaded.append(kernel.name)
        return kernel, place

    def launch(self, function: Any, grid: int, shared_bytes: int, stream: int, arguments: bytes, device: int) -> None:
        kernel, place = function
        self.launches.append((kernel.function, stream, device))
        numba_runner.run(kernel, place, grid, shared_bytes, arguments, map(Region, self._memory))

    def zeros(self, size: int, device: int) -> int:
        return _address(self.own(np.zeros(size, np.uint8)))

    def read(self, pointer: int, size: int, stream: int, device: int) -> bytes:
        self.copies += 1
        return ctypes.string_at(pointer, size)

    def write(self, pointer: int, data: bytes, stream: int, device: int) -> None:
        self.copies += 1
        ctypes.memmove(pointer, data, len(data))


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


class _GpuData:
    """The memory of a Numba device array."""

    def __init__(self, owner: np.ndarray, first: int, device: int) -> None:
        self.owner, self.first = owner, first
        self.context = SimpleNamespace(device=SimpleNamespace(id=device))

    def view(self, start: int, stop: int) -> _GpuData:
        return _GpuData(self.owner, self.first + start, self.context.device.id)


class FakeNumbaArray:
    """What `numba.cuda.device_array` returns, as far as it is looked at."""

    __cuda_ndarray__ = True

    def __init__(
        self, shape: Any, strides: Any, dtype: Any, stream: Any = 0, gpu_data: Any = None, device: int = 0
    ) -> None:
        self.shape, self.strides, self.dtype, self.stream = shape, strides, np.dtype(dtype), stream
        self.gpu_data = gpu_data

    @property
    def device_ctypes_pointer(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.gpu_data.first)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "data": (self.gpu_data.first, False), "version": 3}

    @property
    def host(self) -> np.ndarray:
        """The values."""
        interface = {
            "shape": self.shape,
            "strides": self.strides,
            "data": (self.gpu_data.first, False),
            "typestr": f"|V{self.dtype.itemsize}",
            "version": 3,
        }
        return np.asarray(SimpleNamespace(__array_interface__=interface)).view(self.dtype)


FakeNumbaArray.__module__ = "numba.cuda.cudadrv.devicearray"


class Device:
    """A machine with two devices: `numba(array)` puts a NumPy array on one of them."""

    def __init__(self) -> None:
        self.driver = FakeDriver()

    def numba(self, array: Any, *, device: int = 0, stream: Any = 0) -> FakeNumbaArray:
        array = np.asarray(array)
        memory = self.driver.own(array if array.base is None else array.base)
        return FakeNumbaArray(
            array.shape, array.strides, array.dtype, stream, _GpuData(memory, _address(array), device)
        )

    def numba_module(self) -> Any:
        """What stands for the module `numba.cuda`."""
        entered: list[int] = []

        class Gpu:
            def __init__(self, number: int) -> None:
                self.number = number

            def __enter__(self) -> None:
                entered.append(self.number)

            def __exit__(self, *_: object) -> None:
                pass

        def device_array(shape: Any, dtype: Any) -> FakeNumbaArray:
            return self.numba(np.full(shape, 0x7F, np.uint8).astype(dtype), device=entered[-1])

        return SimpleNamespace(gpus=[Gpu(n) for n in range(2)], device_array=device_array)
