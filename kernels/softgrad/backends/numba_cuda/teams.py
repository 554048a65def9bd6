"""Who works on a row: a team of threads, numbered by `lane`, that can agree on a value.

    short      one lane, for several rows in turn
    lanes      neighbouring lanes of a warp; a block serves several rows
    block      a block
    columns    some threads of a block down the classes, neighbouring rows beside them: for a strided class axis, so
               that a warp reads neighbouring rows
    segments   a block or columns each for some of a row's classes: a team of teams, all over the device

`all_largest`, `all_sum`, … join the values of a team's threads and give every thread the same bits: in an order fixed
by the team's shape, and, where threads join in different order, by joins that are symmetric.  Every thread of the block
must take part.
"""

# mypy: ignore-errors
# Numba types these functions, from their arguments.

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from softgrad.backends.cuda.regimes import SLOT, Regime
from softgrad.backends.numba_cuda.exponential import FORMATS
from softgrad.backends.numba_cuda.formats import load_integer, store_integer, stored
from softgrad.backends.numba_cuda.machine import device, exchange, nan_max, put, select
from softgrad.backends.numba_cuda.sums import Sum, sums

NOWHERE = np.int64(0x7FFFFFFFFFFFFFFF)


class Step(NamedTuple):
    """Of a kernel whose rows are cut into segments: one of its walks over the row, and a number found in it."""

    walk: int
    number: int = -1


class SumAndFirst(NamedTuple):
    """A sum, and the first class that is the largest."""

    sum: Any
    first: Any


class SumAndCount(NamedTuple):
    """A sum, and how many there are of what is counted beside it."""

    sum: Any
    count: Any


class Kind(NamedTuple):
    """A kind of value that teams agree on."""

    hand: Any  # a thread's own value -> the form in which threads hand it to each other
    back: Any  # what was handed -> a value
    join: Any  # of two that are handed
    swap: Any  # (x, distance): that of another lane
    put: Any  # (slot, x, when): into shared memory
    get: Any  # (slot)
    store: Any  # (address, x, when): into a record
    load: Any  # (address, otherwise, when)


@device
def _as_it_is(x):
    return x


@device
def _smaller(a, b):
    return select(a < b, a, b)


@device
def _added(a, b):
    return a + b


@cache
def _kinds(real: str, slots: int) -> dict[str, Kind]:
    """By the name of the team's function.  Every kind has the same shared memory: one at a time is agreed upon."""
    Real, S = FORMATS[real].Real, sums(real)
    number, double = stored(real, real), stored("double", "double")
    hand_sum, join_sums, sum_back = S.handed, S.joined, S.back
    load_real, store_real, load_double, store_double = number.load, number.store, double.load, double.store
    PAIRS = real == "double"  # sums are handed over as high + low
    INTEGERS = 2 * slots  # behind the sums

    @device
    def put_number(slot, x, when):
        put(cuda.shared.array(0, Real), slot, x, when)

    @device
    def get_number(slot):
        return cuda.shared.array(0, Real)[slot]

    @device
    def store_number(address, x, when):
        store_real(address, x, when)

    @device
    def load_number(address, otherwise, when):
        return select(when, load_real(address, when), otherwise)

    @device
    def put_sum(slot, x, when):
        if PAIRS:
            put(cuda.shared.array(0, np.float64), slot, x.high, when)
            put(cuda.shared.array(0, np.float64), slots + slot, x.low, when)
        else:
            put(cuda.shared.array(0, np.float64), slot, x, when)

    @device
    def get_sum(slot):
        if PAIRS:
            return Sum(cuda.shared.array(0, np.float64)[slot], cuda.shared.array(0, np.float64)[slots + slot])
        return cuda.shared.array(0, np.float64)[slot]

    @device
    def store_sum(address, x, when):
        if PAIRS:
            store_double(address, x.high, when)
            store_double(address + 8, x.low, when)
        else:
            store_double(address, x, when)

    @device
    def load_sum(address, otherwise, when):
        if PAIRS:
            high, low = load_double(address, when), load_double(address + 8, when)
            return Sum(select(when, high, otherwise.high), select(when, low, otherwise.low))
        return select(when, load_double(address, when), otherwise)

    @device
    def swap_sum(x, distance):
        if PAIRS:
            return Sum(exchange(x.high, distance), exchange(x.low, distance))
        return exchange(x, distance)

    def with_integer(Both: Any, join_integers: Any) -> Kind:
        @device
        def hand(x):
            return Both(hand_sum(x[0]), x[1])

        @device
        def back(x):
            return Both(sum_back(x[0]), x[1])

        @device
        def join(a, b):
            return Both(join_sums(a[0], b[0]), join_integers(a[1], b[1]))

        @device
        def swap(x, distance):
            return Both(swap_sum(x[0], distance), exchange(x[1], distance))

        @device
        def put_both(slot, x, when):
            put_sum(slot, x[0], when)
            put(cuda.shared.array(0, np.int64), INTEGERS + slot, x[1], when)

        @device
        def get_both(slot):
            return Both(get_sum(slot), cuda.shared.array(0, np.int64)[INTEGERS + slot])

        @device
        def store_both(address, x, when):
            store_sum(address, x[0], when)
            store_integer(address + 16, x[1], when)

        @device
        def load_both(address, otherwise, when):
            integer = select(when, load_integer(address + 16, when), otherwise[1])
            return Both(load_sum(address, otherwise[0], when), integer)

        return Kind(hand, back, join, swap, put_both, get_both, store_both, load_both)

    return {
        "all_largest": Kind(
            _as_it_is, _as_it_is, nan_max, exchange, put_number, get_number, store_number, load_number
        ),
        "all_sum": Kind(hand_sum, sum_back, join_sums, swap_sum, put_sum, get_sum, store_sum, load_sum),
        "all_sum_and_first": with_integer(SumAndFirst, _smaller),
        "all_sum_and_count": with_integer(SumAndCount, _added),
    }  # fmt: skip


