"""Whether numbers are right; if not, which smallest set of mistakes reproduces them, all of them.

Every set of at most two ways of making a mistake is computed; a factor (sign, reduction) and a layout are read off
by comparison.  A set is believed only if so good an agreement by chance, among all the sets tried, has odds below
1 : 1000 — one loss in float32 cannot tell a thousand hypotheses apart, twenty gradients can.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from softgrad.diagnosis.catalogue import rank, ranked, ways
from softgrad.diagnosis.mistake import Way
from softgrad.diagnosis.mistakes_of_numbers import Factor, View, factors, views
from softgrad.diagnosis.precision import Precision, Scales, candidate_precision, precision_of, printed_step, scales
from softgrad.diagnosis.question import LOSSES, Floats, Question
from softgrad.diagnosis.recipe import LARGER, Evaluator, Recipe

_ODDS = 10.0  # bits of evidence required beyond those that choosing among the hypotheses uses up
_PAIRS_UP_TO = 200_000  # elements; larger answers are searched for single mistakes only
OVERFLOWS = {"no-max-shift", "log-of-unstable-softmax"}
_KEPT_UP_TO = 10_000  # elements; larger predictions are computed anew each time they are needed


@dataclass(frozen=True)
class Match:
    """A set of mistakes that reproduces the candidate's numbers."""

    mistakes: tuple[str, ...]  # most explanatory first
    notes: dict[str, str]  # how each was made
    predicted: Floats  # the numbers it leads to, in the layout of the candidate's view
    view: View
    changes: dict[str, Any]
    factor: float = 1.0
    rare: bool = False

    def recipe(self) -> Recipe:
        """The computation with these mistakes, factor and layout apart."""
        return Recipe(**self.changes)


@dataclass(frozen=True)
class Answer:
    """A candidate's numbers beside the question's truth."""

    q: Question
    scales: Scales
    numbers: Floats  # float64, in the candidate's shape
    dtype: Any  # the candidate's own

    @cached_property
    def precision(self) -> Precision:
        """What its numbers can be expected to be good to."""
        return candidate_precision(self.numbers, self.dtype, self.q)

    @cached_property
    def floor(self) -> float:
        """The absolute error that underflow and printing excuse."""
        eps, tiny = self.precision
        return (16.0 * eps * tiny if eps > 1e-6 else tiny) + printed_step(self.numbers)

    @cached_property
    def same_shape(self) -> bool:
        """Whether the candidate has the shape of the answer."""
        return self.numbers.shape == self.q.shape

    @cached_property
    def error(self) -> Floats:
        """|candidate − truth|; infinite where only one of the two is a number."""
        return distance(self.numbers, self.q.truth)

    def agrees(self) -> bool:
        """Whether every entry is the truth to within the error of the textbook formula."""
        return self.same_shape and not self.wrong.any()

    @cached_property
    def wrong(self) -> Floats:
        """Which entries are farther from the truth than the textbook formula errs."""
        tolerance = self.precision.eps * (self.scales.rough + np.abs(_finite(self.q.truth))) + self.floor
        return self.error > tolerance

    def lost(self) -> Floats:
        """Which entries have lost more than three quarters of their digits, against a careful computation."""
        eps, tiny = self.precision
        fine = np.abs(self.scales.fine)
        # A number made finite in a coarse format cannot be blamed below its smallest normal number.
        excused = max(tiny, precision_of(self.dtype).tiny) / eps**0.25 + printed_step(self.numbers)
        return (self.error > eps**0.25 * fine) & (fine > excused) & (self.error > printed_step(self.numbers))

    def roughly_agrees(self) -> bool:
        """Whether every entry has a third of its digits: the right formula in a lower precision."""
        if not self.same_shape:
            return False
        share = min(precision_of(self.dtype).eps ** (1 / 3), 1e-4)
        tolerance = share * np.minimum(self.scales.rough / 8.0, _rowwise(self.q))
        return bool(np.all(self.error <= tolerance + self.floor))

    @cached_property
    def bits(self) -> float:
        """How much the numbers say: bits of information beyond their own inaccuracy."""
        finite = self._distinct
        odd = 24.0 * np.count_nonzero(~np.isfinite(self.numbers)) + 4.0 * np.count_nonzero(
            _is_small_integer(self.numbers)
        )
        if finite.size == 0:
            return float(odd)
        width = 32.0 * self.precision.eps * finite + 2.0 * self.floor
        return float(odd + np.log2(np.maximum((finite + finite.mean()) / width, 1.0)).sum())

    @cached_property
    def _distinct(self) -> Floats:
        """The sizes that say something: small whole numbers agree with one another by chance."""
        telling = np.isfinite(self.numbers) & ~_is_small_integer(self.numbers)
        return np.unique(np.abs(self.numbers[telling]))

    def extra_bits(self, closeness: float) -> float:
        """Evidence beyond `bits`, in bits, where a prediction meets the numbers closer than it had to."""
        spare = np.log2(self.precision.eps / precision_of(self.dtype).eps)
        return float(self._distinct.size * min(spare, -math.log2(max(closeness, 1e-16))))


