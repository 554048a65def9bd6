"""A run from start to file: the pytest session that carries it, and what is kept when it is cut short."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.plugin import Plugin
from bench.run import Run

OPTIONS = (
    "-p", "no:cacheprovider", "-p", "no:xdist", "-qq", "--no-header", "--no-summary", "--capture=no",
    "--benchmark-quiet", "-o", "addopts=", "-o", "filterwarnings=default",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finished:
    """What a session left behind."""

    path: Path
    interrupted: bool
    failures: list[str]


def execute(run: Run, final: Path, console: Any, resumed: Path | None = None) -> Finished:
    """Carry out a run; the file is `final`, or `final` with "-interrupted" if it was (by SIGINT or SIGTERM).

    `resumed` is the file of the run that this one goes on from; it is removed once this one's replaces it.

    Raises
    ------
    RuntimeError
        If there was nothing to do or pytest itself failed.
    """
    plugin = Plugin(run, final.with_name(f"{final.stem}-running.json"), console)
    sections = run.sections_to_do()
    if not sections:
        raise RuntimeError("no case passes these filters")
    suites = [str(Path(__file__).parent / "suites" / f"test_{section}.py") for section in sections]
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        status = pytest.main([*OPTIONS, *suites], plugins=[plugin])
    finally:
        signal.signal(signal.SIGTERM, previous)
    interrupted = status == pytest.ExitCode.INTERRUPTED
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not interrupted:
        raise RuntimeError(f"pytest ended with {pytest.ExitCode(status).name}, see above")
    plugin.save(complete=not interrupted)
    if interrupted:
        final = final.with_name(f"{final.stem}-interrupted.json")
    plugin.path.replace(final)
    if resumed not in (None, final, plugin.path):
        resumed.unlink(missing_ok=True)
    return Finished(final, interrupted, plugin.failures)


def _interrupt(*_: object) -> None:
    """SIGTERM ends a run as Ctrl-C does, also where SIGINT is ignored (a background job)."""
    raise KeyboardInterrupt
