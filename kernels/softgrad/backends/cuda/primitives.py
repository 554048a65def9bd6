"""The Protocol's primitives as kernel launches: which kernel, which arguments, which scratch.  No mathematics.

A `Runtime` supplies memory and launches; CuPy's is beside the `cupy` backend, and any other that runs these kernels on
these arrays will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from softgrad.backends.cuda import loss_launch, plans
from softgrad.backends.cuda.checks import first_bad_row, first_bad_target
from softgrad.backends.cuda.kernels import Kernel
from softgrad.backends.cuda.loss_plans import CURVATURE, SLOPE, VALUE
from softgrad.backends.cuda.plans import Launch
from softgrad.backends.cuda.scratch import RECORDS_AT
from softgrad.backends.cuda.segments import Cutting, launches
from softgrad.protocol import Array, BadTargetError, Loss, loss_dtype


class Runtime(Protocol):
    """What the primitives need of an array library and its device."""

    def pointer(self, array: Array) -> int:
        """Address of the first element."""

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Array, spare: int = 0) -> Array:
        """A new C-contiguous array on the device of `like`; behind it, from `spare.offset` on, so many more bytes."""

    def convert(self, array: Array, dtype: Any) -> Array:
        """A C-contiguous copy in another dtype."""

    def has_clusters(self, like: Array) -> bool:
        """Whether blocks of the device of `like` can form clusters."""

    def scratch(self, like: Array) -> int:
        """Address of `SCRATCH_BYTES`, zero at first, of the current stream of the device of `like` and its capture."""

    def launch(self, kernel: Kernel, grid: int, arguments: bytes, like: Array) -> None:
        """Run a kernel on the current stream of the device of `like`."""


class Primitives:
    """The row primitives over a runtime; `cutting`: which rows are cut into segments."""

    def __init__(self, runtime: Runtime, cutting: Cutting | None = None) -> None:
        self.runtime = runtime
        self.cutting = cutting or Cutting()

    # --- softmax ------------------------------------------------------------------------------------------------------

    def softmax(self, z: Array, out: Array) -> None:
        """p = exp(z) / Σ exp(z)."""
        self._softmax("PROBABILITIES", z, out)

    def log_softmax(self, z: Array, out: Array) -> None:
        """log p."""
        self._softmax("LOG_PROBABILITIES", z, out)

    def logsumexp(self, z: Array) -> Array:
        """log Σ exp(z), (outer, inner)."""
        out = self.runtime.empty((z.shape[0], *z.shape[2:]), loss_dtype(z.dtype), z)
        self._softmax("LOG_SUM_EXP", z, out)
        return out

    def _softmax(self, mode: str, z: Array, out: Array) -> None:
        if out.size == 0:
            return
        runtime = self.runtime
        plan = plans.softmax(
            mode,
            (z.dtype, z.shape, z.strides),
            (out.dtype, out.shape, out.strides),
            runtime.has_clusters(z),
            self.cutting.beyond,
        )
        z_at, out_at = runtime.pointer(z), runtime.pointer(out)
        if not plan.is_taken or ((z_at | out_at) & 7 and not self.are_aligned(out, z)):
            self._softmax(mode, self.plain(z), out)
        else:
            self.launch(plan.launch, z, [plan.arguments.filled(z_at, out_at)])

    # --- products -----------------------------------------------------------------------------------------------------

    def softmax_product(self, v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
        """J v."""
        self._products("SOFTMAX_PRODUCT", v, point, out, is_logits)

    def log_softmax_jvp(self, v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
        """v − Σ p v."""
        self._products("LOG_JVP", v, point, out, is_logits)

    def log_softmax_vjp(self, v: Array, point: Array, out: Array, *, is_logits: bool) -> None:
        """v − p Σ v."""
        self._products("LOG_VJP", v, point, out, is_logits)

    def _products(self, mode: str, v: Array, point: Array, out: Array, is_logits: bool) -> None:
        if out.size == 0:
            return
        runtime = self.runtime
        plan = plans.products(
            mode,
            is_logits,
            (v.dtype, v.shape, v.strides),
            (point.dtype, point.shape, point.strides),
            (out.dtype, out.shape, out.strides),
            runtime.has_clusters(point),
            self.cutting.beyond,
        )
        point_at, v_at, out_at = runtime.pointer(point), runtime.pointer(v), runtime.pointer(out)
        if not plan.is_taken or ((point_at | v_at | out_at) & 7 and not self.are_aligned(out, point, v)):
            self._products(mode, self.real(v, point), self.plain(point), out, is_logits)
        elif plan.launch.kernel.regime.cut:  # one tangent at a time
            tangents = v.shape[0] if v.ndim > point.ndim else 1
            steps = [(i * v.strides[0], i * out.strides[0]) for i in range(tangents)]
            self.launch(plan.launch, point, [plan.arguments.filled(point_at, v_at + a, out_at + b) for a, b in steps])
        else:
            self.launch(plan.launch, point, [plan.arguments.filled(point_at, v_at, out_at)])

    # --- cross-entropy ------------------------------------------------------------------------------------------------

    def cross_entropy(self, problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
        """The loss and its gradient, each where it is wanted."""
        if problem.check_targets:
            self._judge_targets(problem)
        return loss_launch.launch(self, VALUE, problem, with_loss, grad)

    def cross_entropy_jvp(self, problem: Loss, v: Array) -> Array:
        """The loss's derivative along each tangent: (K, outer · inner), or (K,) when reduced."""
        if problem.check_targets:
            self._judge_targets(problem)
        return loss_launch.launch(self, SLOPE, problem, v=v)

    def cross_entropy_hvp(self, problem: Loss, v: Array, out: Array) -> None:
        """Hessian · v."""
        if problem.check_targets:
            self._judge_targets(problem)
        loss_launch.launch(self, CURVATURE, problem, written=out, v=v)

    def _judge_targets(self, problem: Loss) -> None:
        targets = problem.targets
        position = None
        if targets.size:
            in_rows = targets if targets.ndim == 2 else targets.reshape(targets.size, 1)
            position = first_bad_target(self, self.plain(in_rows), problem.z.shape[1], problem.ignore_index)
        if position is not None:
            raise BadTargetError(position)

    # --- values -------------------------------------------------------------------------------------------------------

    def first_bad_row(self, probs: Array, tolerance: float, *, log: bool) -> int | None:
        """Flat position of the first row that is no probability distribution; rows with a NaN pass."""
        if probs.size == 0:
            return None
        probs = self.plain(probs)
        return first_bad_row(self, probs, tolerance, log=log)

    # --- for launches ------------------------------------------------------------------------------------------------

    def launch(self, launch: Launch, z: Array, arguments: Sequence[bytes]) -> None:
        """Run a kernel over the rows of z; where they are cut, `arguments` are those of each tangent."""
        kernel, grid, walks = launch
        regime = kernel.regime
        if not regime.cut:
            self.runtime.launch(kernel, grid, arguments[0], z)
            return
        classes = z.shape[1]
        segments, length = self.cutting.segments(classes, z.dtype.itemsize, regime)
        records = self.runtime.scratch(z) + RECORDS_AT
        shape = z.size // classes, classes
        for blocks, of_launch in launches(segments, length, shape, regime, walks, arguments, records):
            self.runtime.launch(kernel, blocks, of_launch, z)

    def are_aligned(self, out: Array | None, *inputs: Array | None) -> bool:
        """Whether every input starts where an element may; ValueError if `out` does not."""
        if out is not None and self.runtime.pointer(out) % out.dtype.itemsize:
            raise plans.unaligned_out(out.dtype)
        return not any(array is not None and self.runtime.pointer(array) % array.dtype.itemsize for array in inputs)

    def plain(self, array: Array) -> Array:
        """The array, or a copy where its elements are not whole elements apart."""
        if plans.is_whole(array.dtype.itemsize, array.strides) and self.are_aligned(None, array):
            return array
        return self.runtime.convert(array, array.dtype)

    def real(self, array: Array, point: Array) -> Array:
        """Numbers in a dtype that kernels are built for: floating ones as they are, integers in one that holds them."""
        if plans.is_built_for(array.dtype):
            return self.plain(array)
        dtype = np.dtype(np.float64) if array.dtype.itemsize >= 4 else loss_dtype(point.dtype)
        return self.runtime.convert(array, dtype)
