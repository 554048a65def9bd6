"""Softmax + cross-entropy with integer targets, loss and gradient in one pass; weights and all reductions.

    z, grad   (rows, C)      targets, loss   (rows)

The target's class is kept out of the sum: rest = Σ_{j≠t} e_j, s = rest + e_t.

    gradient   p_j; at the target p_t − 1 = −rest / s
    loss       (m − z_t) + l with l = log1p((s − e_k) / e_k); where t is a largest class, s − e_k is rest, which keeps
               its digits when the row is sure (elsewhere the loss is at least log 2, and a subtraction may cost l some)
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from softgrad.backends.cuda.regimes import Regime
from softgrad.backends.numba_cuda.exponential import exponentials
from softgrad.backends.numba_cuda.losses import BAD, COUNTS, DEAD, charges, half_gap, put_per_row
from softgrad.backends.numba_cuda.machine import device, log1p, nan_max, select
from softgrad.backends.numba_cuda.rows import Place, at_row, walk
from softgrad.backends.numba_cuda.sums import Sum, add, share, sums
from softgrad.backends.numba_cuda.teams import Step, team


def cross_entropy(T: str, real: str, regime: Regime, place: Place) -> Any:
    """The kernel."""
    TARGET, LARGEST = Step(walk=0, number=0), Step(walk=1, number=1)
    SUM, RESULT = Step(walk=2, number=2), Step(walk=3)
    group, steps = team(regime, real), walk(T, real, regime, place)
    row, end, reads, kept, speaks, all_largest, all_sum = (
        group.row, group.end, group.reads, group.kept, group.speaks, group.all_largest, group.all_sum
    )  # fmt: skip
    turns, class_of, offset, held, add_turn = steps.turns, steps.class_of, steps.offset, steps.held, steps.add_turn
    KEEPS, IN_SHARED, APART, NUMBERS = steps.KEEPS, steps.IN_SHARED, steps.APART, steps.NUMBERS
    E, S, C, rows, put_loss = exponentials(real), sums(real), charges(real), steps.spans_of(T, APART), put_per_row(real)
    exp, shift_to, is_finite, charge_of, weigh = E.exp, E.shift_to, E.is_finite, C.charge, C.weigh
    value, factor_of, product = S.value, S.factor_of, S.product
    span, get, load, store = rows.span, rows.get, rows.load, rows.store
    Real = E.F.Real
    ZERO, INFINITY, NAN = Real(0), Real(np.inf), Real(np.nan)
    NO_LOSS, HALF, NAN_LOSS = np.float64(0), np.float64(0.5), np.float64(np.nan)

    @device
    def cross_entropy(a, cut):
        r = row(cut)
        present = r < a.shape.rows
        at = at_row(select(present, r, 0), a.shape)
        classes = select(present, a.shape.classes, 0)
        z = span(a.z, at, end(cut, classes))

        charge = charge_of(a, at)
        t = charge.t
        z_t = kept(get(z, t, (classes > 0) & reads(cut, TARGET)), cut, TARGET)
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
        shift = shift_to(select(is_finite(m), m, ZERO))

        rest = Sum(ZERO, ZERO)
        for turn in range(turns(a.shape.classes, cut, SUM)):
            i, j = held(turn), class_of(turn, cut)
            if not KEEPS:
                load(z, j, -INFINITY, x, i)
            for n in range(NUMBERS):
                x[i + n * APART] = select(j + offset(n) == t, ZERO, exp(shift, x[i + n * APART]))
            rest = add_turn(rest, x, i)
        rest = all_sum(rest, cut, SUM)
        e_t = exp(shift, z_t)
        s = add(rest, e_t)

        charge = weigh(charge, a, at)
        broken = (charge.fate == BAD) | ((charge.fate == COUNTS) & (is_finite(m) == False))  # noqa: E712
        dead = charge.fate == DEAD
        if a.loss.data != 0:
            e_k = exp(shift, m)
            l = log1p(select(z_t == m, value(rest), value(s) - e_k) / e_k)
            half, w = half_gap(m, z_t), np.float64(charge.weight)
            loss = select((w == NO_LOSS) & (half - half != NO_LOSS), NO_LOSS, w * (half + HALF * np.float64(l)))
            loss = select(dead, NO_LOSS, select(broken, NAN_LOSS, loss))
            put_loss(a.loss, at, a.summed, loss, present & speaks(cut))
        if a.grad.data != 0:
            grad = span(a.grad, at, end(cut, classes))
            mass = product(charge.scale.high, charge.weight)
            mass = Sum(mass.high, mass.low + charge.scale.low * charge.weight)
            factor, minus_rest = factor_of(mass, s), -value(rest)
            for turn in range(turns(a.shape.classes, cut, RESULT)):
                i, j = held(turn), class_of(turn, cut)
                if not KEEPS:
                    load(z, j, -INFINITY, x, i)
                    for n in range(NUMBERS):
                        x[i + n * APART] = exp(shift, x[i + n * APART])
                for n in range(NUMBERS):
                    e = select(j + offset(n) == t, minus_rest, x[i + n * APART])
                    # Dead rows are 0 throughout, broken ones NaN.
                    y[n] = select(dead, ZERO, select(broken, NAN, share(factor, e)))
                store(grad, j, y)

    return cross_entropy
