"""Reduced losses, and what the mean divides by: two levels of sums in an order fixed by the number of rows alone.

The rows are cut into `chunks` runs of `length`; a block sums one, and the block that finishes last sums the chunks'
sums.  Everything is added in pairs of doubles.  The counter is 0 before and after each launch.
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from softgrad.backends.cuda.regimes import Regime
from softgrad.backends.numba_cuda.formats import joined_words, stored
from softgrad.backends.numba_cuda.losses import SUMMED_UNIT, charges, load_double, load_target, store_double
from softgrad.backends.numba_cuda.machine import (
    agreed,
    bits_float,
    device,
    load_fresh,
    publish,
    select,
    store_4,
    take_ticket,
)
from softgrad.backends.numba_cuda.rows import at_row
from softgrad.backends.numba_cuda.sums import Sum, plus, sums
from softgrad.backends.numba_cuda.teams import Step, SumAndCount, team

_ZERO, _ONE = np.float64(0), np.float64(1)
_ONCE = Step(walk=1)  # these rows are not cut
_PART = 24  # bytes of a chunk's sum in memory: high, low, count


@device
def _fresh_double(address, when):
    low, high = load_fresh(address, when)
    return bits_float(joined_words(low, high))


def _grid_sum(regime: Regime, term: Any) -> Any:
    """The device function that sums term(a, i, inside), 0 ≤ i < n, over all blocks.

    Its result is (True, the sum) in the block that finishes last.
    """
    group = team(regime, "double")
    lane, all_sum, SIZE = group.lane, group.all_sum_and_count, regime.size

    @device
    def grid_sum(a, n, cut):
        first = np.int64(cuda.blockIdx.x) * a.length
        part, count = Sum(_ZERO, _ZERO), np.int64(0)
        for turn in range((a.length + (SIZE - 1)) // SIZE):
            i = lane() + turn * SIZE
            found = term(a, first + i, (i < a.length) & (first + i < n))
            part, count = plus(part, Sum(found.sum, _ZERO)), count + found.count
        found = all_sum(SumAndCount(part, count), cut, _ONCE)

        leads = lane() == 0
        at = a.scratch + np.int64(cuda.blockIdx.x) * _PART
        store_double(at, found.sum.high, leads)
        store_double(at + 8, found.sum.low, leads)
        store_double(at + 16, np.float64(found.count), leads)
        publish()
        is_last = leads & (np.int64(take_ticket(a.counter, leads)) == a.chunks - 1)
        nothing = SumAndCount(Sum(_ZERO, _ZERO), np.int64(0))
        if not agreed(all_sum(SumAndCount(nothing.sum, np.int64(is_last)), cut, _ONCE).count > 0):
            return False, nothing
        publish()
        part, count = nothing.sum, nothing.count
        for turn in range((a.chunks + (SIZE - 1)) // SIZE):
            i = lane() + turn * SIZE
            inside = i < a.chunks
            at = a.scratch + i * _PART
            part = plus(part, Sum(_fresh_double(at, inside), _fresh_double(at + 8, inside)))
            count = count + np.int64(_fresh_double(at + 16, inside))
        store_4(a.counter, np.uint32(0), leads)
        return True, all_sum(SumAndCount(part, count), cut, _ONCE)

    return grid_sum


def total(real: str, regime: Regime) -> Any:
    """The kernel that sums one number per row."""
    lane, value, store_result = team(regime, "double").lane, sums("double").value, stored(real, "double").store

    @device
    def number(a, i, inside):
        return SumAndCount(load_double(a.values + i * 8, inside), np.int64(0))

    grid_sum = _grid_sum(regime, number)

    @device
    def total(a, cut):
        last, found = grid_sum(a, a.loss.shape.rows, cut)
        leads = last & (lane() == 0)
        by, nothing = a.by, a.by == _ZERO
        if a.divisor != 0:
            by = load_double(a.divisor, leads)
            nothing = (by == _ZERO) | (load_double(a.divisor + 8, leads) == _ZERO)
        store_result(a.result, select(nothing, a.when_nothing_counts, value(found.sum) / by * SUMMED_UNIT), leads)

    return total


def divisor(real: str, regime: Regime) -> Any:
    """The kernel that finds Σ weights, and the number, of the rows that count."""
    lane, value, load_weight = team(regime, "double").lane, sums("double").value, charges(real).load_weight

    @device
    def weight_of_row(a, i, inside):
        loss = a.loss
        t = load_target(loss.targets, at_row(select(inside, i, 0), loss.shape), loss.target_format, inside)
        ignored = (loss.ignores != 0) & (t == loss.ignore_index)
        counts = inside & (t >= 0) & (t < loss.shape.classes) & (ignored == False)  # noqa: E712
        weight = _ONE
        if loss.weight.data != 0:
            weight = np.float64(load_weight(loss.weight, t, counts))
        return SumAndCount(select(counts, weight, _ZERO), np.int64(counts))

    grid_sum = _grid_sum(regime, weight_of_row)

    @device
    def divisor(a, cut):
        last, found = grid_sum(a, a.loss.shape.rows, cut)
        leads = last & (lane() == 0)
        store_double(a.result, value(found.sum), leads)
        store_double(a.result + 8, np.float64(found.count), leads)

    return divisor