def _is_small_integer(numbers: Floats) -> Floats:
    return (np.abs(numbers) <= 8.0) & (numbers == np.round(numbers))


def distance(a: Floats, b: Floats) -> Floats:
    """|a − b|, where equal infinities and two NaN are no distance, and anything else with one of them is infinite."""
    with np.errstate(all="ignore"):
        return np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.nan_to_num(np.abs(a - b), nan=np.inf))


class Search:
    """Every hypothesis about one question, computed once and held against candidates."""

    def __init__(self, q: Question) -> None:
        self.q = q
        self.scales = scales(q)
        self.evaluator = Evaluator(q)
        self.ways = ways(q)
        self._factor_tables: dict[float, tuple[list[Factor], Floats]] = {}
        self._tried: dict[tuple[int, ...], Floats | None] = {}

    def answer(self, numbers: Floats, dtype: Any) -> Answer:
        """A candidate's numbers, to be held against this question's truth."""
        return Answer(self.q, self.scales, numbers, dtype)

    def find(self, answer: Answer, bits: float = 0.0) -> list[Match]:
        """The smallest sets of mistakes that reproduce the candidate; `bits` is evidence from other logits."""
        candidates = list(views(answer.numbers, self.q.shape)) or [View(answer.numbers, (), "")]
        if not np.any(answer.numbers) or not answer.numbers.size:
            return []  # zeros agree with too much to mean anything
        best: dict[tuple[str, ...], Match] = {}
        size, large = 3, self.q.truth.size > _PAIRS_UP_TO
        for count in range(3):
            if count > size or (best and large) or (count == 2 and large):
                break
            subsets = list(self._subsets(count))
            for subset in subsets:
                found = self._matches(subset, answer, candidates, size, len(subsets), answer.bits + bits)
                for match in found:
                    if len(match.mistakes) < size:
                        best, size = {}, len(match.mistakes)
                    if match.mistakes not in best or best[match.mistakes].rare:
                        best[match.mistakes] = match
        smallest = [match for match in best.values() if len(match.mistakes) == size]
        return sorted(smallest, key=lambda match: (match.rare, rank(match.mistakes, self.q)))

    def reproduces(self, match: Match, answer: Answer) -> bool:
        """Whether the same set of mistakes, made in any way, gives this candidate too."""
        wanted = set(match.mistakes)
        candidates = list(views(answer.numbers, self.q.shape)) or [View(answer.numbers, (), "")]
        own = [[i for i, way in enumerate(self.ways) if way.mistake == name] for name in match.mistakes]
        members = [group for group in own if group]
        for subset in _product(members):
            for found in self._matches(subset, answer, candidates, 3, 1, math.inf, same_as_truth=True):
                if set(found.mistakes) == wanted or set(found.mistakes) <= wanted:
                    return True
        return False

    def _subsets(self, count: int) -> Iterator[tuple[int, ...]]:
        for subset in combinations(range(len(self.ways)), count):
            chosen = [self.ways[i] for i in subset]
            if count == 2 and (chosen[0].rare or chosen[1].rare or chosen[0].mistake == chosen[1].mistake):
                continue
            if not _clash(chosen):
                yield subset

    def _compute(self, subset: tuple[int, ...]) -> Floats | None:
        if subset in self._tried:
            return self._tried[subset]
        changes = {key: value for i in subset for key, value in self.ways[i].changes.items()}
        x = self.evaluator.numbers(Recipe(**changes))
        if x is not None and not np.any(x):
            x = None  # zeros agree with too much to mean anything
        if x is None or x.size <= _KEPT_UP_TO:
            self._tried[subset] = x
        return x

    def _matches(
        self,
        subset: tuple[int, ...],
        answer: Answer,
        candidates: list[View],
        size: int,
        hypotheses: int,
        bits: float,
        *,
        same_as_truth: bool = False,
    ) -> Iterator[Match]:
        if answer.numbers.size <= self.q.truth.size and any(
            self.ways[i].changes.get("output") in LARGER for i in subset
        ):
            return  # matrices larger than the answer are built only for candidates that are
        x = self._compute(subset)
        if x is None:
            return
        if not np.isfinite(x).any() and [self.ways[i].mistake in OVERFLOWS for i in subset] != [True]:
            return  # NaN throughout is no likeness, but where exp overflows
        changes = {key: value for i in subset for key, value in self.ways[i].changes.items()}
        table = self._factor_table(Recipe(**changes))
        for view in candidates:
            if view.numbers.shape != x.shape:
                continue
            for factor in self._factors(x, view.numbers, answer, table):
                made = {self.ways[i].mistake for i in subset} | set(view.mistakes) | set(factor.mistakes)
                cost = math.log2(hypotheses * (len(table[0]) if factor.mistakes else 1) * len(candidates))
                if not made or len(made) > size:
                    continue
                predicted = factor.value * x
                closeness = _closeness(predicted, view.numbers, factor.value, answer)
                if closeness > 1.0 or cost + _ODDS > bits + answer.extra_bits(closeness):
                    continue
                if not same_as_truth and view.numbers is answer.numbers and not self._differs(predicted, answer):
                    continue
                notes = {self.ways[i].mistake: self.ways[i].note for i in subset}
                notes |= dict.fromkeys(view.mistakes, view.note)
                notes |= {name: factor.note for name in factor.mistakes if name != "sign-flipped"}
                yield Match(
                    ranked(made), notes, predicted, view, changes, factor.value, any(self.ways[i].rare for i in subset)
                )

    def _factor_table(self, recipe: Recipe) -> tuple[list[Factor], Floats]:
        """The known factors, given what the recipe's own mean divides by."""
        divisor = self.evaluator.divisors(recipe)[0] if self.q.what in LOSSES else 1.0
        if divisor not in self._factor_tables:
            known = factors(self.q, divisor)
            self._factor_tables[divisor] = known, np.array([f.value for f in known])
        return self._factor_tables[divisor]

    def _factors(
        self, x: Floats, numbers: Floats, answer: Answer, table: tuple[list[Factor], Floats]
    ) -> Iterator[Factor]:
        """Every known factor that carries x into the candidate at its largest entry."""
        known, values = table
        size = np.abs(x).ravel()
        flat = int(size.argmax())
        if not math.isfinite(size[flat]):
            usable = np.isfinite(size)
            if not usable.any():
                yield known[0]
                return
            flat = int(np.where(usable, size, -1.0).argmax())
        largest, number = float(x.reshape(-1)[flat]), float(numbers.reshape(-1)[flat])
        if not math.isfinite(number) or largest == 0.0:
            return
        ratio = number / largest
        rough = float(self.scales.rough.reshape(-1)[flat]) if x.shape == self.q.shape else 0.0
        slack = 256.0 * answer.precision.eps + 2.0 * (answer.floor + answer.precision.eps * rough) / abs(largest)
        for i in np.flatnonzero(np.abs(ratio - values) <= slack * np.abs(values)):
            yield known[i]

    def _differs(self, predicted: Floats, answer: Answer) -> bool:
        """Whether a prediction is another answer than the truth, not its rounding."""
        if predicted.shape != self.q.shape:
            return True
        tolerance = 8.0 * answer.precision.eps * (np.abs(_finite(self.q.truth)) + self.scales.rough) + answer.floor
        return bool(np.any(distance(predicted, self.q.truth) > tolerance))


