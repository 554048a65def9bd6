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
        j = past_caches.write_until(
            past_caches.numbers_at, source, out_at, classes, j, stop, past_caches.LINE, begun, fmt
        )
        assert j >= min(stop, classes - 15)


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


@pytest.fixture(params=[1, 40])
def two_threads(request, monkeypatch):
    """Two threads that take so many rows at a time, and results that are all large."""
    monkeypatch.setattr(threads, "WORTH", 1)
    monkeypatch.setattr(processors, "allowed", lambda: 2)
    monkeypatch.setattr(single_rows, "FEW", 0)
    monkeypatch.setattr(single_rows, "LARGE_BYTES", 0)
    monkeypatch.setattr(single_rows, "_rows_at_a_time", lambda *_: request.param, raising=False)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("classes", [33, 100, 385, 1013])
def test_rows_of_a_strided_result(classes, name, two_threads):
    """Rows without a target and rows that float32 will not do for are among them."""
