"""Every mistake, the most explanatory first: the order in which several are named."""

from __future__ import annotations

from softgrad.diagnosis import mistakes_of_derivative, mistakes_of_loss, mistakes_of_numbers, mistakes_of_softmax
from softgrad.diagnosis.mistake import Mistake, Way
from softgrad.diagnosis.question import Question

CATALOGUE: dict[str, Mistake] = {
    mistake.id: mistake
    for module in (mistakes_of_softmax, mistakes_of_derivative, mistakes_of_loss, mistakes_of_numbers)
    for mistake in module.MISTAKES
}

_RANK = {name: rank for rank, name in enumerate(CATALOGUE)}
_OF_NUMBERS = {mistake.id for mistake in mistakes_of_numbers.MISTAKES}


def ranked(mistakes: set[str] | frozenset[str]) -> tuple[str, ...]:
    """Mistakes in the order of the catalogue."""
    return tuple(sorted(mistakes, key=_RANK.__getitem__))


def rank(mistakes: tuple[str, ...], q: Question) -> tuple[int, ...]:
    """Where a set of mistakes stands among sets that give the same numbers.

    A gradient without its −T is A·ΣT, and so is the chain rule with −A Aᵀ for the Jacobian: of A − T, rather T was
    forgotten.
    """
    unlikely = q.what == "cross_entropy_grad" and "diagonal-overwritten" in mistakes
    spoiled = all(name in _OF_NUMBERS for name in mistakes)  # one factor or layout explains more than a coincidence
    return (int(unlikely), int(not spoiled), *(_RANK[name] for name in mistakes))


def ways(q: Question) -> list[Way]:
    """Every way of making a mistake that this question allows."""
    found = []
    for mistake in CATALOGUE.values():
        found += [Way(mistake.id, note, changes) for note, changes in mistake.ways(q)]
        found += [Way(mistake.id, note, changes, rare=True) for note, changes in mistake.rare_ways(q)]
    found += [Way("reduction-scale", note, changes) for note, changes in mistakes_of_loss.reduction_ways(q)]
    found += [Way("wrong-shape", note, changes) for note, changes in mistakes_of_loss.wrong_shape_ways(q)]
    return found
