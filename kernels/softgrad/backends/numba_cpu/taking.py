"""How kernels share out their work: by a counter, an int64 in memory, that every thread advances.

Its address is a kernel's first argument, and HELPER more than that in threads that help the caller: these end a kernel
by leaving.  They note that they have left, and for a while wait for the caller's next job, before they ask for the GIL:
else they would ask for it when the caller does, who would go to sleep over it, and to be woken takes longer than half a
million exponentials.
"""

from __future__ import annotations

from softgrad.backends.numba_cpu.compiling import helper, inlined
from softgrad.backends.numba_cpu.lanes import peek, read_i64, relax, take

HELPER = 1
# Behind a counter that helpers are given, in bytes: how many have left; the job's number; where the latest job's is
# found, and behind it the address of its counter; how many times to look for one.
LEFT, NUMBER, LATEST, LOOKS = 8, 16, 24, 32


@inlined
def next_share(counter):
    """The number of the share of work that this thread takes next."""
    return take(counter & ~HELPER)


@inlined
def following(counter, chunk, count, i, stop):
    """Which of `count` this thread takes after i, and where its share ends; `count` if no other is left.

    For who must know beforehand what comes after.
    """
    if i + 1 < stop:
        return i + 1, stop
    first = next_share(counter) * chunk
    return min(first, count), min(first + chunk, count)


@inlined
def leave(counter):
    """The end of a kernel: of what a helper does in it."""
    if counter & HELPER:
        _linger(counter - HELPER)


@helper
def _linger(counter):
    # Once it is noted that this thread has left, the counter may be another job's.
    number, latest, looks = read_i64(counter + NUMBER), read_i64(counter + LATEST), read_i64(counter + LOOKS)
    take(counter + LEFT)
    for _ in range(looks):
        # A job that has begun: its caller has let go of the GIL.
        if peek(latest) != number and peek(peek(latest + 8)) != 0:
            return
        relax()


@inlined
def ahead(array, size, classes, distance):
    """How far from a number to that which memory should be asked for: as many rows as there are in so many bytes."""
    return array[1] * max(distance // (size * max(classes, 1)), 1)
