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
from softgrad.backends.numba_cuda.losses import half_gap, put_per_row
from softgrad.backends.numba_cuda.machine import select
from softgrad.backends.numba_cuda.masses import loss_rows, softcaps
from softgrad.backends.numba_cuda.rows import at_row, spans, walk
from softgrad.backends.numba_cuda.sums import Sum, add, sums, times, tree_sum
from softgrad.backends.numba_cuda.teams import team


def cross_entropy_options(T: str, TT: str, real: str, regime: Regime) -> Any:
    """The kernel; TT is the type of probabilities."""
    steps, group = walk(T, real, regime, "nowhere"), team(regime, real)
    WIDTH, STEP, chunks = steps.WIDTH, steps.STEP, steps.chunks
    lane, row, all_sum = group.lane, group.row, group.all_sum
    E, S, L = exponentials(real), sums(real), loss_rows(T, TT, real, regime)
    exp, shift_to, value, factor = E.exp, E.shift_to, S.value, S.factor
    begin, read, load_masses, agree = L.begin, L.read, L.load_masses, L.agree
    slope, put_loss = softcaps(real).slope, put_per_row("double" if T == "double" else "float")
    rows, tree = spans(T, real, WIDTH), tree_sum(WIDTH)
    span, load, store = rows.span, rows.load, rows.store
    Real = E.F.Real
    ZERO, HALF, TWO, NAN = Real(0), Real(0.5), Real(2), Real(np.nan)
    NO_LOSS, HALF_LOSS, NAN_LOSS = np.float64(0), np.float64(0.5), np.float64(np.nan)

    def cross_entropy_options(a):
        r = row()
        present = r < a.shape.rows
        at = at_row(select(present, r, 0), a.shape)
        classes = a.shape.classes
        first = lane() * WIDTH
        x = cuda.local.array(WIDTH, Real)
        d = cuda.local.array(WIDTH, Real)
        z = cuda.local.array(WIDTH, Real)

        loss = begin(a, at, present)
        of = agree(loss, classes)
        charge, h, t, cap = loss.charge, loss.masses.h, loss.masses.t, loss.cap
        dead = charge.dead
        broken = charge.bad | ((dead == False) & (of.finite == False))  # noqa: E712

        if a.loss.data != 0:
            gaps = Sum(ZERO, ZERO)
            for c in range(chunks(classes)):
                j = first + c * STEP
                read(loss, j, x)
                load_masses(loss.masses, j, d)
                for n in range(WIDTH):
                    # 0 · ∞ = 0.
                    d[n] = select(d[n] == ZERO, ZERO, d[n] * (HALF * of.m - HALF * x[n]))
                gaps = add(gaps, tree(d, 0))
            gaps = all_sum(gaps)
            l, lse, zeta = np.float64(of.l), np.float64(of.lse), np.float64(charge.zeta)
            half = np.float64(value(gaps)) + HALF_LOSS * (np.float64(of.spread) * l)
            at_target = np.float64(h) * (half_gap(of.m, of.z_t) + HALF_LOSS * l)
            half = half + select(h == ZERO, NO_LOSS, at_target)
            half = half + select(zeta == NO_LOSS, NO_LOSS, HALF_LOSS * (zeta * lse * lse))
            half = select(dead, NO_LOSS, select(broken, NAN_LOSS, half))
            put_loss(a.loss, at, a.summed, half, present & (lane() == 0))
        if a.grad.data != 0:
            grad = span(a.grad, at, a.shape, present)
            shift = shift_to(select(of.finite, of.m, ZERO))
            but_h = of.spread + TWO * charge.zeta * of.lse
            scale = value(charge.scale)
            all_, all_but_h, only_h = (
                factor(scale * (h + but_h), of.s),
                factor(scale * but_h, of.s),
                factor(scale * h, of.s),
            )
            at_t = times(all_but_h, of.e_t) - times(only_h, value(of.rest_t))
            for c in range(chunks(classes)):
                j = first + c * STEP
                read(loss, j, x)
                load_masses(loss.masses, j, d)
                if cap != ZERO:
                    load(loss.z, j, ZERO, z, 0)
                for n in range(WIDTH):
                    e = exp(shift, x[n])
                    g = select(j + n == t, at_t, select(e == ZERO, ZERO, times(all_, e)))
                    g = g - select(d[n] == ZERO, ZERO, scale * d[n])
                    if cap != ZERO:
                        g = g * slope(cap, z[n])
                    x[n] = select(dead, ZERO, select(broken, NAN, g))
                store(grad, j, x, 0, present)

    return cross_entropy_options
