"""The GPU of the tests marked `gpu`: arrays of one library, put there and read back, under one backend.

The sizes stand here because the same tests run with smaller ones on a machine that is not there
(`tests.fake_cuda.plugin`), so that they work the first time they meet a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tests import cases

HUGE_ROW = 10**7  # classes: all multiprocessors share it
MANY_ELEMENTS = 2**21 + 3, 1030  # more than 2^31
BATCH = 4096, 1000  # a call on it takes longer than its launch
MANY_ROWS = 70_000  # their sum has several chunks
REPEATS = 20
CASES = cases.ADVERSARIAL + cases.TAILS
LONG_CASES = cases.MODELS + cases.LARGE
# Class counts in every regime, of both backends.
CLASSES = (3, 10, 100, 1000, 5000, 50_257, 200_000, 300_000)

# Backend, and the library whose arrays it is given.
PLACES = {"cupy": ("cupy", "cupy"), "numba_cuda": ("numba_cuda", "numba"), "numba_cuda-cupy": ("numba_cuda", "cupy")}


class CupyArrays:
    """CuPy's: a call follows CuPy's current stream."""

    def __init__(self) -> None:
        self.module: Any = pytest.importorskip("cupy", reason="needs CuPy")

    def put(self, array: np.ndarray) -> Any:
        """On the device."""
        if array.dtype.name == "bfloat16" and int(self.module.__version__.split(".")[0]) < 14:
            pytest.skip(f"CuPy {self.module.__version__} has no bfloat16: pip install 'cupy-cuda13x>=14'")
        return self.module.asarray(array)

    def get(self, array: Any) -> Any:
        """Back from there; a 0-d result as NumPy's scalar."""
        assert type(array) is self.module.ndarray
        values = self.module.asnumpy(array)
        return values if values.ndim else values[()]

    @contextmanager
    def on_a_stream(self) -> Iterator[Any]:
        """Calls follow a new stream; its `synchronize`, `begin_capture` and `end_capture` are CuPy's."""
        with self.module.cuda.Stream(non_blocking=True) as stream:
            yield stream
            stream.synchronize()

    def free(self) -> None:
        """Give memory back to the device."""
        self.module.get_default_memory_pool().free_all_blocks()


class NumbaArrays:
    """Numba's: a call follows the stream that the main input is bound to."""

    def __init__(self) -> None:
        self.module: Any = pytest.importorskip("numba.cuda", reason="needs numba-cuda")

    def put(self, array: np.ndarray) -> Any:
        """On the device; bfloat16 as its bits, for NumPy exports no buffer of it, which Numba copies from."""
        array = np.array(array, order="C")
        if array.dtype.name == "bfloat16":
            return self.module.to_device(array.view(np.uint16)).view(array.dtype)
        return self.module.to_device(array)

    def get(self, array: Any) -> Any:
        """Back from there; a 0-d result as NumPy's scalar."""
        assert type(array).__module__.startswith("numba.")
        values = array.copy_to_host()
        return values if values.ndim else values[()]

    def free(self) -> None:
        """It is freed when it is garbage."""


LIBRARIES: dict[str, Callable[[], Any]] = {"cupy": CupyArrays, "numba": NumbaArrays}
