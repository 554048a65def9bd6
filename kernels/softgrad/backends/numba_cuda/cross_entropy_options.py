"""Softmax + cross-entropy with any option: label smoothing, probability targets, z_loss, softcap, weights.

loss       h (gap_t + l) + Σ D gap + l ΣD + ζ lse², gap = m − z
gradient   p F − D; at the target p (F − h) − D_t − h rest_t / s; through the cap where there is one
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from softgrad.backends.cuda.regimes import Regime
from softgrad.backends.numba_cuda.exponential import exponentials
from softgrad.backends.numba_cuda.losses import BAD, COUNTS, DEAD, half_gap, put_per_row
from softgrad.backends.numba_cuda.machine import device, select
from softgrad.backends.numba_cuda.masses import loss_rows, softcaps
from softgrad.backends.numba_cuda.rows import at_row, walk
from softgrad.backends.numba_cuda.sums import Sum, share, sums
from softgrad.backends.numba_cuda.teams import Step, team


def cross_entropy_options(T: str, TT: str, real: str, regime: Regime) -> Any:
    """The kernel; TT is the type of probabilities."""
    GAPS, RESULT, RESULT_AFTER_LOSS = Step(walk=3, number=4), Step(walk=3), Step(walk=4)
    group, steps = team(regime, real), walk(T, real, regime, "nowhere", chunks=1)
    row, end, speaks, all_sum = group.row, group.end, group.speaks, group.all_sum
    turns, class_of, add_own, NUMBERS = steps.turns, steps.class_of, steps.add_own, steps.NUMBERS
    E, S, L, rows = exponentials(real), sums(real), loss_rows(T, TT, real, regime), steps.spans_of(T)
    exp, shift_to, value, factor = E.exp, E.shift_to, S.value, S.factor
    begin, read, load_masses, agree = L.begin, L.read, L.load_masses, L.agree
    span, load, store, slope = rows.span, rows.load, rows.store, softcaps(real).slope
    put_loss = put_per_row("double" if T == "double" else "float")
    Real = E.F.Real
    ZERO, HALF, TWO, NAN = Real(0), Real(0.5), Real(2), Real(np.nan)
    NO_LOSS, HALF_LOSS, NAN_LOSS = np.float64(0), np.float64(0.5), np.float64(np.nan)

    @device
    def cross_entropy_options(a, cut):
        r = row(cut)
        present = r < a.shape.rows
        at = at_row(select(present, r, 0), a.shape)
        classes = select(present, a.shape.classes, 0)
        x, d, z = cuda.local.array(NUMBERS, Real), cuda.local.array(NUMBERS, Real), cuda.local.array(NUMBERS, Real)

        loss = begin(a, at, end(cut, classes))
        of = agree(loss, a, cut, classes)
        charge, h, t, cap = loss.charge, loss.masses.h, loss.masses.t, loss.cap
        dead = charge.fate == DEAD
        broken = (charge.fate == BAD) | ((charge.fate == COUNTS) & (of.finite == False))  # noqa: E712

        result = RESULT
        if a.loss.data != 0:
            result = RESULT_AFTER_LOSS
            gaps = Sum(ZERO, ZERO)
            for turn in range(turns(a.shape.classes, cut, GAPS)):
                j = class_of(turn, cut)
                read(loss, j, x)
                load_masses(loss.masses, j, d)
                for n in range(NUMBERS):
                    # 0 · ∞ = 0.
                    half = HALF * of.m - HALF * x[n]
                    d[n] = select(d[n] == ZERO, ZERO, d[n] * half)
                gaps = add_own(gaps, d, 0)
            gaps = all_sum(gaps, cut, GAPS)
            l, lse, zeta = np.float64(of.l), np.float64(of.lse), np.float64(charge.zeta)
            half = np.float64(value(gaps)) + HALF_LOSS * (np.float64(of.spread) * l)
            at_target = np.float64(h) * (half_gap(of.m, of.z_t) + HALF_LOSS * l)
            half = half + select(h == ZERO, NO_LOSS, at_target)
            half = half + select(zeta == NO_LOSS, NO_LOSS, HALF_LOSS * (zeta * lse * lse))
            half = select(dead, NO_LOSS, select(broken, NAN_LOSS, half))
            put_loss(a.loss, at, a.summed, half, present & speaks(cut))
        if a.grad.data != 0:
            grad = span(a.grad, at, end(cut, classes))
            shift = shift_to(select(of.finite, of.m, ZERO))
            but_h, scale = of.spread + TWO * charge.zeta * of.lse, value(charge.scale)
            all_ = factor(scale * (h + but_h), of.s)
            all_but_h, only_h = factor(scale * but_h, of.s), factor(scale * h, of.s)
            at_t = share(all_but_h, of.e_t) - share(only_h, value(of.rest_t))
            for turn in range(turns(a.shape.classes, cut, result)):
                j = class_of(turn, cut)
                read(loss, j, x)
                load_masses(loss.masses, j, d)
                if cap != ZERO:
                    load(loss.z, j, ZERO, z, 0)
                for n in range(NUMBERS):
                    e = exp(shift, x[n])
                    g = select(j + n == t, at_t, share(all_, e))
                    g = g - select(d[n] == ZERO, ZERO, scale * d[n])
                    if cap != ZERO:
                        g = g * slope(cap, z[n])
                    x[n] = select(dead, ZERO, select(broken, NAN, g))
                store(grad, j, x)

    return cross_entropy_options
