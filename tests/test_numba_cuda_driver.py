"""The `numba_cuda` backend's use of the CUDA driver, with a driver that notes what it is asked."""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda: pip install 'softgrad[numba-cuda]'")
from cuda.bindings import driver as cu

from softgrad.backends.numba_cuda.binaries import Binary

MODULE = "softgrad.backends.numba_cuda.driver"
SUCCESS = cu.CUresult.CUDA_SUCCESS


class NotedDriver:
    """Device 0 is current at first; contexts are their device's number plus 100."""

    def __init__(self) -> None:
        self.current = [0]
        self.launched: list[tuple[Any, ...]] = []
        self.attributes: list[tuple[Any, ...]] = []
        self.fails = False

    def cuInit(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        return (SUCCESS,)

    def cuDeviceGetCount(self) -> tuple[Any, ...]:  # noqa: N802
        return SUCCESS, 2

    def cuCtxGetDevice(self) -> tuple[Any, ...]:  # noqa: N802
        return SUCCESS, self.current[-1]

    def cuDeviceGet(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        return SUCCESS, device

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        return SUCCESS, device + 100

    def cuCtxPushCurrent(self, context: int) -> tuple[Any, ...]:  # noqa: N802
        self.current.append(context - 100)
        return (SUCCESS,)

    def cuCtxPopCurrent(self) -> tuple[Any, ...]:  # noqa: N802
        return SUCCESS, self.current.pop() + 100

    def cuGetErrorName(self, error: Any) -> tuple[Any, ...]:  # noqa: N802
        return SUCCESS, error.name.encode()

    def cuModuleLoadData(self, code: bytes) -> tuple[Any, ...]:  # noqa: N802
        return SUCCESS, ("module", code, self.current[-1])

    def cuModuleGetFunction(self, module: Any, name: bytes) -> tuple[Any, ...]:  # noqa: N802
        return SUCCESS, (module, name)

    def cuFuncSetAttribute(self, *arguments: Any) -> tuple[Any, ...]:  # noqa: N802
        self.attributes.append(arguments)
        return (SUCCESS,)

    def cuLaunchKernel(self, function: Any, *rest: Any) -> tuple[Any, ...]:  # noqa: N802
        *config, parameters, extra = rest
        fields = (ctypes.c_void_p * 5).from_address(extra)
        size = ctypes.c_size_t.from_address(fields[3]).value
        assert (fields[0], fields[2], fields[4], parameters) == (1, 2, None, 0)
        self.launched.append((function, config, ctypes.string_at(fields[1], size), self.current[-1]))
        return (cu.CUresult.CUDA_ERROR_INVALID_VALUE if self.fails else SUCCESS,)


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[NotedDriver, Any]]:
    """The noting driver, and the module over it."""
    noted = NotedDriver()
    for name in dir(noted):
        if name.startswith("cu") and name != "current":
            monkeypatch.setattr(cu, name, getattr(noted, name))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    yield noted, importlib.import_module(MODULE)
    sys.modules.pop(MODULE, None)


ARGUMENTS = bytes(range(88))


def test_a_launch_hands_over_its_arguments_as_they_are(noted: tuple[NotedDriver, Any]) -> None:
    driver, module = noted
    function = module.Driver().load(Binary(b"code", "entry"), 256, 0)
    module.Driver().launch(function, 12, 1024, 77, ARGUMENTS, 0)
    ((handle, config, arguments, device),) = driver.launched
    assert handle == (("module", b"code", 0), b"entry")
    assert config == [12, 1, 1, 256, 1, 1, 1024, 77]
    assert arguments == ARGUMENTS
    assert device == 0
    assert driver.attributes == []


def test_another_device_s_context_is_current_during_the_call_alone(noted: tuple[NotedDriver, Any]) -> None:
    driver, module = noted
    of = module.Driver()
    function = of.load(Binary(b"code", "entry"), 128, 1)
    of.launch(function, 1, 0, 0, ARGUMENTS, 1)
    assert function.handle[0][2] == 1
    assert driver.launched[0][-1] == 1
    driver.fails = True
    with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
        of.launch(function, 1, 0, 0, ARGUMENTS, 1)
    assert driver.current == [0]


def test_more_shared_memory_is_asked_for_once(noted: tuple[NotedDriver, Any]) -> None:
    driver, module = noted
    of = module.Driver()
    function = of.load(Binary(b"code", "entry"), 512, 0)
    for size in (1000, 49_152, 100_000, 100_000, 60_000):
        of.launch(function, 1, size, 0, ARGUMENTS, 0)
    assert [size for *_, size in driver.attributes] == [100_000]


def test_without_a_device_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cu, "cuInit", lambda flags: (SUCCESS,))
    monkeypatch.setattr(cu, "cuDeviceGetCount", lambda: (SUCCESS, 0))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(ImportError, match="no CUDA device: the driver finds none"):
        importlib.import_module(MODULE)
