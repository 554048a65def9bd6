"""Huge rows shared out: segment by segment, or, where there are as many as threads, row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from softgrad.backends.numba_cpu.addresses import address
from softgrad.backends.numba_cpu.huge import KNOWN, SEGMENT, advance, sum_segments, total_rows
from softgrad.backends.numba_cpu.memory import FORMATS, KEPT_BYTES, Array, describe, scratch
from softgrad.backends.numba_cpu.single_rows import listed
from softgrad.backends.numba_cpu.threads import end, share, threads_for

# Elements of rows whose segments are shared out together, so that what is read twice may still be in the last cache.
TOGETHER = 2**21


class Together(NamedTuple):
    """Some huge rows, as kernels are told of them.

    first    the first of them
    totals   what is known of each: (rows, KNOWN)
    parts    what is known of their segments: (rows, segments, KNOWN)
    hard_at  the list of results to do otherwise
    kept     whether exponentials were kept
    """

    first: int
    totals: Array
    parts: Array
    hard_at: int
    kept: bool


Step = Callable[[int, int], None]


def share_segments(
    z: Array,
    indices: int,
    steps: Callable[[Together], Sequence[Step]],
    results: int = 1,
    *,
    apart: bool = False,
) -> Array | None:
    """Call each of the steps as ``step(counter, scratch)``, one after the other, for some huge rows after the others.

    ``indices`` is the address of the targets, 0 without; ``apart``: the sum without the largest term is wanted too.
    Returns what `share_rows` does.
    """
    outer, classes, inner = z.shape
    rows, segments = outer * inner, -(-classes // SEGMENT)
    hard = np.zeros(1 + results * rows, np.int64)
    of_z, fmt = describe(z), FORMATS[z.dtype]

    def take_all_steps(first: int, count: int, run: Callable[[Step, int, int], None], *, kept: bool) -> None:
        parts, totals = np.empty((count, segments, KNOWN)), np.empty((count, KNOWN))

        def sums(counter: int, scratch: int) -> None:
            sum_segments(counter, first, scratch, kept, classes, of_z, indices, apart, parts, fmt)

        run(sums, count * classes, count * segments)
        total_rows(first, classes, of_z, indices, apart, parts, totals, fmt)
        for step in steps(Together(first, totals, parts, address(hard), kept)):
            run(step, results * count * classes, count * segments)

    def run_alone(step: Step, _elements: int, _tasks: int) -> None:
        counter, memory = np.zeros(1, np.int64), scratch(4 * (classes + 16))
        step(address(counter), memory.address)

    alone = 0
    if 4 * (classes + 16) <= KEPT_BYTES:
        threads = threads_for(results * rows * classes, rows * segments)
        alone = rows - rows % threads
    together = max(1, TOGETHER // classes)
    for first in range(0, rows - alone, together):
        take_all_steps(first, min(together, rows - alone - first), _shared, kept=False)
    if alone:
        left = iter(range(rows - alone, rows))

        def run(counter: int) -> None:
            advance(counter)
            for row in left:
                take_all_steps(row, 1, run_alone, kept=True)
            end(counter)

        take_all_steps(0, 0, run_alone, kept=True)  # compiled before there is anybody else to wait for that
        share(results * alone * classes, alone, run)
    return listed(hard)


def _shared(step: Step, elements: int, tasks: int) -> None:
    def run_one(counter: int) -> None:
        memory = scratch(4 * (SEGMENT + 16))
        step(counter, memory.address)

    share(elements, tasks, run_one)
