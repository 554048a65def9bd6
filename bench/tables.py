"""Tables of a result file: built once, rendered as Markdown or in the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench import jacobian
from bench.cases import DTYPES, MAIN, Case
from bench.contenders.copy import LIMIT
from bench.operations import OPERATIONS

Entry = dict[str, Any]  # one benchmark of a result file, its extra_info and statistics merged
NO_DIGIT = 0.5  # a relative error from here on leaves none


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a header and rows of text; the first column is left-aligned, the others too if `words`."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        lines = [self.header, ["---", *["---" if self.words else "---:"] * (len(self.header) - 1)], *self.rows]
        body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return f"**{self.title}**\n\n{body}\n"

    def rich(self) -> Any:
        """The table for a terminal."""
        from rich.table import Table as RichTable

        table = RichTable(title=self.title, title_justify="left", title_style="bold")
        for i, name in enumerate(self.header):
            table.add_column(name, justify="right" if i and not self.words else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(re.sub(r"\*\*(.+?)\*\*", r"[bold]\1[/bold]", cell) for cell in row))
        return table


# --- reading a result file ------------------------------------------------------------------------------------------


def entries(content: dict[str, Any], kind: str) -> list[Entry]:
    """The measurements of one kind."""
    return [
        bench["extra_info"] | bench["stats"] for bench in content["benchmarks"] if bench["extra_info"]["kind"] == kind
    ]


def by_case(found: Iterable[Entry]) -> dict[Case, dict[str, Entry]]:
    """Entries of each case by contender, in the order of the file."""
    grouped: dict[Case, dict[str, Entry]] = {}
    for entry in found:
        case = Case(entry["operation"], entry["dtype"], entry["rows"], entry["classes"])
        grouped.setdefault(case, {})[entry["contender"]] = entry
    return grouped


def contender_names(content: dict[str, Any], found: Iterable[dict[str, Any]]) -> list[str]:
    """Contenders that occur, in the order in which the run lists them: softgrad's backends first; not the copy."""
    occurring = {entry["contender"] for entry in found}
    return [name for name in content["softgrad"]["contenders"] if name in occurring]


def leader(case: dict[str, Entry]) -> Entry | None:
    """softgrad's preferred backend of those measured: the first in the registry's order."""
    return next((entry for entry in case.values() if entry["ours"]), None)


# --- tables -----------------------------------------------------------------------------------------------------------


def speed_tables(content: dict[str, Any], operations: Sequence[str] = (), dtypes: Sequence[str] = ()) -> list[Table]:
    """One table per operation and dtype: times, percent of the copy, and how much faster softgrad is than each peer."""
    grouped = by_case(entries(content, "speed"))
    kinds: dict[tuple[str, str], list[Case]] = {}
    for case in grouped:
        if case.operation in (operations or (case.operation,)) and case.dtype in (dtypes or (case.dtype,)):
            kinds.setdefault((case.operation, case.dtype), []).append(case)
    tables = []
    for (operation, dtype), cases in sorted(kinds.items(), key=lambda item: _place(*item[0])):
        names = contender_names(content, (entry for case in cases for entry in grouped[case].values()))
        rows = [
            [_shape_cell(case, grouped[case]), f"{case.bytes / 1e6:,.1f}", _copy_cell(grouped[case])]
            + [_speed_cell(grouped[case], name) for name in names]
            + [_spread_cell(grouped[case])]
            for case in cases
        ]
        title = f"`{operation}`, {dtype}: {OPERATIONS[operation].formula}"
        tables.append(Table(title, ["B × C", "MB", LIMIT, *names, "spread"], rows))
    return tables


def overhead_table(content: dict[str, Any]) -> Table | None:
    """Microseconds of a small call."""
    grouped = by_case(entries(content, "overhead"))
    if not grouped:
        return None
    names = contender_names(content, (entry for case in grouped.values() for entry in case.values()))
    rows = [
        [f"`{case.operation}` {case.rows} × {case.classes}"]
        + [f"{found[name]['median'] * 1e6:.3g}" if name in found else "" for name in names]
        for case, found in grouped.items()
    ]
    return Table("A small call, microseconds (float32, warm caches)", ["call", *names], rows)


def accuracy_table(content: dict[str, Any], dtypes: Sequence[str] = ()) -> Table | None:
    """The worst error of each operation and contender."""
    found = [entry for entry in content["softgrad"]["accuracy"] if entry["dtype"] in (dtypes or (entry["dtype"],))]
    if not found:
        return None
    names = contender_names(content, found)
    at = {(entry["operation"], entry["dtype"], entry["contender"]): float(entry["worst_ulp"]) for entry in found}
    kinds = sorted({key[:2] for key in at}, key=lambda kind: _place(*kind))
    rows = [
        [f"`{operation}`, {dtype}"]
        + [ulp_text(at[operation, dtype, n], dtype) if (operation, dtype, n) in at else "" for n in names]
        for operation, dtype in kinds
    ]
    return Table("Worst error on adversarial rows, in ulp", ["operation", *names], rows)


