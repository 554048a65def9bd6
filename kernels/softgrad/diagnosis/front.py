"""`diagnose`: a hand-written softmax derivative that does not match, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from softgrad.diagnosis.calling import Fault, as_numbers
from softgrad.diagnosis.catalogue import CATALOGUE
from softgrad.diagnosis.finite_differences import own_gradient
from softgrad.diagnosis.matching import Match, Search
from softgrad.diagnosis.patterns import patterns, worst_entries
from softgrad.diagnosis.probing import Probed, Prober
from softgrad.diagnosis.question import Question, ask
from softgrad.diagnosis.report import Diagnosis, Explanation
from softgrad.diagnosis.verdict import judge


def diagnose(
    candidate: Any,
    *,
    what: str,
    logits: Any,
    targets: Any = None,
    tangent: Any = None,
    cotangent: Any = None,
    axis: int = -1,
    reduction: str = "mean",
    own_loss: Callable[..., Any] | None = None,
    **loss: Any,
) -> Diagnosis:
    """What is wrong with a hand-written softmax, Jacobian, product, cross-entropy or gradient of it, and why.

    The candidate's numbers are held against the truth, and, where they differ, against every mistake of the catalogue
    and every pair of them.  The smallest set that reproduces all of its numbers is named, explained and mended.  A
    candidate that is right to within the rounding of the textbook formula in its own dtype is `ok`; one that no known
    mistake explains is told so, with what its differences have in common.

    Parameters
    ----------
    candidate : array or callable
        The numbers, or the function that computes them.  A function is called with copies of the arrays, by name
        where its parameters have the field's usual names (``z``, ``x``, ``logits``; ``t``, ``y``, ``targets``; ``v``,
        ``g``, ``tangent``, ``cotangent``), else by place: ``f(logits)``, ``f(logits, targets)``, ``f(vector, logits)``
        or ``f(logits, vector)``.  One argument alone is the logits.  Options are passed to parameters of the same name
        that are required, or that were given here.  It is called with other logits too: see Notes.
    what : str
        "softmax", "log_softmax", "jacobian", "softmax_jvp", "softmax_vjp", "cross_entropy" or "cross_entropy_grad".
    logits : array, shape (..., C, ...)
        Z.  NumPy arrays of a floating or integer dtype, and nested lists.
    targets : array
        For the last two: class indices or probabilities, as `cross_entropy` takes them.
    tangent, cotangent : array, shape (*K, *logits.shape)
        For "softmax_jvp" and "softmax_vjp".
    axis : int
        The class axis.
    reduction : {"mean", "sum", "none"}
        As in `cross_entropy`.
    own_loss : callable, optional
        For "cross_entropy_grad": the candidate's own loss, a function of (logits) or (logits, targets).  The gradient
        is then compared with finite differences of it too.
    **loss
        ``weight``, ``ignore_index``, ``label_smoothing``, ``z_loss``, ``softcap``, as in `cross_entropy`.

    Returns
    -------
    Diagnosis
        ``.ok``, ``.mistakes`` (ids), ``.explanations``, ``.alternatives`` (what these inputs cannot tell apart),
        ``.entries``, ``.findings``, ``.remarks``; printed, it says all of it in words.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        If `what` is unknown, an input that it needs is missing, or an input is one that softgrad itself would refuse.
        Whatever the candidate does is a diagnosis, never an error.

    Notes
    -----
    A function is probed with fresh logits, to tell apart what the given ones cannot, and with all logits shifted by
    ±1000, which must change nothing: overflow there is the mistake ``no-max-shift`` (``log-of-unstable-softmax``).
    Digits that a right formula would lose only on other logits than the given are a remark, not a mistake.

    Examples
    --------
    >>> import softgrad
    >>> d = softgrad.diagnose(
    ...     [[-1.3125, -3.0625], [-3.0625, -1.3125]], what="jacobian", logits=[1.75, 1.75]
    ... )
    >>> d.ok, d.mistakes
    (False, ('logits-as-probs',))
    """
    q = ask(
        what,
        logits,
        targets=targets,
        tangent=tangent,
        cotangent=cotangent,
        axis=axis,
        reduction=reduction,
        options=loss,
    )
    if own_loss is not None:
        if what != "cross_entropy_grad":
            raise TypeError(f"what={what!r} does not take `own_loss`")
        if not callable(own_loss):
            raise TypeError(f"`own_loss` is {own_loss!r}; expected a function of (logits) or (logits, targets)")
    found = Prober(candidate, q).run() if callable(candidate) else _judged(candidate, q)
    return _report(found, q, own_loss)


def _judged(candidate: Any, q: Question) -> Probed:
    numbers, dtype, fault = as_numbers(candidate)
    if numbers is None:
        return Probed(fault=fault)
    search = Search(q)
    verdict = judge(search, search.answer(numbers, dtype))
    return Probed(
        verdict=verdict,
        mistakes=verdict.mistakes,
        match=verdict.matches[0] if verdict.matches else None,
        alternatives=tuple(match.mistakes for match in verdict.matches[1:]),
    )


def _report(found: Probed, q: Question, own_loss: Callable[..., Any] | None) -> Diagnosis:
    if found.fault is not None:
        return _faulty(found.fault, found, q)
    verdict = found.verdict
    assert verdict is not None
    findings = [*([verdict.finding] if verdict.finding else []), *found.findings]
    unexplained = not verdict.ok and not found.mistakes
    if unexplained:
        findings += patterns(verdict.answer)
    if own_loss is not None:
        findings.append(own_gradient(own_loss, verdict.answer.numbers, q))
    ok = verdict.ok and not found.mistakes
    return Diagnosis(
        what=q.what,
        ok=ok,
        mistakes=found.mistakes,
        explanations=tuple(explain(name, q, found.match) for name in found.mistakes),
        alternatives=found.alternatives,
        entries=worst_entries(verdict.answer, 1 if ok else 3 if unexplained else 2),
        findings=tuple(findings),
        remarks=tuple(found.remarks),
        truth=q.truth,
        candidate=verdict.answer.numbers,
    )


def _faulty(fault: Fault, found: Probed, q: Question) -> Diagnosis:
    return Diagnosis(
        what=q.what,
        ok=False,
        mistakes=(fault.mistake,),
        explanations=(explain(fault.mistake, q, None),),
        findings=(fault.text[0].upper() + fault.text[1:],),
        remarks=tuple(found.remarks),
        truth=q.truth,
    )


def explain(name: str, q: Question, match: Match | None) -> Explanation:
    """The catalogue's words on a mistake, and how it was made here."""
    mistake = CATALOGUE[name]
    note = match.notes.get(name, "") if match is not None else ""
    return Explanation(name, mistake.title, mistake.why, mistake.formula, note, mistake.corrected(q.what))
