"""A row of a cross-entropy with any option: target masses, the softcap, and the sums that loss and derivatives share.

    h        mass on the integer target t, w_t (1 − ε); 0 for probabilities
    D_j      the masses spread over all classes: w_j ε / C, or w_j (T_j (1 − ε) + ε / C)
    F        h + ΣD + 2 ζ lse, what p is multiplied by in the gradient

The row is read again at each walk, from the caches as far as they reach.
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from softgrad.backends.cuda.regimes import Regime
from softgrad.backends.numba_cuda.exponential import exponentials
from softgrad.backends.numba_cuda.losses import charges
from softgrad.backends.numba_cuda.machine import device, fused, log1p, next_address, select, some, tanh
from softgrad.backends.numba_cuda.machine import exp as plain_exp
from softgrad.backends.numba_cuda.rows import spans, stored, walk
from softgrad.backends.numba_cuda.sums import Sum, add, sums, tree_sum
from softgrad.backends.numba_cuda.teams import NOWHERE, SumAndCount, SumAndFirst, nan_max, team


class Masses(NamedTuple):
    """A row's masses."""

    dense: Any
    keep: Any  # 1 − ε
    smooth: Any  # ε / C
    weight: Any
    t: Any  # −1 for probabilities
    targets: Any
    h: Any


class LossRow(NamedTuple):
    """A row, its options, and what it is charged."""

    z: Any
    cap: Any  # s; 0: none
    charge: Any
    masses: Any


class Agreed(NamedTuple):
    """m, the sums of e, and what follows from them, once a team has agreed."""

    m: Any
    z_t: Any
    l: Any
    lse: Any
    s: Any
    rest_t: Any
    e_t: Any
    spread: Any  # ΣD
    k: Any  # the first largest class
    finite: Any


@cache
def softcaps(real: str) -> SimpleNamespace:
    """z' = s tanh(z / s), and its derivatives at z: `capped`, `slope`, `curvature`, device functions of (s, z)."""
    Real = exponentials(real).F.Real
    ZERO, ONE, TWO, FOUR, TINY = Real(0), Real(1), Real(2), Real(4), Real(1e-9)

    @device
    def capped(s, z):
        # −inf stays masked, +inf stays: its row is NaN.
        capped = z
        if s != ZERO:
            finite = z - z == ZERO
            if some(finite):
                x = z / s
                # tanh(x) = x to the last digit, and z / s may have lost digits below the smallest normal number.
                capped = select((abs(x) < TINY) | (finite == False), z, s * tanh(x))  # noqa: E712
        return capped

    @device
    def slope(s, z):
        # 4q / (1 + q)², q = exp(−2 |z / s|): it keeps its digits where 1 − tanh² has none, and those that
        # rounding z / s would cost it where that is large.
        slope = ZERO
        finite = z - z == ZERO
        if some(finite):
            x = abs(z) / s
            lost = fused(-x, s, abs(z)) / s
            q = plain_exp(-TWO * x)
            q = q - select(x - x == ZERO, TWO * lost * q, ZERO)
            slope = select(finite, FOUR * q / ((ONE + q) * (ONE + q)), ZERO)
        return slope

    @device
    def curvature(s, z):
        return slope(s, z) * tanh(z / s) * (-TWO / s)

    return SimpleNamespace(capped=capped, slope=slope, curvature=curvature)


