"""Jacobian products of float32 and 16-bit rows, of all three operations and at every kind of point."""

from __future__ import annotations

import numpy as np
import pytest

import softgrad

pytest.importorskip("numba", reason="the numba backend needs numba")

from softgrad.backends.numba_cpu import product_vectors, products
from tests import truth
from tests.cases import DTYPES
from tests.truth import assert_right

# A row in a lane, sixteen rows in vectors, a row by itself; each with whole vectors and a tail.
CLASSES = [1, 2, 16, 29, 33, 100, 384, 385, 1000, 4099]
AT = [
    ("softmax_vjp", "logits"),
    ("softmax_vjp", "probs"),
    ("log_softmax_jvp", "logits"),
    ("log_softmax_jvp", "log_probs"),
    ("log_softmax_vjp", "logits"),
    ("log_softmax_vjp", "log_probs"),
]


@pytest.fixture(autouse=True)
def _numba():
    with softgrad.use_backend("numba"):
        yield


def point_at(kind: str, z: np.ndarray) -> np.ndarray:
    of = {"logits": lambda z: z, "probs": softgrad.softmax, "log_probs": softgrad.log_softmax}
    return of[kind](z)


def rows(classes: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Flat, sure, masked and far-off rows; three tangents of each."""
    rng = np.random.default_rng(classes)
    z = rng.standard_normal((23, classes)) * 3
    z[::3, rng.integers(classes)] += 30.0
    z[1::3] += rng.uniform(-300, 300, (len(z[1::3]), 1))
    z[2::3][rng.random(z[2::3].shape) < 0.3] = -np.inf
    z[:, 0] = np.where(np.isneginf(z[:, 0]), 0.0, z[:, 0])
    return z.astype(dtype), (rng.standard_normal((3, *z.shape)) * [[[1.0]], [[1e-4]], [[30.0]]]).astype(dtype)


@pytest.mark.parametrize(("name", "kind"), AT)
@pytest.mark.parametrize("classes", CLASSES)
def test_every_point(classes, name, kind):
    z, v = rows(classes, np.dtype(np.float32))
    point = {kind: point_at(kind, z)}
    product = getattr(softgrad, name)(v, check_probs=False, **point)
    assert_right(product, getattr(truth, name)(v, **point), z.dtype)


@pytest.mark.parametrize(("name", "kind"), AT[1:])
@pytest.mark.parametrize("dtype", [name for name in DTYPES if DTYPES[name].itemsize == 2])
def test_sixteen_bit(dtype, name, kind):
    for classes in (29, 100, 385):
        z, v = rows(classes, DTYPES[dtype])
        point = {kind: point_at(kind, z)}
        product = getattr(softgrad, name)(v, check_probs=False, **point)
        assert_right(product, getattr(truth, name)(v, **point), z.dtype)


@pytest.mark.parametrize(("name", "kind"), AT)
@pytest.mark.parametrize("classes", [29, 40, 100, 385])
def test_tangents_of_every_size(classes, name, kind):
    """On both sides of what float32 will do for; zero, and with a sum of nearly zero, among them."""
    z, _ = rows(classes, np.dtype(np.float32))
    v = np.random.default_rng(1).standard_normal((8, *z.shape)).astype(np.float32)
    v[0] *= np.float32(product_vectors.LARGEST_TANGENT * 0.7)
    v[1] *= np.float32(product_vectors.LARGEST_TANGENT * 1e20)
    v[2] *= np.float32(product_vectors.SMALLEST_TANGENT)
    v[3] *= np.float32(1e-30)
    v[4] = 0.0
    v[5] -= v[5].mean(axis=-1, keepdims=True)
    v[6] = np.where(np.arange(classes) % 2, 1e12, 1e-12)
    v[7] = np.where(z.argmax(axis=-1, keepdims=True) == np.arange(classes), 1.0, 0.0)
    point = {kind: point_at(kind, z)}
    product = getattr(softgrad, name)(v, check_probs=False, **point)
    assert_right(product, getattr(truth, name)(v, **point), z.dtype)


@pytest.mark.parametrize(("name", "kind"), AT)
@pytest.mark.parametrize("classes", [29, 40, 100, 385])
def test_a_broken_tangent_stays_in_its_row(classes, name, kind):
    z, v = rows(classes, np.dtype(np.float32))
    point = {kind: point_at(kind, z)}
    whole = getattr(softgrad, name)(v, check_probs=False, **point)
    for broken in (np.nan, np.inf):
        w = v.copy()
        w[1, 4, -1] = broken
        product = getattr(softgrad, name)(w, check_probs=False, **point)
        assert not np.isfinite(product[1, 4]).any() or name.startswith("log")
        assert not np.isfinite(product[1, 4, -1])
        product[1, 4] = whole[1, 4]
        np.testing.assert_array_equal(product, whole)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kind in AT if kind != "logits"])
@pytest.mark.parametrize("classes", [29, 40, 100, 385])
def test_what_is_no_distribution(classes, name, kind):
    """Unchecked, numbers out of all proportion give what the formula says, or what lies beyond the dtype's range."""
    z, v = rows(classes, np.dtype(np.float32))
    point = point_at(kind, z)
    odd = np.arange(classes) % 2 == 1
    if kind == "probs":
        point[0] *= 0.5
        point[1] = np.where(odd, 1e20, -1e20)
        point[2, -1] = -1e20
    else:
        point[0] -= 0.5
        point[1] = np.where(odd, 140.0, 80.0)
        point[2] = -700.0
    point = point[:3]
    v = v[:, :3]
    found = getattr(softgrad, name)(v, check_probs=False, **{kind: point})
    p = point.astype(float) if kind == "probs" else np.exp(point.astype(float))
    wide = v.astype(float)
    u = wide - np.take_along_axis(wide, np.broadcast_to(point.argmax(axis=-1)[:, None], (3, 3, 1)), -1)
    product = u - (p * u).sum(axis=-1, keepdims=True)
    if name == "softmax_vjp":
        product *= p
    elif name == "log_softmax_vjp":
        product = wide - p * wide.sum(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(found, product.astype(np.float32), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("classes", [29, 40, 100, 385])
def test_ordinary_rows_are_left_to_float32(classes, monkeypatch):
    """Nothing above passes because the float64 tiles did the work."""
    z, v = rows(classes, np.dtype(np.float32))
    z, v = z[:7], v[:, :7]
    monkeypatch.setattr(products, "product_tiles", None)
    for name, kind in AT:
        getattr(softgrad, name)(v, check_probs=False, **{kind: point_at(kind, z)})
