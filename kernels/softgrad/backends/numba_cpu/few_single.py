"""Cross-entropy of a few rows with an integer target in each: from the targets as they are to the reduced loss."""

from __future__ import annotations

import math

import numba

from softgrad.backends.numba_cpu.compiling import helper
from softgrad.backends.numba_cpu.entries import (
    ALL,
    BOOL,
    FLOAT,
    INT,
    Entry,
    begin,
    described,
    described_per_row,
    in_lines,
    reads,
    writes,
)
from softgrad.backends.numba_cpu.lanes import read_i64, write_f64
from softgrad.backends.numba_cpu.middle_cross_entropy import cross_entropy_middle
from softgrad.backends.numba_cpu.narrow_cross_entropy import cross_entropy_columns
from softgrad.backends.numba_cpu.targets import INT64, classify, reduce_rows
from softgrad.backends.numba_cpu.tiles import FLOAT32, FLOAT64

# How losses are given: one per row, or summed, or averaged.
REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}
MEAN = REDUCTIONS["mean"]


def _signature(options):
    def signature(z):
        task = (reads(z, 3), reads(INT, 2), BOOL, INT, BOOL, reads(FLOAT, 1), INT, FLOAT, options)
        return (*task, writes(numba.float32, 1), writes(z, 3), INT)

    return signature


_WITHOUT_OPTIONS, _WITH_OPTIONS = _signature(numba.types.none), _signature(numba.types.UniTuple(FLOAT, 2))


def _columns(
    z, targets, ignores, ignore_index, check, weights, reduction, scale, options, reduced, grad, scratch
):  # fmt: skip
    """What losses are reduced to, and gradient: each where its array is not empty.

    −1 − r if the target of row r is out of range, and `check`; else how many rows are listed behind the counter, and
    behind the list the loss of each row in float64.
    """
    bad, hard, stage, arguments, zeta = _prepare(
        z, targets, ignores, ignore_index, check, weights, reduction, scale, options, reduced, grad, scratch
    )
    if bad >= 0:
        return -1 - bad
    if options is None:
        cross_entropy_columns(scratch, ALL, hard, stage, *arguments, None)
    else:
        cross_entropy_columns(scratch, ALL, hard, stage, *arguments, (options[0], zeta))
    return _reduce(hard, arguments, reduced)


def _middle(
    z, targets, ignores, ignore_index, check, weights, reduction, scale, options, reduced, grad, scratch
):  # fmt: skip
    """The same of rows of some vectors."""
    bad, hard, stage, arguments, zeta = _prepare(
        z, targets, ignores, ignore_index, check, weights, reduction, scale, options, reduced, grad, scratch
    )
    if bad >= 0:
        return -1 - bad
    if options is None:
        cross_entropy_middle(scratch, ALL, hard, stage, False, *arguments, None)
    else:
        cross_entropy_middle(scratch, ALL, hard, stage, False, *arguments, (options[0], zeta))
    return _reduce(hard, arguments, reduced)


# By whether there are options, (ε, z_loss), which make a kernel longer.
cross_entropy_columns_few = Entry(_columns, _WITHOUT_OPTIONS), Entry(_columns, _WITH_OPTIONS)
cross_entropy_middle_few = Entry(_middle, _WITHOUT_OPTIONS), Entry(_middle, _WITH_OPTIONS)


@helper
def _prepare(z, targets, ignores, ignore_index, check, weights, reduction, scale, options, reduced, grad, scratch):
    """Classify the targets.

    (The first out of range or −1; where the list of rows and the kernel's own scratch memory begin; the rest of its
    arguments, but for options; ζ.)
    """
    rows, classes = z.shape[0] * z.shape[2], z.shape[1]
    hard, losses = begin(scratch, rows)
    indices = losses + in_lines(rows)
    after = indices + in_lines(rows)
    weights_at, stage = lay_weights(weights, classes, after)
    of_targets = described_per_row(targets, INT64)
    bad, count, mass = classify(of_targets, rows, classes, ignores, ignore_index, check, weights_at, indices)
    by = mass if reduction == MEAN else 1.0
    zeta = 0.0
    if options is not None:
        zeta = options[1]
        if reduction == MEAN and count > 0 and zeta != 0.0:
            zeta *= by / count
    write_f64(scratch + 8, scale)
    scales = scratch + 8, 0, 0, 0, FLOAT64, 1
    of_losses = losses if reduced.size else 0, 8, 0, 8, FLOAT64, 1
    arguments = (
        rows, classes, described(z, FLOAT32), indices, weights_at, scales, by, of_losses, described(grad, FLOAT32),
        False, z.dtype.type(0),
    )  # fmt: skip
    return bad, hard, stage, arguments, zeta


@helper
def lay_weights(weights, classes, at):
    """Write weights here, with zeros up to a multiple of eight.

    (Their address or 0; where the memory behind them begins.)
    """
    if weights.size == 0:
        return 0, at
    for c in range(classes):
        write_f64(at + 8 * c, weights[c])
    end = at + in_lines(classes)
    for beyond in range(at + 8 * classes, end, 8):
        write_f64(beyond, 0.0)
    return at, end


@helper
def _reduce(hard, arguments, reduced):
    """Write one number for each row, or their sum or mean; the number of rows that are listed."""
    rows, by, of_losses = arguments[0], arguments[6], arguments[7]
    if reduced.size:
        each = rows // reduced.size
        reduce_rows(of_losses[0], reduced.size, each, 1.0, by, math.nan, reduced.ctypes.data, FLOAT32)
    return read_i64(hard)
