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
from softgrad.backends.numba_cuda.machine import log1p, select
from softgrad.backends.numba_cuda.rows import Place, address, at_row, spans, stored, walk
from softgrad.backends.numba_cuda.sums import Sum, add, sums, tree_sum
from softgrad.backends.numba_cuda.teams import SumAndCount, nan_max, team


def softmax(mode: str, T: str, real: str, regime: Regime, place: Place) -> Any:
    """The kernel; `mode`: PROBABILITIES, LOG_PROBABILITIES or LOG_SUM_EXP."""
    PROBABILITIES, LOG_PROBABILITIES = mode == "PROBABILITIES", mode == "LOG_PROBABILITIES"
    steps, group = walk(T, real, regime, place), team(regime, real)
    WIDTH, STEP, chunks, held = steps.WIDTH, steps.STEP, steps.chunks, steps.held
    KEEPS, IN_SHARED, APART, HELD = steps.KEEPS, steps.IN_SHARED, steps.APART, steps.HELD
    lane, row, all_largest, all_sum, all_rest = (
        group.lane, group.row, group.all_largest, group.all_sum, group.all_sum_and_count
    )  # fmt: skip
    E, S = exponentials(real), sums(real)
    exp, shift_to, is_finite, value, factor = E.exp, E.shift_to, E.is_finite, S.value, S.factor
    rows = spans(T, real, WIDTH, APART)
    span, load, store, tree, tree_of_chunk = rows.span, rows.load, rows.store, tree_sum(WIDTH, APART), tree_sum(WIDTH)
    per_row = stored(real, real)
    store_row, ROW_SIZE = per_row.store, per_row.SIZE
    Real = E.F.Real
    ZERO, ONE, INFINITY, NAN = Real(0), Real(1), Real(np.inf), Real(np.nan)

    def softmax(a):
        r = row()
        present = r < a.shape.rows
        at = at_row(select(present, r, 0), a.shape)
        classes = a.shape.classes
        z = span(a.z, at, a.shape, present)
        first = lane() * WIDTH

        x = cuda.local.array(HELD, Real)
        if IN_SHARED:
            x = cuda.shared.array(0, Real)
        m = -INFINITY
        for c in range(chunks(classes)):
            i = held(c)
            load(z, first + c * STEP, -INFINITY, x, i)
            for n in range(WIDTH):
                m = nan_max(m, x[i + n * APART])
        m = all_largest(m)
        ordinary = is_finite(m)
        shift = shift_to(select(ordinary, m, ZERO))

        if PROBABILITIES:
            s = Sum(ZERO, ZERO)
            for c in range(chunks(classes)):
                i = held(c)
                if not KEEPS:
                    load(z, first + c * STEP, -INFINITY, x, i)
                for n in range(WIDTH):
                    x[i + n * APART] = exp(shift, x[i + n * APART])
                s = add(s, tree(x, i))
            s = all_sum(s)
            over_s = factor(select(ordinary, ONE, NAN), s)
            inverse = over_s.first * over_s.second  # 1 / s is far inside the range: one factor will do
            out = span(a.out, at, a.shape, present)
            for c in range(chunks(classes)):
                i = held(c)
                if not KEEPS:
                    load(z, first + c * STEP, -INFINITY, x, i)
                    for n in range(WIDTH):
                        x[i + n * APART] = exp(shift, x[i + n * APART])
                for n in range(WIDTH):
                    x[i + n * APART] = x[i + n * APART] * inverse
                store(out, first + c * STEP, x, i, present)
        else:
            e = cuda.local.array(WIDTH, Real)
            rest, count = Sum(ZERO, ZERO), np.int64(0)
            for c in range(chunks(classes)):
                i = held(c)
                if not KEEPS:
                    load(z, first + c * STEP, -INFINITY, x, i)
                for n in range(WIDTH):
                    is_largest = x[i + n * APART] == m
                    count += is_largest
                    e[n] = select(is_largest, ZERO, exp(shift, x[i + n * APART]))
                rest = add(rest, tree_of_chunk(e, 0))
            agreed = all_rest(SumAndCount(rest, count))
            e_k = exp(shift, select(ordinary, m, ZERO))
            rest = add(agreed.sum, Real(agreed.count - 1) * e_k)
            l = select(ordinary, log1p(value(rest) / e_k), NAN)
            if LOG_PROBABILITIES:
                out = span(a.out, at, a.shape, present)
                for c in range(chunks(classes)):
                    i = held(c)
                    if not KEEPS:
                        load(z, first + c * STEP, -INFINITY, x, i)
                    for n in range(WIDTH):
                        x[i + n * APART] = (x[i + n * APART] - m) - l
                    store(out, first + c * STEP, x, i, present)
            else:
                store_row(address(a.out, at, ROW_SIZE), select(ordinary, m + l, m), present & (lane() == 0))

    return softmax
