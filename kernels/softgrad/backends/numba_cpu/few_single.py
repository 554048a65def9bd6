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
from softgrad.backends.numba_cpu.sixteen_task import TASK_BYTES, divisor_of, lay, zeta_of
from softgrad.backends.numba_cpu.targets import INT64, reduce_rows
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
    bad, hard, losses, task, stage = _prepare(
        z, targets, ignores, ignore_index, check, weights, reduction, scale, options, reduced, grad, scratch
    )
    if bad >= 0:
        return -1 - bad
    if options is None:
        cross_entropy_columns(scratch, ALL, hard, stage, task, z.dtype.type(0), None)
    else:
        cross_entropy_columns(scratch, ALL, hard, stage, task, z.dtype.type(0), (options[0], zeta_of(task)))
    return _reduce(hard, losses, task, z.shape, reduced)


def _middle(
    z, targets, ignores, ignore_index, check, weights, reduction, scale, options, reduced, grad, scratch
):  # fmt: skip
    """The same of rows of some vectors."""
    bad, hard, losses, task, stage = _prepare(
        z, targets, ignores, ignore_index, check, weights, reduction, scale, options, reduced, grad, scratch
    )
    if bad >= 0:
        return -1 - bad
    if options is None:
        cross_entropy_middle(scratch, ALL, hard, stage, False, task, z.dtype.type(0), None)
    else:
        cross_entropy_middle(scratch, ALL, hard, stage, False, task, z.dtype.type(0), (options[0], zeta_of(task)))
    return _reduce(hard, losses, task, z.shape, reduced)


# By whether there are options, (ε, z_loss), which make a kernel longer.
cross_entropy_columns_few = Entry(_columns, _WITHOUT_OPTIONS), Entry(_columns, _WITH_OPTIONS)
cross_entropy_middle_few = Entry(_middle, _WITHOUT_OPTIONS), Entry(_middle, _WITH_OPTIONS)


@helper
def _prepare(z, targets, ignores, ignore_index, check, weights, reduction, scale, options, reduced, grad, scratch):
    """Classify the targets.

    (The first out of range or −1; where the list of rows, their losses, what the kernel is told, and its own scratch
    memory begin.)
    """
    rows, classes = z.shape[0] * z.shape[2], z.shape[1]
    hard, losses = begin(scratch, rows)
    room = losses + in_lines(rows)
    task = room + in_lines(rows)
    weights_at, stage = lay_weights(weights, classes, task + TASK_BYTES)
    nothing = 0, 0, 0, 0, 0, 1
    bad, _ = lay(
        task, rows, classes, described(z, FLOAT32), described_per_row(targets, INT64), ignores, ignore_index, check, -1,
        weights_at, room, scale, nothing, 0.0 if options is None else options[1], reduction == MEAN,
        (losses if reduced.size else 0, 8, 0, 8, FLOAT64, 1), described(grad, FLOAT32), False,
    )  # fmt: skip
    return bad, hard, losses, task, stage


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
def _reduce(hard, losses, task, shape, reduced):
    """Write one number for each row, or their sum or mean; the number of rows that are listed."""
    if reduced.size:
        each = shape[0] * shape[2] // reduced.size
        reduce_rows(losses, reduced.size, each, 1.0, divisor_of(task), math.nan, reduced.ctypes.data, FLOAT32)
    return read_i64(hard)
