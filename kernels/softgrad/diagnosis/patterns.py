"""What can be said of numbers that no known mistake explains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from softgrad.diagnosis.matching import Answer, distance
from softgrad.diagnosis.precision import precision_of
from softgrad.diagnosis.question import Floats
from softgrad.diagnosis.report import Entry


def worst_entries(answer: Answer, count: int = 3) -> tuple[Entry, ...]:
    """The entries farthest from the truth."""
    if not answer.same_shape or answer.numbers.size == 0:
        return ()
    error = answer.error.ravel()
    shown = answer.wrong if answer.wrong.any() else answer.lost()
    if shown.any():  # else it is right, and the worst entry is of interest all the same
        error = np.where(shown.ravel(), error, 0.0)
    order = np.argsort(-error, kind="stable")[:count]
    if not error[order[0]] > 0.0:
        return ()
    return tuple(entry(answer, int(at)) for at in order if error[at] > 0.0)


def entry(answer: Answer, flat: int) -> Entry:
    """One entry, by its flat position."""
    at = tuple(int(i) for i in np.unravel_index(flat, answer.q.shape))
    got, truth = float(answer.numbers[at]), float(answer.q.truth[at])
    unit = precision_of(answer.dtype).eps * abs(truth)
    apart = float(distance(np.asarray(got), np.asarray(truth)))
    return Entry(at, got, truth, apart / unit if unit else (0.0 if apart == 0.0 else float("inf")))


def patterns(answer: Answer) -> Iterator[str]:
    """Regularities of the differences, for a person to recognise."""
    numbers, truth = answer.numbers, answer.q.truth
    if not np.any(numbers):
        yield "Every entry is 0: was the result ever written to?"
        return
    wrong = answer.wrong
    share = int(wrong.sum())
    if share < wrong.size:
        yield f"{share} of {wrong.size} entries are wrong; {_where(wrong)}"
    finite = np.isfinite(numbers) & np.isfinite(truth)
    if not finite.all() or truth.size < 2:
        if truth.size == 1 and finite.all() and truth.item():
            ratio, off = numbers.item() / truth.item(), numbers.item() - truth.item()
            yield f"It is {ratio:.9g} times the right number, and {off:+.9g} off."
        return
    with np.errstate(all="ignore"):
        ratios, differences = numbers / truth, numbers - truth
    yield _regular(ratios, "the ratio candidate / right", answer)
    yield _regular(differences, "the difference candidate − right", answer)


def _regular(values: Floats, name: str, answer: Answer) -> str:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return f"{name} is nowhere finite."
    tolerance = 1e3 * answer.precision.eps * max(1.0, float(np.abs(finite).max()))
    if np.ptp(finite) <= tolerance:
        return f"{name} is {finite[0]:.9g} everywhere."
    for axis in range(values.ndim):
        if values.shape[axis] > 1 and np.isfinite(values).all() and np.all(np.ptp(values, axis=axis) <= tolerance):
            shown = np.array2string(values.take(0, axis).ravel()[:6], precision=6)
            return f"{name} is constant along axis {axis}: {shown}."
    return f"{name} lies between {finite.min():.6g} and {finite.max():.6g}."


def _where(wrong: Floats) -> str:
    if wrong.ndim >= 2 and wrong.shape[-1] == wrong.shape[-2]:
        diagonal = np.eye(wrong.shape[-1], dtype=bool)
        if not (wrong & ~diagonal).any():
            return "only on the diagonal."
        if not (wrong & diagonal).any():
            return "only off the diagonal."
    for axis in range(wrong.ndim):
        others = tuple(i for i in range(wrong.ndim) if i != axis)
        hit = np.flatnonzero(wrong.any(axis=others))
        if hit.size == 1 and wrong.shape[axis] > 1:
            return f"only at index {int(hit[0])} of axis {axis}."
    return "the first at " + str([int(i) for i in np.argwhere(wrong)[0]]) + "."
