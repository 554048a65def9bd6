"""A call of the cross-entropy family: judged as a whole when it is made, then one primitive."""

from __future__ import annotations

from typing import Any

from softgrad import arguments
from softgrad.layout import deliver, per_row, rows, tangent_rows, writable
from softgrad.protocol import Array, BadTargetError, Loss

_ABSENT: Any = object()  # None is what a caller may pass by mistake


class LossCall:
    """The arguments of a call, judged and laid out in rows; each method computes one of the family's results.

    logits, targets, weight, grad_output, tangent and out are the caller's own, as they were passed; `options` are
    `arguments.LossOptions` in its order.
    """

    def __init__(
        self,
        logits: Any,
        targets: Any,
        axis: Any,
        weight: Any,
        options: tuple[Any, ...],
        *,
        tangent: Any = _ABSENT,
        grad_output: Any = None,
        out: Any = None,
    ) -> None:
        # Library and dtype.
        copies: arguments.Copies = {}
        backend, z = arguments.main_input("logits", logits, copies)
        t = arguments.target_input(backend, targets, z, copies)
        w = None if weight is None else arguments.real_input(backend, "weight", weight, z, copies)
        v: Any = None if tangent is _ABSENT else arguments.real_input(backend, "tangent", tangent, z, copies)
        g = 1.0 if grad_output is None else arguments.scale_input(backend, grad_output, z, copies)
        native_out = None if out is None else arguments.out_input(backend, out, z, "logits")
        # Axis and shapes.
        shape = z.shape
        axis = arguments.class_axis(axis, shape, "logits")
        rows_shape = shape[:-1] if axis == len(shape) - 1 else shape[:axis] + shape[axis + 1 :]
        dense = arguments.are_probabilities(t.shape, shape, axis, rows_shape)
        if w is not None:
            arguments.weight_shape(w, shape[axis])
        lead = 0 if v is None else arguments.leading_axes("tangent", v, z, "logits")
        if grad_output is not None:
            arguments.scale_shape(g, rows_shape)
        # Options.
        ignore_index, label_smoothing, z_loss, softcap, reduction, check = arguments.loss_options(*options)
        if grad_output is not None:
            g = arguments.scale_rows(g, reduction, axis)
        # The memory of the result.
        if native_out is not None:
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
            arguments.out_memory(backend, native_out, shape if v is None else v.shape, twins, others)
        # Values: of targets that are no probabilities, whoever reads them judges them.
        check = not dense and (backend.CHECKS_VALUES if check is None else check)
        two_axes = backend.TAKES_TWO_AXES
        in_rows = rows(t, axis, two_axes) if dense else per_row(t, axis, two_axes)
        self._problem = Loss(
            rows(z, axis, two_axes), in_rows, w, ignore_index, label_smoothing, z_loss, softcap, reduction, g, check
        )  # fmt: skip
        self._backend, self._z, self._t, self._v, self._native_out = backend, z, t, v, native_out
        self._axis, self._lead, self._logits, self._out = axis, lead, logits, out
        self._loss_shape = rows_shape if reduction == "none" else ()

    def loss(self) -> Any:
        """The loss alone."""
        return self._release_loss(self._compute(None, with_loss=True))

    def grad(self) -> Any:
        """The gradient alone."""
        result = writable(self._backend, self._native_out, self._z.shape, self._z, self._axis)
        self._compute(rows(result, self._axis, self._backend.TAKES_TWO_AXES), with_loss=False)
        return self._deliver(result)

    def loss_and_grad(self) -> tuple[Any, Any]:
        """Both, in one pass."""
        result = writable(self._backend, self._native_out, self._z.shape, self._z, self._axis)
        loss = self._compute(rows(result, self._axis, self._backend.TAKES_TWO_AXES), with_loss=True)
        return self._release_loss(loss), self._deliver(result)

    def jvp(self) -> Any:
        """The loss's derivative along the tangent."""
        v = tangent_rows(self._v, self._axis, self._lead, self._backend.TAKES_TWO_AXES)
        try:
            slope = self._backend.cross_entropy_jvp(self._problem, v)
        except BadTargetError as bad:
            raise self._refusal(bad) from None
        return self._release_loss(slope, self._v.shape[: self._lead])

    def hvp(self) -> Any:
        """Hessian · tangent."""
        axis, lead = self._axis, self._lead
        result = writable(self._backend, self._native_out, self._v.shape, self._z, axis, lead)
        two_axes = self._backend.TAKES_TWO_AXES
        v = tangent_rows(self._v, axis, lead, two_axes)
        try:
            self._backend.cross_entropy_hvp(self._problem, v, tangent_rows(result, axis, lead, two_axes))
        except BadTargetError as bad:
            raise self._refusal(bad) from None
        return self._deliver(result)

    def _compute(self, grad: Array | None, *, with_loss: bool) -> Array | None:
        try:
            return self._backend.cross_entropy(self._problem, grad, with_loss=with_loss)
        except BadTargetError as bad:
            raise self._refusal(bad) from None

    def _refusal(self, bad: BadTargetError) -> ValueError:
        return arguments.bad_target(bad.position, self._t, self._z.shape[self._axis], self._problem.ignore_index)

    def _deliver(self, result: Array) -> Any:
        return deliver(self._backend, result, self._native_out, self._out, self._logits)

    def _release_loss(self, loss: Any, lead: tuple[int, ...] = ()) -> Any:
        shape = lead + self._loss_shape
        return self._backend.release(loss if loss.shape == shape else loss.reshape(shape), self._logits)
