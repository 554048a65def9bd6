"""The values of targets and probabilities, judged on the device: asked for, it synchronises."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np

from softgrad.backends.cuda import kernels, plans
from softgrad.backends.cuda.loss_plans import INTEGER_FORMATS, ignored_bits
from softgrad.backends.cuda.plans import OPEN, Arguments, Launch
from softgrad.backends.cuda.segments import Walks
from softgrad.protocol import Array

if TYPE_CHECKING:
    from softgrad.backends.cuda.primitives import Primitives

CHECK_ARGS = "qqq" + "qqqq" + "qqq" + "q" + "d" + "q"
_NONE = -1  # unsigned on the device: beyond every position


def first_bad_target(primitives: Primitives, targets: Array, classes: int, ignore_index: int | None) -> int | None:
    """Flat position of the first target that is neither in [0, classes) nor ignored."""
    outer, inner = targets.shape
    shape = (outer * inner, inner, classes)
    integers = (INTEGER_FORMATS[targets.dtype.name], *ignored_bits(targets.dtype, ignore_index))
    kernel, grid = kernels.check_targets(), -(-outer * inner // kernels.TOTALS.threads)

    def run(arguments: bytes) -> None:
        primitives.runtime.launch(kernel, grid, arguments, targets)

    return _first(primitives, run, targets, shape, integers, 0.0, log=False)


def first_bad_row(primitives: Primitives, probs: Array, tolerance: float, *, log: bool) -> int | None:
    """Flat position of the first row with a negative entry, or that does not sum to 1 within `tolerance`."""
    outer, classes, inner = probs.shape
    layout = probs.dtype, probs.shape, probs.strides
    kernel = kernels.check_rows(probs.dtype.name, plans.walking(layout, primitives.cutting.beyond))
    launch = Launch(kernel, plans.grid(kernel, layout), Walks(2))

    def run(arguments: bytes) -> None:
        primitives.launch(launch, probs, [arguments])

    return _first(primitives, run, probs, (outer * inner, inner, classes), (0, 0, 0), tolerance, log=log)


def _first(
    primitives: Primitives,
    run: Callable[[bytes], None],
    values: Array,
    shape: tuple[int, int, int],
    integers: tuple[int, int, int],
    tolerance: float,
    *,
    log: bool,
) -> int | None:
    runtime = primitives.runtime
    first = runtime.empty((), np.int64, values)
    fields = (*shape, *plans.read((values.dtype, values.shape, values.strides)), *integers, OPEN, tolerance, log)
    # Where arrays have operations of their own, these belong on the call's stream too.
    with getattr(runtime, "on_stream", nullcontext)():
        first[...] = _NONE
        run(Arguments(CHECK_ARGS, fields).filled(runtime.pointer(values), runtime.pointer(first)))
        position = int(first)
    return None if position == _NONE else position
