"""The cross-entropy family of a few rows on tiles: every option, from targets as they are to the reduced result.

A problem is z and its kind, integer targets, whether any is ignored and which, probabilities, whether they are the
targets, weights, (ε, z_loss, softcap or 0, grad_output), reduction.  An array that is not wanted is empty.
"""

from __future__ import annotations

import math

import numba

from softgrad.backends.numba_cpu.compiling import helper
from softgrad.backends.numba_cpu.entries import (
    BOOL,
    COUNTER,
    DESCRIBED,
    FLOAT,
    INT,
    described,
    described_per_row,
    described_tangents,
    entry,
    reads,
    writes,
)
from softgrad.backends.numba_cpu.few_single import MEAN
from softgrad.backends.numba_cpu.lanes import write_f64
from softgrad.backends.numba_cpu.targets import classify, reduce_rows
from softgrad.backends.numba_cpu.tile_cross_entropy import cross_entropy_tiles
from softgrad.backends.numba_cpu.tile_curvature import cross_entropy_hvp_tiles, cross_entropy_jvp_tiles
from softgrad.backends.numba_cpu.tiles import FLOAT64, begin_tiles


def _problem(z):
    options = numba.types.UniTuple(FLOAT, 4)
    return reads(z, 3), INT, DESCRIBED, BOOL, INT, DESCRIBED, BOOL, reads(FLOAT, 1), options, INT


def _loss(z):
    return numba.float64 if z == numba.float64 else numba.float32


@entry(lambda z: (*_problem(z), writes(FLOAT, 2), writes(_loss(z), 1), INT, FLOAT, writes(z, 3), INT))
def losses_few(
    z, kind, targets, ignores, ignore_index, probs, dense, weights, options, reduction,
    losses, results, results_kind, unit, grad, scratch,
):  # fmt: skip
    """Loss of each row in float64 times `unit`, what they are reduced to, gradient."""
    work, buffers, scales, by, arguments = _lay(
        z, kind, targets, ignores, ignore_index, probs, dense, weights, options, reduction, scratch
    )
    of_losses = described_per_row(losses, FLOAT64)
    cross_entropy_tiles(scratch, buffers, work, *arguments, scales, of_losses, unit, described(grad, kind))
    if results.size:
        each = work[0] // results.size
        reduce_rows(losses.ctypes.data, results.size, each, unit, by, math.nan, results.ctypes.data, results_kind)


@entry(lambda z: (*_problem(z), INT, DESCRIBED, INT, writes(FLOAT, 3), writes(_loss(z), 1), INT, INT))
def slopes_few(
    z, kind, targets, ignores, ignore_index, probs, dense, weights, options, reduction,
    count, of_v, v_step, slopes, results, results_kind, scratch,
):  # fmt: skip
    """Directional derivative of each row along each tangent in float64, and what they are reduced to."""
    work, buffers, _, by, arguments = _lay(
        z, kind, targets, ignores, ignore_index, probs, dense, weights, options, reduction, scratch
    )
    of_slopes = slopes.ctypes.data, slopes.strides[1], 0, slopes.strides[2], FLOAT64, slopes.shape[2]
    cross_entropy_jvp_tiles(scratch, buffers, work, *arguments, count, of_v, v_step, of_slopes, slopes.strides[0])
    if results.size:
        each = count * work[0] // results.size
        reduce_rows(slopes.ctypes.data, results.size, each, 1.0, by, 0.0, results.ctypes.data, results_kind)


@entry(lambda z: (*_problem(z), INT, DESCRIBED, INT, writes(z, 4), INT))
def curvatures_few(
    z, kind, targets, ignores, ignore_index, probs, dense, weights, options, reduction,
    count, of_v, v_step, out, scratch,
):  # fmt: skip
    """Hessian times each tangent."""
    work, buffers, scales, _, arguments = _lay(
        z, kind, targets, ignores, ignore_index, probs, dense, weights, options, reduction, scratch
    )
    _, out_step, of_out = described_tangents(out, kind)
    cross_entropy_hvp_tiles(scratch, buffers, work, *arguments, scales, count, of_v, v_step, of_out, out_step)


@helper
def _lay(z, kind, targets, ignores, ignore_index, probs, dense, weights, options, reduction, scratch):
    """Classify the targets; (work, buffers, grad_output, what rows are divided by, other arguments of kernels)."""
    epsilon, zeta, softcap, scale = options
    size, work = begin_tiles(z, scratch)
    rows, classes = work[0], work[1]
    scale_at, indices = scratch + 8, scratch + COUNTER
    write_f64(scale_at, scale)
    weights_at = weights.ctypes.data if weights.size else 0
    count, by = rows, float(rows)
    if not dense:
        count, by = classify(targets, rows, classes, ignores, ignore_index, weights_at, indices)
    if reduction != MEAN:
        by = 1.0
    elif count > 0 and zeta != 0.0:
        zeta *= by / count
    at = indices + ((8 * rows + 63) & ~63)
    buffers = (
        at, at + size, at + 2 * size, at + 3 * size, at + 4 * size, at + 5 * size, at + 6 * size, at + 7 * size
    )  # fmt: skip
    arguments = (
        described(z, kind), probs, dense, indices, weights_at,
        (epsilon, zeta, softcap, by, 1.0 if by == 0.0 else 0.0),
    )  # fmt: skip
    return work, buffers, (scale_at, 0, 0, 0, FLOAT64, 1), by, arguments
