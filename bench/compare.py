"""A result against an earlier one: how many times as fast each contender is now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import results, tables
from bench.tables import Table


def comparison(now: dict[str, Any], before: dict[str, Any], *, ours_only: bool = True) -> Table:
    """Times of both and their ratio, for every measurement that both have; ValueError where there is none."""
    earlier = {bench["fullname"]: bench for bench in before["benchmarks"]}
    rows = []
    for bench in now["benchmarks"]:
        other, info = earlier.get(bench["fullname"]), bench["extra_info"]
        if other is None or (ours_only and not info["ours"]):
            continue
        new, old = bench["stats"]["median"], other["stats"]["median"]
        percent = [f"{x['extra_info'].get('percent_of_copy', 0.0):.0f} %" for x in (other, bench)]
        rows.append(
            [bench["group"], info["contender"], tables.time_text(old), tables.time_text(new), f"{old / new:.2f}×"]
            + (percent if info["kind"] == "speed" else ["", ""])
        )
    if not rows:
        raise ValueError("the two results have no measurement in common")
    title = f"Now against {before['datetime'][:10]} on {before['softgrad']['device_name']}"
    return Table(title, ["case", "contender", "before", "now", "speed-up", "% of copy before", "now"], rows)


def earlier_than(path: Path, candidates: Sequence[Path]) -> Path:
    """The newest result before `path` of the same machine and device; ValueError where there is none."""
    own = results.load(path)["softgrad"]["device_name"]
    index = list(candidates).index(path) if path in candidates else len(candidates)
    for candidate in reversed(candidates[:index]):
        if results.load(candidate)["softgrad"]["device_name"] == own:
            return candidate
    raise ValueError(f"there is no earlier result of {own} to compare {path.name} with")
