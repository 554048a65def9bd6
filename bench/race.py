"""Interleaved timing: every contender in turn, round after round, so that a slow minute is slow for all of them.

A sample is one call on inputs that the caches no longer hold, after a pause and one untimed call of the same contender:
the pause lets another library's worker threads stop spinning on the cores, the untimed call wakes this one's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

MINIMUM_ROUNDS = 3
Wait = Callable[[Any], Any] | None


class Stopwatch(Protocol):
    """How a device's time is measured."""

    def settle(self) -> None:
        """Bring the device to rest, and its caches to the state the method states."""

    def time(self, call: Callable[[], Any], wait: Wait = None) -> float:
        """Seconds that `call` takes; `wait` waits for its results, where the device's clock does not see them."""


class HostStopwatch:
    """Wall-clock time on the CPU; caches are defeated by rotating more inputs than they hold."""

    PAUSE = 0.010  # longer than OpenMP's workers spin for

    def settle(self) -> None:
        """Wait for the workers of the last contender to go to sleep."""
        time.sleep(self.PAUSE)

    def time(self, call: Callable[[], Any], wait: Wait = None) -> float:
        """Wall-clock seconds of one call."""
        start = time.perf_counter()
        call()
        return time.perf_counter() - start


@dataclass
class Entrant:
    """One contender's calls, one per set of rotated inputs, and the samples taken of them."""

    name: str
    calls: Sequence[Callable[[], Any]]
    wait: Wait = None
    active: Callable[[], AbstractContextManager[Any]] = nullcontext
    samples: list[float] = field(default_factory=list)


def race(entrants: Sequence[Entrant], stopwatch: Stopwatch, *, rounds: int, seconds: float) -> None:
    """Take up to `rounds` samples of each entrant, in an order that rotates, within about `seconds`.

    Calls count on through the rotated inputs whoever makes them, so that an input returns only after all the others.
    """
    start = time.perf_counter()
    turn = 0
    for done in range(rounds):
        if done >= MINIMUM_ROUNDS and time.perf_counter() - start > seconds:
            return
        first = done % max(len(entrants), 1)
        for entrant in (*entrants[first:], *entrants[:first]):
            calls = entrant.calls
            with entrant.active():
                stopwatch.settle()
                calls[turn % len(calls)]()
                entrant.samples.append(stopwatch.time(calls[(turn + 1) % len(calls)], entrant.wait))
            turn += 2
