"""The pytest side of a run: what the suites get, the progress bar, and a result file that is saved after every case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import results, tables
from bench.cases import Case
from bench.clock import CLOCK
from bench.contenders import LIMIT
from bench.field import Outcome
from bench.run import Run

RUN = pytest.StashKey[Run]()


class Plugin:
    """Hooks and the fixture `timed`; one object per run."""

    def __init__(self, run: Run, path: Path, console: Any) -> None:
        self.run, self.path, self.console = run, path, console
        self.failures: list[str] = []
        self._stats: list[Any] = []
        self._config: Any = None
        self._told: set[str] = set()
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._task = self._progress.add_task("collecting", total=None)

    # --- pytest's hooks ------------------------------------------------------------------------------------------

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[RUN] = self.run
        self._config = config

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._progress.update(self._task, total=len(session.items))
        self._progress.start()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._progress.update(self._task, description=nodeid.partition("[")[2].rstrip("]")[:60].ljust(60))

    def pytest_runtest_logfinish(self) -> None:
        self._progress.advance(self._task)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failures.append(f"{report.nodeid.rpartition('/')[2]}: {_last_line(report)}")

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str]:
        """pytest prints no letters beside the progress bar."""
        return report.outcome, "", ""

    def pytest_sessionfinish(self) -> None:
        self._progress.stop()
        self.save()

    # --- what the suites use -------------------------------------------------------------------------------------

    @pytest.fixture
    def run_in_progress(self) -> Run:
        return self.run

    @pytest.fixture
    def timed(self, benchmark: Any) -> Any:
        """`timed(kind, case, outcomes, name, **extra)`: hand one contender's samples to pytest-benchmark."""

        def record(kind: str, case: Case, outcomes: dict[str, Outcome], name: str, **extra: Any) -> None:
            group = f"{kind} {case.name}"
            self._tell(group, case, outcomes)
            outcome = outcomes[name]
            if outcome.refusal is not None:
                message = f"{name} was refused a timing: {outcome.refusal}"
                (pytest.fail if outcome.contender.ours else pytest.skip)(message)
            benchmark.group = group
            benchmark.extra_info |= self.run.extra(kind, case, outcomes, name) | extra
            CLOCK.replay(benchmark, outcome.samples)
            self._stats.append(benchmark.stats)

        return record

    # --- telling and keeping ---------------------------------------------------------------------------------------

    def _tell(self, group: str, case: Case, outcomes: dict[str, Outcome]) -> None:
        """One line per case as soon as it is raced; and what the last one gave is saved."""
        if group not in self._told:
            self._told.add(group)
            self._progress.console.print(
                tables.case_line(group, case, outcomes, LIMIT), highlight=False, soft_wrap=True
            )
            self.save()

    def save(self, *, complete: bool = False) -> None:
        """Write the result file: pytest-benchmark's own content, and the rest under "softgrad"."""
        hook = self._config.hook
        content = hook.pytest_benchmark_generate_json(
            config=self._config,
            benchmarks=self._stats,
            include_data=False,
            machine_info=hook.pytest_benchmark_generate_machine_info(config=self._config),
            commit_info=hook.pytest_benchmark_generate_commit_info(config=self._config),
        )
        results.save(self.path, results.annotate(content, self.run, complete=complete))


def pairs(cases: Sequence[Case], run: Run, *, limit: bool) -> list[Any]:
    """pytest parameters: every contender of every case, the limit first."""
    return [
        pytest.param(case, name, id=f"{case.name}-{name}")
        for case in cases
        for name in ([LIMIT] if limit else []) + [contender.name for contender in run.entrants(case)]
    ]


def _last_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr).strip().splitlines()[0]