@cache
def loss_rows(T: str, TT: str, real: str, regime: Regime, width: int | None = None) -> SimpleNamespace:
    """T the logits' type, TT that of probabilities: the device functions `begin`, `read`, `load_masses`, `agree`."""
    steps, group = walk(T, real, regime, "nowhere", width), team(regime, real)
    WIDTH, STEP, chunks = steps.WIDTH, steps.STEP, steps.chunks
    lane, all_largest, all_rest, all_masses = (
        group.lane, group.all_largest, group.all_sum_and_count, group.all_sum_and_first
    )  # fmt: skip
    E, S, C, P = exponentials(real), sums(real), charges(real), softcaps(real)
    exp, shift_to, is_finite, value, charge_of = E.exp, E.shift_to, E.is_finite, S.value, C.charge
    number, capped = stored(real, real), P.capped
    load_number, SIZE = number.load, number.SIZE
    logits, probabilities = spans(T, real, WIDTH), spans(TT, real, WIDTH)
    span, get, load = logits.span, logits.get, logits.load
    target_span, load_targets, tree = probabilities.span, probabilities.load, tree_sum(WIDTH)
    Real = E.F.Real
    ZERO, ONE, INFINITY = Real(0), Real(1), Real(np.inf)

    @device
    def begin(a, at, present):
        charge = charge_of(a, at, present)
        keep = ONE - Real(a.smoothing)
        smooth = ZERO
        if a.shape.classes > 0:
            smooth = Real(a.smoothing) / Real(a.shape.classes)
        if a.dense != 0:
            targets = target_span(a.targets, at, a.shape, present)
            masses = Masses(a.dense, keep, smooth, a.weight, charge.t - 1, targets, ZERO * charge.weight)
        else:
            targets = target_span(a.z, at, a.shape, present)
            masses = Masses(a.dense, keep, smooth, a.weight, charge.t, targets, charge.weight * keep)
        return LossRow(span(a.z, at, a.shape, present), Real(a.softcap), charge, masses)

    @device
    def load_masses(masses, j, d):
        """D_j … D_{j + WIDTH − 1}; 0 beyond the row's end."""
        if masses.dense != 0:
            load_targets(masses.targets, j, ZERO, d, 0)
        else:
            for n in range(WIDTH):
                d[n] = ZERO
        step = masses.weight.classes * SIZE
        at = masses.weight.data + j * step
        for n in range(WIDTH):
            inside = j + n < masses.targets.classes
            d[n] = select(inside, fused(d[n], masses.keep, masses.smooth), ZERO)
            if masses.weight.data != 0:
                d[n] = d[n] * load_number(at, inside)
                at = next_address(at, step)

    @device
    def read(loss, j, x):
        """Softcapped logits."""
        load(loss.z, j, -INFINITY, x, 0)
        for n in range(WIDTH):
            x[n] = capped(loss.cap, x[n])

    @device
    def agree(loss, classes):
        x = cuda.local.array(WIDTH, Real)
        d = cuda.local.array(WIDTH, Real)
        t, first = loss.masses.t, lane() * WIDTH
        m = -INFINITY
        for c in range(chunks(classes)):
            read(loss, first + c * STEP, x)
            for n in range(WIDTH):
                m = nan_max(m, x[n])
        m = all_largest(m)
        finite = is_finite(m)
        shift = shift_to(select(finite, m, ZERO))
        e_k = exp(shift, select(finite, m, ZERO))
        has_t = (t >= 0) & (t < loss.z.classes)
        z_t = select(has_t, capped(loss.cap, get(loss.z, t, has_t)), -INFINITY)
        e_t = select(has_t, exp(shift, z_t), ZERO)

        # Neither t nor the largest classes are in this sum: both are added where they belong, never taken away.
        rest, count = Sum(ZERO, ZERO), np.int64(0)
        spread, k = Sum(ZERO, ZERO), NOWHERE
        for c in range(chunks(classes)):
            j = first + c * STEP
            read(loss, j, x)
            load_masses(loss.masses, j, d)
            spread = add(spread, tree(d, 0))
            for n in range(WIDTH):
                is_largest, is_t = (x[n] == m) & (j + n < classes), j + n == t
                k = select(is_largest & (j + n < k), j + n, k)
                count += is_largest & (j + n != t)
                x[n] = select(is_largest | is_t, ZERO, exp(shift, x[n]))
            rest = add(rest, tree(x, 0))
        others = all_rest(SumAndCount(rest, count))
        of_masses = all_masses(SumAndFirst(spread, k))
        rest, count = others.sum, Real(others.count)

        rest_t = add(rest, count * e_k)
        t_is_largest = has_t & (z_t == m)
        rest_k = add(rest, select(t_is_largest, count, count - ONE) * e_k)
        rest_k = add(rest_k, select(t_is_largest, ZERO, e_t))
        l = log1p(value(rest_k) / e_k)
        k = select(of_masses.first < classes, of_masses.first, 0)
        return Agreed(m, z_t, l, m + l, add(rest_t, e_t), rest_t, e_t, value(of_masses.sum), k, finite)

    return SimpleNamespace(begin=begin, read=read, load_masses=load_masses, agree=agree)
