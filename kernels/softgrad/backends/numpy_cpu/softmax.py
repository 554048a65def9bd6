"""softmax, log_softmax, logsumexp."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from softgrad.backends.numpy_cpu.blocks import Array, Block, blocks
from softgrad.backends.numpy_cpu.exponentials import Shift, exp_from_largest, exponentials, largest
from softgrad.backends.numpy_cpu.sums import largest_and_others, sum_classes, sum_of_others
from softgrad.protocol import loss_dtype


def softmax(z: Array, out: Array) -> None:
    """p = exp(z) / Σ exp(z)."""
    _each_block(z, out, _softmax)


def log_softmax(z: Array, out: Array) -> None:
    """log p."""
    _each_block(z, out, _log_softmax)


def logsumexp(z: Array) -> Array:
    """log Σ exp(z), (outer, inner)."""
    outer, classes, inner = z.shape
    out = np.full((outer, inner), -np.inf, loss_dtype(z.dtype))
    if classes == 0:
        return out
    with np.errstate(all="ignore"):
        for block in blocks(z):
            f = exponentials(block, block.load(z), exact=z.dtype != np.float64)
            block.store_per_row(out, np.where(np.isinf(f.m), f.m, f.lse))
    return out


# (block, (C, n) logits, memory for the result where there is any) -> result; float32 for 16-bit logits
Method = Callable[[Block, Array, "Array | None"], Array]


def _each_block(z: Array, out: Array, method: Method) -> None:
    if z.shape[1] == 0:
        return
    computing = np.float64 if z.dtype == np.float64 else np.float32
    with np.errstate(all="ignore"):
        for block in blocks(z, computing):
            place = None
            if z.dtype == computing:
                place = block.destination(out)
                result = method(block, block.view(z), place)
            else:
                result = method(block, block.load(z, computing), None)
            if result is not place:
                block.store(out, result)


def _softmax(block: Block, z: Array, place: Array | None) -> Array:
    m, k = largest(block, z)
    if z.dtype == np.float64:
        e = exp_from_largest(block, z, m, exact=False)
        e_k, others = largest_and_others(block, e, k)
        return np.divide(e, e_k + others, out=e if place is None else place)
    shift = Shift(block, z, m)
    e = shift.exp(block, z)
    # float32 exp is right to 2 ulp.  The largest term may be nearly all of the sum: it is taken in float64.
    e_k = shift.exp_in_float64(m)
    if k is None:
        others = sum_of_others(block, e, None)
        scale = (1.0 / (e_k + others)).astype(np.float32)
        lone = others == 0.0
        destination = e if place is None else place
        if not lone.any():
            return np.multiply(e, scale, out=destination)
        # A lone class has probability 1 to the last bit: a little more, cut at 1.
        scale *= np.float32(1.0) + lone * np.float32(2.0**-21)
        p = np.multiply(e, scale, out=e)
        return np.minimum(p, np.float32(2.0) - lone, out=destination)
    at_k = k, np.arange(len(k))
    e[at_k] = 0.0
    s = e_k + sum_classes(block, e)
    p = np.multiply(e, (1.0 / s).astype(np.float32), out=e if place is None else place)
    p[at_k] = e_k / s
    return p


def _log_softmax(block: Block, z: Array, place: Array | None) -> Array:
    m, k = largest(block, z)
    if z.dtype == np.float64:
        e = exp_from_largest(block, z, m, exact=False)
        e_k, others = largest_and_others(block, e, k)
    else:
        shift = Shift(block, z, m)
        e = shift.exp(block, z)
        e_k, others = shift.exp_in_float64(m), sum_of_others(block, e, k)
    log_sum = np.log1p(others / e_k).astype(z.dtype)
    log_p = np.subtract(z, m, out=e)
    return np.subtract(log_p, log_sum, out=e if place is None else place)
