"""A call of the cross-entropy family: judged as a whole when it is made, then one primitive."""

from __future__ import annotations

from typing import Any

from softgrad import arguments
from softgrad.layout import deliver, per_row, rows, tangent_rows, writable
from softgrad.protocol import Array, Loss

_ABSENT: Any = object()  # None is what a caller may pass by mistake


LossOptions = tuple[Any, Any, Any, Any, Any, Any, Any, Any]
"""As the caller gave them: axis, weight, ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets."""


class LossCall:
    """The arguments of a call, judged and laid out in rows; each method computes one of the family's results.

    logits, targets, grad_output, tangent and out are the caller's own, as they were passed.
    """

    def __init__(
        self,
        logits: Any,
        targets: Any,
        options: LossOptions,
        *,
        tangent: Any = _ABSENT,
        grad_output: Any = None,
        out: Any = None,
    ) -> None:
        axis, weight, ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets = options
        # Library and dtype.
        copies: arguments.Copies = {}
        backend, z = arguments.main_input("logits", logits, copies)
        t = arguments.target_input(backend, targets, z, copies)
        w = None if weight is None else arguments.real_input(backend, "weight", weight, z, copies)
        v: Any = None if tangent is _ABSENT else arguments.real_input(backend, "tangent", tangent, z, copies)
        g = 1.0 if grad_output is None else arguments.scale_input(backend, grad_output, z, copies)
        self._native_out = arguments.out_input(backend, out, z, "logits")
        # Axis and shapes.
        axis = arguments.class_axis(axis, z, "logits")
        shape = z.shape
        classes = shape[axis]
        rows_shape = shape[:axis] + shape[axis + 1 :]
        arguments.target_shape(t, z, axis, rows_shape)
        if w is not None:
            arguments.weight_shape(w, classes)
        lead = 0 if v is None else arguments.leading_axes("tangent", v, z, "logits")
        if grad_output is not None:
            arguments.scale_shape(g, rows_shape)
        # Options.
        reduction = arguments.reduction_option(reduction)
        scale = g if grad_output is None else arguments.scale_rows(g, reduction, axis)
        ignore_index = arguments.ignore_index_option(ignore_index)
        label_smoothing = arguments.label_smoothing_option(label_smoothing)
        z_loss = arguments.z_loss_option(z_loss)
        softcap = arguments.softcap_option(softcap)
        check = arguments.check_option("check_targets", check_targets, backend.CHECKS_VALUES)
        # The memory of the result.
        dense = t.ndim == z.ndim
        if self._native_out is not None:
            twins, others = {"logits": z}, copies  # what was copied, `out` may not lie over either
            (twins if dense else others).setdefault("targets", t)
            if lead:
                twins, others = {}, twins | others
            if v is not None:
                twins["tangent"] = v
            if w is not None:
                others.setdefault("weight", w)
            if not isinstance(g, float):
                others.setdefault("grad_output", g)
            arguments.out_memory(backend, self._native_out, shape if v is None else v.shape, twins, others)
        # Values.
        targets = rows(t, axis) if dense else per_row(t, axis)
        if check and not dense:
            arguments.target_values(backend, targets, t, classes, ignore_index)

        self._problem = Loss(
            rows(z, axis), targets, w, ignore_index, label_smoothing, z_loss, softcap, reduction, scale
        )  # fmt: skip
        self._backend, self._z, self._v, self._axis, self._lead = backend, z, v, axis, lead
        self._logits, self._out = logits, out
        self._loss_shape = rows_shape if reduction == "none" else ()

    def loss(self) -> Any:
        """The loss alone."""
        return self._release_loss(self._backend.cross_entropy(self._problem, None, with_loss=True))

    def grad(self) -> Any:
        """The gradient alone."""
        return self._grad(with_loss=False)[1]

    def loss_and_grad(self) -> tuple[Any, Any]:
        """Both, in one pass."""
        loss, grad = self._grad(with_loss=True)
        return self._release_loss(loss), grad

    def jvp(self) -> Any:
        """The loss's derivative along the tangent."""
        v = tangent_rows(self._v, self._axis, self._lead)
        slope = self._backend.cross_entropy_jvp(self._problem, v)
        return self._release_loss(slope, self._v.shape[: self._lead])

    def hvp(self) -> Any:
        """Hessian · tangent."""
        axis, lead = self._axis, self._lead
        result = writable(self._backend, self._native_out, self._v.shape, self._z, axis, lead)
        v = tangent_rows(self._v, axis, lead)
        self._backend.cross_entropy_hvp(self._problem, v, tangent_rows(result, axis, lead))
        return deliver(self._backend, result, self._native_out, self._out, self._logits)

    def _grad(self, *, with_loss: bool) -> tuple[Array | None, Any]:
        result = writable(self._backend, self._native_out, self._z.shape, self._z, self._axis)
        loss = self._backend.cross_entropy(self._problem, rows(result, self._axis), with_loss=with_loss)
        return loss, deliver(self._backend, result, self._native_out, self._out, self._logits)

    def _release_loss(self, loss: Any, lead: tuple[int, ...] = ()) -> Any:
        shape = lead + self._loss_shape
        return self._backend.release(loss if loss.shape == shape else loss.reshape(shape), self._logits)
