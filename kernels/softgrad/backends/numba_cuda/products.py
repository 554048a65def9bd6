"""Jacobian products: K tangents for one read of the point.

    v, out   (K, rows, C)      point   (rows, C): logits, or the softmax (its logarithm, for the log_ pair)

    softmax        p (u − Σ p u), u = v − v[k], k the first largest class: JVP and VJP, for J is symmetric
    log_jvp        u − Σ p u
    log_vjp        v − p Σ v

Tangents are carried divided by a power of two, the unit of their row, so that products with lifted exponentials stay in
range.  They are read from memory at each walk: what was read once is in the caches of the multiprocessor.
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from softgrad.backends.cuda.regimes import Regime
from softgrad.backends.numba_cuda.arguments import Strided
from softgrad.backends.numba_cuda.exponential import exponentials
from softgrad.backends.numba_cuda.machine import device, select
from softgrad.backends.numba_cuda.rows import ONE_BY_ONE, SIZES, Place, at_row, spans, walk
from softgrad.backends.numba_cuda.sums import Sum, add, sums, times, tree_sum
from softgrad.backends.numba_cuda.teams import NOWHERE, SumAndFirst, nan_max, team


def products(mode: str, logits: str, T: str, TV: str, real: str, regime: Regime, place: Place) -> Any:
    """The kernel; `mode`: SOFTMAX_PRODUCT, LOG_JVP or LOG_VJP; `logits`: whether the point is, "true" or "false"."""
    LOGITS, LOG_JVP, LOG_VJP = logits == "true", mode == "LOG_JVP", mode == "LOG_VJP"
    SOFTMAX_PRODUCT = mode == "SOFTMAX_PRODUCT"
    AS_IT_IS = SOFTMAX_PRODUCT and not LOGITS
    # A class of probability 0 adds nothing to Σ p u, even where the tangent is NaN; a given probability is taken as it
    # is.
    SKIPS = not LOG_VJP and (LOGITS or LOG_JVP)
    steps, group = walk(T, real, regime, place, ONE_BY_ONE if real == "double" else None), team(regime, real)
    WIDTH, STEP, chunks, held = steps.WIDTH, steps.STEP, steps.chunks, steps.held
    KEEPS, IN_SHARED, APART, HELD = steps.KEEPS, steps.IN_SHARED, steps.APART, steps.HELD
    lane, row, all_largest, all_sum, all_found = (
        group.lane, group.row, group.all_largest, group.all_sum, group.all_sum_and_first
    )  # fmt: skip
    E, S = exponentials(real), sums(real)
    exp, shift_to, unit_for, is_finite = E.exp, E.shift_to, E.unit_for, E.is_finite
    value, factor, factor_of = S.value, S.factor, S.factor_of
    points, tangents, results = spans(T, real, WIDTH, APART), spans(TV, real, WIDTH), spans(T, real, WIDTH)
    point_span, load_point, store_out = points.span, points.load, results.store
    tangent_span, load_tangent, get_tangent = tangents.span, tangents.load, tangents.get
    tree, tree_of_chunk, SIZE_V, SIZE_OUT = tree_sum(WIDTH, APART), tree_sum(WIDTH), SIZES[TV], SIZES[T]
    Real = E.F.Real
    ZERO, ONE, INFINITY, NAN, LIFTED_ONE = Real(0), Real(1), Real(np.inf), Real(np.nan), Real(2.0**E.F.LIFT)
    DROP = Real(0.25 * E.F.NEAR_DROP)

    @device
    def exponential(shift, x):
        if AS_IT_IS:
            # Padding is −inf, and no probability: it must come out as 0.
            return select(x == -INFINITY, ZERO, x * LIFTED_ONE)
        return exp(shift, x)

    @device
    def read_exponentials(point, shift, j, x, i):
        load_point(point, j, -INFINITY, x, i)
        for n in range(WIDTH):
            x[i + n * APART] = exponential(shift, x[i + n * APART])

    @device
    def read_u(v, v_k, j, u):
        load_tangent(v, j, v_k, u, 0)
        for n in range(WIDTH):
            u[n] = u[n] - v_k

    def products(a):
        r = row()
        present = r < a.shape.rows
        at = at_row(select(present, r, 0), a.shape)
        classes = a.shape.classes
        point = point_span(a.point, at, a.shape, present)
        first = lane() * WIDTH

        x = cuda.local.array(HELD, Real)
        if IN_SHARED:
            x = cuda.shared.array(0, Real)
        u = cuda.local.array(WIDTH, Real)
        m = -INFINITY
        for c in range(chunks(classes)):
            i = held(c)
            load_point(point, first + c * STEP, -INFINITY, x, i)
            for n in range(WIDTH):
                m = nan_max(m, x[i + n * APART])
        m = all_largest(m)
        if LOGITS:
            ordinary = is_finite(m)
            shift = shift_to(select(ordinary, m, ZERO))
        else:
            ordinary = m == m
            shift = shift_to(ZERO)

        s, k = Sum(ZERO, ZERO), NOWHERE
        for c in range(chunks(classes)):
            i, j = held(c), first + c * STEP
            if not KEEPS:
                load_point(point, j, -INFINITY, x, i)
            for n in range(WIDTH):
                is_largest = (x[i + n * APART] == m) & (j + n < classes)
                k = select(is_largest & (j + n < k), j + n, k)
                x[i + n * APART] = exponential(shift, x[i + n * APART])
            s = add(s, tree(x, i))
        found = all_found(SumAndFirst(s, k))
        k = select(found.first < classes, found.first, 0)
        s = found.sum
        if not LOGITS:
            s = Sum(LIFTED_ONE, ZERO)

        for tangent in range(a.tangents):
            v_data = a.v.data + tangent * a.v_step * SIZE_V
            out_data = a.out.data + tangent * a.out_step * SIZE_OUT
            v = tangent_span(Strided(v_data, a.v.outer, a.v.classes, a.v.inner), at, a.shape, present)
            out = point_span(Strided(out_data, a.out.outer, a.out.classes, a.out.inner), at, a.shape, present)
            v_k = ZERO
            if not LOG_VJP:
                v_k = get_tangent(v, k, present)

            largest = ZERO
            for c in range(chunks(classes)):
                i, j = held(c), first + c * STEP
                if not KEEPS:
                    read_exponentials(point, shift, j, x, i)
                read_u(v, v_k, j, u)
                for n in range(WIDTH):
                    counts = abs(u[n]) > largest
                    if SKIPS:
                        counts = counts & (x[i + n * APART] != ZERO)
                    largest = select(counts, abs(u[n]), largest)
            unit = unit_for(all_largest(largest))
            inverse = ONE / unit

            total = Sum(ZERO, ZERO)
            for c in range(chunks(classes)):
                i, j = held(c), first + c * STEP
                if not KEEPS:
                    read_exponentials(point, shift, j, x, i)
                read_u(v, v_k, j, u)
                for n in range(WIDTH):
                    term = u[n] * inverse
                    if not LOG_VJP:
                        term = x[i + n * APART] * term
                    if SKIPS:
                        term = select(x[i + n * APART] == ZERO, ZERO, term)
                    u[n] = term
                total = add(total, tree_of_chunk(u, 0))
            total = all_sum(total)
            # Every thread has read v[k]: a result may now take its place.
            broken = select(ordinary, ZERO, NAN)

            if LOG_VJP:
                # p Σ v, where Σ v may leave the range though the product does not.
                mass, mass_in_units = factor_of(Sum(total.high * unit, total.low * unit), s), factor_of(total, s)
                in_range = is_finite(mass.first)
                for c in range(chunks(classes)):
                    i, j = held(c), first + c * STEP
                    if not KEEPS:
                        read_exponentials(point, shift, j, x, i)
                    load_tangent(v, j, ZERO, u, 0)
                    for n in range(WIDTH):
                        p_sum = select(
                            in_range, times(mass, x[i + n * APART]), times(mass_in_units, x[i + n * APART]) * unit
                        )
                        u[n] = (u[n] - p_sum) + broken
                    store_out(out, j, u, 0, present)
            else:
                # Where u is 0, as at k, the mean is all there is: it keeps the digits that it has as a lifted number.
                lifted_mean = value(total) / (value(s) * DROP)
                mean = lifted_mean * DROP
                over_s = factor(unit, s)
                for c in range(chunks(classes)):
                    i, j = held(c), first + c * STEP
                    if not KEEPS:
                        read_exponentials(point, shift, j, x, i)
                    read_u(v, v_k, j, u)
                    for n in range(WIDTH):
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
                    store_out(out, j, u, 0, present)

    return products
