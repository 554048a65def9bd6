"""Speed: large inputs, cold caches, every figure beside a copy of as many bytes."""

from __future__ import annotations

from typing import Any

import pytest

from bench.clock import sample_clock
from bench.plugin import RUN, pairs


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    run = metafunc.config.stash[RUN]
    metafunc.parametrize(("case", "contender"), pairs(run.speed_cases(), run, limit=True))


@pytest.mark.benchmark(timer=sample_clock)
def test_speed(timed: Any, run_in_progress: Any, case: Any, contender: str) -> None:
    timed("speed", case, run_in_progress.race(case), contender)
