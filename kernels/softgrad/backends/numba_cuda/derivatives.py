"""The cross-entropy's directional derivative and its Hessian product, any option, K tangents.

    jvp   ΣW Σ p u − Σ W u + 2 ζ lse (v_ref + Σ p u), u = v − v_ref, ref the integer target, else the first largest
    hvp   p (F (u − Σ p u) + 2 ζ Σ p v), u = v − v[k]; through the cap, g' · curvature · v beside it

Computed in double for every dtype: neither is on anyone's hot path, and no product of large and small factors leaves
double's range.
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
from softgrad.backends.numba_cuda.formats import SIZES
from softgrad.backends.numba_cuda.losses import BAD, COUNTS, DEAD, put_per_row
from softgrad.backends.numba_cuda.machine import device, nan_max, select
from softgrad.backends.numba_cuda.masses import loss_rows, softcaps
from softgrad.backends.numba_cuda.rows import at_row, walk
from softgrad.backends.numba_cuda.sums import Sum, scaled, share, sums, times_power
from softgrad.backends.numba_cuda.teams import Step, team


def derivatives(hessian: str, T: str, TT: str, TV: str, regime: Regime) -> Any:
    """The kernel; `hessian`: "true" or "false"; TT and TV are the types of probabilities and tangents."""
    HESSIAN, real = hessian == "true", "double"
    V_REF, UNIT = Step(walk=2, number=4), Step(walk=3, number=5)
    MOMENT, DRIFT, RESULT = Step(walk=4, number=6), Step(walk=4, number=7), Step(walk=5)
    group, steps = team(regime, real), walk(T, real, regime, "nowhere", chunks=1)
    row, end, reads, kept, speaks, all_largest, all_sum = (
        group.row, group.end, group.reads, group.kept, group.speaks, group.all_largest, group.all_sum
    )  # fmt: skip
    turns, class_of, add_own, NUMBERS = steps.turns, steps.class_of, steps.add_own, steps.NUMBERS
    E, S, L, C = exponentials(real), sums(real), loss_rows(T, TT, real, regime), softcaps(real)
    exp, shift_to, unit_for, value, factor = E.exp, E.shift_to, E.unit_for, S.value, S.factor
    begin, read, load_masses, agree, slope_of, curvature_of = (
        L.begin, L.read, L.load_masses, L.agree, C.slope, C.curvature
    )  # fmt: skip
    computed = "double" if T == "double" else "float"
    put_slope, SIZE_V, SIZE_OUT, SIZE_SLOPE = put_per_row(computed), SIZES[TV], SIZES[T], SIZES[computed]
    rows, tangents = steps.spans_of(T), steps.spans_of(TV)
    span, get, load, store = rows.span, rows.get, rows.load, rows.store
    tangent_span, get_tangent, load_tangent = tangents.span, tangents.get, tangents.load
    ZERO, ONE, HALF, TWO, INFINITY, NAN = map(np.float64, (0, 1, 0.5, 2, np.inf, np.nan))
    DROP = np.float64(0.25 * E.F.NEAR_DROP)

    @device
    def read_u(loss, v, reference, v_ref, j, x, d, z, u):
        """u of a turn; a masked class has none."""
        load_tangent(v, j, ZERO, u, 0)
        if loss.cap != ZERO:
            load(loss.z, j, ZERO, z, 0)
        for n in range(NUMBERS):
            moved = u[n]
            if loss.cap != ZERO:
                moved = moved * slope_of(loss.cap, z[n])
            idle = x[n] == -INFINITY
            if not HESSIAN:
                idle = idle & (d[n] == ZERO)
            u[n] = select((j + n >= v.classes) | (j + n == reference) | idle, ZERO, moved - v_ref)

    @device
    def derivatives(a, cut):
        r = row(cut)
        present = r < a.shape.rows
        at = at_row(select(present, r, 0), a.shape)
        classes = select(present, a.shape.classes, 0)
        until = end(cut, classes)
        x, d = cuda.local.array(NUMBERS, np.float64), cuda.local.array(NUMBERS, np.float64)
        u, z = cuda.local.array(NUMBERS, np.float64), cuda.local.array(NUMBERS, np.float64)

        loss = begin(a, at, until)
        of = agree(loss, a, cut, classes)
        charge, h, t, cap = loss.charge, loss.masses.h, loss.masses.t, loss.cap
        dead = charge.fate == DEAD
        broken = (charge.fate == BAD) | ((charge.fate == COUNTS) & (of.finite == False))  # noqa: E712
        shift = shift_to(select(of.finite, of.m, ZERO))
        reference = of.k
        if not HESSIAN and a.dense == 0:
            reference = charge.t
        zeta, scale = TWO * charge.zeta, value(charge.scale)
        but_h = of.spread + zeta * of.lse

        for tangent in range(a.tangents):
            v_row = Strided(a.v.data + tangent * a.v_step * SIZE_V, a.v.outer, a.v.classes, a.v.inner)
            v = tangent_span(v_row, at, until)
            reads_ref = (classes > 0) & reads(cut, V_REF)
            v_ref = get_tangent(v, reference, reads_ref)
            if cap != ZERO:
                v_ref = v_ref * slope_of(cap, get(loss.z, reference, reads_ref))
            v_ref = kept(v_ref, cut, V_REF)

            largest = ONE  # the unit is no less: v_ref is carried in it too
            for turn in range(turns(a.shape.classes, cut, UNIT)):
                j = class_of(turn, cut)
                read(loss, j, x)
                load_masses(loss.masses, j, d)
                read_u(loss, v, reference, v_ref, j, x, d, z, u)
                for n in range(NUMBERS):
                    largest = select(abs(u[n]) > largest, abs(u[n]), largest)
            unit = unit_for(all_largest(largest, cut, UNIT))
            inverse = ONE / unit

            moment, drift = Sum(ZERO, ZERO), Sum(ZERO, ZERO)
            for turn in range(turns(a.shape.classes, cut, MOMENT)):
                j = class_of(turn, cut)
                read(loss, j, x)
                load_masses(loss.masses, j, d)
                read_u(loss, v, reference, v_ref, j, x, d, z, u)
                for n in range(NUMBERS):
                    in_units, e = u[n] * inverse, exp(shift, x[n])
                    d[n] = select(d[n] == ZERO, ZERO, d[n] * in_units)
                    u[n] = select(e == ZERO, ZERO, e * in_units)
                moment = add_own(moment, u, 0)
                drift = add_own(drift, d, 0)
            # A mean may lie below the smallest normal number, and yet be all there is: as a lifted number it keeps its
            # digits.
            lifted_mean = value(all_sum(moment, cut, MOMENT)) / (value(of.s) * DROP)
            mean = lifted_mean * DROP
            v_mean = v_ref * inverse + mean

            if not HESSIAN:
                drift = all_sum(drift, cut, DRIFT)
                half = -HALF * value(drift)
                half = half + select(zeta == ZERO, ZERO, HALF * zeta * of.lse * v_mean)
                half = half * unit + scaled(HALF * (h + of.spread) * lifted_mean, DROP, unit)
                half = select(dead, ZERO, select(broken, NAN, half))
                size = 8 if a.summed != 0 else SIZE_SLOPE
                out_row = Strided(a.out.data + tangent * a.out_step * size, a.out.outer, a.out.classes, a.out.inner)
                put_slope(out_row, at, a.summed, half, present & speaks(cut))
            else:
                out_data = a.out.data + tangent * a.out_step * SIZE_OUT
                out = span(Strided(out_data, a.out.outer, a.out.classes, a.out.inner), at, until)
                # F and ζ in units of a power of two: with lse near the end of the range, F is too.
                all_mass = h + but_h
                unit_f = unit_for(nan_max(abs(all_mass), abs(zeta)))
                f, zeta_v_mean = all_mass / unit_f, select(zeta == ZERO, ZERO, zeta / unit_f * v_mean)
                by, all_ = factor(scale * unit, of.s), factor(scale * all_mass, of.s)
                all_but_h, only_h = factor(scale * but_h, of.s), factor(scale * h, of.s)
                at_t = share(all_but_h, of.e_t) - share(only_h, value(of.rest_t))
                for turn in range(turns(a.shape.classes, cut, RESULT)):
                    j = class_of(turn, cut)
                    read(loss, j, x)
                    load_masses(loss.masses, j, d)
                    read_u(loss, v, reference, v_ref, j, x, d, z, u)
                    for n in range(NUMBERS):
                        e, masked = exp(shift, x[n]), x[n] == -INFINITY
                        in_units = u[n] * inverse
                        lifted = select(in_units == ZERO, -lifted_mean * (e * DROP), (in_units - mean) * e)
                        x[n] = select(masked, ZERO, times_power(by, f * lifted + zeta_v_mean * e, unit_f))
                        # Through the cap; the tangent itself is what is left to read.
                        g = select(j + n == t, at_t, share(all_, e)) - scale * d[n]
                        d[n] = select(masked, ZERO, g)
                    if cap != ZERO:
                        load_tangent(v, j, ZERO, u, 0)
                        for n in range(NUMBERS):
                            through = x[n] * slope_of(cap, z[n]) + d[n] * curvature_of(cap, z[n]) * u[n]
                            x[n] = select(z[n] == -INFINITY, ZERO, through)
                    for n in range(NUMBERS):
                        x[n] = select(dead, ZERO, select(broken, NAN, x[n]))
                    store(out, j, x)

    return derivatives
