"""Softmax + cross-entropy with integer targets, loss and gradient in one pass; weights and all reductions.

    z, grad   (rows, C)      targets, loss   (rows)

The target's class is kept out of the sum: rest = Σ_{j≠t} e_j, s = rest + e_t.

    gradient   p_j; at the target p_t − 1 = −rest / s
    loss       (m − z_t) + l with l = log(s / e_k); where t is a largest class, log1p(rest / e_t), which keeps its
               digits when the row is sure (elsewhere the loss is at least log 2, and nothing is lost)
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from softgrad.backends.cuda.regimes import Regime
from softgrad.backends.numba_cuda.exponential import exponentials
from softgrad.backends.numba_cuda.losses import charges, half_gap, put_per_row
from softgrad.backends.numba_cuda.machine import log, log1p, select
from softgrad.backends.numba_cuda.rows import Place, at_row, spans, walk
from softgrad.backends.numba_cuda.sums import Sum, add, sums, times, tree_sum
from softgrad.backends.numba_cuda.teams import nan_max, team


def cross_entropy(T: str, real: str, regime: Regime, place: Place) -> Any:
    """The kernel."""
    steps, group = walk(T, real, regime, place), team(regime, real)
    WIDTH, STEP, chunks, held = steps.WIDTH, steps.STEP, steps.chunks, steps.held
    KEEPS, IN_SHARED, APART, HELD = steps.KEEPS, steps.IN_SHARED, steps.APART, steps.HELD
    lane, row, all_largest, all_sum = group.lane, group.row, group.all_largest, group.all_sum
    E, S = exponentials(real), sums(real)
    exp, shift_to, is_finite = E.exp, E.shift_to, E.is_finite
    value, factor_of, product = S.value, S.factor_of, S.product
    rows, charge_of, put_loss = spans(T, real, WIDTH, APART), charges(real).charge, put_per_row(real)
    span, get, load, store, tree = rows.span, rows.get, rows.load, rows.store, tree_sum(WIDTH, APART)
    Real = E.F.Real
    ZERO, INFINITY, NAN = Real(0), Real(np.inf), Real(np.nan)
    NO_LOSS, HALF, NAN_LOSS = np.float64(0), np.float64(0.5), np.float64(np.nan)

    def cross_entropy(a):
        r = row()
        present = r < a.shape.rows
        at = at_row(select(present, r, 0), a.shape)
        classes = a.shape.classes
        z = span(a.z, at, a.shape, present)
        first = lane() * WIDTH

        charge = charge_of(a, at, present)
        t, dead = charge.t, charge.dead
        z_t = get(z, t, present & (classes > 0))
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
        shift = shift_to(select(is_finite(m), m, ZERO))

        rest = Sum(ZERO, ZERO)
        for c in range(chunks(classes)):
            i, j = held(c), first + c * STEP
            if not KEEPS:
                load(z, j, -INFINITY, x, i)
            for n in range(WIDTH):
                x[i + n * APART] = select(j + n == t, ZERO, exp(shift, x[i + n * APART]))
            rest = add(rest, tree(x, i))
        rest = all_sum(rest)
        e_t = exp(shift, z_t)
        s = add(rest, e_t)

        broken = charge.bad | ((dead == False) & (is_finite(m) == False))  # noqa: E712
        if a.loss.data != 0:
            e_k = exp(shift, m)
            l = select(z_t == m, log1p(value(rest) / e_t), log(value(s) / e_k))
            half, w = half_gap(m, z_t), np.float64(charge.weight)
            loss = select((w == NO_LOSS) & (half - half != NO_LOSS), NO_LOSS, w * (half + HALF * np.float64(l)))
            loss = select(dead, NO_LOSS, select(broken, NAN_LOSS, loss))
            put_loss(a.loss, at, a.summed, loss, present & (lane() == 0))
        if a.grad.data != 0:
            grad = span(a.grad, at, a.shape, present)
            mass = product(charge.scale.high, charge.weight)
            mass = Sum(mass.high, mass.low + charge.scale.low * charge.weight)
            over_s = factor_of(mass, s)
            minus_rest = -value(rest)
            for c in range(chunks(classes)):
                i, j = held(c), first + c * STEP
                if not KEEPS:
                    load(z, j, -INFINITY, x, i)
                    for n in range(WIDTH):
                        x[i + n * APART] = exp(shift, x[i + n * APART])
                for n in range(WIDTH):
                    e = select(j + n == t, minus_rest, x[i + n * APART])
                    # Exactly 0 at a masked class whatever the factor is.
                    g = select(e == ZERO, ZERO, times(over_s, e))
                    x[i + n * APART] = select(dead, ZERO, select(broken, NAN, g))
                store(grad, j, x, i, present)

    return cross_entropy
