"""What a call on a GPU costs the host, and where: `python -m bench.host_cost [backend ...]`.

On a machine with a GPU the calls are real, and the device is idle when each burst begins.  Without one they are the
same, over arrays of the same libraries, but for the driver: memory is the host's, and a launch is nothing.  What is
left is what Python does, which is all but a microsecond or two of the cost.

Three columns: the whole call; the same with primitives that do nothing, which is the public layers and the arrays'
reshaping and judging; and the difference, which is plans, arguments and launches.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np

import softgrad
from bench.stand_in import standing_in
from softgrad.protocol import PRIMITIVES
from softgrad.registry import BACKENDS

ROWS, CLASSES = 64, 1000
BURST, BURSTS = 50, 40
MODULES = {name: entry.module for name, entry in BACKENDS.items() if entry.device == "cuda"}
Call = Callable[[], Any]


def calls(put: Callable[[np.ndarray], Any]) -> dict[str, Call]:
    """Calls of one kernel, `out` given, and those with sums over rows."""
    rng = np.random.default_rng(0)
    z, v, out = (put(rng.standard_normal((ROWS, CLASSES)).astype(np.float32)) for _ in range(3))
    t = put(np.zeros(ROWS, np.int64))
    return {
        "softmax": lambda: softgrad.softmax(z, out=out),
        "softmax_vjp": lambda: softgrad.softmax_vjp(v, logits=z, out=out),
        "cross_entropy_grad, sum": lambda: softgrad.cross_entropy_grad(z, t, reduction="sum", out=out),
        "cross_entropy_value_and_grad, none": lambda: softgrad.cross_entropy_value_and_grad(
            z, t, reduction="none", out=out
        ),
        "cross_entropy_value_and_grad, sum": lambda: softgrad.cross_entropy_value_and_grad(
            z, t, reduction="sum", out=out
        ),
        "cross_entropy_value_and_grad, mean": lambda: softgrad.cross_entropy_value_and_grad(z, t, out=out),
        "cross_entropy_hvp, mean": lambda: softgrad.cross_entropy_hvp(v, logits=z, targets=t, out=out),
    }


def microseconds(call: Call, settle: Call) -> float:
    """Microseconds of one call: the median of bursts, each begun with the device at rest."""
    call()
    samples = []
    for _ in range(BURSTS):
        settle()
        start = time.perf_counter()
        for _ in range(BURST):
            call()
        samples.append((time.perf_counter() - start) / BURST)
    settle()
    return 1e6 * statistics.median(samples)


def table(backend: str) -> list[tuple[str, float, float]]:
    """(call, µs, µs without its primitives) of each."""
    with PLACES[backend]() as (module, put, settle), standing_in(backend, module):
        found = calls(put)
        whole = {name: microseconds(call, settle) for name, call in found.items()}
        with _without_primitives(module):
            return [(name, whole[name], microseconds(call, settle)) for name, call in found.items()]


@contextmanager
def _without_primitives(module: Any) -> Iterator[None]:
    """Inside the ``with`` block primitives do nothing: each gives what it gave the first time it was asked."""
    real = {name: getattr(module, name) for name in PRIMITIVES}

    def repeated(name: str) -> Callable[..., Any]:
        last: dict[Any, Any] = {}

        def primitive(*arguments: Any, **options: Any) -> Any:
            key = (arguments[0].reduction, options["with_loss"]) if name == "cross_entropy" else None
            if key not in last:
                last[key] = real[name](*arguments, **options)
            return last[key]

        return primitive

    for name in PRIMITIVES:
        setattr(module, name, repeated(name))
    try:
        yield
    finally:
        for name, primitive in real.items():
            setattr(module, name, primitive)


# --- the backends, on a device or over the host's memory --------------------------------------------------------------


class _Entered:
    """A context that changes nothing."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@contextmanager
def cupy_place() -> Iterator[tuple[Any, Any, Call]]:
    """CuPy's backend, a function that puts a NumPy array on its device, and one that waits for the device."""
    import cupy

    if cupy.cuda.is_available():
        yield import_module(MODULES["cupy"]), cupy.asarray, lambda: cupy.cuda.Device().synchronize()
        return
    memory: list[np.ndarray] = []

    def place(array: np.ndarray) -> Any:
        memory.append(array)
        return cupy.cuda.MemoryPointer(
            cupy.cuda.UnownedMemory(array.__array_interface__["data"][0], array.nbytes, array, 0), 0
        )

    room = place(np.zeros(1 << 22, np.uint8))
    kernel = SimpleNamespace(kernel=SimpleNamespace(ptr=1))
    null = SimpleNamespace(ptr=0, synchronize=lambda: None)

    class Device(_Entered):
        def __init__(self, number: int = 0) -> None:
            pass

    class Stream(_Entered):
        def __init__(self, non_blocking: bool) -> None:
            pass

        def synchronize(self) -> None:
            pass

    with (
        _forgotten("cupy"),
        _patched(
            (cupy.cuda, "is_available", lambda: True),
            (cupy.cuda, "get_current_stream", lambda device=-1: null),
            (cupy.cuda.runtime, "getDevice", lambda: 0),
            (cupy.cuda.driver, "ctxGetDevice", lambda: 0),
            (cupy.cuda.driver, "launchKernel", lambda *_: None),
            (cupy.cuda, "Device", Device),
            (cupy.cuda, "Stream", Stream),
            (cupy, "zeros", lambda shape, dtype: cupy.ndarray(shape, dtype, room)),
            (cupy, "empty", lambda shape, dtype: cupy.ndarray(shape, dtype, room)),
            (cupy.cuda, "alloc", lambda size: room),
            (cupy, "RawModule", lambda **_: SimpleNamespace(get_function=lambda name: kernel)),
        ),
    ):
        module = import_module(MODULES["cupy"])
        arrays, runtime = (import_module(f"{MODULES['cupy']}.{part}") for part in ("arrays", "runtime"))
        # Most arrays of CuPy's are pieces of its pool, which there is none of without a device.
        pool = (arrays, "PooledMemory", cupy.cuda.UnownedMemory)
        with _patched(pool, (runtime.CupyRuntime, "has_clusters", lambda self, like: True)):
            put = lambda array: cupy.ndarray(array.shape, array.dtype, place(array), array.strides)  # noqa: E731
            yield module, put, lambda: None


