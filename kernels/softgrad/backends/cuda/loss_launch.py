"""One cross-entropy on the device: its kernel over the rows, and the sums over rows before and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softgrad.backends.cuda import loss_plans
from softgrad.backends.cuda.loss_plans import VALUE, LossPlan
from softgrad.backends.cuda.scratch import COUNTER_AT, DIVISOR_AT, PARTS_AT
from softgrad.protocol import Array, Loss

if TYPE_CHECKING:
    from softgrad.backends.cuda.primitives import Primitives


def launch(
    primitives: Primitives,
    what: str,
    problem: Loss,
    with_loss: bool = False,
    written: Array | None = None,
    v: Array | None = None,
) -> Array | None:
    """Losses and their gradient (`what` is VALUE), directional derivatives (SLOPE) or Hessian products (CURVATURE).

    Gradient or products are written to `written`; losses or slopes are returned, reduced if the problem says so.
    """
    runtime = primitives.runtime
    pointer = runtime.pointer
    z, targets, weight, scale = problem.z, problem.targets, problem.weight, problem.grad_output
    z_at, targets_at, factor = pointer(z), pointer(targets), scale
    # What most calls do not have.
    weight_at = scales_at = v_at = written_at = 0
    of_weight = scales = of_scales = of_v = of_written = None
    if weight is not None:
        weight_at, of_weight = pointer(weight), (weight.dtype, weight.shape, weight.strides)
    if not isinstance(scale, float):
        scales, factor, scales_at, of_scales = scale, 1.0, pointer(scale), (scale.dtype, scale.shape, scale.strides)
    if v is not None:
        v_at, of_v = pointer(v), (v.dtype, v.shape, v.strides)
    if written is not None:
        written_at, of_written = pointer(written), (written.dtype, written.shape, written.strides)
    plan = loss_plans.plan(
        what, (z.dtype, z.shape, z.strides), (targets.dtype, targets.shape, targets.strides), of_weight, of_scales,
        of_written, of_v, problem[3:8], with_loss, runtime.has_clusters(z), primitives.cutting.beyond,
    )  # fmt: skip
    odd = (z_at | targets_at | weight_at | scales_at | v_at | written_at) & 7
    if not plan.is_taken or (odd and not primitives.are_aligned(written, z, targets, weight, scales, v)):
        problem, v = _brought(primitives, problem, v, plan)
        return launch(primitives, what, problem, with_loss, written, v)

    # What is returned, and the address of the numbers per row.
    results, numbers_at = None, 0
    if plan.memory is not None:
        shape, dtype, offset, spare = plan.memory
        results = runtime.empty(shape, dtype, z, spare)
        numbers_at = pointer(results) + offset
    elif plan.writes_nothing:
        return None

    scratch = divisor_at = 0
    if plan.sums_up:
        scratch = runtime.scratch(z)
        divisor_at = scratch + DIVISOR_AT if plan.divides else 0
    factor = factor / plan.divided_by if plan.divided_by else 0.0
    loss_at, grad_at, out_at = (numbers_at, written_at, 0) if what == VALUE else (0, 0, written_at or numbers_at)
    arguments = plan.arguments.filled(
        z_at, targets_at, weight_at, scales_at, loss_at, grad_at, divisor_at, factor, v_at, out_at
    )
    if plan.divides:
        sums = plan.sums.filled(0, divisor_at, scratch + PARTS_AT, scratch + COUNTER_AT, 0)
        runtime.launch(plan.divisor, plan.chunks, arguments + sums, z)
    if plan.has_rows and not plan.is_cut:
        runtime.launch(plan.launch.kernel, plan.launch.grid, arguments, z)
    elif plan.has_rows:
        of_launches = [arguments]
        if v is not None:  # one at a time
            places = [(v_at + i * plan.v_step, out_at + i * plan.out_step) for i in range(plan.tangents)]
            of_launches = [
                plan.arguments.filled(
                    z_at, targets_at, weight_at, scales_at, loss_at, grad_at, divisor_at, factor, *place
                )
                for place in places
            ]
        primitives.launch(plan.launch, z, of_launches)
    if plan.reduces and plan.memory is not None:
        first, itemsize = numbers_at - plan.memory.offset, plan.memory.dtype.itemsize
        for i in range(plan.tangents):
            values_at, result_at = numbers_at + i * plan.out_step, first + i * itemsize
            sums = plan.sums.filled(values_at, result_at, scratch + PARTS_AT, scratch + COUNTER_AT, divisor_at)
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
