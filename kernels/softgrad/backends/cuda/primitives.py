"""The Protocol's primitives as kernel launches: which kernel, which arguments, which scratch.  No mathematics.

A `Runtime` supplies memory and launches; CuPy's is beside the `cupy` backend, and any other that runs these kernels on
these arrays will do.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from softgrad.backends.cuda import kernels, regimes
from softgrad.backends.cuda.checks import first_bad_row, first_bad_target
from softgrad.backends.cuda.kernels import ITEMSIZE, Kernel
from softgrad.backends.cuda.loss_launch import LossLaunch
from softgrad.backends.cuda.scratch import RECORDS_AT
from softgrad.backends.cuda.segments import Cutting, Walks, launches
from softgrad.protocol import Array, Loss, loss_dtype


class Runtime(Protocol):
    """What the primitives need of an array library and its device."""

    def pointer(self, array: Array) -> int:
        """Address of the first element."""

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Array) -> Array:
        """A new C-contiguous array on the device of `like`."""

    def convert(self, array: Array, dtype: Any) -> Array:
        """A C-contiguous copy in another dtype."""

    def has_clusters(self, like: Array) -> bool:
        """Whether blocks of the device of `like` can form clusters."""

    def scratch(self, like: Array) -> int:
        """Address of `SCRATCH_BYTES` that belong to the current stream of the device of `like`, zero at first."""

    def launch(self, kernel: Kernel, grid: int, arguments: bytes, like: Array) -> None:
        """Run a kernel on the current stream of the device of `like`."""


_SOFTMAX_ARGS = struct.Struct("=3q8q")
_PRODUCT_ARGS = struct.Struct("=3q12q3q")

# Largest, sum, result; for each tangent its size, sum, result.
_SOFTMAX_WALKS, _PRODUCT_WALKS, _DERIVATIVE_WALKS = Walks(3), Walks(2, 3), Walks(2, 3)


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
        outer, _, inner = z.shape
        out = self.runtime.empty((outer, inner), loss_dtype(z.dtype), z)
        self._softmax("LOG_SUM_EXP", z, out)
        return out

    def _softmax(self, mode: str, z: Array, out: Array) -> None:
        if out.size == 0:
            return
        z = self.plain(z)
        kernel = kernels.softmax(mode, z.dtype.name, self.keeping(z))
        arguments = _SOFTMAX_ARGS.pack(*shape_of(z), *self.view(z), *self.view(out))
        self.launch(kernel, z, [arguments], _SOFTMAX_WALKS)

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
        point, v = self.plain(point), self.real(v, point)
        kernel = kernels.products(mode, is_logits, point.dtype.name, v.dtype.name, self.keeping(point, arrays=2))
        of_point = (*shape_of(point), *self.view(point))
        arguments = [
            _PRODUCT_ARGS.pack(*of_point, *self.view(v[0]), *self.view(out[0]), len(v), step_of(v), step_of(out))
            for v, out in self.tangents(kernel, v, out)
        ]
        self.launch(kernel, point, arguments, _PRODUCT_WALKS)

    # --- cross-entropy ------------------------------------------------------------------------------------------------

    def cross_entropy(self, problem: Loss, grad: Array | None, *, with_loss: bool) -> Array | None:
        """The loss and its gradient, each where it is wanted."""
        has_options = problem.dense or problem.label_smoothing or problem.z_loss or problem.softcap is not None
        dtype = problem.z.dtype.name
        real = "double" if dtype == "float64" or problem.softcap is not None else "float"
        call = LossLaunch(self, problem, real)
        losses = call.per_row(()) if with_loss else None
        if losses is not None or (grad is not None and grad.size):
            if has_options:
                kernel = kernels.cross_entropy_options(dtype, call.target_dtype, real, self.walking(call.z))
                walks = Walks(3 if losses is None else 4)  # the loss has a sum of its own
            else:
                kernel = kernels.cross_entropy(dtype, self.keeping(call.z))
                walks = Walks(3)
            call.launch(kernel, walks, loss=losses, grad=grad)
        return None if losses is None else call.reduced(losses, when_nothing_counts=np.nan)

    def cross_entropy_jvp(self, problem: Loss, v: Array) -> Array:
        """The loss's derivative along each tangent: (K, outer, inner), or (K,) when reduced."""
        call = LossLaunch(self, problem, "double")
        slopes = call.per_row((len(v),))
        if slopes.size:
            v = self.real(v, call.z)
            dtype = call.z.dtype.name
            kernel = kernels.derivatives(False, dtype, call.target_dtype, v.dtype.name, self.walking(call.z))
            call.launch(kernel, _DERIVATIVE_WALKS, v=v, out=slopes)
        return call.reduced(slopes, when_nothing_counts=0.0)

    def cross_entropy_hvp(self, problem: Loss, v: Array, out: Array) -> None:
        """Hessian · v."""
        call = LossLaunch(self, problem, "double")
        if out.size:
            v = self.real(v, call.z)
            dtype = call.z.dtype.name
            kernel = kernels.derivatives(True, dtype, call.target_dtype, v.dtype.name, self.walking(call.z))
            call.launch(kernel, _DERIVATIVE_WALKS, v=v, out=out)

    # --- values -------------------------------------------------------------------------------------------------------

    def first_bad_target(self, targets: Array, classes: int, ignore_index: int | None) -> int | None:
        """Flat position of the first target that is neither in [0, classes) nor ignored."""
        if targets.size == 0:
            return None
        return first_bad_target(self, self.plain(targets), classes, ignore_index)

    def first_bad_row(self, probs: Array, tolerance: float, *, log: bool) -> int | None:
        """Flat position of the first row that is no probability distribution; rows with a NaN pass."""
        if probs.size == 0:
            return None
        probs = self.plain(probs)
        return first_bad_row(self, probs, tolerance, log=log)

    # --- for launches ------------------------------------------------------------------------------------------------

    def keeping(self, z: Array, arrays: int = 1) -> regimes.Regime:
        """The regime of a kernel that can keep rows of z (and of another array) in registers."""
        classes, clusters, contiguous = z.shape[1], self.runtime.has_clusters(z), _is_contiguous(z)
        cut = classes > self.cutting.beyond
        return regimes.keeping(
            classes, z.dtype.itemsize, contiguous=contiguous, clusters=clusters, arrays=arrays, cut=cut
        )

    def walking(self, z: Array) -> regimes.Regime:
        """The regime of a kernel that reads rows of z again at each walk."""
        return regimes.walking(z.shape[1], contiguous=_is_contiguous(z), cut=z.shape[1] > self.cutting.beyond)

    def tangents(self, kernel: Kernel, v: Any, out: Any) -> list[tuple[Any, Any]]:
        """Tangents that go into a launch together, with what takes their products: all, or one where rows are cut."""
        if v is None or not kernel.regime.cut:
            return [(v, out)]
        return [(v[i : i + 1], out[i : i + 1]) for i in range(len(v))]

    def launch(self, kernel: Kernel, z: Array, arguments: Sequence[bytes], walks: Walks) -> None:
        """Run a kernel that makes these walks over the rows of z; `arguments` for what `tangents` puts together."""
        outer, classes, inner = z.shape
        regime, rows = kernel.regime, outer * inner
        if not regime.cut:
            self.runtime.launch(kernel, regime.grid(rows), arguments[0], z)
            return
        segments, length = self.cutting.segments(classes, z.dtype.itemsize, regime)
        records = self.runtime.scratch(z) + RECORDS_AT
        for grid, of_launch in launches(segments, length, (rows, classes), regime, walks, arguments, records):
            self.runtime.launch(kernel, grid, of_launch, z)

    def view(self, array: Array | None) -> tuple[int, int, int, int]:
        """Address and strides, in elements, of an (outer, C, inner), (outer, inner), (C,) or () array."""
        if array is None:
            return (0, 0, 0, 0)
        size, strides = array.dtype.itemsize, array.strides
        address = self.runtime.pointer(array)
        if len(strides) == 3:
            return address, strides[0] // size, strides[1] // size, strides[2] // size
        if len(strides) == 2:
            return address, strides[0] // size, 0, strides[1] // size
        return address, 0, strides[0] // size if strides else 0, 0

    def plain(self, array: Array) -> Array:
        """The array, or a copy where its elements are not whole elements apart."""
        size = array.dtype.itemsize
        if any(stride % size for stride in array.strides) or self.runtime.pointer(array) % size:
            return self.runtime.convert(array, array.dtype)
        return array

    def real(self, array: Array, point: Array) -> Array:
        """Numbers in a dtype that kernels are built for: floating ones as they are, integers in the computing dtype."""
        if array.dtype.name in ITEMSIZE:
            return self.plain(array)
        return self.runtime.convert(array, loss_dtype(point.dtype))


def shape_of(z: Array) -> tuple[int, int, int]:
    """(rows, inner, classes)."""
    outer, classes, inner = z.shape
    return outer * inner, inner, classes


def step_of(v: Array) -> int:
    """The stride of the K axis, in elements."""
    return int(v.strides[0] // v.dtype.itemsize)


def _is_contiguous(z: Array) -> bool:
    return bool(z.shape[1] == 1 or z.strides[1] == z.dtype.itemsize)
