"""What `diagnose` answers: a value to look into, and a text to read."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import Any

from softgrad.diagnosis.question import Floats

_WIDTH = 100


@dataclass(frozen=True)
class Explanation:
    """A mistake, in words."""

    id: str
    title: str
    why: str
    formula: str
    note: str
    """How it was made here: by which factor, along which axis."""
    fix: str
    """The corrected line of code."""


@dataclass(frozen=True)
class Entry:
    """One number that shows it."""

    index: tuple[int, ...]
    candidate: float
    truth: float
    ulp: float
    """|candidate − truth| in units of eps·|truth|, eps that of the candidate's dtype."""

    def __str__(self) -> str:
        return f"{at(self.index)}: candidate {self.candidate:.9g}, right {self.truth:.9g}"

    def with_ulp(self) -> str:
        """The entry with its distance in ulp, for where digits matter."""
        return f"{self}, {_count(self.ulp)} ulp apart"


def at(index: tuple[int, ...]) -> str:
    """A position as it is written in code: [0, 1]."""
    return "[" + ", ".join(map(str, index)) + "]" if index else "the number"


@dataclass(frozen=True)
class Diagnosis:
    """The answer of `diagnose`.  True in a condition exactly if the candidate is right."""

    what: str
    ok: bool
    mistakes: tuple[str, ...]
    """Ids of the mistakes that together reproduce the candidate's numbers, the most explanatory first; empty where
    it is right, and where no known mistake explains it."""
    explanations: tuple[Explanation, ...] = ()
    """One for each of `mistakes`."""
    alternatives: tuple[tuple[str, ...], ...] = ()
    """Other sets of mistakes, as small, that give the same numbers for these inputs."""
    entries: tuple[Entry, ...] = ()
    """The entries that differ most."""
    findings: tuple[str, ...] = ()
    """What was found, beyond the explanations: an error message, a shape, patterns in the differences."""
    remarks: tuple[str, ...] = ()
    """What is worth knowing and makes nothing wrong."""
    truth: Floats | None = field(default=None, repr=False, compare=False)
    """The right answer, in float64."""
    candidate: Floats | None = field(default=None, repr=False, compare=False)
    """The candidate's numbers, in float64, where it gave any."""

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        said = "ok" if self.ok else ", ".join(self.mistakes) or "wrong, no known mistake"
        return f"<Diagnosis of {self.what}: {said}>"

    def __str__(self) -> str:
        return self.render()

    def render(self, *, color: bool = False) -> str:
        """The text, with ANSI colours if asked for."""
        paint = _paint if color else _plain
        lines = [self._headline(paint)]
        for explanation in self.explanations:
            lines += ["", *self._explained(explanation, paint)]
        if self.entries and not self.ok:
            digits = "lost-digits" in self.mistakes
            lines += ["", *(paint("number", f"  {e.with_ulp() if digits else e}") for e in self.entries)]
        if self.findings:
            lines += ["", *(line for text in self.findings for line in _wrapped(text, "  "))]
        if self.alternatives:
            others = " or ".join(" + ".join(names) for names in self.alternatives)
            text = f"These inputs cannot tell it from: {others}. Other logits (more rows, more classes) can."
            lines += ["", *_wrapped(text, "  ")]
        if self.remarks:
            lines.append("")
            lines += [line for text in self.remarks for line in _wrapped(text, "  ", paint("remark", "note: "))]
        return "\n".join(lines)

    def _headline(self, paint: Any) -> str:
        if self.ok:
            worst = f"; the worst entry, {self.entries[0].with_ulp()}" if self.entries and self.entries[0].ulp else ""
            return paint("right", f"{self.what}: right") + worst
        if self.mistakes:
            return paint("wrong", f"{self.what}: wrong") + " — " + paint("name", " + ".join(self.mistakes))
        return paint("wrong", f"{self.what}: wrong") + ", and no known mistake gives these numbers"

    @staticmethod
    def _explained(explanation: Explanation, paint: Any) -> list[str]:
        note = f" ({explanation.note})" if explanation.note else ""
        lines = [f"  {paint('name', explanation.id)}: {explanation.title}{note}"]
        if explanation.why:
            lines += _wrapped(explanation.why, "    ")
        if explanation.formula:
            lines.append(f"    formula  {explanation.formula}")
        if explanation.fix:
            lines.append(f"    fix      {paint('fix', explanation.fix)}")
        return lines


def _wrapped(text: str, indent: str, first: str = "") -> list[str]:
    wrapped = textwrap.wrap(text, _WIDTH - len(indent)) or [""]
    return [indent + (first if i == 0 else "") + line for i, line in enumerate(wrapped)]


def _count(ulp: float) -> str:
    return f"{ulp:.1f}" if ulp < 100 else f"{ulp:.3g}"


_STYLES = {"right": "1;32", "wrong": "1;31", "name": "1;33", "fix": "32", "number": "36", "remark": "1;34"}


def _paint(style: str, text: str) -> str:
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def _plain(style: str, text: str) -> str:
    return text
