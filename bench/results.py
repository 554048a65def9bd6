"""Result files: pytest-benchmark's JSON, one per machine and date, with what softgrad adds under "softgrad".

A whole run is `DATE-MACHINE.json` and is committed; a quick or filtered one says so in its name and is not.  While a
run goes on, and when it is cut short, its file has a name of its own, so that it never replaces a complete one.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench import machine
from bench.run import Run, Settings

FOLDER = Path(__file__).parent / "results"
SCHEMA = 1
DIGITS = 5
CUT_SHORT = ("-running", "-interrupted")
UNCOMMITTED = ("-quick", "-partial", *CUT_SHORT)
# What pytest-benchmark says that is nobody's business, or that depends on the path of a checkout.
PRIVATE_MACHINE_INFO = ("node", "python_compiler", "python_build", "release")


def stem(settings: Settings, device_name: str, today: datetime | None = None) -> str:
    """A run's file name without its ending."""
    date = (today or datetime.now(timezone.utc)).strftime("%Y-%m-%d")
    kind = ("-quick" if settings.quick else "") + ("-partial" if settings.filtered else "")
    return f"{date}-{machine.slug(device_name)}{kind}"


def device_name(run: Run) -> str:
    """The machine as its files are named: the GPU, or the CPU and its threads."""
    if run.cuda is not None:
        return str(run.cuda.name())
    return f"{machine.cpu_name()}, {run.settings.threads} threads"


def annotate(content: dict[str, Any], run: Run, *, complete: bool) -> dict[str, Any]:
    """pytest-benchmark's content made small and anonymous, with the run's own findings."""
    for key in PRIVATE_MACHINE_INFO:
        content["machine_info"].pop(key, None)
    cpu = content["machine_info"].get("cpu", {})
    content["machine_info"]["cpu"] = {
        key: cpu[key] for key in ("brand_raw", "arch", "count", "hz_advertised_friendly") if key in cpu
    }
    content["commit_info"].pop("project", None)
    content["benchmarks"] = [*run.taken_over, *content["benchmarks"]]
    for entry in content["benchmarks"]:
        entry["params"] = None  # objects of this harness; extra_info has them as numbers
        entry["options"] = {"timer": entry["options"].get("timer")}
    settings = run.settings
    content["softgrad"] = {
        "schema": SCHEMA, "complete": complete, "filtered": settings.filtered, "settings": as_json(settings),
        "device_name": device_name(run), "last_level_cache": machine.last_level_cache(),
        "cuda": None if run.cuda is None else run.cuda.version(), "load_at_start": run.load_at_start,
        "versions": machine.versions(),
        "contenders": {contender.name: contender.notes for contender in run.contenders},
        "absent": run.absent, "refused": run.refused, "accuracy": run.accuracy, "stopped": run.stopped,
    }  # fmt: skip
    return content


def as_json(settings: Settings) -> dict[str, Any]:
    """Settings as a result file has them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}


def to_resume(folder: Path, run: Run) -> tuple[Path, dict[str, Any]]:
    """The file of the newest cut-short run with these settings, and what it holds; ValueError where there is none."""
    wanted = {"settings": as_json(run.settings), "device_name": device_name(run), "versions": machine.versions()}
    for path in reversed(stored(folder, complete=False)):
        if path.stem.endswith(CUT_SHORT):
            content = load(path)
            if all(content["softgrad"][key] == value for key, value in wanted.items()):
                return path, content
    raise ValueError(f"there is no interrupted run with these settings and versions in {folder} to resume")


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(_one_line_each(_rounded(content)), encoding="utf-8")
    os.replace(temporary, path)


def load(path: Path) -> dict[str, Any]:
    """Read a result file; ValueError where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("softgrad", {}).get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a result file of this benchmark")
    return content


def stored(folder: Path = FOLDER, *, complete: bool) -> list[Path]:
    """Result files, oldest first; only whole, finished runs if `complete`."""
    found = sorted(folder.glob("*.json"), key=lambda path: (path.name[:10], path.stat().st_mtime))
    if complete:
        found = [path for path in found if not path.stem.endswith(UNCOMMITTED)]
    return found


def _one_line_each(content: dict[str, Any]) -> str:
    """JSON with a line for each benchmark: small, and a diff shows which have changed."""
    lines = [json.dumps(entry, ensure_ascii=False) for entry in content["benchmarks"]]
    rest = json.dumps({**content, "benchmarks": "HERE"}, indent=1, ensure_ascii=False)
    return rest.replace('"HERE"', "[\n" + ",\n".join(lines) + "\n ]") + "\n"


def _rounded(value: Any) -> Any:
    """Floats to a few digits, and the infinite ones as strings, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else str(value)
    return value
