"""log_softmax and logsumexp of float32 rows where the largest class takes a growing share, and where it is tied."""

from __future__ import annotations

import numpy as np
import pytest

import softgrad

pytest.importorskip("numba", reason="the numba backend needs numba")

from tests import truth
from tests.cases import DTYPES
from tests.truth import assert_right

# A row in a lane, sixteen rows in vectors, a row by itself; each with whole vectors and a tail.
CLASSES = [2, 16, 29, 33, 100, 384, 385, 1000, 4099]


@pytest.fixture(autouse=True)
def _numba():
    with softgrad.use_backend("numba"):
        yield


def shares(classes: int, dtype: np.dtype) -> np.ndarray:
    """Logits whose largest class has a probability from 1 / C to 1 − 10⁻³⁰, on both sides of 1/4 and 1/2."""
    rng = np.random.default_rng(classes)
    ahead = np.log(classes) + np.concatenate([np.linspace(-4.0, 4.0, 40), np.linspace(5.0, 70.0, 14)])
    z = rng.uniform(-1.0, 1.0, (len(ahead), classes))
    z[np.arange(len(z)), rng.integers(0, classes, len(z))] = ahead
    return (z + rng.uniform(-300.0, 300.0, len(z))[:, None]).astype(dtype)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("classes", CLASSES)
def test_every_share_of_the_largest_class(classes, name):
    if name not in DTYPES:
        pytest.skip("bfloat16 needs ml_dtypes")
    dtype = DTYPES[name]
    z = shares(classes, dtype)
    assert_right(softgrad.log_softmax(z), truth.log_softmax(z), dtype)
    assert_right(softgrad.logsumexp(z), truth.logsumexp(z), np.float32)


@pytest.mark.parametrize("classes", CLASSES)
def test_ties_for_the_largest(classes):
    """Two or more, side by side and far apart, in front of others that do not count beside them."""
    rng = np.random.default_rng(classes)
    z = rng.uniform(-60.0, -40.0, (20, classes)).astype(np.float32)
    for row, count in zip(z, [1, 2, 2, 3, classes] * 4, strict=True):
        row[rng.choice(classes, min(count, classes), replace=False)] = 7.25
    assert_right(softgrad.log_softmax(z), truth.log_softmax(z), z.dtype)
    assert_right(softgrad.logsumexp(z), truth.logsumexp(z), z.dtype)
    alike = softgrad.log_softmax(z)[4::5]
    np.testing.assert_array_max_ulp(alike, np.full_like(alike, -np.log(classes)), maxulp=1)


@pytest.mark.parametrize("classes", CLASSES)
def test_rows_that_float32_will_not_do_for(classes):
    rng = np.random.default_rng(classes)
    z = rng.standard_normal((40, classes)).astype(np.float32)
    z[3] += 1e6
    z[7] = -np.inf
    z[9, -1] = np.nan
    z[20, 0] = np.inf
    z[33, -1] = 3e38
    z[35, 0] = -np.inf
    assert_right(softgrad.log_softmax(z), truth.log_softmax(z), z.dtype)
    assert_right(softgrad.logsumexp(z), truth.logsumexp(z), z.dtype)
