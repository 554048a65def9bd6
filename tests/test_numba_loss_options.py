"""label_smoothing and z_loss of float32 and 16-bit rows: on both sides of what float32 will do for."""

from __future__ import annotations

import numpy as np
import pytest

import softgrad

pytest.importorskip("numba", reason="the numba backend needs numba")

from softgrad.backends.numba_cpu import tile_cross_entropy
from softgrad.protocol import loss_dtype
from tests import truth
from tests.cases import DTYPES
from tests.truth import assert_right

# A row in a lane, sixteen rows in vectors, a row by itself; each with whole vectors and a tail.
CLASSES = [2, 16, 29, 33, 100, 384, 385, 1000, 4099]
OPTIONS = [
    {"label_smoothing": 0.1},
    {"label_smoothing": 1.0},
    {"z_loss": 1e-4},
    {"z_loss": 3.0},
    {"z_loss": 1e3},
    {"label_smoothing": 0.3, "z_loss": 0.25},
]
over_options = pytest.mark.parametrize("options", OPTIONS, ids=str)


@pytest.fixture(autouse=True)
def _numba():
    with softgrad.use_backend("numba"):
        yield


def problem(classes: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Flat, sure, masked and far-off rows, and such as have an lse of nearly 0."""
    rng = np.random.default_rng(classes)
    z = rng.standard_normal((70, classes)) * 3
    t = rng.integers(0, classes, len(z))
    z[np.arange(0, 70, 5), t[::5]] += 40.0
    z[1::5] += rng.uniform(-400, 400, (14, 1))
    z[2::5][rng.random(z[2::5].shape) < 0.3] = np.finfo(np.float32).min if dtype == np.float32 else -6e4
    z[3:13:5][rng.random(z[3:13:5].shape) < 0.3] = -np.inf
    for row, lse in zip(
        z[4::5], [0.0, 1e-9, -1e-7, 1e-5, -1e-3, 0.1, 0.5, -0.9, 1.5, -3.0, 30.0, 0.2, 0.3, -0.4], strict=True
    ):
        row -= np.log(np.exp(row - row.max()).sum()) + row.max() - lse
    z[69], z[69, t[69]] = -np.inf, 0.0  # nothing but the target, and that 0: lse is exactly 0
    return z.astype(dtype), t


def assert_loss_and_gradient(z, t, **options):
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, **options)
    assert_right(grad, truth.cross_entropy_grad(z, t, **options), z.dtype)
    options.pop("grad_output", None)
    assert_right(loss, truth.cross_entropy(z, t, **options), loss_dtype(z.dtype))


@over_options
@pytest.mark.parametrize("classes", CLASSES)
def test_every_row(classes, options):
    z, t = problem(classes, np.dtype(np.float32))
    t[10] = -100
    g = np.random.default_rng(0).standard_normal(len(z))
    g[20:25] = 0.0
    assert_loss_and_gradient(z, t, reduction="none", grad_output=g, **options)
    ordinary = z.min(axis=-1) > -1e4  # a mean of losses that overflow says nothing
    assert_loss_and_gradient(z[ordinary], t[ordinary], reduction="mean", **options)


@over_options
@pytest.mark.parametrize("dtype", [name for name in DTYPES if DTYPES[name].itemsize == 2])
def test_sixteen_bit(dtype, options):
    for classes in (29, 100, 385):
        z, t = problem(classes, DTYPES[dtype])
        assert_loss_and_gradient(z, t, reduction="none", **options)


@pytest.mark.parametrize("classes", [29, 100, 385])
def test_weights_beside_z_loss(classes):
    """One of them 0: what is left of its rows is the z_loss."""
    z, t = problem(classes, np.dtype(np.float32))
    weight = np.random.default_rng(2).uniform(0.1, 2.0, classes).astype(np.float32)
    weight[t[0]] = 0.0
    for reduction in ("none", "sum"):
        assert_loss_and_gradient(z[::5], t[::5], weight=weight, z_loss=0.01, reduction=reduction)


@over_options
@pytest.mark.parametrize("classes", CLASSES)
def test_same_bits(classes, options):
    """For any rows around, in place or not, with or without the loss, at any stride."""
    z, t = problem(classes, np.dtype(np.float32))
    t[10] = -100
    options = {**options, "reduction": "none"}
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, **options)
    for rows in (slice(0, 1), slice(3, 20), slice(4, 5), slice(69, 70)):
        one, other = softgrad.cross_entropy_value_and_grad(z[rows], t[rows], **options)
        np.testing.assert_array_equal(one, loss[rows])
        np.testing.assert_array_equal(other, grad[rows])
    many = softgrad.cross_entropy_value_and_grad(np.tile(z, (40, 1)), np.tile(t, 40), **options)
    np.testing.assert_array_equal(many[0], np.tile(loss, 40))
    np.testing.assert_array_equal(many[1], np.tile(grad, (40, 1)))
    np.testing.assert_array_equal(softgrad.cross_entropy(z, t, **options), loss)
    spread = np.zeros((len(z), classes + 3), np.float32)
    spread[:, 1:-2] = z
    np.testing.assert_array_equal(softgrad.cross_entropy_grad(spread[:, 1:-2], t, **options), grad)
    place = z.copy()
    np.testing.assert_array_equal(softgrad.cross_entropy_grad(place, t, out=place, **options), grad)


@over_options
@pytest.mark.parametrize("classes", [29, 100, 385])
def test_ordinary_rows_are_left_to_float32(classes, options, monkeypatch):
    """Nothing above passes because the float64 tiles did the work."""
    rng = np.random.default_rng(3)
    z = (rng.standard_normal((300, classes)) + 2.0).astype(np.float32)
    monkeypatch.setattr(tile_cross_entropy, "cross_entropy_tiles", None)
    softgrad.cross_entropy_value_and_grad(z, rng.integers(0, classes, 300), **options)