@contextmanager
def numba_place() -> Iterator[tuple[Any, Any, Call]]:
    """The same with Numba's device arrays."""
    from cuda.bindings import driver as cu
    from numba import cuda

    if cuda.is_available():
        yield import_module(MODULES["numba_cuda"]), cuda.to_device, cuda.synchronize
        return
    from numba.cuda.cudadrv.devicearray import DeviceNDArray
    from numba.cuda.cudadrv.driver import MemoryPointer

    from softgrad.backends.numba_cuda import binaries

    ok = cu.CUresult.CUDA_SUCCESS
    context = SimpleNamespace(device=SimpleNamespace(id=0))
    room = np.zeros(1 << 22, np.uint8)
    pointer = cu.CUdeviceptr(room.__array_interface__["data"][0])
    own = SimpleNamespace(memalloc=lambda size: MemoryPointer(context, pointer, size))
    quick = {
        "cuInit": (ok,),
        "cuDeviceGetCount": (ok, 1),
        "cuDeviceGet": (ok, 0),
        "cuDeviceGetAttribute": (ok, 9),
        "cuCtxGetDevice": (ok, 0),
        "cuModuleLoadData": (ok, 1),
        "cuModuleGetFunction": (ok, cu.CUfunction(1)),
        "cuFuncSetAttribute": (ok,),
        "cuLaunchKernel": (ok,),
        "cuMemAlloc": (ok, pointer),
        "cuMemsetD8": (ok,),
        "cuStreamSynchronize": (ok,),
    }

    def put(array: np.ndarray) -> Any:
        memory = MemoryPointer(context, cu.CUdeviceptr(array.__array_interface__["data"][0]), array.nbytes, owner=array)
        return DeviceNDArray(array.shape, array.strides, array.dtype, gpu_data=memory)

    with (
        _forgotten("numba_cuda"),
        _patched(
            *((cu, name, lambda *_, result=result: result) for name, result in quick.items()),
            (cuda, "gpus", [_Entered()]),
            (cuda, "current_context", lambda: own),
            (binaries, "binary", lambda *_: binaries.Binary(b"", "kernel")),
        ),
    ):
        yield import_module(MODULES["numba_cuda"]), put, lambda: None


PLACES = {"cupy": cupy_place, "numba_cuda": numba_place}


@contextmanager
def _forgotten(backend: str) -> Iterator[None]:
    """Modules that a backend imports inside the ``with`` block, over a driver that does nothing, are removed again."""
    package = ".".join(MODULES[backend].split(".")[:3])
    before = {name for name in sys.modules if name.startswith(package)}
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.startswith(package) and name not in before]:
            del sys.modules[name]


@contextmanager
def _patched(*replacements: tuple[Any, str, Any]) -> Iterator[None]:
    before = [(of, name, getattr(of, name)) for of, name, _ in replacements]
    for of, name, value in replacements:
        setattr(of, name, value)
    try:
        yield
    finally:
        for of, name, value in before:
            setattr(of, name, value)


def main(argv: list[str]) -> int:
    """Print the tables of the backends asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.host_cost", description=__doc__)
    parser.add_argument("backends", nargs="*", metavar="backend", help=f"of {', '.join(PLACES)}; by default both")
    given = parser.parse_args(argv).backends
    for name in given:
        if name not in PLACES:
            parser.error(f"there is no backend {name!r} on a GPU, but {' and '.join(PLACES)}")
    for name in given or PLACES:
        try:
            rows = table(name)
        except ImportError as error:
            print(f"{name}: {error}")
            continue
        print(f"\n{name}: µs of a call on ({ROWS}, {CLASSES}) float32{'':14}{'whole':>8}{'above':>8}{'below':>8}")
        for call, whole, above in rows:
            print(f"  {call:60}{whole:8.1f}{above:8.1f}{whole - above:8.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
