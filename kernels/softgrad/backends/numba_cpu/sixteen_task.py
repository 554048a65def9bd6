"""A cross-entropy with an integer target in each row, as kernels that take sixteen rows at a time are told of it.

All they are told is kept in memory, and got together by compiled code.  In Python that, and handing it over number by
number, would take as long as a hundred thousand exponentials.
"""

from __future__ import annotations

import math

import numpy as np

from softgrad.backends.numba_cpu.compiling import helper, inlined, kernel
from softgrad.backends.numba_cpu.entries import BOOL, DESCRIBED, FLOAT, INT, entry
from softgrad.backends.numba_cpu.lanes import read_f64, read_i64, write_f64, write_i64
from softgrad.backends.numba_cpu.sixteen_targets import LARGEST_SCALE, SMALLEST_SCALE
from softgrad.backends.numba_cpu.targets import indexed, reduced
from softgrad.backends.numba_cpu.tiles import FLOAT64

# Where its numbers are, from its address on; those that describe an array are six.
_ROWS, _CLASSES, _INDICES, _WEIGHTS, _PAST_CACHES, _BY, _ZETA, _SCALE, _G, _G_REST = range(0, 80, 8)
_Z, _SCALES, _LOSS, _GRAD = range(80, 80 + 4 * 48, 48)
TASK_BYTES = 320  # in whole lines of the caches


@helper
def lay(
    task, rows, classes, z, targets, ignores, ignore_index, check, count, weights, room, scale, scales, zeta, is_mean,
    loss, grad, past_caches,
):  # fmt: skip
    """Write a task: arrays are described, each with address 0 if it is not there.

    `count`  how many targets count, if that is known, else −1
    `room`   address of memory for an int64 per row
    `scale`  grad_output, of all rows, where `scales` is nothing

    (The first bad row or −1; whether `room` is wanted, and there was none: nothing has been written then.)
    """
    bad, count, mass, indices = indexed(targets, rows, classes, ignores, ignore_index, check, count, weights, room)
    if bad >= 0 or indices == 0:
        return bad, bad < 0
    by = mass if is_mean else 1.0
    if is_mean and count > 0 and zeta != 0.0:
        zeta *= by / count
    write_i64(task + _ROWS, rows)
    write_i64(task + _CLASSES, classes)
    write_i64(task + _INDICES, indices)
    write_i64(task + _WEIGHTS, weights)
    write_i64(task + _PAST_CACHES, 1 if past_caches else 0)
    write_f64(task + _BY, by)
    write_f64(task + _ZETA, zeta)
    write_f64(task + _SCALE, scale)
    _write_described(task + _Z, z)
    _write_described(task + _SCALES, scales if scales[0] != 0 else (task + _SCALE, 0, 0, 0, FLOAT64, 1))
    _write_described(task + _LOSS, loss)
    _write_described(task + _GRAD, grad)
    return -1, False


def _of_prepare():
    counts = INT, INT, INT
    of_targets = DESCRIBED, BOOL, INT, BOOL, *counts
    return (*counts, DESCRIBED, *of_targets, FLOAT, DESCRIBED, FLOAT, BOOL, DESCRIBED, DESCRIBED, BOOL)


@entry(_of_prepare)
def prepare(
    task, rows, classes, z, targets, ignores, ignore_index, check, count, weights, room, scale, scales, zeta, is_mean,
    loss, grad, past_caches,
):  # fmt: skip
    """Write a task, as `lay` does.

    (What that returns; whether all gradients are multiplied by one number for which float32 will do; ζ.)
    """
    bad, wants_room = lay(
        task, rows, classes, z, targets, ignores, ignore_index, check, count, weights, room, scale, scales, zeta,
        is_mean, loss, grad, past_caches,
    )  # fmt: skip
    if bad >= 0 or wants_room:
        return bad, wants_room, False, 0.0
    by = read_f64(task + _BY)
    g = scale / by if by != 0.0 else math.nan
    near = np.float32(g)
    write_f64(task + _G, near)
    write_f64(task + _G_REST, g - near)
    is_one = weights == 0 and scales[0] == 0 and (g == 0.0 or SMALLEST_SCALE < abs(near) < LARGEST_SCALE)
    return -1, False, is_one, read_f64(task + _ZETA)


@inlined
def told(task):
    """What a kernel is told.

    (Rows, classes, logits, addresses of targets as int64 and of weights as float64, grad_output, what rows are divided
    by, losses, gradient, whether to write past the caches.)
    """
    return (
        read_i64(task + _ROWS), read_i64(task + _CLASSES), _read_described(task + _Z), read_i64(task + _INDICES),
        read_i64(task + _WEIGHTS), _read_described(task + _SCALES), read_f64(task + _BY), _read_described(task + _LOSS),
        _read_described(task + _GRAD), read_i64(task + _PAST_CACHES) != 0,
    )  # fmt: skip


@inlined
def one_scale(task):
    """What all gradients are multiplied by, in float32, and the rest."""
    return np.float32(read_f64(task + _G)), np.float32(read_f64(task + _G_REST))


@inlined
def divisor_of(task):
    """What rows are divided by."""
    return read_f64(task + _BY)


@inlined
def zeta_of(task):
    """What lse² is multiplied by, in the loss before it is divided."""
    return read_f64(task + _ZETA)


@kernel
def loss_of(task, losses, count):
    """What so many losses, or sums of them, at an address, are reduced to."""
    return np.float32(reduced(losses, count, 1.0, divisor_of(task), math.nan))


@inlined
def _write_described(at, array):
    for i in range(6):
        write_i64(at + 8 * i, array[i])


@inlined
def _read_described(at):
    return (
        read_i64(at), read_i64(at + 8), read_i64(at + 16), read_i64(at + 24), read_i64(at + 32), read_i64(at + 40)
    )  # fmt: skip
