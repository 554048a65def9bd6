"""The values of targets and probabilities, judged without large temporaries."""

from __future__ import annotations

import numpy as np

from softgrad.backends.numpy_cpu.blocks import Array, blocks
from softgrad.backends.numpy_cpu.sums import sum_classes
from softgrad.protocol import BadTargetError, Loss

# Targets looked at at a time.
TARGETS = 32768


def judge_targets(problem: Loss) -> None:
    """BadTargetError for the first target that is neither in [0, C) nor ignored, if that is asked for."""
    if not problem.check_targets:
        return
    flat = problem.targets.reshape(-1)
    for start in range(0, flat.size, TARGETS):
        _, _, bad = classify(flat[start : start + TARGETS], problem.z.shape[1], problem.ignore_index)
        if bad.any():
            raise BadTargetError(start + int(bad.argmax()))


def classify(targets: Array, classes: int, ignore_index: int | None) -> tuple[Array, Array, Array]:
    """Targets as indices (0 where there is none), which rows are ignored, and which are out of range.

    Compared in their own dtype, by value: an unsigned target is never wrapped into a negative one.
    """
    inside = (targets >= 0) & (targets < classes)
    ignored = np.zeros(targets.shape, bool)
    if ignore_index is not None:
        limits = np.iinfo(targets.dtype)
        if limits.min <= ignore_index <= limits.max:
            ignored = targets == ignore_index
    indices = np.where(inside & ~ignored, targets, 0).astype(np.intp)
    return indices, ignored, ~(inside | ignored)


def first_bad_row(probs: Array, tolerance: float, *, log: bool) -> int | None:
    """Flat position of the first row that is no probability distribution; rows with a NaN pass."""
    inner = probs.shape[2]
    with np.errstate(all="ignore"):
        for block in blocks(probs):
            p = block.load(probs)
            if log:
                np.exp(p, out=p)
            bad = (np.abs(sum_classes(block, p) - 1.0) > tolerance) | (p < 0.0).any(axis=0)
            bad &= ~np.isnan(p).any(axis=0)
            if bad.any():
                width = block.inner.stop - block.inner.start
                at = int(bad.argmax())
                return (block.outer.start + at // width) * inner + block.inner.start + at % width
    return None
