"""Jacobian products: K tangents for one read of the point.

    v, out   (K, rows, C)      point   (rows, C): logits, or the softmax (its logarithm, for the log_ pair)

    softmax        p (u − Σ p u), u = v − v[k], k the first largest class: JVP and VJP, for J is symmetric
    log_jvp        u − Σ p u
    log_vjp        v − p Σ v

Tangents are carried divided by a power of two, the unit of their row, so that products with lifted exponentials stay in
range.  They are read again at each walk: what was read once is in the caches of the multiprocessor.
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from softgrad.backends.cuda.regimes import Regime
from softgrad.backends.numba_cuda.arguments import Strided
from softgrad.backends.numba_cuda.exponential import FORMATS, exponentials
from softgrad.backends.numba_cuda.formats import SIZES
from softgrad.backends.numba_cuda.machine import device, nan_max, select
from softgrad.backends.numba_cuda.rows import Place, at_row, chunks_in_a_turn, walk
from softgrad.backends.numba_cuda.sums import Sum, sums, times
from softgrad.backends.numba_cuda.teams import NOWHERE, Step, SumAndFirst, team


def products(mode: str, logits: str, T: str, TV: str, real: str, regime: Regime, place: Place) -> Any:
    """The kernel; `mode`: SOFTMAX_PRODUCT, LOG_JVP or LOG_VJP; `logits`: whether the point is, "true" or "false"."""
    LOGITS, LOG_JVP, LOG_VJP = logits == "true", mode == "LOG_JVP", mode == "LOG_VJP"
    LOGARITHMS = not LOGITS and mode != "SOFTMAX_PRODUCT"
    # A class of probability 0 adds nothing to Σ p u, even where the tangent is NaN; a given probability is taken as it
    # is.
    SKIPS = not LOG_VJP and (LOGITS or LOG_JVP)
    LARGEST, SUM, V_K = Step(walk=1, number=0), Step(walk=2, number=1), Step(walk=2, number=2)
    # Double tangents are, until v[k] is taken from them.
    WIDE = "double" if TV == "double" else real
    UNIT, TOTAL, RESULT = Step(walk=3, number=3), Step(walk=4, number=4), Step(walk=5)
    # Where the point is read again too, two arrays share the registers of a turn.
    chunks = max(1, chunks_in_a_turn(T, real, regime, place) // 2) if place == "nowhere" else None
    group, steps = team(regime, real), walk(T, real, regime, place, chunks)
    row, end, reads, kept, all_largest, all_sum, all_found = (
        group.row, group.end, group.reads, team(regime, WIDE).kept,
        group.all_largest, group.all_sum, group.all_sum_and_first,
    )  # fmt: skip
    turns, class_of, offset, held, add_turn, add_own = (
        steps.turns, steps.class_of, steps.offset, steps.held, steps.add_turn, steps.add_own
    )  # fmt: skip
    KEEPS, IN_SHARED, APART, NUMBERS = steps.KEEPS, steps.IN_SHARED, steps.APART, steps.NUMBERS
    E, S, points, tangents = exponentials(real), sums(real), steps.spans_of(T, APART), steps.spans_of(TV, 1, WIDE)
    exp, shift_to, unit_for, is_finite = E.exp, E.shift_to, E.unit_for, E.is_finite
    value, factor, factor_of = S.value, S.factor, S.factor_of
    point_span, load_point, store = points.span, points.load, points.store
    tangent_span, load_tangent, get_tangent, SIZE_V, SIZE_OUT = (
        tangents.span, tangents.load, tangents.get, SIZES[TV], SIZES[T]
    )  # fmt: skip
    Real, Wide = E.F.Real, FORMATS[WIDE].Real
    ZERO, ONE, INFINITY, NAN, LIFTED_ONE = Real(0), Real(1), Real(np.inf), Real(np.nan), Real(2.0**E.F.LIFT)
    DROP = Real(0.25 * E.F.NEAR_DROP)

    @device
    def exponential(shift, x):
        if LOGITS or LOGARITHMS:
            return exp(shift, x)
        # Padding is −inf, and no probability: it must come out as 0.
        return select(x == -INFINITY, ZERO, x * LIFTED_ONE)

    @device
    def read_exponentials(point, shift, j, x, i):
        if not KEEPS:
            load_point(point, j, -INFINITY, x, i)
            for n in range(NUMBERS):
                x[i + n * APART] = exponential(shift, x[i + n * APART])

    @device
    def read_u(v, v_k, j, u):
        w = cuda.local.array(NUMBERS, Wide)
        load_tangent(v, j, v_k, w, 0)
        for n in range(NUMBERS):
            u[n] = Real(w[n] - v_k)

    @device
    def products(a, cut):
        r = row(cut)
        present = r < a.shape.rows
        at = at_row(select(present, r, 0), a.shape)
        classes = select(present, a.shape.classes, 0)
        until = end(cut, classes)
        point = point_span(a.point, at, until)

        x, u = cuda.local.array(NUMBERS, Real), cuda.local.array(NUMBERS, Real)
        if IN_SHARED:
            x = cuda.shared.array(0, Real)
        m = -INFINITY
        for turn in range(turns(a.shape.classes, cut, LARGEST)):
            i = held(turn)
            load_point(point, class_of(turn, cut), -INFINITY, x, i)
            for n in range(NUMBERS):
                m = nan_max(m, x[i + n * APART])
        m = all_largest(m, cut, LARGEST)
        if LOGITS:
            ordinary = is_finite(m)
            shift = shift_to(select(ordinary, m, ZERO))
        else:
            ordinary = m == m
            shift = shift_to(ZERO)

        s, k = Sum(ZERO, ZERO), NOWHERE
        for turn in range(turns(a.shape.classes, cut, SUM)):
            i, j = held(turn), class_of(turn, cut)
            if not KEEPS:
                load_point(point, j, -INFINITY, x, i)
            for n in range(NUMBERS):
                here = j + offset(n)
                k = select((x[i + n * APART] == m) & (here < k) & (here < until), here, k)
                x[i + n * APART] = exponential(shift, x[i + n * APART])
            s = add_turn(s, x, i)
        found = all_found(SumAndFirst(s, k), cut, SUM)
        k = select(found.first < classes, found.first, 0)
        s = found.sum
        if not LOGITS:
            s = Sum(LIFTED_ONE, ZERO)

        for tangent in range(a.tangents):
            v_row = Strided(a.v.data + tangent * a.v_step * SIZE_V, a.v.outer, a.v.classes, a.v.inner)
            out_row = Strided(a.out.data + tangent * a.out_step * SIZE_OUT, a.out.outer, a.out.classes, a.out.inner)
            v, out = tangent_span(v_row, at, until), point_span(out_row, at, until)
            v_k = Wide(0)
            if not LOG_VJP:
                v_k = kept(get_tangent(v, k, (classes > 0) & reads(cut, V_K)), cut, V_K)

            largest = ZERO
            for turn in range(turns(a.shape.classes, cut, UNIT)):
                i, j = held(turn), class_of(turn, cut)
                read_exponentials(point, shift, j, x, i)
                read_u(v, v_k, j, u)
                for n in range(NUMBERS):
                    counts = abs(u[n]) > largest
                    if SKIPS:
                        counts = counts & (x[i + n * APART] != ZERO)
                    largest = select(counts, abs(u[n]), largest)
            unit = unit_for(all_largest(largest, cut, UNIT))
            inverse = ONE / unit

            total = Sum(ZERO, ZERO)
            for turn in range(turns(a.shape.classes, cut, TOTAL)):
                i, j = held(turn), class_of(turn, cut)
                read_exponentials(point, shift, j, x, i)
                read_u(v, v_k, j, u)
                for n in range(NUMBERS):
                    term = u[n] * inverse
                    if not LOG_VJP:
                        term = x[i + n * APART] * term
                    if SKIPS:
                        term = select(x[i + n * APART] == ZERO, ZERO, term)
                    u[n] = term
                total = add_own(total, u, 0)
            total = all_sum(total, cut, TOTAL)
            # Every thread has read v[k]: a result may now take its place.
            broken = select(ordinary, ZERO, NAN)

            if LOG_VJP:
                # p Σ v, where Σ v may leave the range though the product does not.
                mass, mass_in_units = factor_of(Sum(total.high * unit, total.low * unit), s), factor_of(total, s)
                in_range = is_finite(mass.first)
                for turn in range(turns(a.shape.classes, cut, RESULT)):
                    i, j = held(turn), class_of(turn, cut)
                    read_exponentials(point, shift, j, x, i)
                    read_u(v, v_k, j, u)
                    for n in range(NUMBERS):
                        e = x[i + n * APART]
                        p_sum = select(in_range, times(mass, e), times(mass_in_units, e) * unit)
                        u[n] = (u[n] - p_sum) + broken
                    store(out, j, u)
            else:
                # Where u is 0, as at k, the mean is all there is: it keeps the digits that it has as a lifted number.
                lifted_mean = value(total) / (value(s) * DROP)
                mean = lifted_mean * DROP
                over_s = factor(unit, s)
                for turn in range(turns(a.shape.classes, cut, RESULT)):
                    i, j = held(turn), class_of(turn, cut)
                    read_exponentials(point, shift, j, x, i)
                    read_u(v, v_k, j, u)
                    for n in range(NUMBERS):
                        in_units, e = u[n] * inverse, x[i + n * APART]
                        if LOG_JVP:
                            alone = select(unit < ONE, -mean * unit, -lifted_mean * (unit * DROP))
                            y = select(in_units == ZERO, alone, (in_units - mean) * unit)
                        else:
                            alone = -lifted_mean * (e * DROP)
                            y = times(over_s, select(in_units == ZERO, alone, (in_units - mean) * e))
                            if LOGITS:
                                y = select(e == ZERO, ZERO, y)
                        u[n] = y + broken
                    store(out, j, u)

    return products
