"""One case's contenders: prepared, checked against the truth, and raced by those that pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench import inputs as drawn
from bench.cases import Case
from bench.check import Verdict, judge
from bench.contenders import LIMIT, Contender
from bench.contenders.base import Shared
from bench.race import Entrant, Stopwatch, race
from bench.truths import truths_of_distinct_rows


@dataclass(slots=True)
class Outcome:
    """What became of one contender in one case."""

    contender: Contender
    verdict: Verdict | None  # None for the copy, which computes nothing
    samples: list[float]
    caches: str

    @property
    def refusal(self) -> str | None:
        """Why the contender was given no timing; None if it was."""
        return self.verdict.refusal if self.verdict else None

    @property
    def median(self) -> float:
        """The median sample, in seconds."""
        return median(self.samples)


def run_field(
    case: Case,
    contenders: Sequence[Contender],
    stopwatch: Stopwatch,
    *,
    rounds: int,
    seconds: float,
    sets: int,
    caches: str,
    repeat: int = 1,
) -> dict[str, Outcome]:
    """Check, then race; a sample is `repeat` calls, counted per call."""
    given = [drawn.draw(case, number) for number in range(sets)]
    shared: list[Shared] = [{} for _ in given]
    true = truths_of_distinct_rows(case, given[0])
    outcomes, entrants = {}, []
    for contender in contenders:
        verdict, calls = enter(case, contender, given, shared, true)
        outcomes[contender.name] = outcome = Outcome(contender, verdict, [], caches)
        if outcome.refusal is None:
            timed = [_repeated(call, repeat) for call in calls]
            entrants.append(Entrant(contender.name, timed, contender.wait, contender.active, outcome.samples))
    race(entrants, stopwatch, rounds=rounds, seconds=seconds)
    for outcome in outcomes.values():
        outcome.samples[:] = [sample / repeat for sample in outcome.samples]
    return outcomes


def enter(
    case: Case,
    contender: Contender,
    given: Sequence[drawn.Inputs],
    shared: Sequence[Shared],
    true: tuple[Any, ...],
) -> tuple[Verdict | None, list[Callable[[], Any]]]:
    """A contender's calls, one per set of inputs, and the verdict on the first."""
    try:
        calls = [contender.prepare(case, *one) for one in zip(given, shared, strict=True)]
        if contender.name == LIMIT:
            return None, calls
        return judge(case, contender.results(case, calls[0]), true, ours=contender.ours), calls
    except Exception as error:  # whatever a library raises, the others go on
        inf = float("inf")
        return Verdict(inf, inf, raised(error)), []


def raised(error: Exception) -> str:
    """An exception's type and message, in one line."""
    text = str(error).strip().splitlines()
    return f"raised {type(error).__name__}: {text[0][:200] if text else ''}"


def _repeated(call: Callable[[], Any], times: int) -> Callable[[], Any]:
    if times == 1:
        return call

    def burst() -> None:
        for _ in range(times):
            call()

    return burst
