"""`python -m bench`: run, report, compare."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from bench import machine

NEEDED = ("pytest", "pytest_benchmark", "rich", "ml_dtypes")
INTERRUPTED = 130
LOG_WIDTH = 160


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from bench.cases import DTYPES
    from bench.operations import OPERATIONS
    from bench.run import SECTIONS
    from softgrad.registry import BACKENDS

    made = argparse.ArgumentParser(prog="python3 ci bench", description=__doc__, allow_abbrev=False)
    filters: Any = {"action": "append", "default": [], "metavar": "NAME"}
    made.add_argument("--quick", action="store_true", help="a selection, in under three minutes on two cores")
    made.add_argument("--op", choices=OPERATIONS, **filters, help=f"only this operation: {', '.join(OPERATIONS)}")
    made.add_argument("--backend", choices=BACKENDS, **filters, help=f"of softgrad only this: {', '.join(BACKENDS)}")
    made.add_argument("--dtype", choices=DTYPES, **filters, help=f"only this dtype: {', '.join(DTYPES)}")
    made.add_argument("--section", choices=SECTIONS, **filters, help=f"only this part: {', '.join(SECTIONS)}")
    made.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where (cpu)")
    made.add_argument("--threads", type=int, default=machine.cores(), help="for every contender (all cores)")
    made.add_argument("--results", type=Path, default=None, metavar="FOLDER", help="where result files are kept")
    made.add_argument("--resume", action="store_true", help="go on with an interrupted run of these settings")
    made.add_argument(
        "--report", action="store_true", help="run nothing: make figures, bench/RESULTS.md and the README's sections"
    )
    made.add_argument(
        "--compare", nargs="?", const="", metavar="EARLIER",
        help="ratios against an earlier result file (the one before); runs nothing unless --quick or a filter is given",
    )  # fmt: skip
    return made


def main(argv: list[str]) -> int:
    """Run one command and return its exit status: 0, 1 for a wrong result of softgrad's, 2 for a bad call."""
    made = parser()
    given = made.parse_args(argv)
    if not 1 <= given.threads <= machine.cores():
        made.error(f"--threads must be from 1 to {machine.cores()}, the cores there are; got {given.threads}")
    try:
        if given.report:
            return report(given)
        filtered = given.op or given.backend or given.dtype or given.section
        if given.compare is not None and not (given.quick or filtered):
            return compare(given, None)
        return run(given)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, OSError, RuntimeError) as error:
        print(f"python3 ci bench: {error}", file=sys.stderr)
        return 2


def run(given: argparse.Namespace) -> int:
    """Check and time, keep the results, show the tables."""
    machine.limit_threads(given.threads)
    missing = [package for package in NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise RuntimeError(f"{', '.join(missing)} missing here; `pip install 'softgrad[bench]'` brings what it needs")
    from bench import results
    from bench.report import all_tables
    from bench.run import Run, Settings
    from bench.session import execute

    settings = Settings(
        given.device, given.threads, given.quick, tuple(given.op), tuple(given.backend), tuple(given.dtype),
        tuple(given.section),
    )  # fmt: skip
    going = Run.start(settings)
    console = wide_console()
    folder = given.results or results.FOLDER
    final = folder / f"{results.stem(settings, results.device_name(going))}.json"
    resumed = None
    if given.resume:
        resumed, earlier = results.to_resume(folder, going)
        going.go_on_from(earlier)
        console.print(f"going on from {resumed.name}: {len(going.taken_over)} measurements", highlight=False)
    if going.load_at_start is not None and going.load_at_start > machine.BUSY * machine.cores():
        console.print(f"This machine is busy (load {going.load_at_start:.1f}): times will be noisy.", style="yellow")
    finished = execute(going, final, console, resumed)
    content = results.load(finished.path)
    for table in all_tables(content):
        console.print(table.rich())
    for failure in finished.failures:
        console.print(f"failed: {failure}", style="red", markup=False)
    console.print(f"{'Interrupted; kept' if finished.interrupted else 'Written'}: {finished.path}", soft_wrap=True)
    if given.compare is not None:
        compare(given, finished.path)
    wrong = finished.failures or any(entry["ours"] for entry in content["softgrad"]["refused"])
    return INTERRUPTED if finished.interrupted else int(bool(wrong))


def report(given: argparse.Namespace) -> int:
    """Make the report from the latest whole runs."""
    from bench import report as reports
    from bench import results

    paths = reports.latest(given.results or results.FOLDER)
    if not paths:
        raise ValueError("there is no whole run to report on yet: run `python3 ci bench` first (it takes a while)")
    for path in reports.write(paths):
        print(f"written: {path.relative_to(reports.ROOT)}")
    return 0


def compare(given: argparse.Namespace, now: Path | None) -> int:
    """Show the ratios of a result (the newest) against an earlier one."""
    from bench import results
    from bench.compare import comparison, earlier_than

    stored = results.stored(given.results or results.FOLDER, complete=False)
    if now is None:
        if not stored:
            raise ValueError("there is no result yet to compare: run `python3 ci bench --quick` first")
        now = stored[-1]
    before = Path(given.compare) if given.compare else earlier_than(now, stored)
    wide_console().print(
        f"{now.name} against {before.name}", comparison(results.load(now), results.load(before)).rich()
    )
    return 0


def wide_console() -> Any:
    """The terminal; in a log, wide enough for the tables."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=LOG_WIDTH)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
