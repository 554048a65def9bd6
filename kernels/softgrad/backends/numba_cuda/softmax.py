"""softmax, log-softmax, log-sum-exp.

    z, out   (rows, C)      lse   (rows)

s = Σ e; p = e / s.  Of log p and lse only l = log1p(rest / e_k) needs the sum, rest being that of the classes other
than the largest: log p = (z − m) − l, lse = m + l.
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from softgrad.backends.cuda.regimes import Regime
from softgrad.backends.numba_cuda.exponential import exponentials
from softgrad.backends.numba_cuda.formats import stored
from softgrad.backends.numba_cuda.machine import device, log1p, nan_max, select
from softgrad.backends.numba_cuda.rows import Place, address, at_row, walk
from softgrad.backends.numba_cuda.sums import Sum, add, sums
from softgrad.backends.numba_cuda.teams import Step, SumAndCount, team


def softmax(mode: str, T: str, real: str, regime: Regime, place: Place) -> Any:
    """The kernel; `mode`: PROBABILITIES, LOG_PROBABILITIES or LOG_SUM_EXP."""
    PROBABILITIES, LOG_PROBABILITIES = mode == "PROBABILITIES", mode == "LOG_PROBABILITIES"
    LARGEST, SUM, RESULT = Step(walk=1, number=0), Step(walk=2, number=1), Step(walk=3)
    group, steps = team(regime, real), walk(T, real, regime, place)
    row, end, speaks, all_largest, all_sum, all_rest = (
        group.row, group.end, group.speaks, group.all_largest, group.all_sum, group.all_sum_and_count
    )  # fmt: skip
    turns, class_of, held, add_turn, add_own = steps.turns, steps.class_of, steps.held, steps.add_turn, steps.add_own
    KEEPS, IN_SHARED, APART, NUMBERS = steps.KEEPS, steps.IN_SHARED, steps.APART, steps.NUMBERS
    E, S, rows, per_row = exponentials(real), sums(real), steps.spans_of(T, APART), stored(real, real)
    exp, shift_to, is_finite, value = E.exp, E.shift_to, E.is_finite, S.value
    inverse = S.inverse_of_number if regime.kind == "short" else S.inverse  # the sum of one chunk is a number
    span, load, store, store_row, ROW_SIZE = rows.span, rows.load, rows.store, per_row.store, per_row.SIZE
    Real = E.F.Real
    ZERO, INFINITY, NAN = Real(0), Real(np.inf), Real(np.nan)

    @device
    def softmax(a, cut):
        r = row(cut)
        present = r < a.shape.rows
        at = at_row(select(present, r, 0), a.shape)
        classes = end(cut, select(present, a.shape.classes, 0))
        z = span(a.z, at, classes)

        x, y = cuda.local.array(NUMBERS, Real), cuda.local.array(NUMBERS, Real)
        if IN_SHARED:
            x = cuda.shared.array(0, Real)
        m = -INFINITY
        for turn in range(turns(a.shape.classes, cut, LARGEST)):
            i = held(turn)
            load(z, class_of(turn, cut), -INFINITY, x, i)
            for n in range(NUMBERS):
                m = nan_max(m, x[i + n * APART])
        m = all_largest(m, cut, LARGEST)
        ordinary = is_finite(m)
        shift = shift_to(select(ordinary, m, ZERO))

        if PROBABILITIES:
            s = Sum(ZERO, ZERO)
            for turn in range(turns(a.shape.classes, cut, SUM)):
                i = held(turn)
                if not KEEPS:
                    load(z, class_of(turn, cut), -INFINITY, x, i)
                for n in range(NUMBERS):
                    x[i + n * APART] = exp(shift, x[i + n * APART])
                s = add_turn(s, x, i)
            s = all_sum(s, cut, SUM)
            over_s = select(ordinary, inverse(s), NAN)
            out = span(a.out, at, classes)
            for turn in range(turns(a.shape.classes, cut, RESULT)):
                i, j = held(turn), class_of(turn, cut)
                if not KEEPS:
                    load(z, j, -INFINITY, x, i)
                    for n in range(NUMBERS):
                        x[i + n * APART] = exp(shift, x[i + n * APART])
                for n in range(NUMBERS):
                    y[n] = x[i + n * APART] * over_s
                store(out, j, y)
        else:
            others, count = Sum(ZERO, ZERO), np.int64(0)
            for turn in range(turns(a.shape.classes, cut, SUM)):
                i = held(turn)
                if not KEEPS:
                    load(z, class_of(turn, cut), -INFINITY, x, i)
                for n in range(NUMBERS):
                    is_largest = x[i + n * APART] == m
                    count += is_largest
                    y[n] = select(is_largest, ZERO, exp(shift, x[i + n * APART]))
                others = add_own(others, y, 0)
            rest = all_rest(SumAndCount(others, count), cut, SUM)
            e_k = exp(shift, select(ordinary, m, ZERO))
            others = add(rest.sum, Real(rest.count - 1) * e_k)
            l = select(ordinary, log1p(value(others) / e_k), NAN)
            if LOG_PROBABILITIES:
                out = span(a.out, at, classes)
                for turn in range(turns(a.shape.classes, cut, RESULT)):
                    i, j = held(turn), class_of(turn, cut)
                    if not KEEPS:
                        load(z, j, -INFINITY, x, i)
                    for n in range(NUMBERS):
                        y[n] = (x[i + n * APART] - m) - l
                    store(out, j, y)
            else:
                store_row(address(a.out, at, ROW_SIZE), select(ordinary, m + l, m), present & speaks(cut))

    return softmax
