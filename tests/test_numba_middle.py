"""Rows of some vectors on the numba backend: most share one N, which must show nowhere."""

from __future__ import annotations

import numpy as np
import pytest

import softgrad

pytest.importorskip("numba", reason="the numba backend needs numba")

from softgrad.backends.numba_cpu.middle import NEAR
from tests import truth
from tests.truth import assert_right

FLOAT32 = np.dtype(np.float32)


@pytest.fixture(autouse=True)
def _numba():
    with softgrad.use_backend("numba"):
        yield


def near_and_far(classes: int) -> np.ndarray:
    """Tiles of rows near 0, far from it, one behind the other and mixed."""
    rng = np.random.default_rng(classes)
    z = rng.standard_normal((160, classes)) * 3
    largest = [0.0, 0.0, 40.0, 0.0, -40.0, 100.0, NEAR, -NEAR, NEAR - 0.01, 0.01 - NEAR]
    z = (z - z.max(axis=1, keepdims=True) + np.repeat(largest, 16)[:, None]).astype(np.float32)
    return np.concatenate([z, z.reshape(10, 16, classes).swapaxes(0, 1).reshape(160, classes)])


@pytest.mark.parametrize("classes", [33, 48, 64, 65, 100, 257, 384])
def test_a_row_does_not_know_its_neighbours(classes):
    z = near_and_far(classes)
    t = np.random.default_rng(1).integers(0, classes, len(z))
    probs, log_probs = softgrad.softmax(z), softgrad.log_softmax(z)
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
    for r in range(0, len(z), 7):
        one = slice(r, r + 1)
        np.testing.assert_array_equal(softgrad.softmax(z[one]), probs[one])
        np.testing.assert_array_equal(softgrad.log_softmax(z[one]), log_probs[one])
        loss_alone, grad_alone = softgrad.cross_entropy_value_and_grad(z[one], t[one], reduction="none")
        np.testing.assert_array_equal(loss_alone, loss[one])
        np.testing.assert_array_equal(grad_alone, grad[one])


@pytest.mark.parametrize("classes", [33, 64, 100, 257])
def test_factors_that_give_each_row_a_shift_of_its_own(classes):
    """Powers of two change the gradient's exponents, and the loss not at all."""
    z = near_and_far(classes)
    t = np.random.default_rng(2).integers(0, classes, len(z))
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
    for factor in (2.0**30, 2.0**-30, np.full(len(z), 1.0)):
        found, scaled = softgrad.cross_entropy_value_and_grad(z, t, reduction="none", grad_output=factor)
        np.testing.assert_array_equal(found, loss)
        np.testing.assert_array_equal(scaled, grad * np.reshape(factor, (-1, 1)).astype(np.float32))


@pytest.mark.parametrize("classes", [35, 64, 128, 300])
def test_the_faintest_terms(classes):
    """Down to 2^-126 of the largest, wherever that is, and a sum of nothing else; the target may be any of them."""
    faint = np.linspace(0.0, -88.0, classes)
    alone = np.full(classes, -85.0)
    alone[classes // 2] = 0.0
    z = np.concatenate([[faint + m, alone + m, faint[::-1] + m] for m in (-15.9, -3.0, 0.0, 15.9, 30.0, -60.0)])
    z = z.astype(np.float32)
    assert_right(softgrad.softmax(z), truth.softmax(z), FLOAT32)
    assert_right(softgrad.log_softmax(z), truth.log_softmax(z), FLOAT32)
    for target in (0, classes // 2, classes - 1):
        t = np.full(len(z), target)
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
        assert_right(loss, truth.cross_entropy(z, t, reduction="none"), FLOAT32)
        assert_right(grad, truth.cross_entropy_grad(z, t, reduction="none"), FLOAT32)
