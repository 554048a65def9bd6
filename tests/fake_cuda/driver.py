"""What stands for `numba_cuda.driver.Driver`: the CUDA driver, over the emulated machine of Numba's kernels."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np

from tests.emulator import numba_runner
from tests.emulator.numba_machine import Region
from tests.fake_cuda.machine import Machine


class FakeDriver:
    """The services that the backend's runtime asks for."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.loaded: list[str] = []
        self._one_at_a_time = threading.Lock()  # the emulated machine has one state

    def capability(self, device: int) -> tuple[int, int]:
        return (9, 0)

    def shared_limit(self, device: int) -> int:
        return 232448

    def load(self, binary: Any, threads: int, device: int) -> Any:
        kernel, place = binary
        assert threads == kernel.regime.threads
        self.loaded.append(kernel.name)
        return kernel, place, device

    def launch(self, function: Any, grid: int, shared_bytes: int, stream: int, arguments: bytes, device: int) -> None:
        kernel, place, of = function
        assert of == device
        numbers = set(np.frombuffer(arguments, np.int64).tolist())
        memory = [
            Region(block.bytes)
            for block in self.machine.blocks
            if any(block.pointer <= number <= block.pointer + block.size for number in numbers)
        ]

        def run() -> None:
            with self._one_at_a_time:
                numba_runner.run(kernel, place, grid, shared_bytes, arguments, memory)

        self.machine.do(run, stream, device, kernel.function)

    def zeros(self, size: int, device: int) -> int:
        block = self.machine.alloc(size, device)
        block.bytes[...] = 0
        return block.pointer

    def read(self, pointer: int, size: int, stream: int, device: int) -> bytes:
        self.machine.host_copies += 1
        return ctypes.string_at(pointer, size)

    def write(self, pointer: int, data: bytes, stream: int, device: int) -> None:
        self.machine.host_copies += 1
        ctypes.memmove(pointer, data, len(data))
