"""The report: every table and figure of each machine's latest whole run, in RESULTS.md, and the README's sections.

Everything is made from committed result files by `python3 ci bench --report`, nothing is typed.  A section names the
files it was made from, and a test makes it again from them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import cases, figures, machine, results, tables
from bench.operations import OPERATIONS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULTS = Path(__file__).parent / "RESULTS.md"
NO_RESULT = "No result is committed yet: `python3 ci bench` makes one, and `python3 ci bench --report` shows it here."
Named = tuple[str, dict[str, Any]]  # a result file's name and content


def latest(folder: Path = results.FOLDER) -> list[Path]:
    """The newest whole run of each device and machine, CPUs first."""
    newest: dict[tuple[str, str], Path] = {}
    for path in results.stored(folder, complete=True):
        about = results.load(path)["softgrad"]
        newest[about["settings"]["device"], about["device_name"]] = path
    return [newest[key] for key in sorted(newest)]


def shown(runs: Sequence[Named]) -> list[Named]:
    """What the README shows of them: of each device the newest, whatever the machine."""
    newest: dict[str, Named] = {}
    for name, content in sorted(runs, key=lambda run: run[0]):  # names begin with dates
        newest[content["softgrad"]["settings"]["device"]] = name, content
    return [newest[device] for device in sorted(newest)]


def read(paths: Sequence[Path]) -> list[Named]:
    """Result files by name."""
    return [(path.name, results.load(path)) for path in paths]


def main_operations(content: dict[str, Any]) -> tuple[str, ...]:
    """The operations that the README shows."""
    return cases.GPU_MAIN if content["softgrad"]["settings"]["device"] == "gpu" else cases.MAIN


# --- sections ---------------------------------------------------------------------------------------------------------


def speed_section(runs: Sequence[Named]) -> str:
    """The README's speed section."""
    parts = []
    for name, content in runs:
        chosen = main_operations(content)
        parts += [
            _measured(name, content),
            "Medians of interleaved samples on inputs that no cache holds any more; every result was checked against "
            "the truth before it was timed. `copy` is the limit: the time to copy as many bytes as the operation reads "
            "and writes once, with as many threads. softgrad's cells say what percentage of that speed they reach, "
            "the others' how many times as long they take as softgrad's first column; the spread is half of the widest "
            "interquartile range.",
            _figure_link(name, "speed"),
            *(table.markdown() for table in tables.speed_tables(content, chosen, ("float32",))),
        ]
        overhead = tables.overhead_table(content)
        parts += [overhead.markdown()] if overhead else []
        parts += [tables.notes(content, chosen)]
    parts.append("All operations, dtypes and machines: [bench/RESULTS.md](bench/RESULTS.md).")
    if not any(content["softgrad"]["settings"]["device"] == "gpu" for _, content in runs):
        parts.append(
            "There is no GPU result yet. On a machine with an NVIDIA GPU, `python3 ci gpu` makes one, and "
            "`python3 ci bench --report` adds its tables here."
        )
    return _paragraphs(parts)


def accuracy_section(runs: Sequence[Named]) -> str:
    """The README's accuracy section."""
    parts = []
    for name, content in runs:
        table = tables.accuracy_table(content)
        if table is not None:
            parts += [
                _measured(name, content),
                "The largest error of any entry over the finite adversarial rows of `tests/cases.py` (sure and right, "
                "sure and wrong, wide spreads, large offsets, ties, sums of tiny terms), in ulp of the magnitudes of "
                "`tests/truth.py`, the same for all. In float32 an error of 100 % is 8.4e6 ulp.",
                table.markdown(),
            ]
    return _paragraphs(parts)


def jacobian_section(runs: Sequence[Named]) -> str:
    """The README's section on the full Jacobian."""
    parts = []
    for name, content in runs:
        table = tables.jacobian_table(content)
        if table is not None:
            stopped = [f"{who} stopped: {why}." for who, why in content["softgrad"]["stopped"].items()]
            parts += [_measured(name, content), _figure_link(name, "jacobian"), table.markdown(), " ".join(stopped)]
    return _paragraphs(parts)


SECTIONS: dict[str, Callable[[Sequence[Named]], str]] = {
    "speed": speed_section,
    "accuracy": accuracy_section,
    "jacobian": jacobian_section,
}


