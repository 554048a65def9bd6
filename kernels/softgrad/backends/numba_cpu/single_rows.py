"""Rows computed in float32, and those of them that need more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from softgrad.backends.numba_cpu.addresses import address
from softgrad.backends.numba_cpu.entries import COUNTER, as_stored, bytes_in_lines
from softgrad.backends.numba_cpu.huge import HUGE
from softgrad.backends.numba_cpu.lanes.features import CHOOSES
from softgrad.backends.numba_cpu.memory import FORMATS, Array, Scratch, borrow, give_back, scratch
from softgrad.backends.numba_cpu.past_caches import BEGUN
from softgrad.backends.numba_cpu.threads import share

# Up to how many classes a row is a lane; up to how many, one of sixteen; beyond, it is worked on by itself.
SHORT, MIDDLE = 16, 384
# The first of these for what looks at each row more often than an exponential is worth: products, and checks.
SHORT_POINT, SHORT_CHECKED = 28, 32
# Where rows lie one behind the other: up to how many the columns of sixteen are kept in registers; up to how many
# sixteen are a run of numbers.
DENSE, FLAT = 16, 63
# Results are written past the caches where they and what they are made of are larger than this: of any 32 MB that a
# processor's caches may hold, others will have taken some.
LARGE_BYTES = 2**24
# Up to this many elements the way to a kernel costs as much as what it does.
FEW = 4096
# Elements that a thread takes at a time.
CHUNK = 2**15


def is_single(array: Array) -> bool:
    """Whether numbers of this dtype are computed with in float32."""
    return FORMATS[array.dtype] is not None


def has_long_rows(z: Array) -> bool:
    """Whether rows are worked on one by one: depends on C and contiguity alone."""
    return bool(z.shape[1] > MIDDLE and z.strides[1] == z.itemsize)


def has_huge_rows(z: Array) -> bool:
    """Whether long rows are cut into segments: depends on C and contiguity alone."""
    return has_long_rows(z) and z.shape[1] >= HUGE


def has_middle_rows(z: Array, short: int = SHORT) -> bool:
    """Whether sixteen rows are worked on at a time, each in vectors of its own: depends on C and contiguity alone."""
    return bool(short < z.shape[1] <= MIDDLE and z.strides[1] == z.itemsize)


def are_dense(*arrays: Array) -> bool:
    """Whether rows are so short, and lie one behind the other in all arrays, that columns are kept in registers."""
    if not 2 <= arrays[0].shape[1] <= DENSE:
        return False
    return lie_in_sequence(*arrays) and all(array.dtype == arrays[0].dtype for array in arrays)


def are_flat(*arrays: Array) -> bool:
    """Whether middle rows are so short, and lie one behind the other in all arrays, that sixteen are a run."""
    return CHOOSES and arrays[0].shape[1] <= FLAT and lie_in_sequence(*arrays)


def lie_in_sequence(*arrays: Array) -> bool:
    """Whether rows lie one behind the other in all arrays."""
    for array in arrays:
        (_, classes, inner), size = array.shape, array.itemsize
        if inner != 1 or array.strides[:2] != (size * classes, size):
            return False
    return True


def streams(out: Array, *inputs: Array) -> bool:
    """Whether to write past the caches: a large result that is not written over what has just been read."""
    size = out.nbytes
    for array in inputs:
        size += array.nbytes
    if size < LARGE_BYTES:
        return False
    at = address(out)
    if any(x % out.itemsize for x in (at, *out.strides)):  # lines are of whole numbers
        return False
    return all(address(array) != at for array in inputs)


Returned = TypeVar("Returned")


def write_contiguous(out: Array, write: Callable[[Array], Returned]) -> Returned:
    """What `write` returns, who fills a result row by row: `out`, or a stand-in where its class axis is strided."""
    if out.strides[-2] == out.itemsize:
        return write(out)
    stand_in = np.empty((*out.shape[:-2], out.shape[-1], out.shape[-2]), out.dtype).swapaxes(-1, -2)
    returned = write(stand_in)
    out[...] = stand_in
    return returned


def share_rows(z: Array, run: Callable[[int, int, int, int], None], results: int = 1) -> Array | None:
    """Call ``run(counter, chunk, hard, scratch)``, a kernel for long rows, in as many threads as the work is worth.

    Returns which of the results, as many for each row, float32 will not do for; None if there are none.
    """
    outer, classes, inner = z.shape
    return _share(z, run, outer * inner, classes, results, BEGUN + 4 * (classes + 16))


def share_sixteen(
    z: Array, run: Callable[[int, int, int, int], None], results: int = 1, chunk: int | None = None
) -> Array | None:
    """The same for a kernel that takes sixteen rows side by side, `chunk` such tiles at a time if that is given."""
    outer, classes, inner = z.shape
    tiles = outer * -(-inner // 16) if inner >= 16 else -(-outer * inner // 16)
    return _share(z, run, tiles, 16 * classes, results, sixteen_bytes(classes), chunk)


def is_few(result: Array) -> bool:
    """Whether a result is computed by one compiled function in this thread."""
    return result.size <= FEW


def few_sixteen(function: Any, z: Array, arrays: tuple[Array, ...], *options: Any, results: int = 1) -> Array | None:
    """``function(*arrays, *options, scratch)``, an entry to such a kernel; returns what `share_sixteen` does."""
    shape = z.shape
    memory = borrow(COUNTER + bytes_in_lines(1 + results * shape[0] * shape[2]) + sixteen_bytes(shape[1]))
    if z.itemsize == 2:
        arrays = tuple(map(as_stored, arrays))
    count = function(*arrays, *options, memory.address)
    hard = listed_behind(memory, count) if count else None
    give_back(memory)
    return hard


def listed_behind(memory: Scratch, count: int) -> Array:
    """What a kernel has listed behind a counter."""
    first = COUNTER // 8 + 1
    return memory.numbers[first : first + count].view(np.int64).copy()


def sixteen_bytes(classes: int) -> int:
    """Scratch memory of kernels that take sixteen rows side by side."""
    return 4096 + 8192 + 3 * 64 * (classes + 16)


def listed(hard: Array) -> Array | None:
    """What kernels have listed behind its number."""
    count = int(hard[0])
    return hard[1 : 1 + count].copy() if count else None


def _share(
    z: Array,
    run: Callable[[int, int, int, int], None],
    tasks: int,
    elements: int,
    results: int,
    scratch_bytes: int,
    chunk: int | None = None,
) -> Array | None:
    outer, _, inner = z.shape
    memory = borrow(bytes_in_lines(1 + results * outer * inner))
    hard_at, hard = memory.address, memory.numbers.view(np.int64)
    hard[0] = 0
    taken = chunk or max(1, min(CHUNK // elements, -(-tasks // 16)))

    def run_one(counter: int) -> None:
        memory = scratch(scratch_bytes)
        run(counter, taken, hard_at, memory.address)

    share(results * z.size, -(-tasks // taken), run_one)
    found = listed(hard)
    give_back(memory)
    return found
