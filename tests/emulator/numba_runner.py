"""Runs the Python source of Numba CUDA kernels on `numba_machine`, and what the backend's primitives need around it."""

from __future__ import annotations

import types
from collections import Counter, deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import numba.cuda
import numpy as np

from softgrad.backends.cuda.kernels import Kernel
from softgrad.backends.cuda.scratch import SCRATCH_BYTES
from softgrad.backends.cuda.spare import part
from softgrad.backends.numba_cuda import kernels, machine
from softgrad.backends.numba_cuda.arguments import unpacked
from softgrad.backends.numba_cuda.rows import Place
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


def run(
    kernel: Kernel,
    place: Place,
    grid: int,
    shared_bytes: int,
    arguments: bytes,
    regions: Iterable[Region],
    *,
    races: bool = True,
    descending: bool = False,
) -> None:
    """Run a kernel that holds its row there over a grid of blocks; `regions` is all the memory that there is."""
    python, takes = kernels.function(kernel, place)
    given, body = unpacked(takes, arguments), emulated_function(python)
    threads = kernel.regime.threads
    per_batch = 1 if kernel.function in ONE_BY_ONE else max(1, BATCH // threads)
    blocks = np.arange(grid)[:: -1 if descending else 1]
    # The call's own arrays first, and each once.
    numbers = set(np.frombuffer(arguments, np.int64).tolist())
    once = {(region.low, region.high): region for region in regions}
    found = sorted(once.values(), key=lambda region: region.pointer not in numbers)
    for region in found:
        region.shadow = None
    with np.errstate(all="ignore"):
        for first in range(0, grid, per_batch):
            part = blocks[first : first + per_batch]
            numba_machine.start(part, grid, threads, shared_bytes, found, races)
            body(given)


class Runtime:
    """Memory and launches of NumPy arrays; which kernels ran, and where each held its row."""

    def __init__(self, *, races: bool = True, descending: bool = False, shared_limit: int = 232448) -> None:
        self.races, self.descending, self.shared_limit = races, descending, shared_limit
        self.ran: Counter[str] = Counter()
        self.launched: list[tuple[Kernel, Place]] = []
        self._regions: deque[Region] = deque(maxlen=64)
        self._scratch = Region(np.zeros(SCRATCH_BYTES, np.uint8))

    def pointer(self, array: np.ndarray) -> int:
        """Address of the first element."""
        region = Region(array)
        self._regions.append(region)
        return region.pointer

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Any, spare: int = 0) -> np.ndarray:
        """A new array, all ones: what is not written shows."""
        if spare:
            return part(partial(self.empty, like=like), shape, dtype, spare)
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
        place, shared_bytes = kernels.place(kernel, kernels.classes(kernel, arguments), self.shared_limit)
        self.ran[kernel.name] += 1
        self.launched.append((kernel, place))
        regions = (*self._regions, self._scratch)
        run(kernel, place, grid, shared_bytes, arguments, regions, races=self.races, descending=self.descending)


__all__ = ["EmulatorError", "Runtime", "emulated_function", "run"]
