"""GPU backends without a GPU: `emulated` lends the public functions a backend whose kernels run on the CPU.

with emulated("cupy") as device:
    softgrad.softmax(z)          # z a NumPy array
device.ran                       # which kernels ran, and how often
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from softgrad import dispatch, host
from softgrad.backends.cuda.primitives import Primitives
from softgrad.backends.cuda.segments import Cutting
from softgrad.protocol import members
from tests.emulator.runtime import EmulatedRuntime

__all__ = ["emulated"]


@contextmanager
def emulated(backend: str, *, cutting: Cutting | None = None, **options: Any) -> Iterator[Any]:
    """The public functions take NumPy arrays and run the kernels of a GPU backend on the CPU, in this thread.

    `cutting`: which rows are cut into segments, if not those that are on a device.
    """
    runtime: Any
    if backend == "cupy":
        runtime = EmulatedRuntime(**options)
    elif backend == "numba_cuda":
        from tests.emulator.numba_runner import Runtime  # Numba is not everywhere

        runtime = Runtime(**options)
    else:
        raise ValueError(f"no emulation of backend {backend!r}")
    module = SimpleNamespace(**members(host, Primitives(runtime, cutting)))
    before = dispatch._loaded.get(backend)
    dispatch._loaded[backend] = module
    token = dispatch._forced.set(backend)
    try:
        yield runtime
    finally:
        dispatch._forced.reset(token)
        if before is None:
            del dispatch._loaded[backend]
        else:
            dispatch._loaded[backend] = before
