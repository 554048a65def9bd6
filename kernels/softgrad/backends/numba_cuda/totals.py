"""Reduced losses, and what the mean divides by: two levels of sums in an order fixed by the number of rows alone.

The rows are cut into `chunks` runs of `length`; a block sums one, and the block that finishes last sums the chunks'
sums.  Everything is added in pairs of doubles.  The counter is 0 before and after each launch.
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numba import cuda

from softgrad.backends.cuda.regimes import Regime
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
from softgrad.backends.numba_cuda.rows import at_row, stored
from softgrad.backends.numba_cuda.sums import Sum, plus, sums
from softgrad.backends.numba_cuda.teams import SumAndCount, team

_ZERO, _ONE = np.float64(0), np.float64(1)
# Of a chunk's sum in memory: high, low, count.
_PART = 24


@device
def _fresh_double(address, when):
    low, high = load_fresh(address, when)
    return bits_float(np.uint64((np.uint64(high) << np.uint64(32)) | np.uint64(low)))


@cache
def _grid(regime: Regime) -> SimpleNamespace:
    group = team(regime, "double")
    lane, all_sum, SIZE = group.lane, group.all_sum_and_count, regime.size

    @device
    def publish_part(a, part):
        """A block's sum; whether it is the last to finish, one answer for all its threads."""
        part = all_sum(part)
        leads = lane() == 0
        at = a.scratch + np.int64(cuda.blockIdx.x) * _PART
        store_double(at, part.sum.high, leads)
        store_double(at + 8, part.sum.low, leads)
        store_double(at + 16, np.float64(part.count), leads)
        publish()
        ticket = np.int64(take_ticket(a.counter, leads))
        is_last = leads & (ticket == a.chunks - 1)
        return agreed(all_sum(SumAndCount(Sum(_ZERO, _ZERO), np.int64(is_last))).count > 0)

    @device
    def sum_of_parts(a):
        publish()
        total, count = Sum(_ZERO, _ZERO), np.int64(0)
        for step in range((a.chunks + (SIZE - 1)) // SIZE):
            i = lane() + step * SIZE
            inside = i < a.chunks
            at = a.scratch + i * _PART
            total = plus(total, Sum(_fresh_double(at, inside), _fresh_double(at + 8, inside)))
            count += np.int64(_fresh_double(at + 16, inside))
        store_4(a.counter, np.uint32(0), lane() == 0)
        return all_sum(SumAndCount(total, count))

    return SimpleNamespace(lane=lane, SIZE=SIZE, publish_part=publish_part, sum_of_parts=sum_of_parts)


def total(real: str, regime: Regime) -> Any:
    """The kernel that sums one number per row."""
    G, number, value = _grid(regime), stored(real, "double"), sums("double").value
    lane, SIZE, publish_part, sum_of_parts, store_result = G.lane, G.SIZE, G.publish_part, G.sum_of_parts, number.store

    def total(a):
        first = np.int64(cuda.blockIdx.x) * a.length
        part = Sum(_ZERO, _ZERO)
        for step in range((a.length + (SIZE - 1)) // SIZE):
            i = lane() + step * SIZE
            inside = (i < a.length) & (first + i < a.loss.shape.rows)
            part = plus(part, Sum(load_double(a.values + (first + i) * 8, inside), _ZERO))
        if publish_part(a, SumAndCount(part, np.int64(0))):
            result = value(sum_of_parts(a).sum)
            leads = lane() == 0
            by, nothing = a.by, a.by == _ZERO
            if a.divisor != 0:
                by = load_double(a.divisor, leads)
                nothing = (by == _ZERO) | (load_double(a.divisor + 8, leads) == _ZERO)
            store_result(a.result, select(nothing, a.when_nothing_counts, result / by * SUMMED_UNIT), leads)

    return total


def divisor(real: str, regime: Regime) -> Any:
    """The kernel that finds Σ weights, and the number, of the rows that count."""
    G, value, load_weight = _grid(regime), sums("double").value, charges(real).load_weight
    lane, SIZE, publish_part, sum_of_parts = G.lane, G.SIZE, G.publish_part, G.sum_of_parts

    def divisor(a):
        loss = a.loss
        first = np.int64(cuda.blockIdx.x) * a.length
        part, count = Sum(_ZERO, _ZERO), np.int64(0)
        for step in range((a.length + (SIZE - 1)) // SIZE):
            i = lane() + step * SIZE
            inside = (i < a.length) & (first + i < loss.shape.rows)
            at = at_row(select(inside, first + i, 0), loss.shape)
            t = load_target(loss.targets, at, loss.target_format, inside)
            ignored = (loss.ignores != 0) & (t == loss.ignore_index)
            counts = inside & (t >= 0) & (t < loss.shape.classes) & (ignored == False)  # noqa: E712
            weight = _ONE
            if loss.weight.data != 0:
                weight = np.float64(load_weight(loss.weight, t, counts))
            part = plus(part, Sum(select(counts, weight, _ZERO), _ZERO))
            count += counts
        if publish_part(a, SumAndCount(part, count)):
            found = sum_of_parts(a)
            leads = lane() == 0
            store_double(a.result, value(found.sum), leads)
            store_double(a.result + 8, np.float64(found.count), leads)

    return divisor
