"""Runs the Python source of Numba CUDA kernels on `numba_machine`, and what the backend's primitives need around it."""

from __future__ import annotations

import types
from collections import deque
from typing import Any

import numba.cuda
import numpy as np

from softgrad.backends.cuda.kernels import Kernel
from softgrad.backends.numba_cuda import kernels, machine
from softgrad.backends.numba_cuda.arguments import unpacked
from tests.emulator import numba_machine
from tests.emulator.numba_machine import EmulatorError, Region

# So many threads run at a time: vectors that stay in the caches.
BATCH = 2**15
# Kernels whose blocks take tickets run block by block: which block is the last is one answer for all of its threads.
ONE_BY_ONE = ("total", "divisor")

_stand_ins = {id(getattr(machine, name)): twin for name, twin in numba_machine.FUNCTIONS.items()}
_rebuilt: dict[int, tuple[Any, Any]] = {}  # id -> (the original, kept alive; its twin)


def emulated_function(function: Any) -> Any:
    """The same Python code over the emulated machine."""
    if id(function) in _rebuilt:
        return _rebuilt[id(function)][1]
    python = getattr(function, "py_func", function)
    code = python.__code__
    namespace = {"__builtins__": python.__globals__["__builtins__"]}
    cells = tuple(types.CellType() for _ in python.__closure__ or ())
    twin = types.FunctionType(code, namespace, python.__name__, python.__defaults__, cells)
    _rebuilt[id(function)] = function, twin
    for name in code.co_names:
        if name in python.__globals__:
            namespace[name] = _stand_in(python.__globals__[name])
    for cell, original in zip(cells, python.__closure__ or (), strict=True):
        cell.cell_contents = _stand_in(original.cell_contents)
    return twin


def _stand_in(value: Any) -> Any:
    if id(value) in _stand_ins:
        return _stand_ins[id(value)]
    if value is numba.cuda:
        return numba_machine.CUDA
    return emulated_function(value) if hasattr(value, "py_func") else value


class Runtime:
    """Memory and launches of NumPy arrays; `launched` are the kernels that ran, in order."""

    SCRATCH_BYTES = 2**16

    def __init__(self, *, races: bool = True, descending: bool = False, shared_limit: int = 232448) -> None:
        self.races, self.descending, self.shared_limit = races, descending, shared_limit
        self.launched: list[Kernel] = []
        self.places: list[str] = []
        self._regions: deque[Region] = deque(maxlen=64)
        self._scratch = Region(np.zeros(self.SCRATCH_BYTES, np.uint8))

    def pointer(self, array: np.ndarray) -> int:
        """Address of the first element."""
        region = Region(array)
        self._regions.appendleft(region)
        return region.pointer

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Any) -> np.ndarray:
        """A new array, of NaN: what is not written shows."""
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[...] = 0xFF
        return array

    def convert(self, array: np.ndarray, dtype: Any) -> np.ndarray:
        """A C-contiguous copy in another dtype."""
        with np.errstate(all="ignore"):
            return np.ascontiguousarray(array).astype(dtype, order="C", copy=True)

    def has_clusters(self, like: Any) -> bool:
        """Numba has none."""
        return False

    def scratch(self, like: Any) -> int:
        """Address of bytes that are zero at first, and kept."""
        return self._scratch.pointer

    def launch(self, kernel: Kernel, grid: int, arguments: bytes, like: Any) -> None:
        """Run a kernel over a grid of blocks."""
        classes = int.from_bytes(arguments[16:24], "little", signed=True)
        place, shared_bytes = kernels.place(kernel, classes, self.shared_limit)
        python, takes = kernels.function(kernel, place)
        given = unpacked(takes, arguments)
        body = emulated_function(python)
        regime = kernel.regime
        numbers = set(np.frombuffer(arguments, np.int64).tolist())
        # The call's own arrays first, and each once.
        regions = {(r.low, r.high): r for r in reversed(self._regions)}
        regions = sorted(regions.values(), key=lambda r: r.pointer not in numbers)
        for region in (*regions, self._scratch):
            region.shadow = None
        per_batch = 1 if kernel.function in ONE_BY_ONE else max(1, BATCH // regime.threads)
        blocks = np.arange(grid)[:: -1 if self.descending else 1]
        self.launched.append(kernel)
        self.places.append(place)
        with np.errstate(all="ignore"):
            for first in range(0, grid, per_batch):
                part = blocks[first : first + per_batch]
                numba_machine.start(part, grid, regime.threads, shared_bytes, [*regions, self._scratch], self.races)
                body(given)


__all__ = ["EmulatorError", "Runtime", "emulated_function"]
