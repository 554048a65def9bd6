"""What the code above the backends asks of an array and of a backend: what protocol.py says, and no more.

A device of our own, whose arrays have exactly the attributes that the protocol lists and whose values cannot be read
by the host: reading one would make a GPU wait.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import softgrad
from softgrad import dispatch, registry
from softgrad.backends import numpy_cpu
from softgrad.protocol import PRIMITIVES, SERVICES, Backend, Loss, members
from softgrad.registry import BACKENDS, Entry, unserved
from tests import calls
from tests.calls import LEFT_OUT, LOSSES, ROWS, SHAPE
from tests.test_out import places


class Flags:
    """An array's flags: the two that the protocol lists."""

    def __init__(self, flags: Any) -> None:
        self.c_contiguous = flags.c_contiguous


class DeviceArray:
    """An array on device `number`: it has the attributes that the protocol lists, and its values cannot be read."""

    __slots__ = ("_memory", "number")

    def __init__(self, memory: np.ndarray, number: int = 0) -> None:
        self._memory, self.number = memory, number

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self.number)

    __dlpack__ = None
    dtype = property(lambda self: self._memory.dtype)
    shape = property(lambda self: self._memory.shape)
    strides = property(lambda self: self._memory.strides)
    itemsize = property(lambda self: self._memory.itemsize)
    ndim = property(lambda self: self._memory.ndim)
    size = property(lambda self: self._memory.size)
    flags = property(lambda self: Flags(self._memory.flags))

    def reshape(self, *shape: Any) -> DeviceArray:
        return DeviceArray(self._memory.reshape(*shape), self.number)

    def astype(self, dtype: Any) -> DeviceArray:
        return DeviceArray(self._memory.astype(dtype), self.number)

    def transpose(self, *axes: int) -> DeviceArray:
        return DeviceArray(self._memory.transpose(*axes), self.number)

    def __setitem__(self, at: Any, value: DeviceArray) -> None:
        assert at is Ellipsis
        self._memory[...] = value._memory

    def _read(self, *_: Any) -> Any:
        raise AssertionError("the host read a value on the device")

    __float__ = __int__ = __bool__ = __index__ = __array__ = __getitem__ = __iter__ = __len__ = __eq__ = _read
    __hash__ = None  # type: ignore[assignment]


class Device(types.ModuleType):
    """The backend of such arrays: NumPy's primitives on their memory; counts what it allocates and checks."""

    CHECKS_VALUES = False
    TAKES_TWO_AXES = False

    def __init__(self) -> None:
        super().__init__("a_device_backend")
        self.allocated = self.checked = 0

    def adopt(self, name: str, array: Any, like: Any = None) -> DeviceArray:
        if not isinstance(array, DeviceArray) or (like is not None and array.number != like.number):
            raise TypeError(unserved(name, array, like))
        return array

    def release(self, array: DeviceArray, like: Any) -> DeviceArray:
        assert isinstance(like, DeviceArray)
        return array

    def empty(self, shape: tuple[int, ...], dtype: Any, like: DeviceArray) -> DeviceArray:
        self.allocated += 1
        return DeviceArray(np.full(shape, 7.0, dtype), like.number)

    def unit_tangents(self, shape: tuple[int, int, int], like: DeviceArray) -> DeviceArray:
        return DeviceArray(numpy_cpu.unit_tangents(shape, like._memory))

    def overlap(self, a: DeviceArray, b: DeviceArray) -> Any:
        return numpy_cpu.overlap(a._memory, b._memory)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("first_bad"):
            self.checked += 1
        primitive = getattr(numpy_cpu, name)

        def run(*arguments: Any, **options: Any) -> Any:
            self.checked += isinstance(arguments[0], Loss) and arguments[0].check_targets
            result = primitive(*map(memory, arguments), **options)
            return DeviceArray(np.asarray(result)) if isinstance(result, np.ndarray | np.generic) else result

        return run


def memory(argument: Any) -> Any:
    if isinstance(argument, Loss):
        scale = memory(argument.grad_output)
        laid = {key: memory(value) for key, value in argument._asdict().items()}
        return Loss(**laid | {"grad_output": float(scale) if np.ndim(scale) == 0 else scale})
    return argument._memory if isinstance(argument, DeviceArray) else argument


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    backend = Device()
    monkeypatch.setitem(sys.modules, backend.__name__, backend)
    table = {"device": Entry(backend.__name__, "cuda", "device arrays"), "numpy": BACKENDS["numpy"]}
    for module in (dispatch, registry):
        monkeypatch.setattr(module, "BACKENDS", table)
    monkeypatch.setattr(dispatch, "_loaded", {"device": backend})
    monkeypatch.setattr(dispatch, "_default", {})
    monkeypatch.setattr(dispatch, "_environment", "")
    return backend


def on_device(name: str, **changes: Any) -> Any:
    """The result of a good call, changed, with every array on the device; arrays among the changes stay views."""
    given = calls.arguments(name, **changes)
    moved = {key: DeviceArray(value) if isinstance(value, np.ndarray) else value for key, value in given.items()}
    result = getattr(softgrad, name)(**moved)
    return result, moved


def host(result: Any) -> list[np.ndarray]:
    parts = result if isinstance(result, tuple) else (result,)
    assert all(type(part) is DeviceArray for part in parts)
    return [part._memory for part in parts]


