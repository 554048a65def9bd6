"""What a thread works on next, where it must know beforehand what comes after."""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import inlined
from softgrad.backends.numba_cpu.lanes import take


@inlined
def following(counter, chunk, count, i, stop):
    """Which of `count` this thread takes after i, and where its share ends; `count` if no other is left."""
    if i + 1 < stop:
        return i + 1, stop
    first = take(counter) * chunk
    return min(first, count), min(first + chunk, count)


@inlined
def ahead(array, size, classes, distance):
    """How far from a number to that which memory should be asked for: as many rows as there are in so many bytes."""
    return array[1] * max(distance // (size * max(classes, 1)), 1)
