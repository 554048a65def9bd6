"""What the kernels are told: the same bytes as the structs of the CUDA C++ kernels, field by field 8 bytes each.

A kernel takes one of these named tuples.  Numba passes its fields one after the other, which lays them out in memory as
a struct passed by value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

Six = tuple[int, int, int, int, int, int]


class Shape(NamedTuple):
    """Of the logits; rows = outer · inner."""

    rows: int
    inner: int
    classes: int


class Strided(NamedTuple):
    """An (outer, classes, inner) array, or (outer, inner) with classes = 0; strides in elements."""

    data: int
    outer: int
    classes: int
    inner: int


class SoftmaxArgs(NamedTuple):
    """z, out: per class, or per row for the log-sum-exp."""

    shape: Shape
    z: Strided
    out: Strided


class ProductArgs(NamedTuple):
    """K tangents, and the strides of K in elements."""

    shape: Shape
    point: Strided
    v: Strided
    out: Strided
    tangents: int
    v_step: int
    out_step: int


class LossArgs(NamedTuple):
    """Of the cross-entropy family; an array that is not there has data 0."""

    shape: Shape
    z: Strided
    targets: Strided  # per row integers, or per class probabilities
    weight: Strided  # per class, of the computing type
    scale_rows: Strided  # per row, of the computing type: what `scale` is multiplied by
    loss: Strided  # per row: of the computing type of z, double if it is summed
    grad: Strided
    target_format: int  # which of `load_target`'s cases
    ignores: int
    ignore_index: int
    divisor: int  # address of {Σ weights, number} of the rows that count; 0 unless the reduction is the mean
    scale: float
    smoothing: float
    z_loss: float
    softcap: float  # 0: none
    dense: int
    summed: int
    tangents: int
    v_step: int
    out_step: int
    v: Strided
    out: Strided


class TotalArgs(NamedTuple):
    """Of a sum over rows."""

    loss: LossArgs  # for the divisor: targets, weight, ignore_index
    values: int  # for a total: one double per row, contiguous
    result: int  # a total in the computing type, or the divisor {Σ weights, number} in double
    scratch: int  # (chunks,) partial sums
    counter: int
    divisor: int  # what a total is divided by; 0: `by`
    length: int
    chunks: int
    by: float
    when_nothing_counts: float


class CheckArgs(NamedTuple):
    """Of a judgement of values."""

    shape: Shape
    values: Strided  # integer targets, or probabilities (their logarithms)
    target_format: int
    ignores: int
    ignore_index: int
    first: int  # address of the smallest flat position of what is not in order; all ones: none
    tolerance: float
    logarithms: int


class SegmentsArgs(NamedTuple):
    """Of one launch over rows that are cut into segments."""

    records: int  # address: [number][row of this launch][segment], SLOT bytes each
    first: int  # the team that the first block's would be, were rows not cut
    rows: int  # of the records
    segments: int  # of each row
    length: int  # classes in each but the last
    launch: int  # the number of the walk to make, from 1
    last: int  # whether results are written


@cache
def in_segments(kind: Any) -> Any:
    """A kernel's arguments where its rows are cut."""
    return NamedTuple(f"{kind.__name__}InSegments", [("kernel", kind), ("segments", SegmentsArgs)])


class CopyArgs(NamedTuple):
    """Of an element-wise copy between arrays of up to six axes, the last of which is innermost."""

    size: int
    source: int
    target: int
    shape: Six
    source_strides: Six  # bytes
    target_strides: Six


@cache
def fields(kind: Any) -> tuple[Any, ...]:
    """The types of a named tuple's (or tuple's) fields: int, float, or such tuples again."""
    return get_args(kind) if get_origin(kind) is tuple else tuple(get_type_hints(kind).values())


def letters(kind: Any) -> str:
    """One letter for every number in it, as `struct` spells them."""
    return "q" if kind is int else "d" if kind is float else "".join(map(letters, fields(kind)))


@cache
def layout(kind: Any) -> struct.Struct:
    """What packs its numbers."""
    return struct.Struct("=" + letters(kind))


def unpacked(kind: Any, arguments: bytes) -> Any:
    """The named tuple whose bytes these are."""
    return _built(kind, iter(layout(kind).unpack(arguments)))


def _built(kind: Any, numbers: Iterator[Any]) -> Any:
    if kind in (int, float):
        return next(numbers)
    parts = [_built(field, numbers) for field in fields(kind)]
    return tuple(parts) if get_origin(kind) is tuple else kind(*parts)