def variants(name: str) -> list[dict[str, Any]]:
    """Changes that between them use every part of the code above the backends."""
    found: list[dict[str, Any]] = [
        {},
        {"axis": -1, "targets": np.zeros((3, 5), int)} if name in LOSSES else {"axis": -1},
    ]
    if name in calls.WITH_TANGENT:
        found.append({calls.tangent_name(name): np.random.default_rng(1).normal(size=(2, *SHAPE))})
        found.append({calls.tangent_name(name): np.ones(SHAPE, ">i4")})
    if name in calls.WITH_PROBS:
        point = np.log(calls.PROBS) if calls.point_name(name) == "log_probs" else calls.PROBS
        found.append({"logits": LEFT_OUT, calls.point_name(name): point})
    if name in LOSSES:
        found.append({"weight": calls.WEIGHT, "reduction": "sum", "z_loss": 0.1, "softcap": 3.0})
        found.append({"targets": calls.DENSE, "label_smoothing": 0.1, "reduction": "none"})
        found.append({"targets": np.full(ROWS, 99), "check_targets": False})
    if name in calls.WITH_GRAD_OUTPUT:
        found.append({"grad_output": np.array(2.0)})
        found.append({"grad_output": np.full(ROWS, 2.0), "reduction": "none"})
    if name == "logsumexp":
        found.append({"keepdims": True})
    return found


@pytest.mark.parametrize("name", calls.EVERY)
def test_no_value_is_read_and_no_attribute_used_but_the_listed(device: Device, name: str) -> None:
    for changes in variants(name):
        result, _ = on_device(name, **changes)
        with softgrad.use_backend("numpy"):
            unchecked = {"check_probs": False} if name in calls.WITH_PROBS else {}
            expected = calls.call(name, **changes, **unchecked)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for mine, theirs in zip(host(result), expected, strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)
    assert device.checked == 0


@pytest.mark.parametrize("name", calls.WITH_OUT)
def test_with_out_nothing_of_its_size_is_allocated(device: Device, name: str) -> None:
    for where in places(SHAPE):
        out = places(SHAPE)[where]
        result, given = on_device(name, out=out)
        assert calls.full_size(name, result) is given["out"]
        assert device.allocated == 0
        with softgrad.use_backend("numpy"):
            np.testing.assert_array_equal(out, calls.full_size(name, calls.call(name)))
    # Axes that cannot be walked as one: the one layout that leaves no choice.
    out = places((2, *SHAPE))["strided"]
    logits = np.random.default_rng(2).normal(size=out.shape)
    softgrad.softmax(DeviceArray(logits), axis=2, out=DeviceArray(out[:, ::-1]))
    assert device.allocated == 1


def test_values_are_checked_when_asked(device: Device) -> None:
    with pytest.raises(AssertionError, match="the host read a value"):  # to word the error, it must
        on_device("cross_entropy", targets=np.full(ROWS, 99), check_targets=True)
    assert device.checked == 1
    on_device("softmax_vjp", logits=LEFT_OUT, probs=calls.PROBS, check_probs=True)
    assert device.checked == 2


@pytest.mark.parametrize("name", calls.EVERY)
def test_every_array_is_of_the_main_inputs_library_and_device(device: Device, name: str) -> None:
    given = calls.arguments(name)
    if name in LOSSES:
        given["weight"] = calls.WEIGHT
    if name in calls.WITH_OUT:
        given["out"] = np.zeros(SHAPE)
    moved = {key: DeviceArray(value) if isinstance(value, np.ndarray) else value for key, value in given.items()}
    for argument, value in given.items():
        if not isinstance(value, np.ndarray) or argument == "logits":
            continue
        for elsewhere in (value, DeviceArray(value, number=1)):
            with pytest.raises(TypeError, match=f"`{argument}` is a .*; every array of a call must be of the library"):
                getattr(softgrad, name)(**{**moved, argument: elsewhere})
    if name in LOSSES:
        with pytest.raises(TypeError, match=r"`weight` is a list; every array of a call"):
            getattr(softgrad, name)(**{**moved, "weight": calls.WEIGHT.tolist()})
        for scale in (2, 2.0, np.float32(2)):  # a number is of no library
            if name in calls.WITH_GRAD_OUTPUT:
                getattr(softgrad, name)(**moved, grad_output=scale)


def test_the_names_of_a_backend_are_those_of_the_protocol() -> None:
    wanted = {key for key in (*vars(Backend), *Backend.__annotations__) if key[0] != "_"}
    assert wanted == {*SERVICES, *PRIMITIVES}
    assert members(numpy_cpu, numpy_cpu).keys() == wanted == set(numpy_cpu.__all__)


def test_a_device_array_beside_numpy_logits(device: Device) -> None:
    with pytest.raises(TypeError, match=r"`targets` is a .*DeviceArray; every array of a call must be .* NumPy"):
        softgrad.cross_entropy(np.zeros((2, 3)), DeviceArray(np.zeros(2, int)))


@pytest.mark.parametrize("name", [name for name, entry in BACKENDS.items()])
def test_every_backend_satisfies_the_protocol(name: str) -> None:
    state = softgrad.available_backends()[name]
    if state != "available":
        pytest.skip(f"{name}: {state}")
    with softgrad.use_backend(name):
        module = dispatch._loaded[name]
    assert isinstance(module.CHECKS_VALUES, bool)
    wanted = {key: value for key, value in vars(Backend).items() if inspect.isfunction(value) and key[0] != "_"}
    assert len(wanted) >= 12
    for function, of in wanted.items():
        mine = inspect.signature(getattr(module, function)).parameters.values()
        theirs = list(inspect.signature(of).parameters.values())[1:]  # without self
        positional = inspect.Parameter.POSITIONAL_ONLY
        assert sum(p.kind != p.KEYWORD_ONLY for p in mine) == sum(p.kind == positional for p in theirs), function
        assert {p.name for p in mine if p.kind == p.KEYWORD_ONLY} == {p.name for p in theirs if p.kind != positional}
