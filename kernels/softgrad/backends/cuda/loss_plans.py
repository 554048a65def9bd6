"""What calls of the cross-entropy family with the same layouts and options have in common: see `plans`."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from softgrad.backends.cuda import kernels, plans, spare
from softgrad.backends.cuda.kernels import Kernel
from softgrad.backends.cuda.plans import ABSENT, KEPT, OPEN, Arguments, Fields, Launch, Layout
from softgrad.backends.cuda.segments import Walks
from softgrad.protocol import loss_dtype

INTEGER_FORMATS = {"int8": 0, "int16": 1, "int32": 2, "int64": 3, "uint8": 4, "uint16": 5, "uint32": 6, "uint64": 7}
LOSS_ARGS = "qqq" + 6 * "qqqq" + "qqq" + "q" + "dddd" + "qq" + "qqq" + 2 * "qqqq"
TOTAL_ARGS = "qqqqq" + "qq" + "dd"  # what follows LOSS_ARGS in the sums over rows

DERIVATIVE_WALKS = plans.PRODUCT_WALKS

# What is computed: losses and their gradient, directional derivatives of the loss, Hessian products.
VALUE, SLOPE, CURVATURE = "value", "slope", "curvature"


class LossPlan(NamedTuple):
    """The launches of a call: of the divisor if the device finds it out, of the rows, of the sums if there are any."""

    is_taken: bool  # whether kernels take the arrays as they are
    computing: np.dtype[Any]  # the dtype of weights and of grad_output
    launch: Launch
    arguments: Arguments  # open: z, targets, weight, scale_rows, loss, grad, divisor, scale, v, out
    memory: Memory | None  # of what is returned, and of the numbers per row that it is the sum of
    tangents: int  # and the bytes from one to the next, and from the numbers of one to those of the next
    v_step: int
    out_step: int
    has_rows: bool
    is_cut: bool  # whether its rows are
    writes_nothing: bool
    divided_by: float  # as far as that is known; 1 where the device finds it out, or there is no mean
    divides: bool  # whether the device finds out what the mean divides by
    reduces: bool
    sums_up: bool  # whether anything is summed over the rows
    divisor: Kernel
    total: Kernel
    chunks: int
    sums: Arguments  # of those over rows, after `arguments`; open: values, result, scratch, counter, divisor


class Memory(NamedTuple):
    """One allocation: what is returned and, where that is reduced, `spare` bytes for a double for every row of each.

    Together, so that no scratch returns to a pool while a captured graph may write to it.
    """

    shape: tuple[int, ...]
    dtype: Any
    offset: int  # of the numbers per row
    spare: int


@lru_cache(KEPT)
def plan(
    what: str,
    z: Layout,
    targets: Layout,
    weight: Layout | None,
    scale: Layout | None,
    written: Layout | None,
    v: Layout | None,
    options: tuple[int | None, float, float, float | None, str],
    with_loss: bool,
    clusters: bool,
    beyond: int,
) -> LossPlan:
    """`scale` is grad_output where that is an array, `written` the gradient or the Hessian products.

    `options` are those of `Loss`, from ignore_index to reduction; rows of more classes than `beyond` are cut.
    """
    ignore_index, smoothing, z_loss, softcap, reduction = options
    dense, mean, reduces = len(targets[1]) == len(z[1]), reduction == "mean", reduction != "none"
    z, targets = plans.rows(z), plans.rows(targets) if dense else plans.per_row(targets)
    v = None if v is None else plans.tangents(v)
    written = None if written is None else plans.rows(written) if v is None else plans.tangents(written)
    rows, inner, classes = plans.shape(z)
    real = "double" if what != VALUE or z[0].itemsize == 8 or softcap is not None else "float"
    computing = np.dtype(np.float64 if real == "double" else np.float32)

    inputs = [array for array in (z, targets, weight, scale, v) if array is not None]
    is_taken = all(plans.is_whole(dtype.itemsize, strides) for dtype, _, strides in inputs)
    is_taken &= all(array is None or array[0] == computing for array in (weight, scale))
    # The dtype of probabilities: where there are none, the kernel for those of the logits' dtype will do.
    target, tangent = targets if dense else z, z if v is None else v
    is_taken &= plans.is_built_for(target[0]) and plans.is_built_for(tangent[0])
    if not is_taken:
        target = tangent = z

    names = z[0].name, target[0].name
    if what != VALUE:
        kernel = kernels.derivatives(what == CURVATURE, *names, tangent[0].name, plans.walking(z, beyond))
        walks = DERIVATIVE_WALKS
    elif dense or smoothing or z_loss or softcap is not None:
        kernel = kernels.cross_entropy_options(*names, real, plans.walking(z, beyond))
        walks = Walks(4 if with_loss else 3)  # the loss has a sum of its own
    else:
        kernel, walks = kernels.cross_entropy(names[0], plans.keeping(z, clusters, beyond)), Walks(3)

    returns = with_loss or what == SLOPE
    memory = _memory(z, v, reduces) if returns else None
    numbers: Fields = (OPEN, inner, 0, 1)  # of rows, in new memory, one after the other
    number = 8 if reduces else loss_dtype(z[0]).itemsize
    steps, out, out_step = (0, 0, 0), ABSENT, rows * number
    if v is not None:
        out = numbers if written is None else plans.written(written, 1)
        steps = plans.together(v, kernel.regime), plans.step(v), rows if written is None else plans.step(written)
        out_step = out_step if written is None else written[2][0]
    fields = (
        rows, inner, classes, *plans.read(z), *plans.read(targets), *plans.read(weight), *plans.read(scale),
        *(numbers if what == VALUE else ABSENT), *plans.written(written if what == VALUE else None),
        INTEGER_FORMATS.get(targets[0].name, 0), *((False, 0) if dense else ignored_bits(targets[0], ignore_index)),
        OPEN, OPEN, smoothing, z_loss, softcap or 0.0, dense, reduces, *steps, *plans.read(v, 1), *out,
    )  # fmt: skip
    # Every row counts where targets are probabilities: the divisor is known here.
    by = float(rows) if dense and mean else 1.0
    divides = mean and not dense
    chunks, length = kernels.chunks_of(rows)
    when_nothing_counts = 0.0 if what == SLOPE else np.nan
    return LossPlan(
        is_taken, computing, Launch(kernel, plans.grid(kernel, z), walks), Arguments(LOSS_ARGS, fields), memory,
        v[1][0] if v else 1, v[2][0] if v else 0, out_step, bool(rows and (v is None or v[1][0])), kernel.regime.cut,
        not returns and (written is None or 0 in written[1]), by, divides, reduces, divides or (reduces and returns),
        kernels.divisor(real),
        kernels.total(kernels.computing(names[0])), chunks,
        Arguments(TOTAL_ARGS, (OPEN, OPEN, OPEN, OPEN, OPEN, length, chunks, by, when_nothing_counts)),
    )  # fmt: skip


def _memory(z: Layout, v: Layout | None, reduces: bool) -> Memory:
    (outer, _, inner), dtype = z[1], loss_dtype(z[0])
    lead = () if v is None else v[1][:1]
    if not reduces:
        return Memory((*lead, outer * inner), dtype, 0, 0)
    return Memory(lead, dtype, spare.offset(lead, dtype), 8 * prod(lead) * outer * inner)


def ignored_bits(dtype: np.dtype[Any], index: int | None) -> tuple[bool, int]:
    """Whether any target of a dtype can be `ignore_index`, and its bits as the kernels read targets: sign-extended."""
    if index is None or not np.iinfo(dtype).min <= index <= np.iinfo(dtype).max:
        return False, 0
    return True, index - 2**64 if index >= 2**63 else index
