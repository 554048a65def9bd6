"""Sixteen rows in a run on the numba backend: right, and with the bits of rows that lie apart."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import softgrad

pytest.importorskip("numba", reason="the numba backend needs numba")

from softgrad.backends.numba_cpu import compiling, lanes, single_rows
from softgrad.backends.numba_cpu.lanes.features import CHOOSES
from softgrad.backends.numba_cpu.sixteen_targets import tiles_added
from tests import truth
from tests.cases import DTYPES
from tests.truth import assert_right

FLOAT32 = np.dtype(np.float32)
ROWS = single_rows.FEW // single_rows.SHORT + 16 * 3 + 5  # more than a few, the last tile not whole
SHORT, POINT, FLAT = single_rows.SHORT, single_rows.SHORT_POINT, single_rows.FLAT


@compiling.helper
def choose(numbers, which, found):
    lanes.store_f32(found, lanes.chosen(lanes.load_f32(numbers), lanes.load_i32(which)))


def test_numbers_are_chosen() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        numbers = rng.standard_normal(16).astype(np.float32)
        which, found = rng.integers(0, 16, 16).astype(np.int32), np.zeros(16, np.float32)
        choose(numbers.ctypes.data, which.ctypes.data, found.ctypes.data)
        np.testing.assert_array_equal(found, numbers[which])


@pytest.fixture
def flat(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Of each call of a kernel of rows of some vectors, whether they are taken in runs; the numba backend is used."""
    calls: list[bool] = []

    def watch(module: Any, name: str) -> None:
        kernel = getattr(module, name)

        def call(*arguments: Any) -> None:
            calls.append(arguments[4])
            kernel(*arguments)

        monkeypatch.setattr(module, name, call)

    for module, name in (
        ("softmax", "softmax_middle"),
        ("sixteen_cross_entropy", "cross_entropy_middle"),
        ("products", "product_middle"),
    ):
        watch(importlib.import_module(f"softgrad.backends.numba_cpu.{module}"), name)
    with softgrad.use_backend("numba"):
        yield calls


def problem(name: str, classes: int) -> tuple[np.ndarray, ...]:
    """Tiles near 0, one behind the other and mixed with rows far from it, masks, NaNs, what float32 will not do for.

    A tile beside a NaN has logits so large that e, made with the shift of rows near 0, is any number at all.
    """
    rng = np.random.default_rng(classes)
    z = rng.standard_normal((ROWS, classes)) * 3
    z[16:32] += 40.0
    z[40] -= 60.0
    z[50] *= 30.0
    z[64] = rng.uniform(-700.0, 700.0, classes)
    z[65, 0] = np.nan
    z[80] *= 1e3
    z[97, 1:], z[98, 0] = -np.inf, -np.inf
    z[ROWS - 2] *= 1e3
    t = rng.integers(0, classes, ROWS)
    t[112:115] = -100
    v = rng.standard_normal((2, ROWS, classes))
    v[1, 3] *= 1e20
    with np.errstate(over="ignore"):
        return np.clip(z, -6e4, 6e4).astype(DTYPES[name]), np.clip(v, -6e4, 6e4).astype(DTYPES[name]), t


def apart(x: np.ndarray) -> np.ndarray:
    """The same numbers, rows not one behind the other."""
    return np.concatenate([x, x], axis=-1)[..., : x.shape[-1]]


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    """The same numbers, NaNs too, which NumPy does not know of bfloat16's."""
    np.testing.assert_array_equal(found.astype(np.float32), expected.astype(np.float32))


Results = Callable[[np.ndarray, np.ndarray, np.ndarray], list[np.ndarray]]


def of_logits(z: np.ndarray, v: np.ndarray, t: np.ndarray) -> list[np.ndarray]:
    weight = np.linspace(0.5, 2.0, z.shape[-1])
    found = [softgrad.softmax(z), softgrad.log_softmax(z), softgrad.logsumexp(z)]
    for loss in ({}, {"weight": weight}, {"label_smoothing": 0.1, "z_loss": 1e-3}, {"grad_output": 2.0**-30}):
        found += softgrad.cross_entropy_value_and_grad(z, t, reduction="none", **loss)
    return found


