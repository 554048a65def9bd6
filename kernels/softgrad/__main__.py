"""``python -m softgrad``: `diagnose` and `info` for the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import softgrad
from softgrad.diagnosis import command as diagnosis
from softgrad.info import about


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 where a candidate is not right, 2 where the command made no sense."""
    parser = argparse.ArgumentParser(prog="python -m softgrad", description="Softmax derivatives: right, or why not.")
    parser.add_argument("--version", action="version", version=f"softgrad {softgrad.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    diagnosis.add_arguments(commands.add_parser("diagnose", help="what is wrong with a function of yours"))
    commands.add_parser("info", help="versions, backends, devices, threads")
    chosen = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without Greek letters still gets its answer
    if chosen.command == "info":
        print(about())
        return 0
    return diagnosis.run(chosen)


if __name__ == "__main__":
    sys.exit(main())
