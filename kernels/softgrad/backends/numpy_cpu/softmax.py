"""softmax, log_softmax, logsumexp."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from softgrad.backends.numpy_cpu.blocks import Array, Block, blocks
from softgrad.backends.numpy_cpu.exponentials import exponentials, first_largest, shifted_exp
from softgrad.backends.numpy_cpu.sums import sum_classes

# A float32 row within ±40 needs no shift even in float32, whose exp is twice as fast: exp(±40) and its sums stay
# within 10^±38, and probabilities down to exp(−80) keep their digits.
NARROW_FLOAT32 = 40.0


def softmax(z: Array, out: Array) -> None:
    """p = exp(z) / Σ exp(z)."""
    _by_width(z, out, _softmax_narrow, _softmax_wide)


def log_softmax(z: Array, out: Array) -> None:
    """log p."""
    _by_width(z, out, _log_softmax_narrow, _log_softmax_wide)


def logsumexp(z: Array, out: Array) -> None:
    """log Σ exp(z), into `out` (outer, inner)."""
    if z.shape[1] == 0:
        out[...] = -np.inf
        return
    with np.errstate(all="ignore"):
        for block in blocks(z):
            f = exponentials(block, block.load(z), exact=z.dtype != np.float64)
            block.store_per_row(out, np.where(np.isinf(f.m), f.m, f.lse))


# (block, z, maxima, result) -> the (C, n) result, written to `result` where that is given
Narrow = Callable[[Block, Array, Array, "Array | None"], Array]
Wide = Callable[[Block, Array, bool], Array]


def _by_width(z: Array, out: Array, narrow: Narrow, wide: Wide) -> None:
    """Each row by the method its own logits allow, whatever the rows around it hold."""
    if z.shape[1] == 0:
        return
    with np.errstate(all="ignore"):
        for block in blocks(z):
            if z.dtype != np.float32:
                block.store(out, wide(block, block.load(z), z.dtype != np.float64))
                continue
            x = block.view(z)
            m = x.max(axis=0)
            if m.max() <= NARROW_FLOAT32 and x.min() >= -NARROW_FLOAT32:
                place = block.place(out)
                values = narrow(block, x, m, place)
                if place is None:
                    block.store(out, values)
                continue
            is_narrow = (m <= NARROW_FLOAT32) & (x.min(axis=0) >= -NARROW_FLOAT32)
            if not is_narrow.any():
                block.store(out, wide(block, block.load(z), True))
                continue
            result = block.empty_like(x)
            some, others = np.flatnonzero(is_narrow), np.flatnonzero(~is_narrow)
            result[:, some] = narrow(block, block.take(x, some), m[some], None)
            result[:, others] = wide(block, block.take(x, others).astype(np.float64), True)
            block.store(out, result)


def _softmax_narrow(block: Block, z: Array, m: Array, result: Array | None) -> Array:
    e = np.exp(z, out=block.empty_like(z))
    # The largest term may be nearly all of the sum: it is replaced by its float64 value.
    s = sum_classes(e) + (np.exp(m, dtype=np.float64) - np.exp(m))
    return np.multiply(e, (1.0 / s).astype(np.float32), out=e if result is None else result)


def _softmax_wide(block: Block, z: Array, exact: bool) -> Array:
    e = shifted_exp(block, z, z.max(axis=0), exact=exact)
    e /= sum_classes(e)
    return e


def _log_softmax_narrow(block: Block, z: Array, m: Array, result: Array | None) -> Array:
    e = np.exp(z, out=block.empty_like(z))
    e[first_largest(z, in_columns=block.columns), np.arange(z.shape[1])] = 0.0
    log_sum = np.log1p(sum_classes(e) / np.exp(m, dtype=np.float64))
    log_p = np.subtract(z, m, out=e if result is None else result)
    log_p -= log_sum.astype(np.float32)
    return log_p


def _log_softmax_wide(block: Block, z: Array, exact: bool) -> Array:
    f = exponentials(block, z, exact=exact)
    log_p = np.subtract(z, f.m, out=f.e)
    log_p -= f.l
    return log_p
