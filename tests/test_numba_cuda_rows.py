"""The Numba CUDA kernels, run on the CPU: which kernel serves a row, the same bits everywhere, poisoned rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import softgrad
from tests.cases import DTYPES

pytest.importorskip("numba_cuda", reason="needs numba-cuda: pip install 'softgrad[numba-cuda]'")
from softgrad.backends.cuda import regimes
from softgrad.backends.cuda.segments import Cutting
from tests.emulator import emulated
from tests.emulator.numba_machine import CUDA, EmulatorError

rng = np.random.default_rng(11)
# Few classes, cut into segments as many are.
SOON = Cutting(beyond=1000, shortest=1)


def rows(classes: int, count: int = 3, dtype: Any = np.float32) -> np.ndarray:
    return (rng.standard_normal((count, classes)) * 9.0).astype(dtype)


# --- which kernel, and where it holds its row -------------------------------------------------------------------------

# Classes of float32 on both sides of every threshold.
PLACES = [
    (2, "short2_keep1", "registers"),
    (4, "short4_keep1", "registers"),
    (5, "lanes1_keep4", "registers"),
    (16, "lanes1_keep4", "registers"),
    (17, "lanes2_keep4", "registers"),
    (512, "lanes32_keep4", "registers"),
    (513, "block64_keep4", "registers"),
    (8192, "block512_keep4", "registers"),
    (8193, "block512_keep8", "shared"),
    (16_384, "block512_keep8", "shared"),
    (16_385, "block512_walk", "shared"),
    (49_152, "block512_walk", "shared"),
    (60_000, "block512_walk", "nowhere"),
]


@pytest.mark.parametrize(("classes", "team", "place"), PLACES)
def test_the_team_and_place_of_a_row(classes: int, team: str, place: str) -> None:
    z = rows(classes, 1)
    with emulated("numba_cuda") as device:
        softgrad.softmax(z)
    ((kernel, held),) = device.launched
    assert (kernel.regime.name, held) == (team, place)


def test_a_strided_class_axis_is_served_by_columns() -> None:
    with emulated("numba_cuda") as device:
        for classes in (3, 100, 500, 5000):
            softgrad.softmax(np.zeros((classes, 2), np.float32), axis=0)
    assert [kernel.regime.kind for kernel, _ in device.launched] == ["columns"] * 4
    assert device.launched[0][0].regime == regimes.keeping(3, 4, contiguous=False, clusters=False)


# --- the same bits ----------------------------------------------------------------------------------------------------


def every_result(z: np.ndarray, t: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none", label_smoothing=0.1)
    plain, plain_grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
    return [
        softgrad.softmax(z),
        softgrad.log_softmax(z),
        softgrad.softmax_jvp(v, logits=z),
        softgrad.log_softmax_vjp(v, logits=z),
        loss,
        grad,
        plain,
        plain_grad,
        softgrad.cross_entropy_hvp(v, logits=z, targets=t, reduction="none"),
    ]


@pytest.mark.parametrize("dtype", [DTYPES["float32"], DTYPES["float16"]], ids=str)
@pytest.mark.parametrize(("classes", "cutting"), [*((c, None) for c in (3, 10, 100, 513, 2051)), (2051, SOON)])
def test_a_row_has_the_same_bits_wherever_it_stands(classes: int, cutting: Cutting | None, dtype: Any) -> None:
    count = 7
    z, v = rows(classes, count, dtype), rows(classes, count, dtype)
    t = rng.integers(0, classes, count)
    with emulated("numba_cuda", cutting=cutting):
        together = every_result(z, t, v)
        for one in (0, 4):
            alone = every_result(z[one : one + 1].copy(), t[one : one + 1], v[one : one + 1].copy())
            for a, b in zip(alone, together, strict=True):
                np.testing.assert_array_equal(a[0], b[one])
        # At an address that is a multiple of its own size alone, a row stride that is not, in descending blocks.
        memory = np.zeros((count, classes + 3), dtype)
        memory[:, 1 : 1 + classes] = z
    with emulated("numba_cuda", cutting=cutting, descending=True):
        moved = every_result(memory[:, 1 : 1 + classes], t, v)
    for a, b in zip(moved, together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_device_with_less_shared_memory_gives_the_same_bits() -> None:
    z, v, t = rows(9000), rows(9000), np.array([0, 5, 8999])
    results = []
    for limit in (232448, 16384):
        with emulated("numba_cuda", shared_limit=limit) as device:
            results.append(every_result(z, t, v))
        assert ("shared" in {place for _, place in device.launched}) == (limit > 16384)
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("classes", "cutting"), [(10, None), (600, None), (9000, None), (3000, SOON)])
def test_in_place_and_among_tangents(classes: int, cutting: Cutting | None) -> None:
    z, v = rows(classes), rows(classes)
    t = rng.integers(0, classes, 3)
    with emulated("numba_cuda", cutting=cutting):
        for call in (
            lambda out: softgrad.softmax(z if out is None else out, out=out),
            lambda out: softgrad.cross_entropy_grad(z if out is None else out, t, out=out),
            lambda out: softgrad.softmax_jvp(v, logits=z if out is None else out, out=out),
        ):
            np.testing.assert_array_equal(call(None), call(z.copy()))
        many = softgrad.softmax_jvp(np.stack([v, z, v]), logits=z)
        np.testing.assert_array_equal(many[2], softgrad.softmax_jvp(v, logits=z))


@pytest.mark.parametrize("classes", [100, 600, 9000])
@pytest.mark.parametrize("axis", [-1, 0])
def test_a_product_takes_the_place_of_its_tangent(classes: int, axis: int) -> None:
    """Though v[k] is read by all of a team, and one of its lanes writes there."""
    z, v = rows(classes), rows(classes)
    if axis == 0:
        z, v = z.T.copy(), v.T.copy()
    with emulated("numba_cuda"):
        right = softgrad.softmax_vjp(v, logits=z, axis=axis)
        np.testing.assert_array_equal(softgrad.softmax_vjp(v, logits=z, axis=axis, out=v), right)


# --- what must not touch other rows -----------------------------------------------------------------------------------


@pytest.mark.parametrize("target_dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_bad_labels_poison_their_row_alone(target_dtype: str) -> None:
    z = rows(20, 6)
    t = np.array([3, 19, 20, 0, 7, 5]).astype(target_dtype)
    t[5] = np.iinfo(target_dtype).max
    good = np.array([True, True, False, True, True, False])
    with emulated("numba_cuda"):
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none", check_targets=False)
        right = softgrad.cross_entropy_grad(z[good], t[good], reduction="none")
        total = softgrad.cross_entropy(z, t, check_targets=False)
        with pytest.raises(ValueError, match=r"targets\[2\] is 20"):
            softgrad.cross_entropy(z, t)
    assert np.isnan(loss).tolist() == (~good).tolist()
    assert np.isnan(grad).all(1).tolist() == (~good).tolist()
    np.testing.assert_array_equal(grad[good], right)
    assert np.isnan(total)


def test_ignored_rows_are_exactly_zero() -> None:
    z = rows(20, 4)
    z[1] = np.nan
    t = np.array([3, -100, 19, 0])
    with emulated("numba_cuda"):
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none", grad_output=np.full(4, np.inf))
        nothing = softgrad.cross_entropy_value_and_grad(z, np.full(4, -100))
    assert loss[1] == 0
    assert (grad[1] == 0).all()
    assert np.isnan(nothing[0])
    assert (nothing[1] == 0).all()


# --- the machine finds out what a device would not forgive ------------------------------------------------------------


def test_a_missing_barrier_is_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CUDA, "syncthreads", lambda: None)
    with emulated("numba_cuda"), pytest.raises(EmulatorError, match="race on shared memory"):
        softgrad.softmax(rows(600))


def test_a_missing_warp_barrier_is_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CUDA, "syncwarp", lambda: None)
    v = rows(100)
    with emulated("numba_cuda"), pytest.raises(EmulatorError, match="race on global memory"):
        softgrad.softmax_vjp(v, logits=rows(100), out=v)


def test_an_access_outside_the_arrays_is_refused() -> None:
    with emulated("numba_cuda") as device:
        softgrad.softmax(z := rows(100))
        kernel, _ = device.launched[0]
        one_row_too_many = np.array([4, 1, 100, *[0] * 8], np.int64)
        one_row_too_many[3:] = [device.pointer(z), 100, 1, 1, device.pointer(z.copy()), 100, 1, 1]
        with pytest.raises(EmulatorError, match="outside the call's arrays"):
            device.launch(kernel, kernel.regime.grid(4), one_row_too_many.tobytes(), z)


def test_an_address_that_is_not_aligned_is_refused() -> None:
    memory = np.zeros(401, np.uint8)[1:].view(np.float32)
    with emulated("numba_cuda") as device:
        softgrad.softmax(rows(100, 1))
        kernel, _ = device.launched[0]
        arguments = np.array([1, 1, 100, *[device.pointer(memory), 100, 1, 1] * 2], np.int64)
        with pytest.raises(EmulatorError, match="no multiple"):
            device.launch(kernel, 1, arguments.tobytes(), memory)


def test_shared_memory_that_was_not_asked_for_is_refused() -> None:
    from dataclasses import replace

    with emulated("numba_cuda") as device:
        softgrad.softmax(z := rows(600, 1))
        kernel, _ = device.launched[0]
        from tests.emulator.numba_runner import Region, run

        arguments = np.array([1, 1, 600, *[device.pointer(z), 600, 1, 1] * 2], np.int64)
        with pytest.raises(EmulatorError, match="shared memory of 0 bytes"):
            run(replace(kernel), "registers", 1, 0, arguments.tobytes(), [Region(z)])
