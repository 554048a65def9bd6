"""The GPU backends, forced, on the machine that is not there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from softgrad import dispatch
from softgrad.backends.cuda import capture
from softgrad.backends.cuda.kernels import Kernel
from softgrad.backends.cuda.primitives import Primitives
from softgrad.protocol import members
from tests.emulator.runtime import EmulatedRuntime
from tests.fake_cuda import cupy_module, jax_module, torch_module
from tests.fake_cuda.machine import Machine

CUPY_BACKEND = "softgrad.backends.cupy_cuda"


class _Text(str):
    """A kernel's source that knows whose it is."""

    kernel: Kernel


@contextmanager
def libraries(machine: Machine, patch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The fake libraries in `sys.modules`, and the driver's own; JAX's stands by itself."""
    patch.setattr(capture, "_driver", lambda: machine)
    try:
        importlib.import_module("tests.fake_cuda.driver")  # looks for the real Numba
        from tests.fake_cuda import numba_module
    except ImportError:  # which is not everywhere
        numba = None
    else:
        numba = numba_module.module(machine)
    emulated = EmulatedRuntime()
    cupy = cupy_module.module(machine, lambda kernel, grid, arguments: emulated.launch(kernel, grid, arguments, None))
    torch, jax = torch_module.module(machine), jax_module.module(machine)
    modules = {"cupy": cupy, "cupy.cuda": cupy.cuda, "cupy.cuda.memory": cupy.cuda.memory, "torch": torch}
    modules["numba.cuda"] = numba
    if numba is not None:
        modules["numba.cuda.cudadrv.devicearray"] = numba_module
    for name, module in modules.items():
        if module is not None:
            patch.setitem(sys.modules, name, module)
    yield SimpleNamespace(cupy=cupy, torch=torch, jax=jax, numba=numba)


@contextmanager
def cupy_backend(machine: Machine, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The `cupy` backend: its own modules, imported anew over the fake CuPy, which must be in place."""
    text = Kernel.text

    def noted(kernel: Kernel) -> str:
        made = _Text(text(kernel))
        made.kernel = kernel
        return made

    patch.setattr(Kernel, "text", noted)
    for name in [name for name in sys.modules if name.startswith(CUPY_BACKEND)]:
        patch.delitem(sys.modules, name)
    try:
        yield importlib.import_module(CUPY_BACKEND)
    finally:
        for name in [name for name in sys.modules if name.startswith(CUPY_BACKEND)]:
            del sys.modules[name]


@contextmanager
def numba_backend(machine: Machine, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The `numba_cuda` backend over the fake driver; its kernels run as they are in Python."""
    from softgrad.backends.cuda.segments import Cutting
    from softgrad.backends.numba_cuda import binaries, libraries
    from softgrad.backends.numba_cuda.runtime import Runtime
    from tests.fake_cuda.driver import FakeDriver

    patch.setattr(binaries, "binary", lambda kernel, place, capability: (kernel, place))
    libraries._torch_dtypes.cache_clear()
    driver = FakeDriver(machine)
    runtime = Runtime(driver)
    yield SimpleNamespace(driver=driver, **members(runtime, Primitives(runtime, Cutting(beyond=2**63))))
    libraries._torch_dtypes.cache_clear()


BACKENDS = {"cupy": cupy_backend, "numba_cuda": numba_backend}


@contextmanager
def available(machine: Machine) -> Iterator[SimpleNamespace]:
    """Every GPU backend and library, for every call that asks for them."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        found = stack.enter_context(libraries(machine, patch))
        for name, backend in BACKENDS.items():
            patch.setitem(dispatch._loaded, name, stack.enter_context(backend(machine, patch)))
        yield found


@contextmanager
def forced(name: str, machine: Machine) -> Iterator[tuple[Any, SimpleNamespace]]:
    """Both: the backend, which every call in the block goes to, and the libraries."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        found = stack.enter_context(libraries(machine, patch))
        backend = stack.enter_context(BACKENDS[name](machine, patch))
        patch.setitem(dispatch._loaded, name, backend)
        stack.callback(dispatch._forced.reset, dispatch._forced.set(name))
        yield backend, found
