"""Which backend serves a call: preference, use_backend per thread and task, SOFTGRAD_BACKEND, devices, refusals."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import types
from typing import Any, ClassVar

import numpy as np
import pytest

import softgrad
from softgrad import dispatch, registry
from softgrad.backends import numpy_cpu
from softgrad.registry import BACKENDS, Entry

Z = np.array([[1.75, 1.75]])


class Recorder(types.ModuleType):
    """A backend of its own name that serves NumPy arrays and notes who was called."""

    def __init__(self, name: str) -> None:
        super().__init__(f"recorder_{name}")
        self.calls = 0
        for each in numpy_cpu.__all__:
            setattr(self, each, getattr(numpy_cpu, each))
        self.softmax = self._softmax

    def _softmax(self, z: Any, out: Any) -> None:
        self.calls += 1
        numpy_cpu.softmax(z, out)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> dict[str, Entry]:
    """The numpy backend and nothing else, nothing loaded yet, no environment variable."""
    table = {"numpy": BACKENDS["numpy"]}
    monkeypatch.setattr(dispatch, "BACKENDS", table)
    monkeypatch.setattr(registry, "BACKENDS", table)
    monkeypatch.setattr(dispatch, "_loaded", {})
    monkeypatch.setattr(dispatch, "_default", {})
    monkeypatch.setattr(dispatch, "_environment", "")
    return table


def add(table: dict[str, Entry], monkeypatch: pytest.MonkeyPatch, name: str, device: Any, home: str = "") -> Recorder:
    """Register a recorder as a backend, ahead of those there are."""
    recorder = Recorder(name)
    monkeypatch.setitem(sys.modules, recorder.__name__, recorder)
    others = dict(table)
    table.clear()
    table[name] = Entry(recorder.__name__, device, f"{name} arrays", home=home)
    table.update(others)
    return recorder


# --- available_backends -----------------------------------------------------------------------------------------------


def test_every_backend_is_available_or_says_why_not() -> None:
    state = softgrad.available_backends()
    assert list(state) == list(BACKENDS)
    assert state["numpy"] == "available"
    assert all(isinstance(reason, str) and reason for reason in state.values())


def test_reasons(fresh: dict[str, Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    fresh["absent"] = Entry("softgrad.backends.numpy_cpu", "cpu", "", needs=("no_such_package",), extra="absent")
    fresh["driverless"] = Entry("a_backend_without_driver", "cpu", "")
    fresh["broken"] = Entry("a_broken_backend", "cpu", "")

    class Loader:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == "a_backend_without_driver":
                raise ImportError("no CUDA driver was found")
            if name == "a_broken_backend":
                raise OSError("libcuda.so.1: wrong ELF class")

    monkeypatch.setattr(sys, "meta_path", [Loader(), *sys.meta_path])
    assert softgrad.available_backends() == {
        "numpy": "available",
        "absent": "no_such_package is not installed: pip install 'softgrad[absent]'",
        "driverless": "no CUDA driver was found",
        "broken": "importing it failed: OSError: libcuda.so.1: wrong ELF class",
    }
    for name, reason in softgrad.available_backends().items():
        if name != "numpy":
            with pytest.raises(RuntimeError) as caught, softgrad.use_backend(name):
                pass
            assert str(caught.value) == f"use_backend: backend {name!r} is not available: {reason}"


# --- use_backend ------------------------------------------------------------------------------------------------------


def test_it_forces_a_backend_inside_the_block_only(fresh: dict[str, Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    first = add(fresh, monkeypatch, "first", "cpu")
    second = add(fresh, monkeypatch, "second", "cpu")  # the preferred one
    softgrad.softmax(Z)
    assert (first.calls, second.calls) == (0, 1)
    with softgrad.use_backend("first"):
        softgrad.softmax(Z)
        with softgrad.use_backend("numpy"):
            softgrad.softmax(Z)
        softgrad.softmax(Z)
    assert (first.calls, second.calls) == (2, 1)
    softgrad.softmax(Z)
    assert (first.calls, second.calls) == (2, 2)
    with pytest.raises(KeyError), softgrad.use_backend("first"):
        raise KeyError
    softgrad.softmax(Z)
    assert (first.calls, second.calls) == (2, 3)


@pytest.mark.parametrize("name", ["torch", "", "NumPy", None, 3, ["numpy"]])
def test_an_unknown_name(name: Any) -> None:
    with pytest.raises(ValueError, match="unknown backend") as caught, softgrad.use_backend(name):
        pass
    assert repr(name) in str(caught.value)
    assert "'numpy'" in str(caught.value)


def test_one_that_cannot_serve_raises_and_nothing_falls_back() -> None:
    for name, state in softgrad.available_backends().items():
        if state == "available":
            with softgrad.use_backend(name):
                continue
        with pytest.raises(RuntimeError, match=f"use_backend: backend '{name}' is not available: "):
            softgrad.use_backend(name).__enter__()


def test_it_is_this_threads_only(fresh: dict[str, Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    forced = add(fresh, monkeypatch, "forced", "cpu")
    preferred = add(fresh, monkeypatch, "preferred", "cpu")
    inside, done = threading.Event(), threading.Event()

    def force() -> None:
        with softgrad.use_backend("forced"):
            inside.set()
            done.wait(10)
            softgrad.softmax(Z)

    thread = threading.Thread(target=force)
    thread.start()
    assert inside.wait(10)
    softgrad.softmax(Z)
    done.set()
    thread.join()
    assert (forced.calls, preferred.calls) == (1, 1)


def test_it_is_this_tasks_only(fresh: dict[str, Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    forced = add(fresh, monkeypatch, "forced", "cpu")
    preferred = add(fresh, monkeypatch, "preferred", "cpu")

    async def force(inside: asyncio.Event, done: asyncio.Event) -> None:
        with softgrad.use_backend("forced"):
            inside.set()
            await done.wait()
            softgrad.softmax(Z)

    async def main() -> None:
        inside, done = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(force(inside, done))
        await inside.wait()
        softgrad.softmax(Z)
        done.set()
        await task

    asyncio.run(main())
    assert (forced.calls, preferred.calls) == (1, 1)


# --- SOFTGRAD_BACKEND -------------------------------------------------------------------------------------------------


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The code in a new interpreter, with these variables set."""
    variables = {key: value for key, value in os.environ.items() if key != "SOFTGRAD_BACKEND"} | environment
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_the_variable_is_read_at_the_first_call() -> None:
    code = """
import os, softgrad
from softgrad import dispatch
os.environ["SOFTGRAD_BACKEND"] = "numpy"
softgrad.softmax([1.0, 2.0])
os.environ["SOFTGRAD_BACKEND"] = "no such backend"
softgrad.softmax([1.0, 2.0])
print(*dispatch._loaded)
"""
    done = run(code)
    assert done.stdout.split() == ["numpy"], done.stderr