def of_points(z: np.ndarray, v: np.ndarray, t: np.ndarray) -> list[np.ndarray]:
    p = np.nan_to_num(softgrad.softmax(z).astype(np.float32)).astype(z.dtype)
    return [
        softgrad.softmax_vjp(v, logits=z),
        softgrad.log_softmax_jvp(v, logits=z),
        softgrad.log_softmax_vjp(v, logits=z),
        softgrad.softmax_vjp(v[0], probs=p, check_probs=False),
    ]


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("results", "classes"), [(of_logits, SHORT + 1), (of_logits, FLAT), (of_points, POINT + 1), (of_points, FLAT)]
)
def test_the_bits_of_rows_that_lie_apart(
    results: Results, classes: int, name: str, flat: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of few rows, of one tangent alone, and past the caches."""
    z, v, t = problem(name, classes)
    expected = results(z, v, t)
    assert set(flat) == {CHOOSES}
    flat.clear()
    for one, found in zip(expected, results(apart(z), apart(v), t), strict=True):
        assert_same(found, one)
    assert set(flat) == {False}
    flat.clear()
    for first in range(0, ROWS, 31):
        some = slice(first, first + 31)
        for one, found in zip(expected, results(z[some], v[:, some], t[some]), strict=True):
            wanted = one[some] if len(one) == ROWS else one[:, some]
            assert_same(found, wanted)
    assert not flat
    if results is of_points:
        assert_same(softgrad.softmax_vjp(v[1], logits=z), expected[0][1])
    monkeypatch.setattr(single_rows, "LARGE_BYTES", 0)
    for one, found in zip(expected, results(z, v, t), strict=True):
        assert_same(found, one)


@pytest.mark.parametrize("classes", [SHORT + 1, 31, POINT + 1, FLAT])
def test_results_that_begin_within_a_line(classes: int, flat: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_rows, "LARGE_BYTES", 0)
    z = problem("float32", classes)[0]
    expected = softgrad.softmax(z)
    for begin in (1, 5, 15):
        around = np.full(z.size + 32, 7.0, np.float32)
        out = around[begin : begin + z.size].reshape(z.shape)
        softgrad.softmax(z, out=out)
        np.testing.assert_array_equal(out, expected)
        assert (around[:begin] == 7.0).all()
        assert (around[begin + z.size :] == 7.0).all()
    assert set(flat) == {CHOOSES}


@pytest.mark.parametrize("classes", [SHORT + 1, FLAT])
def test_in_place(classes: int, flat: list[bool]) -> None:
    z, v, t = problem("float32", classes)
    for call in (
        softgrad.softmax,
        softgrad.log_softmax,
        lambda z, out=None: softgrad.cross_entropy_grad(z, t, out=out),
    ):
        place = z.copy()
        expected = call(z)
        np.testing.assert_array_equal(call(place, out=place), expected)
    place = v.copy()
    np.testing.assert_array_equal(softgrad.softmax_vjp(place, logits=z, out=place), softgrad.softmax_vjp(v, logits=z))
    assert set(flat) == {CHOOSES}


@pytest.mark.parametrize("of", [np.asarray, apart])
def test_losses_are_added_in_every_share(of: Callable[[np.ndarray], np.ndarray], flat: list[bool]) -> None:
    """Threads take a number of tiles at a time; the last share is not whole."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((16 * tiles_added(SHORT + 1) * 2 + 37, SHORT + 1)).astype(np.float32)
    t = rng.integers(0, SHORT + 1, len(z))
    total = softgrad.cross_entropy(of(z), t, reduction="sum")
    assert_right(total, truth.cross_entropy(z, t, reduction="sum"), FLOAT32)
    assert softgrad.cross_entropy_value_and_grad(of(z), t, reduction="sum")[0] == total
    assert set(flat) == {CHOOSES and of is np.asarray}


@pytest.mark.parametrize("classes", [SHORT, SHORT + 1, POINT + 1, FLAT, FLAT + 1])
def test_right(classes: int, flat: list[bool]) -> None:
    """On both sides of each threshold, on rows near 0, far from it, and with terms that are nearly nothing."""
    rng = np.random.default_rng(classes)
    z = rng.standard_normal((ROWS, classes)) * 3
    z[16:32] = np.linspace(0.0, -86.0, classes) + np.linspace(-15.0, 15.0, 16)[:, None]
    z[40:60] += np.linspace(-300.0, 300.0, 20)[:, None]
    z[100, 3] = 512 * np.log(2.0)  # whose e, shifted as those of rows near 0, would be that of 0
    z = z.astype(np.float32)
    t, v = rng.integers(0, classes, ROWS), rng.standard_normal(z.shape).astype(np.float32)
    assert_right(softgrad.softmax(z), truth.softmax(z), FLOAT32)
    assert_right(softgrad.log_softmax(z), truth.log_softmax(z), FLOAT32)
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t)
    assert_right(loss, truth.cross_entropy(z, t), FLOAT32)
    assert_right(grad, truth.cross_entropy_grad(z, t), FLOAT32)
    assert set(flat) == ({CHOOSES and classes <= FLAT} if classes > SHORT else set())
    assert_right(softgrad.softmax_vjp(v, logits=z), truth.softmax_vjp(v, logits=z), FLOAT32)
