"""Whether a candidate gradient is the gradient of the candidate's own loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from softgrad.diagnosis.calling import call, orders
from softgrad.diagnosis.question import Floats, Question

_MOST = 64  # entries looked at


def own_gradient(own_loss: Callable[..., Any], gradient: Floats | None, q: Question) -> str:
    """Central differences of the candidate's own loss, beside its gradient (None: beside the right one)."""
    q = replace(q, what="cross_entropy", logits=q.logits.astype(np.float64))
    order = orders(own_loss, q)[0]
    shape = q.logits.shape
    if gradient is None or gradient.shape != shape:
        return "The candidate has no numbers to hold against finite differences of its own loss."
    picked = np.arange(q.logits.size)
    if picked.size > _MOST:
        picked = np.random.default_rng(0).choice(picked, _MOST, replace=False)
    pairs: list[tuple[int, float, float]] = []
    for flat in picked.tolist():
        at = np.unravel_index(flat, shape)
        if not np.isfinite(q.logits[at]):
            continue
        h = 1e-5 * max(1.0, abs(float(q.logits[at])))
        ends = []
        for step in (h, -h):
            z = q.logits.copy()
            z[at] += step
            outcome = call(own_loss, q.at(z), order)
            if outcome.numbers is None:
                assert outcome.fault is not None
                return f"The own loss could not be evaluated: {outcome.fault.text}."
            ends.append(float(outcome.numbers.sum()))
        pairs.append((flat, (ends[0] - ends[1]) / (2.0 * h), float(gradient[at])))
    if not pairs:
        return "No finite logit is there to take a finite difference at."
    flat, numeric, given = max(pairs, key=lambda pair: -np.inf if np.isnan(pair[1]) else abs(pair[1] - pair[2]))
    largest = max(abs(pair[1]) for pair in pairs)
    at_text = "[" + ", ".join(str(int(i)) for i in np.unravel_index(flat, shape)) + "]"
    if abs(numeric - given) <= 1e-6 * max(1.0, largest):
        return (
            f"Finite differences of the candidate's own loss agree with it ({len(pairs)} entries, largest difference "
            f"{abs(numeric - given):.1e}): it is the gradient of that loss. If it is wrong, so is the loss."
        )
    return (
        f"Finite differences of the candidate's own loss do not agree with it either: at {at_text} they give "
        f"{numeric:.9g}, the candidate {given:.9g}."
    )