def test_the_variable_names_no_backend() -> None:
    done = run("import softgrad; print('imported'); softgrad.softmax([1.0])", SOFTGRAD_BACKEND="cudnn")
    assert done.stdout.strip() == "imported"
    assert "ValueError: SOFTGRAD_BACKEND: unknown backend 'cudnn'; there are" in done.stderr


def test_use_backend_goes_before_the_variable() -> None:
    code = "import softgrad\nwith softgrad.use_backend('numpy'): print(softgrad.softmax([0.0, 0.0]))"
    assert run(code, SOFTGRAD_BACKEND="cudnn").stdout.strip() == "[0.5 0.5]"


def test_the_variable_names_one_that_is_not_available(fresh: dict[str, Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    fresh["absent"] = Entry("x", "cpu", "", needs=("no_such_package",), extra="absent")
    monkeypatch.setattr(dispatch, "_environment", None)
    monkeypatch.setenv("SOFTGRAD_BACKEND", "absent")
    with pytest.raises(RuntimeError, match="SOFTGRAD_BACKEND: backend 'absent' is not available: no_such_package is"):
        softgrad.softmax(Z)


# --- devices ----------------------------------------------------------------------------------------------------------


class OnDevice:
    """An array that says, by DLPack, on which device it is."""

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.kind, 0)


class ByInterface:
    """An array that speaks the CUDA array interface only."""

    __cuda_array_interface__: ClassVar[dict[str, Any]] = {}


class Tracer:
    """An array that has no device, as in a function being traced."""

    def __dlpack_device__(self) -> tuple[int, int]:
        raise RuntimeError("an abstract value")


@pytest.mark.parametrize("array", [OnDevice(2), OnDevice(13), ByInterface()], ids=["CUDA", "managed", "interface"])
def test_cuda_arrays_go_to_the_backends_of_their_device(fresh, monkeypatch, array: Any) -> None:
    gpu = add(fresh, monkeypatch, "gpu", "cuda")
    gpu.adopt = lambda name, array, like=None: Z  # type: ignore[attr-defined]
    softgrad.softmax(array)
    assert gpu.calls == 1
    softgrad.softmax(Z)
    assert gpu.calls == 1


@pytest.mark.parametrize("array", [OnDevice(1), OnDevice(10), Tracer()], ids=["CPU", "ROCm", "tracer"])
def test_other_devices_are_refused(fresh, monkeypatch, array: Any) -> None:
    add(fresh, monkeypatch, "gpu", "cuda")
    with pytest.raises(TypeError, match=r"`logits` is a .*; softgrad serves gpu arrays, NumPy arrays, numbers"):
        softgrad.softmax(array)


def test_a_library_prefers_its_own_backend(fresh, monkeypatch) -> None:
    own = add(fresh, monkeypatch, "own", "cuda", home=OnDevice.__module__.partition(".")[0])
    other = add(fresh, monkeypatch, "other", "cuda")
    for backend in (own, other):
        backend.adopt = lambda name, array, like=None: Z  # type: ignore[attr-defined]
    softgrad.softmax(OnDevice(2))
    assert (own.calls, other.calls) == (1, 0)


def test_refusals_are_collected_and_shown_together(fresh) -> None:
    for name in ("gpu_a", "gpu_b"):
        fresh[name] = Entry("x", "cuda", "CUDA arrays", needs=(f"no_{name}",), extra=name)
    with pytest.raises(TypeError, match="`logits` is a") as caught:
        softgrad.softmax(OnDevice(2))
    for name in ("gpu_a", "gpu_b"):
        assert f"the backend '{name}' is not available here: no_{name} is not installed" in str(caught.value)


def test_the_type_is_looked_up_once(fresh, monkeypatch) -> None:
    softgrad.softmax(Z)
    monkeypatch.setattr(dispatch, "_first_that_serves", None)
    softgrad.softmax(Z)
