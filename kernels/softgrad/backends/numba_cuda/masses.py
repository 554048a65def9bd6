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
from softgrad.backends.numba_cuda.formats import stored
from softgrad.backends.numba_cuda.losses import charges
from softgrad.backends.numba_cuda.machine import device, fused, log1p, nan_max, next_address, select, some, tanh
from softgrad.backends.numba_cuda.machine import exp as plain_exp
from softgrad.backends.numba_cuda.rows import walk
from softgrad.backends.numba_cuda.sums import Sum, add, sums
from softgrad.backends.numba_cuda.teams import NOWHERE, Step, SumAndCount, SumAndFirst, team


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


# Of these kernels' walks, and the numbers found in them, the first; each class is read and computed alone, for there is
# much to remember of it.
LARGEST, TARGET = Step(walk=1, number=0), Step(walk=1, number=1)
REST, MASSES = Step(walk=2, number=2), Step(walk=2, number=3)


@cache
def loss_rows(T: str, TT: str, real: str, regime: Regime) -> SimpleNamespace:
    """T the logits' type, TT that of probabilities: the device functions `begin`, `read`, `load_masses`, `agree`."""
    group, steps = team(regime, real), walk(T, real, regime, "nowhere", chunks=1)
    all_largest, all_rest, all_masses, reads, kept = (
        group.all_largest, group.all_sum_and_count, group.all_sum_and_first, group.reads, group.kept
    )  # fmt: skip
    turns, class_of, add_own, NUMBERS = steps.turns, steps.class_of, steps.add_own, steps.NUMBERS
    E, S, C, P = exponentials(real), sums(real), charges(real), softcaps(real)
    exp, shift_to, is_finite, value, charge_of, weigh = (
        E.exp, E.shift_to, E.is_finite, S.value, C.charge, C.weigh
    )  # fmt: skip
    number, capped = stored(real, real), P.capped
    load_number, SIZE = number.load, number.SIZE
    logits, probabilities = steps.spans_of(T), steps.spans_of(TT)
    span, get, load, target_span, load_targets = (
        logits.span, logits.get, logits.load, probabilities.span, probabilities.load
    )  # fmt: skip
    Real = E.F.Real
    ZERO, ONE, INFINITY = Real(0), Real(1), Real(np.inf)

    @device
    def begin(a, at, classes):
        charge = weigh(charge_of(a, at), a, at)
        keep = ONE - Real(a.smoothing)
        smooth = ZERO
        if a.shape.classes > 0:
            smooth = Real(a.smoothing) / Real(a.shape.classes)
        if a.dense != 0:
            targets = target_span(a.targets, at, classes)
            masses = Masses(a.dense, keep, smooth, a.weight, charge.t - 1, targets, ZERO * charge.weight)
        else:
            targets = target_span(a.z, at, classes)
            masses = Masses(a.dense, keep, smooth, a.weight, charge.t, targets, charge.weight * keep)
        return LossRow(span(a.z, at, classes), Real(a.softcap), charge, masses)

    @device
    def load_masses(masses, j, d):
        """D of a turn; 0 beyond the row's end."""
        if masses.dense != 0:
            load_targets(masses.targets, j, ZERO, d, 0)
        else:
            for n in range(NUMBERS):
                d[n] = ZERO
        step = masses.weight.classes * SIZE
        at = masses.weight.data + j * step
        for n in range(NUMBERS):
            inside = j + n < masses.targets.classes
            d[n] = select(inside, fused(d[n], masses.keep, masses.smooth), ZERO)
            if masses.weight.data != 0:
                d[n] = d[n] * load_number(at, inside)
                at = next_address(at, step)

    @device
    def read(loss, j, x):
        """Softcapped logits."""
        load(loss.z, j, -INFINITY, x, 0)
        for n in range(NUMBERS):
            x[n] = capped(loss.cap, x[n])

    @device
    def agree(loss, a, cut, classes):
        x, d = cuda.local.array(NUMBERS, Real), cuda.local.array(NUMBERS, Real)
        t = loss.masses.t
        m = -INFINITY
        for turn in range(turns(a.shape.classes, cut, LARGEST)):
            read(loss, class_of(turn, cut), x)
            for n in range(NUMBERS):
                m = nan_max(m, x[n])
        m = all_largest(m, cut, LARGEST)
        finite = is_finite(m)
        shift = shift_to(select(finite, m, ZERO))
        e_k = exp(shift, select(finite, m, ZERO))
        has_t = (t >= 0) & (t < classes)
        z_t = kept(capped(loss.cap, get(loss.z, t, has_t & reads(cut, TARGET))), cut, TARGET)
        z_t = select(has_t, z_t, -INFINITY)
        e_t = select(has_t, exp(shift, z_t), ZERO)

        # Neither t nor the largest classes are in this sum: both are added where they belong, never taken away.
        others, count = Sum(ZERO, ZERO), np.int64(0)
        spread, k = Sum(ZERO, ZERO), NOWHERE
        for turn in range(turns(a.shape.classes, cut, REST)):
            j = class_of(turn, cut)
            read(loss, j, x)
            load_masses(loss.masses, j, d)
            spread = add_own(spread, d, 0)
            for n in range(NUMBERS):
                here = j + n
                is_largest, is_t = (x[n] == m) & (here < loss.z.classes), here == t
                k = select(is_largest & (here < k), here, k)
                count += is_largest & (here != t)
                x[n] = select(is_largest | is_t, ZERO, exp(shift, x[n]))
            others = add_own(others, x, 0)
        rest = all_rest(SumAndCount(others, count), cut, REST)
        of_masses = all_masses(SumAndFirst(spread, k), cut, MASSES)
        others, count = rest.sum, Real(rest.count)

        rest_t = add(others, count * e_k)
        t_is_largest = has_t & (z_t == m)
        rest_k = add(others, select(t_is_largest, count, count - ONE) * e_k)
        rest_k = add(rest_k, select(t_is_largest, ZERO, e_t))
        l = log1p(value(rest_k) / e_k)
        k = select(of_masses.first < classes, of_masses.first, 0)
        return Agreed(m, z_t, l, m + l, add(rest_t, e_t), rest_t, e_t, value(of_masses.sum), k, finite)

    return SimpleNamespace(begin=begin, read=read, load_masses=load_masses, agree=agree)