def jacobian_table(content: dict[str, Any]) -> Table | None:
    """Time and peak memory as C grows, with the fitted slopes."""
    grouped = by_case(entries(content, "jacobian"))
    if not grouped:
        return None
    names = contender_names(content, (entry for case in grouped.values() for entry in case.values()))
    header = ["C", *(f"{name}, {what}" for name in names for what in ("time", "memory"))]
    rows = []
    for case, found in grouped.items():
        cells = []
        for name in names:
            if name in found:
                peak = found[name].get("peak_bytes")
                cells += [time_text(found[name]["median"]), "?" if peak is None else bytes_text(peak)]
            else:
                cells += ["does not fit" if name in content["softgrad"]["stopped"] else "refused", ""]
        rows.append([f"{case.classes:,}", *cells])
    fits = slopes(content)
    powers = [power_text(fits[name][what]) for name in names for what in ("time", "memory")]
    rows.append(["fit", *powers])
    title = f"Loss and gradient of {jacobian.ROWS} rows, float32: fused, and by the full Jacobian (naive)"
    return Table(title, header, rows)


def slopes(content: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Per contender the fitted powers of C of time and memory."""
    fits = {}
    found = entries(content, "jacobian")
    for name in contender_names(content, found):
        own = [entry for entry in found if entry["contender"] == name]
        classes = [entry["classes"] for entry in own]
        fits[name] = {
            "time": jacobian.slope(classes, [entry["median"] for entry in own]),
            "memory": jacobian.slope(classes, [entry.get("peak_bytes") or 0 for entry in own]),
        }
    return fits


def absent_table(content: dict[str, Any]) -> Table | None:
    """Who did not take part, and why."""
    rows = [[*item] for item in content["softgrad"]["absent"].items()]
    return Table("Absent", ["contender", "reason"], rows, words=True) if rows else None


def refused_table(content: dict[str, Any]) -> Table | None:
    """Who was refused a timing, and why."""
    refused = content["softgrad"]["refused"]
    rows = [[entry["case"], entry["contender"], entry["reason"]] for entry in refused]
    return Table("Refused a timing", ["case", "contender", "reason"], rows, words=True) if rows else None


def notes(content: dict[str, Any], operations: Sequence[str]) -> str:
    """How peers were used, where that is not the obvious way."""
    said = [
        f"{name}: " + "; ".join(f"`{operation}` {note}" for operation, note in given.items() if operation in operations)
        for name, given in content["softgrad"]["contenders"].items()
        if any(operation in operations for operation in given)
    ]
    return ". ".join(said) + "." if said else ""


def case_line(group: str, case: Case, outcomes: dict[str, Any], limit: str) -> str:
    """A race in one line, for the terminal."""
    parts = []
    best = outcomes[limit].median if limit in outcomes else None
    for name, outcome in outcomes.items():
        if outcome.refusal is not None:
            parts.append(f"{name} refused")
        elif name == limit or best is None:
            parts.append(f"{name} {time_text(outcome.median)}")
        else:
            parts.append(f"{name} {time_text(outcome.median)} ({best / outcome.median:.0%})")
    return f"{group}: {' · '.join(parts)}"


# --- cells ------------------------------------------------------------------------------------------------------------


def _place(operation: str, dtype: str) -> tuple[int, int]:
    order = [*MAIN, *(name for name in OPERATIONS if name not in MAIN)]
    return (list(DTYPES).index(dtype), order.index(operation))


def _shape_cell(case: Case, found: dict[str, Entry]) -> str:
    caches = {entry["caches"] for entry in found.values()} - {"cold"}
    return " ".join([f"{case.rows:,} × {case.classes:,}", *(f"({state} caches)" for state in sorted(caches))])


def _copy_cell(case: dict[str, Entry]) -> str:
    limit = case.get(LIMIT)
    return f"{time_text(limit['median'])}, {limit['gb_per_s']:.0f} GB/s" if limit else ""


def _speed_cell(case: dict[str, Entry], name: str) -> str:
    entry, best = case.get(name), leader(case)
    if entry is None:
        return ""
    if entry["ours"]:
        percent = entry.get("percent_of_copy")
        cell = time_text(entry["median"]) + (f", {percent:.0f} %" if percent is not None else "")
        return f"**{cell}**" if entry is best else cell
    ratio = f" ({ratio_text(entry['median'] / best['median'])})" if best else ""
    return time_text(entry["median"]) + ratio


def _spread_cell(case: dict[str, Entry]) -> str:
    """The widest interquartile range of a case's contenders, in percent of the median."""
    return f"±{max(50.0 * entry['iqr'] / entry['median'] for entry in case.values()):.0f} %"


def time_text(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{_three(seconds / scale)} {unit}"
    return f"{_three(seconds / 1e-9)} ns"


def ratio_text(ratio: float) -> str:
    """Two digits, or all before the point."""
    return f"{ratio:,.0f}×" if ratio >= 10 else f"{ratio:.1f}×" if ratio >= 1 else f"{ratio:.2f}×"


def bytes_text(count: float) -> str:
    """Three digits and a unit."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{_three(count / scale)} {unit}"
    return f"{count:.0f} B"


def ulp_text(ulp: float, dtype: str) -> str:
    """An error in ulp; in words where no digit is right, or none was given."""
    eps = 2.0**-52 if dtype == "float64" else 2.0**-23
    if not math.isfinite(ulp):
        return "NaN or ∞"
    if ulp * eps >= NO_DIGIT:
        return f"{_power_of_ten(ulp)}: no digit"
    return f"{ulp:.1f}" if ulp < 100 else f"{ulp:,.0f}" if ulp < 1e6 else _power_of_ten(ulp)


def power_text(power: float | None) -> str:
    """The fitted power as text, ∝ C^k; empty where there is none."""
    return "" if power is None else f"∝ C^{power:.2f}"


def _power_of_ten(x: float) -> str:
    digits, exponent = f"{x:.1e}".split("e")
    return f"{digits}e{int(exponent)}"


def _three(x: float) -> str:
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"
