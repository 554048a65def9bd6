"""The `numba_cuda` backend's arrays, streams and launches, on a device played by the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import softgrad
from tests import calls, truth
from tests.cases import DTYPES

pytest.importorskip("numba_cuda", reason="needs numba-cuda: pip install 'softgrad[numba-cuda]'")
from tests.emulator import emulated
from tests.fake_cuda import Machine
from tests.fake_cuda.backends import forced
from tests.fake_cuda.numba_module import DeviceNDArray, to_device


@pytest.fixture
def device() -> Iterator[Any]:
    """The backend, forced, over a device that is not there."""
    machine = Machine()
    with forced("numba_cuda", machine) as (backend, _):
        yield SimpleNamespace(machine=machine, driver=backend.driver, numba=partial(to_device, machine))


def moved(device: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """NumPy arrays of a call put on the device."""
    return {k: device.numba(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}


def host(result: Any) -> Any:
    return tuple(map(host, result)) if isinstance(result, tuple) else result.host


CALLS = [(name, {}) for name in calls.EVERY if name not in calls.LOSSES]
CALLS += [(name, {"reduction": reduction}) for name in calls.LOSSES for reduction in ("none", "sum", "mean")]


@pytest.mark.parametrize(("name", "changes"), CALLS, ids=str)
def test_every_function_gives_back_device_arrays(name: str, changes: dict[str, Any], device: Any) -> None:
    arguments = calls.arguments(name, **changes)
    result = getattr(softgrad, name)(**moved(device, arguments))
    with emulated("numba_cuda"):
        expected = getattr(softgrad, name)(**arguments)
    results, expected = (x if isinstance(x, tuple) else (x,) for x in (result, expected))
    for got, of in zip(results, expected, strict=True):
        assert type(got) is DeviceNDArray
        assert got.dtype == of.dtype
        np.testing.assert_array_equal(got.host, of, strict=True)


@pytest.mark.parametrize("name", calls.WITH_OUT)
def test_out_is_written_and_returned(name: str, device: Any) -> None:
    arguments = moved(device, calls.arguments(name))
    expected = calls.full_size(name, getattr(softgrad, name)(**arguments)).host.copy()
    out = device.numba(np.full(calls.SHAPE, np.nan))
    assert calls.full_size(name, getattr(softgrad, name)(**arguments, out=out)) is out
    np.testing.assert_array_equal(out.host, expected)
    # Not contiguous, and in place.
    memory = device.numba(np.full((*calls.SHAPE[:2], 2 * calls.SHAPE[2]), np.nan)[:, :, ::2])
    getattr(softgrad, name)(**arguments, out=memory)
    np.testing.assert_array_equal(memory.host, expected)
    getattr(softgrad, name)(**arguments, out=arguments["logits"])
    np.testing.assert_array_equal(arguments["logits"].host, expected)


def test_an_out_that_overlaps_is_refused(device: Any) -> None:
    memory = np.zeros(40)
    z, out = device.numba(memory[:30].reshape(3, 10)), device.numba(memory[5:35].reshape(3, 10))
    with pytest.raises(ValueError, match="`out` overlaps `logits`"):
        softgrad.softmax(z, out=out)


@pytest.mark.parametrize("dtype", [pytest.param(d, id=n) for n, d in DTYPES.items()])
def test_transposed_and_converted_inputs(dtype: np.dtype[Any], device: Any) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((4, 3, 5, 6)).astype(dtype).transpose(2, 0, 3, 1)
    v = rng.integers(-9, 9, z.shape).astype(np.int16)
    result = softgrad.softmax_jvp(device.numba(v), logits=device.numba(z), axis=2).host
    truth.assert_right(result, truth.softmax_jvp(v, logits=z, axis=2), dtype)
    z = rng.integers(-5, 5, (3, 4))
    assert softgrad.softmax(device.numba(z)).dtype == np.float64


def test_everything_runs_on_the_main_input_s_stream(device: Any) -> None:
    stream = SimpleNamespace(handle=SimpleNamespace(value=77))
    z = device.numba(calls.LOGITS.copy(), stream=stream)
    softgrad.cross_entropy_value_and_grad(z, device.numba(calls.TARGETS.copy()), axis=calls.AXIS)
    assert [kernel for kernel, *_ in device.machine.launches] == ["divisor", "cross_entropy", "total"]
    assert {stream for _, stream, _ in device.machine.launches} == {77}
    assert device.machine.host_copies == 0, "nothing waits for the device"


def test_results_are_made_on_the_main_input_s_device(device: Any) -> None:
    z = device.numba(calls.LOGITS.copy(), device=1)
    p = softgrad.softmax(z, axis=calls.AXIS)
    assert p.gpu_data.context.device.id == 1
    assert device.machine.launches == [("softmax", 0, 1)]
    with pytest.raises(ValueError, match="`tangent` is on device 0; expected device 1"):
        softgrad.softmax_jvp(device.numba(calls.TANGENT.copy()), logits=z, axis=calls.AXIS)


def test_a_kernel_is_loaded_once_and_a_call_is_one_launch(device: Any) -> None:
    for rows in (3, 5, 9):
        softgrad.softmax(device.numba(np.zeros((rows, 10), np.float32)))
    assert len(device.driver.loaded) == 1
    assert len(device.machine.launches) == 3


def test_targets_are_checked_when_asked(device: Any) -> None:
    z, t = device.numba(np.zeros((3, 4), np.float32)), device.numba(np.array([0, 4, 1], np.uint8))
    assert np.isnan(softgrad.cross_entropy(z, t, reduction="none").host).tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"targets\[1\] is 4; expected \[0, 4\)"):
        softgrad.cross_entropy(z, t, check_targets=True)
    p = device.numba(np.array([[0.5, 0.5], [0.9, 0.3]]))
    with pytest.raises(ValueError, match=r"row \(1,\) sums to 1.2, not 1"):
        softgrad.softmax_jvp(p, probs=p, check_probs=True)


def test_arrays_of_no_library_are_refused(device: Any) -> None:
    z = device.numba(np.zeros((3, 4)))
    with pytest.raises(TypeError, match=r"`targets` is a numpy\.ndarray"):
        softgrad.cross_entropy(z, np.zeros(3, int))
    with pytest.raises(TypeError, match="`logits` is a"):
        softgrad.softmax(np.zeros(3))


def test_nothing_to_do(device: Any) -> None:
    assert softgrad.softmax(device.numba(np.zeros((0, 4)))).shape == (0, 4)
    assert softgrad.softmax(device.numba(np.zeros((4, 0)))).shape == (4, 0)
    assert softgrad.logsumexp(device.numba(np.zeros((2, 0)))).host.tolist() == [-np.inf] * 2
    assert (
        softgrad.cross_entropy(device.numba(np.zeros((0, 4))), device.numba(np.zeros(0, int)), reduction="sum").host
        == 0
    )
