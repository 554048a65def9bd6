"""A candidate's numbers held against one question: right, explained, or neither."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from softgrad.diagnosis.matching import Answer, Match, Search
from softgrad.diagnosis.report import at

# In 16-bit formats, with two or three digits, the textbook formula loses them on ordinary logits: that is their nature.
_COARSE = 1e-4


@dataclass(frozen=True)
class Verdict:
    """What the comparison of one array with the truth came to."""

    answer: Answer
    ok: bool
    matches: tuple[Match, ...] = ()  # equally small sets of mistakes, the first the likeliest
    fault: str = ""  # "lost-digits", "not-finite", "wrong-shape": mistakes seen without a hypothesis
    finding: str = ""

    @property
    def mistakes(self) -> tuple[str, ...]:
        """The mistakes to name."""
        if self.matches:
            return self.matches[0].mistakes
        return (self.fault,) if self.fault else ()


def judge(search: Search, answer: Answer, bits: float = 0.0) -> Verdict:
    """Right; else the smallest sets of mistakes that give these numbers; `bits` is evidence from other logits."""
    if answer.agrees():
        if answer.lost().any() and answer.precision.eps < _COARSE:
            return Verdict(answer, ok=False, fault="lost-digits", finding=_digits_lost(answer))
        return Verdict(answer, ok=True)
    matches = tuple(search.find(answer, bits))
    if matches:
        return Verdict(answer, ok=False, matches=matches, finding=_predicted(matches[0], answer))
    if not answer.same_shape:
        finding = f"its shape is {answer.numbers.shape}; expected {search.q.shape}"
        return Verdict(answer, ok=False, fault="wrong-shape", finding=finding)
    bad = ~np.isfinite(answer.numbers) & np.isfinite(search.q.truth)
    if bad.any():
        return Verdict(answer, ok=False, fault="not-finite", finding=_not_finite(answer, bad))
    if answer.roughly_agrees():
        return Verdict(answer, ok=False, fault="lost-digits", finding=_digits_short(answer))
    return Verdict(answer, ok=False)


def _digits_lost(answer: Answer) -> str:
    lost = answer.lost()
    return (
        f"{int(lost.sum())} of {lost.size} entries have lost more than three quarters of their digits; all agree with "
        "the formula as it is rounded step by step."
    )


def _digits_short(answer: Answer) -> str:
    with np.errstate(all="ignore"):
        relative = float(np.max(answer.error) / max(np.abs(answer.q.truth).max(), 1e-300))
    return (
        f"Every entry is near the truth (within {relative:.2g} of the largest), but not to the accuracy of its dtype: "
        "was something computed in float32 or float16, by finite differences, or with a small constant added?"
    )


def _not_finite(answer: Answer, bad: np.ndarray) -> str:
    index = tuple(np.argwhere(bad)[0].tolist())
    got, right = float(answer.numbers[index]), float(answer.q.truth[index])
    return f"{int(bad.sum())} of {bad.size} entries are NaN or infinite; {at(index)} is {got}, right is {right:.9g}."


def _predicted(match: Match, answer: Answer) -> str:
    """What the mistakes give where that is farthest from the truth, and that they give everything else too."""
    predicted = match.predicted
    flat = 0
    if predicted.shape == answer.q.shape:
        with np.errstate(all="ignore"):
            flat = int(np.argmax(np.nan_to_num(np.abs(predicted - answer.q.truth), nan=np.inf)))
    index = tuple(int(i) for i in np.unravel_index(flat, predicted.shape))
    if predicted.size == 1:
        return f"It comes out as {float(predicted[index]):.9g} this way."
    given = "This mistake gives" if len(match.mistakes) == 1 else "These mistakes give"
    number = float(predicted[index])
    return f"{given} {number:.9g} for {at(index)}, and every other of the {predicted.size} numbers too."