def full_report(runs: Sequence[Named]) -> str:
    """RESULTS.md: everything."""
    parts = ["# Benchmark results", "Made by `python3 ci bench --report` from the files in `bench/results/`."]
    parts += [] if runs else [NO_RESULT]
    for name, content in runs:
        about = content["softgrad"]
        given = about["versions"] | ({"CUDA": about["cuda"]} if about["cuda"] else {})
        versions = ", ".join(f"{package} {version}" for package, version in given.items())
        parts += [f"## {about['device_name']}", _measured(name, content, base=""), f"Versions: {versions}."]
        parts += [_method(content), _figure_link(name, "speed", base=""), _figure_link(name, "jacobian", base="")]
        parts += [table.markdown() for table in all_tables(content)]
        parts += [tables.notes(content, tuple(OPERATIONS))]
    return _paragraphs(parts).lstrip()


def all_tables(content: dict[str, Any]) -> list[tables.Table]:
    """Every table that a result file has something for; speed, which most look for, comes last and is in sight."""
    found = [
        tables.absent_table(content), tables.refused_table(content), tables.accuracy_table(content),
        tables.jacobian_table(content), tables.overhead_table(content), *tables.speed_tables(content),
    ]  # fmt: skip
    return [table for table in found if table is not None]


# --- writing ---------------------------------------------------------------------------------------------------------


def regenerate(readme: str, runs: Sequence[Named]) -> str:
    """The README with its generated sections made anew; ValueError where a marker is missing."""
    for name, make in SECTIONS.items():
        pattern = re.compile(rf"(<!-- bench:{name} -->\n).*?(<!-- /bench:{name} -->)", re.DOTALL)
        if not pattern.search(readme):
            raise ValueError(f"README.md has no section between <!-- bench:{name} --> and <!-- /bench:{name} -->")
        section = make(runs) if runs else _paragraphs([NO_RESULT])
        readme = pattern.sub(lambda match, section=section: f"{match[1]}{section}{match[2]}", readme)
    return readme


def cited(readme: str) -> list[str]:
    """The result files that the README's generated sections name, in order."""
    return named("".join(re.findall(r"<!-- bench:\w+ -->(.*?)<!-- /bench:\w+ -->", readme, re.DOTALL)))


def named(text: str) -> list[str]:
    """The result files that a text names, in order."""
    return list(dict.fromkeys(re.findall(r"bench/results/([\w.-]+\.json)", text)))


def write(paths: Sequence[Path]) -> list[Path]:
    """Regenerate figures, RESULTS.md and the README from these result files; returns what was written."""
    runs = read(paths)
    written = []
    for path, (_, content) in zip(paths, runs, strict=True):
        for what, drawn in (
            ("speed", lambda at, c=content: figures.speed_figure(c, at, main_operations(c))),
            ("jacobian", lambda at, c=content: figures.jacobian_figure(c, at)),
        ):
            target = path.parent / _figure_name(path.name, what)
            if drawn(target):
                written.append(target)
    RESULTS.write_text(full_report(runs), encoding="utf-8")
    README.write_text(regenerate(README.read_text(encoding="utf-8"), shown(runs)), encoding="utf-8")
    return [*written, RESULTS, README]


def _measured(name: str, content: dict[str, Any], base: str = "bench/") -> str:
    about, date = content["softgrad"], content["datetime"][:10]
    load, threads = about["load_at_start"], about["settings"]["threads"]
    busy = f" The machine was busy with other work (load {load:.1f})." if load and load > machine.BUSY * threads else ""
    return f"{about['device_name']}, {date} ([`bench/results/{name}`]({base}results/{name})).{busy}"


def _method(content: dict[str, Any]) -> str:
    on_gpu = content["softgrad"]["settings"]["device"] == "gpu"
    how = (
        "CUDA events on the default stream (JAX: what each of four more calls adds to the wall clock), L2 flushed "
        "before each sample"
        if on_gpu
        else "wall clock; inputs rotate through more memory than the last-level cache holds "
        f"({content['softgrad']['last_level_cache'] >> 20} MiB); 10 ms of pause and one untimed call before each sample"
    )
    models = "; ".join(f"`{name}`: {operation.byte_model}" for name, operation in OPERATIONS.items())
    return f"Method: contenders take turns; {how}. Byte models: {models}."


def _figure_name(result: str, what: str) -> str:
    return f"{Path(result).stem}-{what}.svg"


def _figure_link(result: str, what: str, base: str = "bench/") -> str:
    alt = {
        "speed": "Throughput against the number of classes",
        "jacobian": "Time and memory against the number of classes",
    }
    return f"![{alt[what]}](bench/results/{_figure_name(result, what)})"


def _paragraphs(parts: Sequence[str]) -> str:
    return "\n" + "\n\n".join(part.strip() for part in parts if part.strip()) + "\n\n"
