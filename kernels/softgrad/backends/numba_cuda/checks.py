"""The values of targets and probabilities, judged: the smallest flat position of what is not in order."""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from softgrad.backends.cuda.regimes import Regime
from softgrad.backends.numba_cuda.losses import load_target
from softgrad.backends.numba_cuda.machine import device, exp, lower_to, select
from softgrad.backends.numba_cuda.rows import at_row, walk
from softgrad.backends.numba_cuda.sums import Sum, add, sums
from softgrad.backends.numba_cuda.teams import Step, SumAndCount, team


def check_targets(regime: Regime) -> Any:
    """The kernel that finds the first integer target that is neither in range nor ignored."""
    lane, SIZE = team(regime, "double").lane, regime.size

    @device
    def check_targets(a, cut):
        r = np.int64(cuda.blockIdx.x) * SIZE + lane()
        present = r < a.shape.rows
        at = at_row(select(present, r, 0), a.shape)
        t = load_target(a.values, at, a.target_format, present)
        ignored = (a.ignores != 0) & (t == a.ignore_index)
        bad = ((t < 0) | (t >= a.shape.classes)) & (ignored == False)  # noqa: E712
        lower_to(a.first, r, present & bad)

    return check_targets


def check_rows(T: str, real: str, regime: Regime) -> Any:
    """The kernel that finds the first row without Σ p (Σ exp p) within the tolerance of 1, or with a negative p.

    Rows with a NaN pass.
    """
    SUM = Step(walk=1, number=0)
    group, steps = team(regime, "double"), walk(T, "double", regime, "nowhere", chunks=1)
    row, end, speaks, all_sum_and_count = group.row, group.end, group.speaks, group.all_sum_and_count
    turns, class_of, NUMBERS, rows = steps.turns, steps.class_of, steps.NUMBERS, steps.spans_of(T)
    span, load, value = rows.span, rows.load, sums("double").value
    ZERO, ONE, INFINITY = np.float64(0), np.float64(1), np.float64(np.inf)

    @device
    def check_rows(a, cut):
        r = row(cut)
        present = r < a.shape.rows
        at = at_row(select(present, r, 0), a.shape)
        p = span(a.values, at, end(cut, select(present, a.shape.classes, 0)))
        x = cuda.local.array(NUMBERS, np.float64)
        total, negative = Sum(ZERO, ZERO), np.int64(0)
        pad = -INFINITY if a.logarithms != 0 else ZERO
        for turn in range(turns(a.shape.classes, cut, SUM)):
            load(p, class_of(turn, cut), pad, x, 0)
            for n in range(NUMBERS):
                number = x[n]
                if a.logarithms != 0:
                    number = exp(number)
                negative += number < ZERO
                total = add(total, number)
        found = all_sum_and_count(SumAndCount(total, negative), cut, SUM)
        off = value(found.sum) - ONE
        bad = (off == off) & ((found.count > 0) | (off > a.tolerance) | (off < -a.tolerance))
        lower_to(a.first, r, present & speaks(cut) & bad)

    return check_rows