# --- teams ------------------------------------------------------------------------------------------------------------


@cache
def team(regime: Regime, real: str) -> SimpleNamespace:
    """SIZE, and device functions.

    `lane()`; `row(cut)`; `begin(cut)`, `end(cut, classes)`: the classes of the row that are the team's; `makes(cut,
    step)`: whether it makes a walk; one `all_…(x, cut, step)` for each kind of value; `reads(cut, step)`, `kept(x, cut,
    step)`: of a number that is read from the row between walks; `speaks(cut)`: of the one thread that writes what
    there is one of per row.
    """
    build = {"short": _lanes, "lanes": _lanes, "block": _block, "columns": _columns}[regime.kind]
    slots = {"short": 1, "lanes": 1, "block": regime.threads // 32, "columns": regime.threads}[regime.kind]
    lane, row_of_block, agree = build(regime)
    kinds = _kinds(real, slots)
    WITHIN_A_WARP = regime.kind == "lanes" and regime.size > 1
    if regime.cut:
        return _segments(regime.size, lane, row_of_block, agree, kinds)

    SHORT, TURNS = regime.kind == "short", np.int64(regime.turns)

    @device
    def row(cut):
        if SHORT:
            return row_of_block(np.int64(cuda.blockIdx.x) * TURNS + cut)
        return row_of_block(np.int64(cuda.blockIdx.x))

    @device
    def begin(cut):
        return 0

    @device
    def end(cut, classes):
        return classes

    @device
    def always(cut, step):
        return True

    @device
    def kept(x, cut, step):
        if WITHIN_A_WARP:
            # An exchange between lanes orders no memory, as the barriers of other teams do.
            cuda.syncwarp()
        return x

    @device
    def speaks(cut):
        return lane() == 0

    def agreement(kind: Kind) -> Any:
        hand, join_all, back = kind.hand, agree(kind), kind.back

        @device
        def all_of(x, cut, step):
            return back(join_all(hand(x)))

        return all_of

    @device
    def alone(x, cut, step):
        return x

    agreements = {name: agreement(kind) for name, kind in kinds.items()}
    if regime.size == 1:
        agreements["all_sum"] = alone
    return SimpleNamespace(
        SIZE=regime.size, lane=lane, row=row, begin=begin, end=end, makes=always, reads=always, kept=kept,
        speaks=speaks, **agreements,
    )  # fmt: skip


def _join_lanes(kind: Kind, width: int) -> Any:
    """The device function that joins what `width` neighbouring lanes have been handed."""
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
    def row(block):
        return block * per_block + np.int64(cuda.threadIdx.x) // size

    return lane, row, lambda kind: _join_lanes(kind, regime.size)


def _block(regime: Regime) -> tuple[Any, Any, Any]:
    warps = regime.threads // 32

    @device
    def lane():
        return np.int64(cuda.threadIdx.x)

    @device
    def row(block):
        return block

    def agree(kind: Kind) -> Any:
        put_slot, get_slot, join_warp, join_warps = kind.put, kind.get, _join_lanes(kind, 32), _join_lanes(kind, warps)

        @device
        def all_of_block(x):
            x = join_warp(x)
            thread = np.int64(cuda.threadIdx.x)
            put_slot(thread // 32, x, thread % 32 == 0)
            cuda.syncthreads()
            x = get_slot(thread % warps)
            cuda.syncthreads()  # the slots may be written again
            return join_warps(x)

        return all_of_block

    return lane, row, agree


def _columns(regime: Regime) -> tuple[Any, Any, Any]:
    size, width = regime.size, np.int64(regime.width)

    @device
    def lane():
        return np.int64(cuda.threadIdx.x) // width

    @device
    def row(block):
        return block * width + np.int64(cuda.threadIdx.x) % width

    def agree(kind: Kind) -> Any:
        join, put_slot, get_slot = kind.join, kind.put, kind.get

        @device
        def all_of_column(x):
            column = np.int64(cuda.threadIdx.x) % width
            put_slot(np.int64(cuda.threadIdx.x), x, True)
            cuda.syncthreads()
            x = get_slot(column)
            for y in range(1, size):
                x = join(x, get_slot(y * width + column))
            cuda.syncthreads()  # the slots may be written again
            return x

        return all_of_column

    return lane, row, agree


# --- a team of teams --------------------------------------------------------------------------------------------------
# A row cut into segments, each of them a team's, anywhere on the device, meets between launches.  Launch n of a kernel
# makes walk n over the row alone; its other walks are empty.  What walk n finds is left in records, one per row and
# segment, which every block of a later launch joins in the same order.  A row is written in its last launch only; a
# number that is read from it by its place is kept in a record too, for in that launch another block may have written
# there.


def _segments(size: int, lane: Any, row_of_block: Any, agree: Any, kinds: dict[str, Kind]) -> SimpleNamespace:
    store_kept, load_kept = kinds["all_largest"].store, kinds["all_largest"].load

    @device
    def team_of(cut):
        """Which of those in this launch."""
        return np.int64(cuda.blockIdx.x) // cut.segments

    @device
    def segment_of(cut):
        return np.int64(cuda.blockIdx.x) % cut.segments

    @device
    def row(cut):
        return row_of_block(cut.first + team_of(cut))

    @device
    def begin(cut):
        return segment_of(cut) * cut.length

    @device
    def end(cut, classes):
        end = begin(cut) + cut.length
        return select(end < classes, end, classes)

    @device
    def makes(cut, step):
        return step.walk == cut.launch

    @device
    def record(cut, step, segment):
        return cut.records + ((step.number * cut.rows + row_of_block(team_of(cut))) * cut.segments + segment) * SLOT

    def agreement(kind: Kind) -> Any:
        hand, back, join, join_all = kind.hand, kind.back, kind.join, agree(kind)
        store, load = kind.store, kind.load

        @device
        def all_of_segments(x, cut, step):
            x = hand(x)
            if step.walk < cut.launch:
                # x is what a walk begins with, and changes nothing.
                nothing = x
                for turn in range((cut.segments + (size - 1)) // size):
                    segment = lane() + turn * size
                    x = join(x, load(record(cut, step, segment), nothing, segment < cut.segments))
            x = join_all(x)
            if step.walk == cut.launch:
                store(record(cut, step, segment_of(cut)), x, lane() == 0)
            return back(x)

        return all_of_segments

    @device
    def reads(cut, step):
        return step.walk + 1 >= cut.launch

    @device
    def kept(x, cut, step):
        at = record(cut, step, 0)
        if step.walk + 1 < cut.launch:
            return load_kept(at, x, True)
        if step.walk + 1 == cut.launch:
            store_kept(at, x, (segment_of(cut) == 0) & (lane() == 0))
        return x

    @device
    def speaks(cut):
        return (cut.last != 0) & (segment_of(cut) == 0) & (lane() == 0)

    agreements = {name: agreement(kind) for name, kind in kinds.items()}
    return SimpleNamespace(
        SIZE=size, lane=lane, row=row, begin=begin, end=end, makes=makes, reads=reads, kept=kept, speaks=speaks,
        **agreements,
    )  # fmt: skip
