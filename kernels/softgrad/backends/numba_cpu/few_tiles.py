"""The cross-entropy family of a few rows on tiles: every option, from targets as they are to the reduced result.

A problem is z and its kind, integer targets, whether any is ignored and which, probabilities, whether they are the
targets, weights, (ε, z_loss, softcap or 0, grad_output), reduction.  An array that is not wanted is empty.
"""

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
    described,
    described_per_row,
    described_tangents,
    entry,
    in_lines,
    reads,
    writes,
)
from softgrad.backends.numba_cpu.few_single import MEAN, lay_weights
from softgrad.backends.numba_cpu.lanes import write_f64
from softgrad.backends.numba_cpu.targets import INT64, classify, reduce_rows
from softgrad.backends.numba_cpu.tile_cross_entropy import cross_entropy_tiles
from softgrad.backends.numba_cpu.tile_curvature import cross_entropy_hvp_tiles, cross_entropy_jvp_tiles
from softgrad.backends.numba_cpu.tiles import FLOAT64, begin_tiles


def _problem(z):
    options = numba.types.UniTuple(FLOAT, 4)
    return reads(z, 3), INT, reads(INT, 2), BOOL, INT, BOOL, DESCRIBED, BOOL, reads(FLOAT, 1), options, INT


def _loss(z):
    return numba.float64 if z == numba.float64 else numba.float32


@entry(lambda z: (*_problem(z), writes(_loss(z), 1), INT, FLOAT, writes(z, 3), INT))
def losses_few(
    z, kind, targets, ignores, ignore_index, check, probs, dense, weights, options, reduction,
    results, results_kind, unit, grad, scratch,
):  # fmt: skip
    """What the losses, kept times `unit`, are reduced to, and gradient: each where its array is not empty.

    The first row whose target is out of range, if `check`: nothing has been done then; else −1.
    """
    rows = z.shape[0] * z.shape[2]
    losses = scratch + COUNTER
    bad, work, buffers, scales, by, arguments = _lay(
        z, kind, targets, ignores, ignore_index, check, probs, dense, weights, options, reduction, scratch,
        losses + in_lines(rows),
    )  # fmt: skip
    if bad >= 0:
        return bad
    of_losses = losses if results.size else 0, 8, 0, 8, FLOAT64, 1
    cross_entropy_tiles(scratch, ALL, buffers, work, *arguments, scales, of_losses, unit, described(grad, kind))
    if results.size:
        each = rows // results.size
        reduce_rows(losses, results.size, each, unit, by, math.nan, results.ctypes.data, results_kind)
    return -1


@entry(lambda z: (*_problem(z), INT, DESCRIBED, INT, writes(_loss(z), 1), INT, INT))
def slopes_few(
    z, kind, targets, ignores, ignore_index, check, probs, dense, weights, options, reduction,
    count, of_v, v_step, results, results_kind, scratch,
):  # fmt: skip
    """What the directional derivatives along each tangent are reduced to; returns what `losses_few` does."""
    rows = z.shape[0] * z.shape[2]
    slopes = scratch + COUNTER
    bad, work, buffers, _, by, arguments = _lay(
        z, kind, targets, ignores, ignore_index, check, probs, dense, weights, options, reduction, scratch,
        slopes + in_lines(count * rows),
    )  # fmt: skip
    if bad >= 0:
        return bad
    of_slopes = slopes, 8, 0, 8, FLOAT64, 1
    cross_entropy_jvp_tiles(scratch, ALL, buffers, work, *arguments, count, of_v, v_step, of_slopes, 8 * rows)
    each = count * rows // results.size
    reduce_rows(slopes, results.size, each, 1.0, by, 0.0, results.ctypes.data, results_kind)
    return -1


@entry(lambda z: (*_problem(z), INT, DESCRIBED, INT, writes(z, 4), INT))
def curvatures_few(
    z, kind, targets, ignores, ignore_index, check, probs, dense, weights, options, reduction,
    count, of_v, v_step, out, scratch,
):  # fmt: skip
    """Hessian times each tangent; returns what `losses_few` does."""
    bad, work, buffers, scales, _, arguments = _lay(
        z, kind, targets, ignores, ignore_index, check, probs, dense, weights, options, reduction, scratch,
        scratch + COUNTER,
    )  # fmt: skip
    if bad >= 0:
        return bad
    _, out_step, of_out = described_tangents(out, kind)
    cross_entropy_hvp_tiles(scratch, ALL, buffers, work, *arguments, scales, count, of_v, v_step, of_out, out_step)
    return -1


@helper
def _lay(
    z, kind, targets, ignores, ignore_index, check, probs, dense, weights, options, reduction, scratch, indices
):  # fmt: skip
    """Classify the targets, into memory at `indices`, behind which buffers begin.

    (First bad target or −1, work, buffers, grad_output, what rows are divided by, other arguments of kernels.)
    """
    epsilon, zeta, softcap, scale = options
    size, work = begin_tiles(z, scratch)
    rows, classes = work[0], work[1]
    scale_at = scratch + 8
    write_f64(scale_at, scale)
    weights_at, at = lay_weights(weights, classes, indices + in_lines(rows))
    bad, count, by = -1, rows, float(rows)
    if not dense:
        of_targets = described_per_row(targets, INT64)
        bad, count, by = classify(of_targets, rows, classes, ignores, ignore_index, check, weights_at, indices)
    if reduction != MEAN:
        by = 1.0
    elif count > 0 and zeta != 0.0:
        zeta *= by / count
    buffers = (
        at, at + size, at + 2 * size, at + 3 * size, at + 4 * size, at + 5 * size, at + 6 * size, at + 7 * size
    )  # fmt: skip
    arguments = (
        described(z, kind), probs, dense, indices, weights_at,
        (epsilon, zeta, softcap, by, 1.0 if by == 0.0 else 0.0),
    )  # fmt: skip
    return bad, work, buffers, (scale_at, 0, 0, 0, FLOAT64, 1), by, arguments
