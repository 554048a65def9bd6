"""One cross-entropy on the device: its arguments, and the sums over rows before and after its kernel."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from softgrad.backends.cuda import kernels
from softgrad.backends.cuda.kernels import Kernel
from softgrad.backends.cuda.scratch import COUNTER_AT, DIVISOR_AT, PARTS_AT
from softgrad.backends.cuda.segments import Walks
from softgrad.protocol import Array, Loss, loss_dtype

if TYPE_CHECKING:
    from softgrad.backends.cuda.primitives import Primitives

INTEGER_FORMATS = {"int8": 0, "int16": 1, "int32": 2, "int64": 3, "uint8": 4, "uint16": 5, "uint32": 6, "uint64": 7}
LOSS_ARGS = struct.Struct("=3q 4q4q 4q 4q 4q4q q qq q dddd qq qqq 4q4q")
TOTAL_ARGS = struct.Struct("=5q2q2d")


class LossLaunch:
    """A cross-entropy computed in the C type `real`."""

    def __init__(self, primitives: Primitives, problem: Loss, real: str) -> None:
        self.primitives, self.runtime, self.problem, self.real = primitives, primitives.runtime, problem, real
        self.z = primitives.plain(problem.z)
        outer, _, inner = problem.z.shape
        self.rows = outer * inner
        self.reduces = problem.reduction != "none"
        if problem.dense:
            self.targets = primitives.real(problem.targets, self.z)
        else:
            self.targets = primitives.plain(problem.targets)
        # The dtype of probabilities: where there are none, the kernel for those of the logits' dtype will do.
        self.target_dtype = self.targets.dtype.name if problem.dense else self.z.dtype.name
        self.dtype = loss_dtype(self.z.dtype)
        computing = np.dtype(np.float64 if real == "double" else np.float32)
        self.weight = self._brought(problem.weight, computing)
        scale = problem.grad_output
        self.scale, self.scale_rows = (
            (scale, None) if isinstance(scale, float) else (1.0, self._brought(scale, computing))
        )
        # Every row counts where targets are probabilities: the divisor is known here.
        self.by = float(self.rows) if problem.dense and problem.reduction == "mean" else 1.0
        self.divisor = 0
        if not problem.dense and problem.reduction == "mean":
            self.divisor = self.runtime.scratch(self.z) + DIVISOR_AT
            self._sum(kernels.divisor(real), result=self.divisor, loss=self._arguments())

    def _brought(self, array: Array | None, dtype: np.dtype) -> Array | None:
        if array is None:
            return None
        return self.primitives.plain(array if array.dtype == dtype else self.runtime.convert(array, dtype))

    def per_row(self, lead: tuple[int, ...]) -> Array:
        """New numbers (*lead, outer, inner): the results, or what they are reduced from.

        Those that are reduced are double, and the results stand before them in the same allocation, so that no scratch
        returns to a pool while a captured graph may write to it.
        """
        outer, _, inner = self.z.shape
        shape = (*lead, outer, inner)
        if not self.reduces:
            return self.runtime.empty(shape, self.dtype, self.z)
        count = lead[0] if lead else 1
        memory = self.runtime.empty((count * (1 + self.rows),), np.float64, self.z)
        self.result = memory[:count].view(self.dtype)[:count]
        if not lead:
            self.result = self.result.reshape(())
        return memory[count:].reshape(shape)

    def launch(
        self,
        kernel: Kernel,
        walks: Walks,
        *,
        loss: Array | None = None,
        grad: Array | None = None,
        v: Array | None = None,
        out: Array | None = None,
    ) -> None:
        """Run a kernel over the rows, if there are any."""
        if self.rows:
            parts = self.primitives.tangents(kernel, v, out)
            arguments = [self._arguments(loss, grad, *part) for part in parts]
            self.primitives.launch(kernel, self.z, arguments, walks)

    def reduced(self, numbers: Array, *, when_nothing_counts: float) -> Array:
        """The results: the numbers themselves, or their sums over rows."""
        if not self.reduces:
            return numbers
        size, result = self.dtype.itemsize, self.result
        kernel = kernels.total("double" if size == 8 else "float")
        first, values = self.runtime.pointer(result), self.runtime.pointer(numbers)
        for i in range(result.size):
            self._sum(
                kernel,
                values=values + 8 * i * self.rows,
                result=first + i * size,
                when_nothing_counts=when_nothing_counts,
            )
        return result

    def _sum(
        self,
        kernel: Kernel,
        *,
        result: int,
        values: int = 0,
        loss: bytes | None = None,
        when_nothing_counts: float = 0.0,
    ) -> None:
        chunks, length = kernels.chunks_of(self.rows)
        scratch = self.runtime.scratch(self.z)
        divisor = 0 if loss else self.divisor
        arguments = (loss or self._arguments()) + TOTAL_ARGS.pack(
            values,
            result,
            scratch + PARTS_AT,
            scratch + COUNTER_AT,
            divisor,
            length,
            chunks,
            self.by,
            when_nothing_counts,
        )
        self.runtime.launch(kernel, chunks, arguments, self.z)

    def _arguments(
        self, loss: Array | None = None, grad: Array | None = None, v: Array | None = None, out: Array | None = None
    ) -> bytes:
        view, problem = self.primitives.view, self.problem
        _, classes, inner = self.z.shape
        ignores, ignore_index = (False, 0) if problem.dense else ignored_bits(self.targets.dtype, problem.ignore_index)
        tangents = v_step = out_step = 0
        if v is not None and out is not None:
            tangents = len(v)
            v_step, out_step = v.strides[0] // v.dtype.itemsize, out.strides[0] // out.dtype.itemsize
            v, out = v[0], out[0]
        return LOSS_ARGS.pack(
            self.rows, inner, classes, *view(self.z), *view(self.targets), *view(self.weight), *view(self.scale_rows),
            *view(loss), *view(grad), INTEGER_FORMATS.get(self.targets.dtype.name, 0), ignores, ignore_index,
            self.divisor, self.scale / self.by if self.by else 0.0, problem.label_smoothing, problem.z_loss,
            problem.softcap or 0.0, problem.dense, self.reduces, tangents, v_step, out_step, *view(v), *view(out),
        )  # fmt: skip


def ignored_bits(dtype: np.dtype, index: int | None) -> tuple[bool, int]:
    """Whether any target of a dtype can be `ignore_index`, and its bits as the kernels read targets: sign-extended."""
    if index is None or not np.iinfo(dtype).min <= index <= np.iinfo(dtype).max:
        return False, 0
    return True, index - 2**64 if index >= 2**63 else index
