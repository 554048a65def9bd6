"""Against the full Jacobian: the same gradient, its time and peak memory, as C grows."""

from __future__ import annotations

from typing import Any

import pytest

from bench.clock import sample_clock
from bench.plugin import RUN


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    run = metafunc.config.stash[RUN]
    listed = [
        pytest.param(case, contender, id=f"jacobian-{case.name}-{contender.name}")
        for case in run.jacobian_cases()
        for contender in run.jacobian_entrants(case)
    ]
    metafunc.parametrize(("case", "contender"), listed)


@pytest.mark.benchmark(timer=sample_clock)
def test_jacobian(timed: Any, run_in_progress: Any, case: Any, contender: Any) -> None:
    outcomes = run_in_progress.against_the_jacobian(case)
    timed("jacobian", case, outcomes, contender.name, peak_bytes=run_in_progress.peak(case, contender))
