"""The runtime that the `cupy` backend's primitives get under emulation: NumPy arrays, kernels on the CPU."""

from __future__ import annotations

import ctypes
import threading
from collections import Counter
from functools import partial
from typing import Any

import numpy as np

from softgrad.backends.cuda.kernels import Kernel
from softgrad.backends.cuda.scratch import SCRATCH_BYTES
from softgrad.backends.cuda.spare import part
from tests.emulator import build, variants


class EmulatedRuntime:
    """Runs kernels one after the other, and counts which ran."""

    def __init__(self, *, clusters: bool = True, order: int = 0, edits: tuple = (), sanitizer: str = "") -> None:
        self.clusters, self.order, self.edits, self.sanitizer = clusters, order, edits, sanitizer
        self.ran: Counter[str] = Counter()
        self._scratch = np.zeros(SCRATCH_BYTES, np.uint8)
        self._lock = threading.Lock()

    def pointer(self, array: np.ndarray) -> int:
        return array.__array_interface__["data"][0]

    def empty(self, shape: tuple[int, ...], dtype: Any, like: np.ndarray, spare: int = 0) -> np.ndarray:
        """Filled with what no kernel should leave."""
        if spare:
            return part(partial(self.empty, like=like), shape, dtype, spare)
        array = np.empty(shape, dtype)
        array.view(np.uint8 if array.ndim else array.dtype)[...] = 0xFE
        return array

    def convert(self, array: np.ndarray, dtype: Any) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.ascontiguousarray(array.astype(dtype)) if array.ndim else array.astype(dtype)

    def has_clusters(self, like: np.ndarray) -> bool:
        return self.clusters

    def scratch(self, like: np.ndarray) -> int:
        return self.pointer(self._scratch)

    def launch(self, kernel: Kernel, grid: int, arguments: bytes, like: np.ndarray) -> None:
        self.ran[kernel.name] += 1
        alone = self.edits or self.sanitizer  # then compiling takes longer, and few variants run
        edits = tuple(edit for edit in self.edits if edit[0] in build.files_of(kernel.source))
        path = build.library([kernel] if alone else variants.family(kernel), self.sanitizer, edits=edits)
        function = getattr(build.loaded(path), kernel.name)
        with self._lock:
            function(
                ctypes.c_uint(grid), ctypes.c_int(self.order), ctypes.create_string_buffer(arguments, len(arguments))
            )
