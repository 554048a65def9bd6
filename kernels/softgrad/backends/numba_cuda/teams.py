"""Who works on a row: a team of threads, numbered by `lane`, that can agree on a value.

    lanes      neighbouring lanes of a warp; a block serves several rows
    block      a block
    columns    some threads of a block down the classes, neighbouring rows beside them: for a strided class axis, so
               that a warp reads neighbouring rows

`all_largest`, `all_sum`, … join the values of a team's threads and give every thread the same bits: joins are made in a
tree fixed by the team's shape, and are symmetric.  Every thread of the block must take part.
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
from softgrad.backends.numba_cuda.exponential import FORMATS
from softgrad.backends.numba_cuda.machine import device, exchange, put, select
from softgrad.backends.numba_cuda.sums import Sum, plus

NOWHERE = np.int64(0x7FFFFFFFFFFFFFFF)


class SumAndFirst(NamedTuple):
    """The sum of a row's terms, and the first class that is the largest."""

    sum: Any
    first: Any


class SumAndCount(NamedTuple):
    """The sum of some of a row's terms, and the number of others."""

    sum: Any
    count: Any


class Kind(NamedTuple):
    """A kind of value that teams agree on: how two are joined, exchanged between lanes, and put into shared slots."""

    join: Any
    swap: Any  # (x, distance)
    put: Any  # (slot, x, when): into slot number `slot` of SLOTS
    get: Any


@device
def nan_max(a, b):
    """The larger of the two; NaN where one is."""
    return select((a >= b) | (a != a), a, b)


@device
def _plus_first(a, b):
    return SumAndFirst(plus(a.sum, b.sum), select(a.first < b.first, a.first, b.first))


@device
def _plus_count(a, b):
    return SumAndCount(plus(a.sum, b.sum), a.count + b.count)


@device
def _swap_sum(x, distance):
    return Sum(exchange(x.high, distance), exchange(x.low, distance))


@device
def _swap_first(x, distance):
    return SumAndFirst(_swap_sum(x.sum, distance), exchange(x.first, distance))


@device
def _swap_count(x, distance):
    return SumAndCount(_swap_sum(x.sum, distance), exchange(x.count, distance))


@cache
def _kinds(real: str, slots: int) -> dict[str, Kind]:
    """By the name of the team's function.  Every kind has the same shared memory: one at a time is agreed upon."""
    Real = FORMATS[real].Real
    # Behind two numbers per slot there is an integer: where, in integers.
    integers = 2 * slots * np.dtype(Real).itemsize // 8

    @device
    def put_number(slot, x, when):
        put(cuda.shared.array(0, Real), slot, x, when)

    @device
    def get_number(slot):
        return cuda.shared.array(0, Real)[slot]

    @device
    def put_sum(slot, x, when):
        put_number(slot, x.high, when)
        put_number(slots + slot, x.low, when)

    @device
    def get_sum(slot):
        return Sum(get_number(slot), get_number(slots + slot))

    @device
    def put_integer(slot, x, when):
        put(cuda.shared.array(0, np.int64), integers + slot, x, when)

    @device
    def get_integer(slot):
        return cuda.shared.array(0, np.int64)[integers + slot]

    @device
    def put_first(slot, x, when):
        put_sum(slot, x.sum, when)
        put_integer(slot, x.first, when)

    @device
    def get_first(slot):
        return SumAndFirst(get_sum(slot), get_integer(slot))

    @device
    def put_count(slot, x, when):
        put_sum(slot, x.sum, when)
        put_integer(slot, x.count, when)

    @device
    def get_count(slot):
        return SumAndCount(get_sum(slot), get_integer(slot))

    return {
        "all_largest": Kind(nan_max, exchange, put_number, get_number),
        "all_sum": Kind(plus, _swap_sum, put_sum, get_sum),
        "all_sum_and_first": Kind(_plus_first, _swap_first, put_first, get_first),
        "all_sum_and_count": Kind(_plus_count, _swap_count, put_count, get_count),
    }


@cache
def team(regime: Regime, real: str) -> SimpleNamespace:
    """SIZE, VECTORS; the device functions `lane`, `row` and one `all_…` for each kind of value."""
    build = {"lanes": _lanes, "block": _block, "columns": _columns}[regime.kind]
    slots = {"lanes": 1, "block": regime.threads // 32, "columns": regime.threads}[regime.kind]
    kinds = _kinds(real, slots)
    lane, row, agree = build(regime)
    agreements = {name: agree(kind) for name, kind in kinds.items()}
    return SimpleNamespace(SIZE=regime.size, VECTORS=regime.kind != "columns", lane=lane, row=row, **agreements)


def _join_lanes(kind: Kind, width: int) -> Any:
    join, swap = kind.join, kind.swap

    @device
    def join_lanes(x):
        distance = width // 2
        while distance > 0:
            x = join(x, swap(x, distance))
            distance //= 2
        return x

    return join_lanes


def _lanes(regime: Regime) -> tuple[Any, Any, Any]:
    size, per_block = np.int64(regime.size), np.int64(regime.threads // regime.size)

    @device
    def lane():
        return np.int64(cuda.threadIdx.x) % size

    @device
    def row():
        return np.int64(cuda.blockIdx.x) * per_block + np.int64(cuda.threadIdx.x) // size

    return lane, row, lambda kind: _join_lanes(kind, regime.size)


def _block(regime: Regime) -> tuple[Any, Any, Any]:
    warps = regime.threads // 32

    @device
    def lane():
        return np.int64(cuda.threadIdx.x)

    @device
    def row():
        return np.int64(cuda.blockIdx.x)

    def agree(kind: Kind) -> Any:
        of_warp, of_block, put_slot, get_slot = _join_lanes(kind, 32), _join_lanes(kind, warps), kind.put, kind.get

        @device
        def all_of_block(x):
            x = of_warp(x)
            thread = np.int64(cuda.threadIdx.x)
            put_slot(thread // 32, x, thread % 32 == 0)
            cuda.syncthreads()
            x = get_slot(thread % warps)
            cuda.syncthreads()  # the slots may be written again
            return of_block(x)

        return all_of_block

    return lane, row, agree


def _columns(regime: Regime) -> tuple[Any, Any, Any]:
    width = np.int64(regime.width)

    @device
    def lane():
        return np.int64(cuda.threadIdx.x) // width

    @device
    def row():
        return np.int64(cuda.blockIdx.x) * width + np.int64(cuda.threadIdx.x) % width

    def agree(kind: Kind) -> Any:
        join, put_slot, get_slot = kind.join, kind.put, kind.get

        @device
        def leaf(lane, step):
            return get_slot(lane * width + np.int64(cuda.threadIdx.x) % width)

        def tree(below, halves):
            @device
            def node(lane, step):
                return join(below(lane, 2 * step), below(lane + step, 2 * step))

            return node if halves == 1 else tree(node, halves - 1)

        column = leaf if regime.size == 1 else tree(leaf, regime.size.bit_length() - 1)

        @device
        def all_of_column(x):
            put_slot(np.int64(cuda.threadIdx.x), x, True)
            cuda.syncthreads()
            x = column(0, 1)
            cuda.syncthreads()  # the slots may be written again
            return x

        return all_of_column

    return lane, row, agree
