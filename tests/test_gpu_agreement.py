"""The GPU backends, on the CPU: the CUDA C++ kernels and their Python twins give the same bits, by the same kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import softgrad
from softgrad.backends.cuda.segments import Cutting
from tests.cases import ADVERSARIAL, DTYPES, Case
from tests.emulator import emulated, variants
from tests.emulator.fixtures import device

pytest.importorskip("numba_cuda", reason="needs numba-cuda: pip install 'softgrad[numba-cuda]'")

DTYPE = [pytest.param(dtype, id=name) for name, dtype in DTYPES.items()]
AXIS = pytest.mark.parametrize("axis", [-1, 0], ids=["contiguous", "strided"])
# The logarithms, exp and tanh that these take are the host's: another library, another last digit.
OF_THE_HOST = ("log", "loss", "capped")

Results = Iterator[tuple[str, np.ndarray]]


def main_results(z: np.ndarray, t: np.ndarray, v: np.ndarray, axis: int) -> Results:
    """Of the three kernels that hold their row, and the sums over rows."""
    yield "softmax", softgrad.softmax(z, axis=axis)
    yield "product", softgrad.softmax_jvp(v, logits=z, axis=axis)
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, axis=axis, check_targets=False)
    yield "loss", loss
    yield "gradient", grad


def other_results(z: np.ndarray, t: np.ndarray, v: np.ndarray, axis: int) -> Results:
    """Of every other primitive and option."""
    p, log_p = softgrad.softmax(z, axis=axis), softgrad.log_softmax(z, axis=axis)
    yield "log-probabilities", log_p
    yield "log-sum-exp", softgrad.logsumexp(z, axis=axis)
    two = np.stack([v, v[::-1]])
    yield "product at probs", softgrad.softmax_jvp(two, probs=p, axis=axis, check_probs=False)
    yield "jvp", softgrad.log_softmax_jvp(v, logits=z, axis=axis)
    yield "vjp", softgrad.log_softmax_vjp(two, logits=z, axis=axis)
    yield "log jvp", softgrad.log_softmax_jvp(v, log_probs=log_p, axis=axis, check_probs=False)
    yield "log vjp", softgrad.log_softmax_vjp(v, log_probs=log_p, axis=axis, check_probs=False)
    options: dict[str, Any] = {"axis": axis, "check_targets": False, "weight": np.linspace(0.5, 2.0, z.shape[axis])}
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, ignore_index=1, reduction="sum", **options)
    yield "weighted loss", loss
    yield "weighted gradient", grad
    options |= {"label_smoothing": 0.1, "reduction": "none"}
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, **options)
    yield "smoothed loss", loss
    yield "smoothed gradient", grad
    loss, grad = softgrad.cross_entropy_value_and_grad(z, abs(v), softcap=20.0, z_loss=1e-3, axis=axis)
    yield "capped loss of probabilities", loss
    yield "capped gradient of probabilities", grad
    yield "slope of the loss", softgrad.cross_entropy_jvp(two, logits=z, targets=t, **options)
    yield "slope of the gradient", softgrad.cross_entropy_hvp(two, logits=z, targets=t, **options)
    options |= {"softcap": 20.0, "z_loss": 1e-3}
    yield "capped slope", softgrad.cross_entropy_hvp(v, logits=z, targets=t, **options)


def assert_close(a: np.ndarray, b: np.ndarray, what: str) -> None:
    """Equal but for the last bits: those of the largest number that went into a."""
    digits = {8: 50, 4: 21, 2: 9 if a.dtype == np.float16 else 6}[a.dtype.itemsize]
    eps = 2.0 ** -(digits - (4 if "capped" in what else 0))
    a, b = np.float64(a), np.float64(b)
    largest = np.abs(np.where(np.isfinite(b), b, 0.0)).max(initial=0.0)
    np.testing.assert_allclose(a, b, rtol=eps, atol=eps * largest, err_msg=what)


def assert_twins(results: Any, z: np.ndarray, t: np.ndarray, v: np.ndarray, axis: int, cutting: Any = None) -> None:
    if axis == 0:
        z, v = np.ascontiguousarray(z.T), np.ascontiguousarray(v.T)
    with device(clusters=False, cutting=cutting) as cpp:
        theirs = dict(results(z, t, v, axis))
    with emulated("numba_cuda", cutting=cutting) as python:
        for name, ours in results(z, t, v, axis):
            if any(word in name for word in OF_THE_HOST):
                assert_close(ours, theirs[name], name)
            else:
                # CuPy's compiler flushes what is below the smallest normal number; Numba's does not.
                flushed = float(np.finfo(np.float32).tiny) if ours.dtype.itemsize < 8 else 0.0
                a, b = np.float64(ours), np.float64(theirs[name])
                np.testing.assert_allclose(a, b, rtol=0.0, atol=flushed, err_msg=name)
    assert python.ran == cpp.ran


def rows(classes: int, dtype: np.dtype[Any], count: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    z, v = rng.standard_normal((2, count, classes)) * [[[8.0]], [[1.0]]]
    return z.astype(dtype), rng.integers(0, classes, count), v.astype(dtype)


@AXIS
@pytest.mark.parametrize("dtype", DTYPE)
def test_on_both_sides_of_every_threshold(dtype: np.dtype[Any], axis: int) -> None:
    for classes in variants.thresholds(dtype.itemsize):
        if classes <= (9000 if axis == -1 else 600):
            assert_twins(main_results, *rows(classes, dtype, 2), axis)


@AXIS
@pytest.mark.parametrize("dtype", [DTYPE[1], DTYPE[-1]])
@pytest.mark.parametrize("classes", [5, 100, 1100])
def test_every_primitive_and_option(classes: int, dtype: np.dtype[Any], axis: int) -> None:
    assert_twins(other_results, *rows(classes, dtype), axis)


# CuPy's compiler flushes subnormal numbers: of logits among which it sees none, another is the first largest.
@pytest.mark.parametrize("case", [case for case in ADVERSARIAL if case.name != "denormal"], ids=str)
def test_adversarial_rows(case: Case) -> None:
    dtype = DTYPES["float32"]
    z, v, t = case.logits(dtype)[:12], case.tangents(dtype)[:12], case.targets()[:12]
    t[3], t[4] = -100, 10**6
    assert_twins(main_results, z, t, v, -1)


@AXIS
@pytest.mark.parametrize("dtype", [DTYPE[1], DTYPE[-1]])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_the_cpu_backends_agree(backend: str, dtype: np.dtype[Any], axis: int) -> None:
    """In what is NaN, infinite or 0 too: rows that are masked, in part or whole, or broken; targets out of range."""
    z, t, v = rows(300, dtype, 8)
    z[1, ::3], z[2], z[3, 7], z[4, 9], t[5], t[6] = -np.inf, -np.inf, np.inf, np.nan, -100, 300
    if axis == 0:
        z, v = np.ascontiguousarray(z.T), np.ascontiguousarray(v.T)
    for results in (main_results, other_results):
        with emulated("numba_cuda"):
            ours = dict(results(z, t, v, axis))
        with softgrad.use_backend(backend):
            for name, theirs in results(z, t, v, axis):
                assert_close(ours[name], theirs, name)
                np.testing.assert_array_equal(ours[name] == 0, theirs == 0, name)


@AXIS
@pytest.mark.parametrize("results", [main_results, other_results])
def test_rows_cut_into_segments(results: Any, axis: int) -> None:
    assert_twins(results, *rows(2100, DTYPES["float32"]), axis, Cutting(beyond=1000, shortest=1))