def _closeness(predicted: Floats, numbers: Floats, factor: float, answer: Answer) -> float:
    """The largest distance, as a share of what is tolerated: at most 1 where the prediction holds."""
    size = np.abs(_finite(predicted))
    tolerance = answer.precision.eps * (32.0 * size + 8.0 * _rowmax(size)) + answer.floor
    if predicted.shape == answer.q.shape:
        tolerance = tolerance + answer.precision.eps * abs(factor) * answer.scales.rough
    with np.errstate(over="ignore"):
        return float(np.max(distance(predicted, numbers) / np.maximum(tolerance, 1e-300)))


def _rowmax(size: Floats) -> Floats:
    return size.max(axis=-1, keepdims=True) if size.ndim else size


def _rowwise(q: Question) -> Floats:
    return _rowmax(np.abs(_finite(q.truth)))


def _finite(x: Floats) -> Floats:
    return np.where(np.isfinite(x), x, 0.0)


def _clash(chosen: list[Way]) -> bool:
    """Whether two ways change the same switch to different positions."""
    merged: dict[str, Any] = {}
    for way in chosen:
        for key, value in way.changes.items():
            if merged.setdefault(key, value) != value:
                return True
    return False


def _product(groups: list[list[int]]) -> Iterator[tuple[int, ...]]:
    if not groups:
        yield ()
        return
    for first in groups[0]:
        for rest in _product(groups[1:]):
            yield tuple(sorted((first, *rest)))
