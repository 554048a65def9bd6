"""How interleaved samples get into pytest-benchmark.

pytest-benchmark times one function after another; a fair race takes turns.  So the race is run first, and each
contender's test then lets pytest-benchmark time the replay of its samples, by a clock (pytest-benchmark's documented
`timer` option) that only these samples move.  Statistics, machine information and file format stay pytest-benchmark's.
A sample can thus also be one that no host clock sees, such as the time between two CUDA events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


class SampleClock:
    """A clock that stands still but for the samples played to it."""

    def __init__(self) -> None:
        self._now = 0.0
        self._samples: Iterator[float] = iter(())

    def __call__(self) -> float:
        """The time, in seconds."""
        return self._now

    def _next(self) -> None:
        self._now += next(self._samples)

    def _restart(self) -> None:
        self._now = 0.0

    def replay(self, benchmark: Any, samples: Sequence[float]) -> None:
        """Let the fixture `benchmark` time `samples`, one a round."""
        self._samples = iter(samples)
        benchmark.pedantic(self._next, setup=self._restart, rounds=len(samples))


CLOCK = SampleClock()


def sample_clock() -> float:
    """The timer that the suites name."""
    return CLOCK()
