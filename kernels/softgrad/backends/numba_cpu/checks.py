"""The values of targets and probabilities."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numba_cpu.cross_entropy import ignoring
from softgrad.backends.numba_cpu.memory import Array, describe, describe_targets, tile_scratch, tile_work
from softgrad.backends.numba_cpu.targets import first_bad
from softgrad.backends.numba_cpu.threads import share
from softgrad.backends.numba_cpu.tile_checks import BUFFERS, bad_rows


def first_bad_target(targets: Array, classes: int, ignore_index: int | None) -> int | None:
    """Flat position of the first target that is neither in [0, classes) nor ignored."""
    targets, ignores, ignore_index = ignoring(targets, ignore_index)
    first = first_bad(describe_targets(targets), targets.size, classes, ignores, ignore_index)
    return None if first < 0 else int(first)


def first_bad_row(probs: Array, tolerance: float, *, log: bool) -> int | None:
    """Flat position of the first row that is no probability distribution; rows with a NaN pass."""
    outer, classes, inner = probs.shape
    rows = outer * inner
    tiles, work = tile_work(probs)
    bad = np.empty(rows, np.float64)
    if classes == 0:
        return 0 if rows and not tolerance >= 1.0 else None

    def run(counter: int) -> None:
        _scratch, buffers = tile_scratch(BUFFERS, probs)
        bad_rows(
            counter, buffers, work, log, tolerance, describe(probs),
            (bad.ctypes.data, 8, 0, 8, 0, 1),
        )  # fmt: skip

    share(2 * probs.size, tiles, run)
    first = int(bad.argmax()) if rows else 0
    return first if rows and bad[first] else None
