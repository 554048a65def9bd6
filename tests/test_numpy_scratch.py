"""Scratch memory of the numpy backend: neither more rows, nor longer rows, nor more tangents need much of it."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

import softgrad

MOST_BYTES = 16e6
LONGEST = 262_144
OPTIONS = {"label_smoothing": 0.1, "z_loss": 1e-3, "softcap": 30.0}


def peak(call: Callable[[], object]) -> int:
    """Bytes at the peak of a call, in a thread that has no scratch memory kept from earlier ones."""
    peaks = []

    def measure() -> None:
        tracemalloc.start()
        with softgrad.use_backend("numpy"):
            call()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    gc.collect()
    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()
    return peaks[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("dense", [False, True])
def test_longest_rows_with_every_option(dtype: type, axis: int, dense: bool) -> None:
    rng = np.random.default_rng(3)
    shape = (3, LONGEST) if axis == -1 else (LONGEST, 3)
    z = rng.normal(0.0, 3.0, shape).astype(dtype)
    z[..., :1] = -np.inf
    z, v = (z if axis == -1 else np.roll(z, 1, axis=1)), rng.normal(size=shape).astype(dtype)
    targets = np.full(shape, 1.0 / LONGEST, dtype) if dense else rng.integers(1, LONGEST, 3)
    options = {**OPTIONS, "weight": rng.random(LONGEST).astype(dtype), "axis": axis}
    out = np.empty_like(z)
    calls = {
        "softmax": lambda: softgrad.softmax(z, axis=axis, out=out),
        "log_softmax": lambda: softgrad.log_softmax(z, axis=axis, out=out),
        "logsumexp": lambda: softgrad.logsumexp(z, axis=axis),
        "softmax_jvp": lambda: softgrad.softmax_jvp(v, logits=z, axis=axis, out=out),
        "cross_entropy": lambda: softgrad.cross_entropy(z, targets, **options),
        "grad": lambda: softgrad.cross_entropy_grad(z, targets, out=out, **options),
        "jvp": lambda: softgrad.cross_entropy_jvp(v, logits=z, targets=targets, **options),
        "hvp": lambda: softgrad.cross_entropy_hvp(v, logits=z, targets=targets, out=out, **options),
    }
    peaks = {name: peak(call) for name, call in calls.items()}
    assert {name: n for name, n in peaks.items() if n > MOST_BYTES} == {}


def test_many_tangents() -> None:
    rng = np.random.default_rng(4)
    z = rng.normal(size=(2, 3000))
    few, many = rng.normal(size=(2, 2, 3000)), rng.normal(size=(60, 2, 3000))
    out = np.empty_like(many)
    of_few = peak(lambda: softgrad.softmax_jvp(few, logits=z, out=out[:2]))
    of_many = peak(lambda: softgrad.softmax_jvp(many, logits=z, out=out))
    assert of_many < of_few + 2 * z.nbytes
