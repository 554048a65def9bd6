"""The demonstration: a model fitted on real data with fused gradients, next to the full-Jacobian way.

Four chapters, each a module: the worked example, the fit, the cost of the full Jacobian, one large batch.
"""

import argparse
import sys
from pathlib import Path

import batch
import fit
import jacobian
import worked_example
from picture import draw
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

import softgrad

PICTURE = Path(__file__).resolve().parents[2] / ".cache" / "demo.png"


def main() -> int:
    """Run the chapters behind one progress bar, then show tables and a picture."""
    argparse.ArgumentParser(prog="python3 ci demo", description=__doc__.splitlines()[0]).parse_args()
    console = Console()
    if not console.is_terminal:
        console = Console(width=110)  # piped or logged: no terminal whose width could be asked for
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=fit.STEPS + jacobian.STEPS + batch.STEPS)

        def step(description: str) -> None:
            progress.update(task, description=description)
            progress.advance(task)

        example = worked_example.run()
        fits = fit.run(step)
        costs = jacobian.run(step)
        large = batch.run(step)
        progress.update(task, description="done", completed=fit.STEPS + jacobian.STEPS + batch.STEPS)
    for table in (backends(), example.table(), fits.table(), jacobian.table(costs), large.table()):
        console.print()
        console.print(table)
    draw(PICTURE, fits, costs)
    console.print(f"\nPicture: {PICTURE}", soft_wrap=True)
    if not (example.agrees and fits.agree):
        console.print("[bold red]The two ways do not give the same numbers.")
        return 1
    return 0


def backends() -> Table:
    """Which backends this machine has, and why not the others."""
    table = Table("backend", "on this machine", title="Backends", title_justify="left")
    for name, state in softgrad.available_backends().items():
        table.add_row(name, escape(state))
    return table


if __name__ == "__main__":
    sys.exit(main())
