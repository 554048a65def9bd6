"""Rows of two to sixteen classes that lie one behind the other: right, and with the bits of any other layout."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import softgrad

pytest.importorskip("numba", reason="the numba backend needs numba")

from softgrad.backends.numba_cpu import compiling, lanes, single_rows
from softgrad.backends.numba_cpu.memory import FORMATS
from tests.cases import DTYPES

ROWS = 2 * single_rows.FEW + 37  # more than a few, the last tile not whole
# Every format; columns that are picked, and rows transposed; one group of four classes, and several.
KINDS = [("float32", 5), ("float16", 11), ("bfloat16", 2)]


@compiling.helper
def there_and_back(source, target, columns_at, like):
    columns = lanes.load_dense(source, like)
    lanes.store_dense(columns, target, like)
    for i, column in enumerate(columns):
        lanes.store_f32(columns_at + 64 * i, column)


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("classes", [2, 3, 4, 5, 6, 7, 9, 14, 16])
def test_columns(name: str, classes: int) -> None:
    numbers = np.arange(16.0 * classes).reshape(16, classes).astype(DTYPES[name])
    back, columns = np.zeros_like(numbers), np.zeros((classes, 16), np.float32)
    like = (FORMATS[numbers.dtype],) * classes
    there_and_back(numbers.ctypes.data, back.ctypes.data, columns.ctypes.data, like)
    np.testing.assert_array_equal(columns, numbers.T.astype(np.float32))
    np.testing.assert_array_equal(back, numbers)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of dense kernels, in the order of their calls; the numba backend is used."""
    names: list[str] = []

    def watch(module: Any, name: str) -> None:
        kernel = getattr(module, name)

        def call(*arguments: Any) -> None:
            names.append(name)
            kernel(*arguments)

        monkeypatch.setattr(module, name, call)

    for module, name in (
        ("softmax", "softmax_dense"),
        ("sixteen_cross_entropy", "cross_entropy_dense"),
        ("products", "product_dense"),
        ("checks", "doubt_dense"),
    ):
        watch(importlib.import_module(f"softgrad.backends.numba_cpu.{module}"), name)
    with softgrad.use_backend("numba"):
        yield names


def assert_same(found: Any, expected: Any) -> None:
    """The same numbers, signs of zeros included."""
    found, expected = found.astype(np.float32), expected.astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


def results(z: np.ndarray, v: np.ndarray, t: np.ndarray, p: np.ndarray, log_p: np.ndarray) -> list[np.ndarray]:
    return [
        softgrad.softmax(z),
        softgrad.log_softmax(z),
        softgrad.softmax_vjp(v, logits=z),
        softgrad.log_softmax_jvp(v, logits=z),
        softgrad.log_softmax_vjp(v, logits=z),
        softgrad.softmax_vjp(v, probs=p),
        softgrad.log_softmax_vjp(v, log_probs=log_p),
        *softgrad.cross_entropy_value_and_grad(z, t, reduction="none", grad_output=-2.5),
        *softgrad.cross_entropy_value_and_grad(z, t, grad_output=3.0),
    ]


def problem(name: str, classes: int) -> tuple[np.ndarray, ...]:
    """Among the rows some that float32 will not do for, a mask, a NaN, one whose other classes are faint."""
    rng = np.random.default_rng(classes)
    z = rng.standard_normal((ROWS, classes)) * 4
    z[5] *= 1e3
    z[ROWS - 3] *= 1e3
    z[17, 0], z[40, 1], z[70, 0] = -np.inf, np.nan, 80.0
    z, v = z.astype(DTYPES[name]), rng.standard_normal((ROWS, classes)).astype(DTYPES[name])
    t = rng.integers(0, classes, ROWS)
    t[30:33] = -100
    p = softgrad.softmax(z)
    p[40] = p[41]
    with np.errstate(divide="ignore"):
        return z, v, t, p, np.log(p.astype(np.float32)).astype(p.dtype)


@pytest.mark.parametrize(("name", "classes"), KINDS)
def test_the_bits_of_other_layouts(name: str, classes: int, called: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that lie apart, results past the caches, results in place of what they are made of, a few rows."""
    z, v, t, p, log_p = problem(name, classes)
    expected = results(z, v, t, p, log_p)
    assert [called.count(kernel) for kernel in sorted(set(called))] == [2, 2, 5, 3]
    called.clear()

    def apart(x: np.ndarray) -> np.ndarray:
        return np.concatenate([x, x], axis=1)[:, :classes]

    for found, one in zip(results(apart(z), apart(v), t, apart(p), apart(log_p)), expected, strict=True):
        assert_same(found, one)
    assert not called
    for found, one in zip(results(z[:99], v[:99], t[:99], p[:99], log_p[:99])[:-2], expected[:-2], strict=True):
        assert_same(found, one[:99])
    assert not called
    place = z.copy()
    softgrad.softmax(place, out=place)
    assert_same(place, expected[0])
    place = v.copy()
    softgrad.softmax_vjp(place, logits=z, out=place)
    assert_same(place, expected[2])
    place = z.copy()
    softgrad.cross_entropy_grad(place, t, grad_output=3.0, out=place)
    assert_same(place, expected[-1])
    monkeypatch.setattr(single_rows, "LARGE_BYTES", 0)
    called.clear()
    for found, one in zip(results(z, v, t, p, log_p), expected, strict=True):
        assert_same(found, one)
    assert called


@pytest.mark.parametrize("dense", [True, False])
def test_probabilities_in_doubt_are_looked_at(dense: bool, called: list[str]) -> None:
    """What the quick look passes is right; what it does not is found where it is, or passes after all."""
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), ROWS).astype(np.float32)
    p = p if dense else np.concatenate([p, p], axis=1)[:, :5]
    v = np.ones((ROWS, 5), np.float32)

    def check() -> None:
        softgrad.softmax_vjp(v, probs=p)

    check()
    assert ("doubt_dense" in called) == dense
    p[77], p[78] = np.nan, p[78] * np.float32(1.000995)
    check()
    p[ROWS - 1, 2] = -1e-9
    with pytest.raises(ValueError, match=str(ROWS - 1)):
        check()
    p[5000] *= 1.002
    with pytest.raises(ValueError, match="5000"):
        check()
