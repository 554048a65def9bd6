"""One cross-entropy on the device: its kernel over the rows, and the sums over rows before and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softgrad.backends.cuda import loss_plans
from softgrad.backends.cuda.loss_plans import SLOPE, VALUE, LossPlan
from softgrad.backends.cuda.plans import Layout
from softgrad.backends.cuda.scratch import COUNTER_AT, DIVISOR_AT, PARTS_AT
from softgrad.protocol import Array, Loss, loss_dtype

if TYPE_CHECKING:
    from softgrad.backends.cuda.primitives import Primitives


def launch(
    primitives: Primitives,
    what: str,
    problem: Loss,
    *,
    with_loss: bool = False,
    grad: Array | None = None,
    v: Array | None = None,
    out: Array | None = None,
) -> Array | None:
    """Losses and gradient (`what` is VALUE), directional derivatives (SLOPE) or Hessian products (CURVATURE).

    The losses or slopes are returned, reduced if the problem says so.
    """
    runtime = primitives.runtime
    z, targets, weight, scale = problem.z, problem.targets, problem.weight, problem.grad_output
    scales = None if isinstance(scale, float) else scale
    written = grad if what == VALUE else out
    plan = loss_plans.plan(
        what, _layout(z), _layout(targets), _layout(weight), _layout(scales), _layout(grad), _layout(v), _layout(out),
        problem[3:8], with_loss, runtime.has_clusters(z), primitives.cutting.beyond,
    )  # fmt: skip
    pointer = runtime.pointer
    z_at, targets_at, weight_at = pointer(z), pointer(targets), 0 if weight is None else pointer(weight)
    scales_at = 0 if scales is None else pointer(scales)
    v_at, written_at = 0 if v is None else pointer(v), 0 if written is None else pointer(written)
    odd = (z_at | targets_at | weight_at | scales_at | v_at | written_at) & 7
    if not plan.is_taken or (odd and not primitives.are_aligned(written, z, targets, weight, scales, v)):
        problem, v = _brought(primitives, problem, v, plan)
        return launch(primitives, what, problem, with_loss=with_loss, grad=grad, v=v, out=out)

    outer, _, inner = z.shape
    rows = outer * inner
    # What is returned, and the address of the numbers per row.
    results, numbers_at = None, 0
    if with_loss or what == SLOPE:
        lead = () if v is None else v.shape[:1]
        if plan.reduces:
            size, dtype, offset = loss_plans.memory_of_sums(rows, lead[0] if lead else 1, z.dtype)
            memory = runtime.empty((size,), dtype, z)
            results = memory[: lead[0]] if lead else memory[0, ...]  # of one element, an array
            numbers_at = pointer(memory) + offset
        else:
            results = runtime.empty((*lead, outer, inner), loss_dtype(z.dtype), z)
            numbers_at = pointer(results)
    if results is None and (written is None or written.size == 0):
        return None

    scratch = runtime.scratch(z) if plan.divides or (plan.reduces and results is not None) else 0
    divisor_at = scratch + DIVISOR_AT if plan.divides else 0
    parts_at, counter_at = scratch + PARTS_AT, scratch + COUNTER_AT
    loss_at, grad_at, out_at = (numbers_at, written_at, 0) if what == VALUE else (0, 0, numbers_at or written_at)
    factor = scale if scales is None else 1.0
    factor = factor / plan.divided_by if plan.divided_by else 0.0

    def of_tangent(v_at: int, out_at: int) -> bytes:
        return plan.arguments.filled(
            z_at, targets_at, weight_at, scales_at, loss_at, grad_at, divisor_at, factor, v_at, out_at
        )

    arguments = of_tangent(v_at, out_at)
    if plan.divides:
        sums = plan.sums.filled(0, divisor_at, parts_at, counter_at, 0)
        runtime.launch(plan.divisor, plan.chunks, arguments + sums, z)
    if rows and (v is None or v.shape[0]):
        of_launches = [arguments]
        if v is not None and plan.launch.kernel.regime.cut:  # one tangent at a time
            number = 8 if plan.reduces else loss_dtype(z.dtype).itemsize
            v_step, out_step = v.strides[0], rows * number if out is None else out.strides[0]
            of_launches = [of_tangent(v_at + i * v_step, out_at + i * out_step) for i in range(v.shape[0])]
        primitives.launch(plan.launch, z, of_launches)
    if plan.reduces and results is not None:
        first, itemsize = pointer(results), results.dtype.itemsize
        for i in range(results.size):
            values_at, result_at = numbers_at + 8 * i * rows, first + i * itemsize
            sums = plan.sums.filled(values_at, result_at, parts_at, counter_at, divisor_at)
            runtime.launch(plan.total, plan.chunks, arguments + sums, z)
    return results


def _brought(primitives: Primitives, problem: Loss, v: Array | None, plan: LossPlan) -> tuple[Loss, Array | None]:
    """The arrays as kernels take them."""
    z, scale = primitives.plain(problem.z), problem.grad_output
    targets = primitives.real(problem.targets, z) if problem.dense else primitives.plain(problem.targets)

    def computing(array: Array) -> Array:
        same = array.dtype == plan.computing
        return primitives.plain(array) if same else primitives.runtime.convert(array, plan.computing)

    problem = problem._replace(
        z=z,
        targets=targets,
        weight=None if problem.weight is None else computing(problem.weight),
        grad_output=scale if isinstance(scale, float) else computing(scale),
    )
    return problem, None if v is None else primitives.real(v, z)


def _layout(array: Array | None) -> Layout | None:
    return None if array is None else (array.dtype, array.shape, array.strides)
