"""What a function shows on other logits than the caller's.

Three kinds of probe.  *Fresh logits* tell apart what the caller's cannot (equal logits, one row), add evidence, and
show mistakes that change nothing on the caller's own.  *Shifted logits*, ±1000 on all of them, change no softmax: a
function that overflows there lacks the maximum's subtraction.  *Sure rows* and *far classes* only lead to remarks:
a textbook formula loses digits there, which is no mistake on the logits at hand.

A function that gives the same numbers whatever the logits cannot be probed; one that closes over numbers made from
the caller's logits goes wrong elsewhere in ways that mean nothing, and is judged by the caller's logits alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from softgrad.diagnosis.calling import (
    Fault,
    Order,
    Outcome,
    batch_of_one,
    call,
    orders,
    out_of_batch,
    row_by_row,
)
from softgrad.diagnosis.catalogue import ranked
from softgrad.diagnosis.matching import OVERFLOWS, Match, Search
from softgrad.diagnosis.question import PRODUCTS, Floats, Question
from softgrad.diagnosis.verdict import Verdict, judge

_ARITHMETIC = {"OverflowError", "FloatingPointError", "ZeroDivisionError"}


@dataclass
class Probed:
    """What is known of a function after calling it."""

    verdict: Verdict | None = None  # on the caller's logits
    fault: Fault | None = None
    mistakes: tuple[str, ...] = ()
    match: Match | None = None
    alternatives: tuple[tuple[str, ...], ...] = ()
    findings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class Prober:
    """Calls one function about one question, and collects what is found."""

    def __init__(self, function: Callable[..., Any], q: Question) -> None:
        self.function = function
        self.q = q
        self.order = Order(("logits",))
        self.batched = False  # called with one more axis in front
        self.by_row = False
        self.result = Probed()

    def run(self) -> Probed:
        """Call, judge, probe."""
        result, search = self.result, Search(self.q)
        outcome = self._first_call(search)
        if outcome.changed:
            result.remarks.append(
                f"It writes to the {' and '.join(outcome.changed)} it is given (it was called with copies): "
                "`z -= z.max()` changes the caller's array, `z = z - z.max()` does not."
            )
        if outcome.numbers is None:
            result.fault = outcome.fault
            return result
        verdict = judge(search, search.answer(outcome.numbers, outcome.dtype))
        result.verdict = verdict
        result.mistakes, result.match = verdict.mistakes, verdict.matches[0] if verdict.matches else None
        result.alternatives = tuple(match.mistakes for match in verdict.matches[1:])
        if verdict.fault == "wrong-shape":
            self._try_rows()
            return result
        fresh = fresh_logits(self.q, self.order)
        fresh_outcome = self._call(fresh)
        if fresh_outcome.numbers is not None and np.array_equal(fresh_outcome.numbers, outcome.numbers, equal_nan=True):
            result.remarks.append(
                "It gives the same numbers whatever the logits, so it was judged by the logits given, and not probed."
            )
            return result
        if fresh_outcome.numbers is None:
            assert fresh_outcome.fault is not None
            result.remarks.append(f"On other logits of the same shape {fresh_outcome.fault.text}.")
            return result
        self._fresh(search, verdict, Search(fresh), fresh_outcome)
        self._shifted()
        if "logits-as-probs" in result.mistakes and not self.by_row:
            self._given_probs(search)
        if not result.mistakes and verdict.ok:
            self._sure_rows()
        return result

    # --- calling ---------------------------------------------------------------------------------------------------

    def _first_call(self, search: Search) -> Outcome:
        """Call as the signature suggests; where that leaves a choice, the one that is right or explained."""
        tried: list[tuple[Order, Outcome]] = []
        for order in orders(self.function, self.q):
            outcome = call(self.function, self.q, order)
            tried.append((order, outcome))
        judged = []
        for order, outcome in tried:
            score = 3
            if outcome.numbers is not None and len(tried) > 1:
                verdict = judge(search, search.answer(outcome.numbers, outcome.dtype))
                score = 0 if verdict.ok else 1 if verdict.matches else 2
            judged.append((score if outcome.numbers is not None else 4, order, outcome))
        _, self.order, outcome = min(judged, key=lambda item: item[0])
        if outcome.numbers is None:
            outcome = self._otherwise(outcome)
        return outcome

    def _otherwise(self, outcome: Outcome) -> Outcome:
        """A function that raises may want a batch where one row was given, or one row where a batch was."""
        outer = batch_of_one(self.q)
        if outer is not None:
            found = out_of_batch(self.q, outer, call(self.function, outer, self.order))
            if found is not None:
                self.batched = True
                self.result.remarks.append(
                    "It does not take a single row, so it was called with a batch of one, logits[None], and its answer "
                    "read without that axis."
                )
                return found
            return outcome
        found = row_by_row(self.function, self.q, self.order)
        if found is None:
            return outcome
        self.by_row = True
        assert outcome.fault is not None
        self.result.remarks.append(f"It takes one row: {outcome.fault.text}. So it was called row by row.")
        return found

    def _call(self, q: Question) -> Outcome:
        if self.by_row:
            return row_by_row(self.function, q, self.order) or Outcome(None, None, Fault("raises", "it fails"))
        if not self.batched:
            return call(self.function, q, self.order)
        outer = batch_of_one(q)
        assert outer is not None
        outcome = call(self.function, outer, self.order)
        return out_of_batch(q, outer, outcome) or Outcome(
            None, None, outcome.fault or Fault("wrong-shape", "its shape differs")
        )

    def _try_rows(self) -> None:
        """Where a batch gives a wrong shape, say whether the function is right for one row."""
        outcome = row_by_row(self.function, self.q, self.order)
        if outcome is None or outcome.numbers is None or outcome.numbers.size == self._size():
            return
        search = Search(self.q)
        verdict = judge(search, search.answer(outcome.numbers, outcome.dtype))
        said = "right" if verdict.ok else "wrong: " + (" + ".join(verdict.mistakes) or "no known mistake explains it")
        self.result.remarks.append(f"Called with one row at a time it is {said}. np.stack the rows' results.")
        if verdict.matches:
            self.result.mistakes = ranked({*verdict.mistakes, "wrong-shape"})
            self.result.match = verdict.matches[0]

    def _size(self) -> int:
        assert self.result.verdict is not None
        return self.result.verdict.answer.numbers.size

    # --- fresh logits ----------------------------------------------------------------------------------------------

    def _fresh(self, search: Search, verdict: Verdict, other: Search, outcome: Outcome) -> None:
        result = self.result
        assert outcome.numbers is not None
        answer = other.answer(outcome.numbers, outcome.dtype)
        if len(verdict.matches) == 1 and other.reproduces(verdict.matches[0], answer) and not answer.agrees():
            return  # the one explanation holds here too
        found = judge(other, answer, bits=verdict.answer.bits)
        if found.ok or (found.fault == "lost-digits" and not found.matches):
            if not verdict.ok and verdict.matches:
                result.remarks.append(
                    "On other logits of the same shape it is right: the mistake shows on these alone."
                )
            return
        if not found.matches:
            if verdict.ok:
                result.remarks.append(
                    "On other logits it is wrong, in no known way: does it use numbers made from the logits given?"
                )
            return
        both = [match for match in found.matches if search.reproduces(match, verdict.answer)]
        both = self._larger(both) if len(both) > 1 else both
        if not both:
            return
        if verdict.ok:
            result.findings.append(
                "The logits given cannot show it: there the mistake changes nothing. It was found by calling the "
                f"function with other logits, of which the first entries are {_few(other.q.logits)}."
            )
        same = next((match for match in verdict.matches if match.mistakes == both[0].mistakes), None)
        if len(verdict.matches) > 1 and len(both) < len(verdict.matches):
            excluded = [" + ".join(m.mistakes) for m in verdict.matches if m.mistakes not in {b.mistakes for b in both}]
            result.findings.append(
                f"The logits given fit {' and '.join(excluded)} as well; calling the function with other logits "
                "excluded that."
            )
        result.match = same or both[0]
        result.mistakes = result.match.mistakes
        result.alternatives = tuple(match.mistakes for match in both if match.mistakes != result.mistakes)

    def _larger(self, matches: list[Match]) -> list[Match]:
        """The matches that survive a probe with more rows and classes, if the function can be given all it needs."""
        q = larger(self.q, self.order)
        if q is None or self.batched or self.by_row:
            return matches
        outcome = self._call(q)
        if outcome.numbers is None:
            return matches
        search = Search(q)
        answer = search.answer(outcome.numbers, outcome.dtype)
        if answer.agrees():
            return matches
        return [match for match in matches if search.reproduces(match, answer)] or matches

    # --- shifted logits --------------------------------------------------------------------------------------------

    def _shifted(self) -> None:
        for shift in (1000.0, -1000.0):
            q = self.q.at(_moved(self.q.logits, shift))
            outcome = self._call(q)
            if (
                outcome.fault is not None and outcome.fault.error in _ARITHMETIC
            ):  # math.exp raises where np.exp gives inf
                found: tuple[str, str] | None = ("no-max-shift", f"{outcome.fault.error}, and no numbers")
            elif outcome.numbers is None:
                continue
            else:
                search = Search(q)
                found = self._shift_mistake(search, search.answer(outcome.numbers, outcome.dtype))
            if found is None:
                continue
            name, number = found
            already = name in self.result.mistakes
            self.result.mistakes = ranked({*self.result.mistakes, name} - {"not-finite"})
            if not already:
                self.result.findings.append(
                    f"With {shift:+.0f} on every logit, which must change nothing, the function gives {number}."
                )
            return

    def _shift_mistake(self, search: Search, answer: Any) -> tuple[str, str] | None:
        """The mistake that shows under a shift, if there is one, and the number that shows it."""
        if answer.agrees() or OVERFLOWS & set(self.result.mistakes):
            return None
        if self.result.match is not None and search.reproduces(self.result.match, answer):
            return None
        finite = np.isfinite(search.q.truth)
        wrong = np.flatnonzero(~np.isfinite(answer.numbers) & (finite if answer.same_shape else True))
        wanted = {*self.result.mistakes} - {"not-finite"}
        for match in search.find(answer, bits=1e3):
            extra = set(match.mistakes) - wanted
            if wanted <= set(match.mistakes) and len(extra & OVERFLOWS) == 1 and len(extra) == 1:
                return extra.pop(), _first(answer.numbers, wrong)
        if wrong.size:
            log = search.q.what in ("log_softmax", "cross_entropy") and bool(np.isnan(answer.numbers).any())
            return "log-of-unstable-softmax" if log else "no-max-shift", _first(answer.numbers, wrong)
        invariant = search.q.softcap is None and search.q.z_loss == 0.0
        if self.result.verdict is not None and self.result.verdict.ok and not self.result.mistakes:
            if invariant and answer.same_shape:
                return "no-max-shift", _first(answer.numbers, np.flatnonzero(answer.error == answer.error.max()))
            self.result.remarks.append("On shifted logits it is wrong, in no known way.")
        return None

    def _given_probs(self, search: Search) -> None:
        """A function that wants A: say what it does when it gets A."""
        if self.order.positional != ("logits",) or self.q.logits.dtype.kind in "iu":
            return
        probs = replace(self.q, what="softmax", targets=None, vector=None).truth
        outcome = self._call(self.q.at(probs.astype(self.q.logits.dtype)))
        if outcome.numbers is None:
            return
        verdict = judge(search, search.answer(outcome.numbers, outcome.dtype))
        if verdict.ok:
            self.result.findings.append("Called with softmax(z) in place of z, the function is right.")
        elif verdict.matches:
            left = " + ".join(verdict.mistakes)
            self.result.findings.append(f"Called with softmax(z) in place of z, what is left is {left}.")

    # --- remarks only ----------------------------------------------------------------------------------------------

    def _sure_rows(self) -> None:
        if self.q.what == "softmax":
            return
        for text, q in sure_and_far(self.q):
            outcome = self._call(q)
            if outcome.numbers is None:
                continue
            search = Search(q)
            answer = search.answer(outcome.numbers, outcome.dtype)
            if not answer.same_shape:
                continue
            if text == "far" and np.any(~np.isfinite(answer.numbers) & np.isfinite(q.truth)):
                self.result.remarks.append(
                    "Where a class lies 1000 below the others it gives an infinity (the logarithm of a probability "
                    "that underflowed): take log-softmax, z − m − log Σ exp(z − m), in place of the log of softmax."
                )
            elif text == "sure" and answer.agrees() and answer.lost().any():
                at = int(np.argmax(np.where(answer.lost(), answer.error, -1.0)))
                index = np.unravel_index(at, q.shape)
                self.result.remarks.append(
                    "Right on these logits; where a class stands 40 above the others it loses digits (lost-digits): "
                    f"{float(answer.numbers[index]):.3g} where {float(q.truth[index]):.3g} is right."
                )


# --- the logits of the probes -------------------------------------------------------------------------------------


def fresh_logits(q: Question, order: Order) -> Question:
    """The question at random logits; whatever else the function is given is drawn anew too."""
    rng = np.random.default_rng(20)
    changes: dict[str, Any] = {"logits": _random(rng, q.logits)}
    if order.takes("vector") and q.vector is not None:
        changes["vector"] = rng.normal(size=q.vector.shape).astype(_floating(q.vector.dtype))
    if order.takes("targets") and q.indices is not None and q.targets is not None:
        drawn = rng.integers(0, q.z.shape[-1], q.indices.shape)
        kept = np.zeros(q.indices.shape, bool) if q.ignore_index is None else q.indices == q.ignore_index
        changes["targets"] = np.where(kept, q.indices, drawn).astype(q.targets.dtype)
    return replace(q, **changes)


def larger(q: Question, order: Order) -> Question | None:
    """The question with more rows and 5 classes; None where the function keeps some input to itself."""
    needed = ["targets"] if q.targets is not None else ["vector"] if q.what in PRODUCTS else []
    if q.weight is not None or not all(order.takes(role) for role in needed) or not order.takes("logits"):
        return None
    rng = np.random.default_rng(21)
    shape = tuple(5 if axis == q.axis else n + 2 for axis, n in enumerate(q.logits.shape))
    rows = tuple(n for axis, n in enumerate(shape) if axis != q.axis)
    changes: dict[str, Any] = {"logits": _random(rng, np.empty(shape, q.logits.dtype))}
    if q.targets is not None:
        if q.indices is None:
            changes["targets"] = np.moveaxis(rng.dirichlet(np.ones(5), rows), -1, q.axis) * 1.5
        else:
            changes["targets"] = rng.integers(0, 5, rows)
    if q.vector is not None:
        lead = q.vector.shape[: q.vector.ndim - q.logits.ndim]
        changes["vector"] = rng.normal(size=(*lead, *shape))
    return replace(q, **changes)


def sure_and_far(q: Question) -> list[tuple[str, Question]]:
    """A row sure of its target (of its first class), and one whose target lies far below."""
    classes = q.z.shape[-1]
    if classes < 2 or prod(q.rows) == 0:
        return []
    t = np.zeros(q.rows, int) if q.indices is None else np.where(q.indices == q.ignore_index, 0, q.indices)
    target = np.moveaxis(np.arange(classes) == t[..., None], -1, q.axis)
    base = np.clip(np.where(np.isfinite(q.logits), q.logits, 0.0), -5.0, 5.0)
    dtype = _floating(q.logits.dtype)
    found = [("sure", q.at((base + 40.0 * target).astype(dtype)))]
    if q.what in ("log_softmax", "cross_entropy"):
        found.append(("far", q.at((base - 1000.0 * target).astype(dtype))))
    return found


def _random(rng: np.random.Generator, like: Floats) -> Floats:
    if like.dtype.kind in "iu":
        return rng.integers(0, 7, like.shape).astype(like.dtype)
    return (1.5 * rng.normal(size=like.shape)).astype(like.dtype)


def _floating(dtype: Any) -> Any:
    return np.dtype(np.float64) if dtype.kind in "iu" else dtype


def _moved(logits: Floats, shift: float) -> Floats:
    if logits.dtype.kind in "iu":
        return logits.astype(np.float64) + shift
    return (logits.astype(np.float64) + shift).astype(logits.dtype)


def _few(logits: Floats) -> str:
    return ", ".join(f"{float(x):.3g}" for x in logits.ravel()[:3])


def _first(numbers: Floats, flat: Any) -> str:
    at = int(flat[0]) if len(flat) else 0
    index = np.unravel_index(at, numbers.shape) if numbers.ndim else ()
    where = " at [" + ", ".join(str(int(i)) for i in index) + "]" if numbers.ndim else ""
    return f"{float(numbers[index]):.6g}{where}"
