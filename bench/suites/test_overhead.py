"""Overhead: what a call costs when there is next to nothing to compute; on a GPU, what it costs the host."""

from __future__ import annotations

from typing import Any

import pytest

from bench.clock import sample_clock
from bench.plugin import RUN, pairs


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    run = metafunc.config.stash[RUN]
    metafunc.parametrize(("case", "contender"), pairs(run.overhead_cases(), run, limit=False))


@pytest.mark.benchmark(timer=sample_clock)
def test_overhead(timed: Any, run_in_progress: Any, case: Any, contender: str) -> None:
    timed("overhead", case, run_in_progress.overhead(case), contender)
