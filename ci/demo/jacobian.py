"""The same gradient by the full Jacobian and by softgrad as C grows: time and peak memory, O(C²) against O(C)."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

import softgrad
from softgrad import naive

ROWS = 32
CLASSES = (2, 8, 32, 128, 512, 1024)
STEPS = len(CLASSES)


@dataclass(frozen=True)
class Cost:
    """Of one gradient of `ROWS` rows: seconds and bytes at the peak, and how far the two results lie apart."""

    classes: int
    seconds: tuple[float, float]  # full Jacobian, softgrad
    peak: tuple[int, int]
    difference: float


def run(step: Callable[[str], None]) -> list[Cost]:
    """Measure each number of classes."""
    costs = []
    random = np.random.default_rng(0)
    for classes in CLASSES:
        step(f"full Jacobian against softgrad: C = {classes}")
        logits, targets = random.normal(size=(ROWS, classes)), random.integers(classes, size=ROWS)
        ways = (
            lambda z=logits, t=targets: naive.cross_entropy_grad(z, t),
            lambda z=logits, t=targets: softgrad.cross_entropy_grad(z, t),
        )
        results, seconds, peaks = zip(*map(_measure, ways), strict=True)
        costs.append(Cost(classes, seconds, peaks, float(np.abs(results[0] - results[1]).max())))
    return costs


def _measure(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, int]:
    result = call()
    seconds = []
    # Five times, or as often as half a second allows.
    while len(seconds) < 5 and sum(seconds) < 0.5:
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    tracemalloc.start()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return result, float(np.median(seconds)), peak


def table(costs: list[Cost]) -> Table:
    """As a table."""
    grid: Any = Table(
        "C", "full Jacobian", "softgrad", "times faster", "full Jacobian", "softgrad", "max |difference|",
        title=f"The gradient of {ROWS} rows as C grows: time, then peak memory", title_justify="left",
    )  # fmt: skip
    for cost in costs:
        slow, fast = cost.seconds
        grid.add_row(
            str(cost.classes),
            f"{1e3 * slow:.2f} ms",
            f"{1e3 * fast:.2f} ms",
            f"{slow / fast:.1f}",
            f"{cost.peak[0] / 2**20:.2f} MiB",
            f"{cost.peak[1] / 2**20:.2f} MiB",
            f"{cost.difference:.0e}",
        )
    return grid
