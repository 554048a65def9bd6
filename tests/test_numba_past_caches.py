"""Results written past the caches: lines that two rows share, whoever writes them, and what lies beside the result."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

import softgrad

pytest.importorskip("numba", reason="the numba backend needs numba")

from softgrad.backends.numba_cpu import compiling, memory, past_caches, processors, single_rows, threads
from tests.cases import DTYPES

UNTOUCHED = 7.0


@compiling.helper
def write_by_blocks(source, out_at, classes, block, begun, fmt):
    """Write a row of numbers, float32 at source, in several goes."""
    j = 0
    for start in range(0, classes, block):
        stop = min(start + block, classes)
        j = past_caches.write_until(past_caches.numbers_at, source, out_at, classes, j, stop, 0, begun, fmt)


@compiling.helper
def begin(begun):
    past_caches.begin_lines(begun)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("classes", [16, 17, 31, 37, 100])
def test_two_threads_in_every_order(classes, name):
    """Four rows, each written by either of two, in every order; what lies between two rows stays as it was."""
    rng = np.random.default_rng(classes)
    rows = rng.integers(1, 100, (4, classes)).astype(np.float32)
    # What stands before and behind a row must not be taken for a part of it.
    sources = np.full((4, classes + 48), np.nan, np.float32)
    sources[:, 16 : 16 + classes] = rows
    fmt = memory.FORMATS[np.dtype(DTYPES[name])]
    kept = [memory.Scratch(past_caches.BEGUN) for _ in range(2)]
    for gap in (0, 1, 16, 21):
        for case, order in enumerate(permutations(range(4))):
            offset, whose = case % 33, rng.integers(0, 2, 4)
            place = np.full(4 * (classes + gap) + 128, UNTOUCHED, DTYPES[name])
            expected = place.copy()
            out = place[offset:][: 4 * (classes + gap)].reshape(4, classes + gap)[:, :classes]
            expected[offset:][: 4 * (classes + gap)].reshape(4, classes + gap)[:, :classes] = rows
            for one in kept:
                one.numbers[:] = np.nan
                begin(one.address)
            for row in order:
                begun = kept[whose[row]].address
                write_by_blocks(sources[row, 16:].ctypes.data, out[row].ctypes.data, classes, 32, begun, fmt)
            for one in kept if case % 2 else kept[::-1]:
                past_caches.flush(one.address, fmt)
            np.testing.assert_array_equal(place, expected)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("classes", [33, 100, 385, 1013])
def test_rows_of_a_strided_result(classes, name, monkeypatch):
    """By two threads; rows without a target, and rows that float32 will not do for, are among them."""
    rng = np.random.default_rng(classes)
    z = (rng.standard_normal((50, classes)) * 4).astype(np.float32)
    z[5] *= 1e4
    z, v = z.astype(DTYPES[name]), rng.standard_normal((2, 50, classes)).astype(DTYPES[name])
    t = rng.integers(0, classes, 50)
    t[20:22] = -100
    calls = {
        "softmax": lambda out: softgrad.softmax(z, out=out[0]),
        "log_softmax": lambda out: softgrad.log_softmax(z, out=out[0]),
        "gradient": lambda out: softgrad.cross_entropy_grad(z, t, reduction="none", out=out[0]),
        "products": lambda out: softgrad.softmax_vjp(v, logits=z, out=out),
    }
    expected = {called: np.full_like(v, UNTOUCHED) for called in calls}
    with softgrad.use_backend("numba"):
        for called, call in calls.items():
            call(expected[called])
        monkeypatch.setattr(threads, "WORTH", 1)
        monkeypatch.setattr(processors, "allowed", lambda: 2)
        monkeypatch.setattr(single_rows, "FEW", 0)
        monkeypatch.setattr(single_rows, "LARGE_BYTES", 0)
        for chunk in (1, 2**20):  # a row at a time, or some
            monkeypatch.setattr(single_rows, "CHUNK", chunk)
            for gap, offset in ((0, 0), (0, 5), (1, 0), (3, 17), (16, 3)):
                for called, call in calls.items():
                    place = np.full(2 * 50 * (classes + gap) + 64, UNTOUCHED, z.dtype)
                    wanted = place.copy()
                    out, whole = (
                        memory[offset:][: 2 * 50 * (classes + gap)].reshape(2, 50, classes + gap)[..., :classes]
                        for memory in (place, wanted)
                    )
                    call(out)
                    whole[...] = expected[called]
                    np.testing.assert_array_equal(place, wanted, called)
