"""Cross-entropy of a few rows with an integer target in each: from the targets as they are to the reduced loss."""

from __future__ import annotations

import math

import numba

from softgrad.backends.numba_cpu.compiling import helper
from softgrad.backends.numba_cpu.entries import (
    ALL,
    BOOL,
    COUNTER,
    DESCRIBED,
    FLOAT,
    INT,
    LIST,
    begin,
    described,
    described_per_row,
    entry,
    reads,
    writes,
)
from softgrad.backends.numba_cpu.lanes import write_f64
from softgrad.backends.numba_cpu.middle_cross_entropy import cross_entropy_middle
from softgrad.backends.numba_cpu.narrow_cross_entropy import cross_entropy_columns
from softgrad.backends.numba_cpu.targets import classify, reduce_rows
from softgrad.backends.numba_cpu.tiles import FLOAT32, FLOAT64

# How losses are given: one per row, or summed, or averaged.
REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}
MEAN = REDUCTIONS["mean"]


def _signature(z):
    task = (reads(z, 3), DESCRIBED, BOOL, INT, reads(FLOAT, 1), INT, FLOAT)
    return (*task, writes(FLOAT, 2), writes(numba.float32, 1), writes(z, 3), LIST, INT)


@entry(_signature)
def cross_entropy_columns_few(
    z, targets, ignores, ignore_index, weights, reduction, scale, losses, reduced, grad, hard, scratch
):
    """Loss of each row in float64, what they are reduced to, and gradient: each where its array is not empty."""
    stage, arguments = _prepare(z, targets, ignores, ignore_index, weights, reduction, scale, losses, grad, scratch)
    cross_entropy_columns(scratch, ALL, begin(hard, scratch), stage, *arguments)
    _reduce(losses, arguments, reduced)


@entry(_signature)
def cross_entropy_middle_few(
    z, targets, ignores, ignore_index, weights, reduction, scale, losses, reduced, grad, hard, scratch
):
    """The same of rows of some vectors."""
    stage, arguments = _prepare(z, targets, ignores, ignore_index, weights, reduction, scale, losses, grad, scratch)
    cross_entropy_middle(scratch, ALL, begin(hard, scratch), stage, *arguments)
    _reduce(losses, arguments, reduced)


@helper
def _prepare(z, targets, ignores, ignore_index, weights, reduction, scale, losses, grad, scratch):
    """Classify the targets; where the kernel's own scratch memory begins, and the rest of its arguments."""
    rows, classes = z.shape[0] * z.shape[2], z.shape[1]
    scale_at, indices = scratch + 8, scratch + COUNTER
    weights_at = weights.ctypes.data if weights.size else 0
    _, mass = classify(targets, rows, classes, ignores, ignore_index, weights_at, indices)
    by = mass if reduction == MEAN else 1.0
    write_f64(scale_at, scale)
    scales = scale_at, 0, 0, 0, FLOAT64, 1
    arguments = (
        rows, classes, described(z, FLOAT32), indices, weights_at, scales, by, described_per_row(losses, FLOAT64),
        described(grad, FLOAT32), False, z.dtype.type(0), None,
    )  # fmt: skip
    return indices + ((8 * rows + 63) & ~63), arguments


@helper
def _reduce(losses, arguments, reduced):
    """One number for each row, or their sum or mean."""
    rows, by = arguments[0], arguments[6]
    if reduced.size:
        each = rows // reduced.size
        reduce_rows(losses.ctypes.data, reduced.size, each, 1.0, by, math.nan, reduced.ctypes.data, FLOAT32)
