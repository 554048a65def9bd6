"""Fresh random inputs: one set whose truth is known, and more to rotate through, so that caches hold none of them."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from bench.cases import Case
from bench.machine import available_memory, last_level_cache

Inputs = dict[str, Any]

KNOWN_ELEMENTS = 1 << 16  # of distinct rows in the set whose truth is computed: 100-bit arithmetic takes its time
DISTINCT_ELEMENTS = 1 << 22
MOST_SETS = 48
SPREAD = 3.0  # standard deviation of the logits: an undecided model, all rows within ±40


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of one of the four names."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def known_rows(case: Case) -> int:
    """How many distinct rows set 0 repeats; its truth is that of these rows."""
    return min(case.rows, max(1, KNOWN_ELEMENTS // case.classes))


def draw(case: Case, number: int) -> Inputs:
    """Set `number` of the inputs of a case: its arguments by name, and `out` to write to.

    Set 0 repeats `known_rows` rows, the others up to 4 million distinct elements.
    """
    distinct = known_rows(case) if number == 0 else min(case.rows, max(1, DISTINCT_ELEMENTS // case.classes))
    rng = np.random.default_rng([zlib.crc32(case.name.encode()), number])
    dtype = numpy_dtype(case.dtype)

    def array(block: np.ndarray) -> np.ndarray:
        return np.resize(block.astype(dtype), case.shape)  # repeated as often as it takes

    z = SPREAD * rng.standard_normal((distinct, case.classes), np.float32)
    given: Inputs = {}
    for name in case.spec.inputs:
        if name == "logits":
            given[name] = array(z)
        elif name == "probs":
            e = np.exp(z.astype(np.float64) - z.max(-1, keepdims=True))
            given[name] = array(e / e.sum(-1, keepdims=True))
        elif name == "tangent":
            given[name] = array(rng.standard_normal((distinct, case.classes), np.float32))
        else:
            given[name] = np.resize(rng.integers(0, case.classes, distinct), case.rows)
    shape = case.shape if case.spec.writes_rows else (case.rows,)
    return given | {"out": np.full(shape, 0, dtype)}  # np.zeros would leave it to the first call to get memory


def sets_to_rotate(case: Case, cache: int | None = None, memory: int | None = None) -> int:
    """How many sets it takes for each to have left the CPU's caches when its turn comes again, as memory allows."""
    cache = last_level_cache() if cache is None else cache
    memory = available_memory() if memory is None else memory
    wanted = 2 + 2 * cache // max(case.bytes, 1)
    affordable = memory // 4 // (3 * case.bytes + 1)  # inputs, results, the copy's own buffers, peers' copies
    return int(max(2, min(wanted, affordable, MOST_SETS)))


def cache_state(case: Case, sets: int, cache: int | None = None) -> str:
    """What the caches hold of the inputs when a call starts."""
    cache = last_level_cache() if cache is None else cache
    return "cold" if sets * case.bytes > cache else "partly warm"
