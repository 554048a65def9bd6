"""Softmax + cross-entropy, its gradient A − T, directional derivative and Hessian product: the public functions.

Every function takes the same loss options, gathered once in `_problem`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from softgrad import arguments
from softgrad.layout import per_row, rows, write_rows
from softgrad.protocol import Array, Backend, Loss


def cross_entropy(
    logits: Any,
    targets: Any,
    *,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: str = "mean",
    check_targets: bool | None = None,
) -> Any:
    """Cross-entropy of softmax(logits) against targets: Σ_j W_j (lse − z_j) + z_loss · lse² per row.

    lse = log Σ exp(z).  W is the target mass: ``w_t`` at an integer target t, ``w_j T_j`` for probabilities T; label
    smoothing ε turns T into (1 − ε) T + ε / C.  A sure row's loss is log1p(rest / e_t), never −log(1).

    Parameters
    ----------
    logits : array, shape (..., C, ...)
        z: float64, float32, float16, bfloat16; integers and nested lists become float64.  −inf masks a class; target
        mass on a masked class makes the loss +inf.
    targets : array
        Class indices of any integer dtype, shape of `logits` without the class axis; or probabilities, shape of
        `logits`, any floating or integer dtype, which need not sum to 1.
    axis : int
        The class axis, counted in `logits`.
    weight : array, shape (C,), optional
        A weight per class.
    ignore_index : int or None
        Rows with this integer target count for nothing: loss and derivatives 0.  None ignores nothing.
    label_smoothing : float
        ε in [0, 1].
    z_loss : float
        Adds ``z_loss · lse²`` for each row that counts.
    softcap : float, optional
        s > 0: every logit becomes ``s · tanh(logit / s)`` before all else.
    reduction : {"mean", "sum", "none"}
        "mean" divides the loss proper by the sum of the rows' ``weight[target]`` (with probability targets by the
        number of rows), the z_loss part by the number of rows that count; NaN when that is 0.
    check_targets : bool, optional
        Whether class indices out of range are refused; by default on the CPU only.  Unchecked, such a row is NaN.

    Returns
    -------
    scalar or array
        "none": shape of `logits` without the class axis.  float64 for float64 logits, else float32.

    Raises
    ------
    TypeError
        For an array library or dtype that is not served, or an option of the wrong kind.
    numpy.exceptions.AxisError
        If `axis` is out of range.
    ValueError
        If shapes do not match, an option is out of range, or (checked) a target is.

    Notes
    -----
    `weight`, `ignore_index`, `label_smoothing` and `reduction` mean what they mean in
    ``torch.nn.functional.cross_entropy``, combinations included.

    Examples
    --------
    >>> import softgrad
    >>> round(float(softgrad.cross_entropy([[1.75, 1.75]], [1])), 6)
    0.693147
    """
    return _value_and_grad(
        logits, targets, axis, weight, ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets,
        None, None, with_grad=False,
    )[0]  # fmt: skip


def cross_entropy_grad(
    logits: Any,
    targets: Any,
    *,
    grad_output: Any = None,
    out: Any = None,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: str = "mean",
    check_targets: bool | None = None,
) -> Any:
    """d cross_entropy / d logits: A − T of each row, scaled by the reduction and `grad_output`.

    The target's entry is −(Σ of the other classes' probabilities), which keeps its digits where p − 1 has none left.

    Parameters
    ----------
    logits, targets, axis, weight, ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets
        As in `cross_entropy`.
    grad_output : scalar or array, optional
        What the gradient is multiplied by (1): a scalar, or with reduction "none" one number per row.
    out : array, optional
        Where to write the gradient: shape and dtype of `logits`; the very same view as `logits` (or as probability
        targets), or memory shared with nothing.

    Returns
    -------
    array
        Kind, shape and dtype of `logits`; `out` if given.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As `cross_entropy`; ValueError also for a `grad_output` of the wrong shape, or an `out` of the wrong shape,
        read-only, or overlapping.

    Examples
    --------
    >>> import softgrad
    >>> softgrad.cross_entropy_grad([[1.75, 1.75]], [1])
    array([[ 0.5, -0.5]])
    >>> softgrad.cross_entropy_grad([[0.0, 40.0]], [1])  # p − 1 would be 0
    array([[ 4.24835426e-18, -4.24835426e-18]])
    """
    return _value_and_grad(
        logits, targets, axis, weight, ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets,
        grad_output, out, with_loss=False,
    )[1]  # fmt: skip


def cross_entropy_value_and_grad(
    logits: Any,
    targets: Any,
    *,
    grad_output: Any = None,
    out: Any = None,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: str = "mean",
    check_targets: bool | None = None,
) -> tuple[Any, Any]:
    """`cross_entropy` and `cross_entropy_grad` in one pass over the logits.

    Parameters
    ----------
    logits, targets, axis, weight, ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets
        As in `cross_entropy`.
    grad_output, out
        As in `cross_entropy_grad`.  `grad_output` scales the gradient, never the loss.

    Returns
    -------
    loss, grad
        The same bits as the two functions give alone.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As `cross_entropy_grad`.

    Examples
    --------
    >>> import softgrad
    >>> loss, grad = softgrad.cross_entropy_value_and_grad([[1.75, 1.75]], [1])
    >>> grad
    array([[ 0.5, -0.5]])
    """
    return _value_and_grad(
        logits, targets, axis, weight, ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets,
        grad_output, out,
    )  # fmt: skip


def cross_entropy_jvp(
    tangent: Any,
    *,
    logits: Any,
    targets: Any,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: str = "mean",
    check_targets: bool | None = None,
) -> Any:
    """The directional derivative of `cross_entropy` along a tangent of the logits: Σ_j p_j (v_j − v_t) per row.

    Parameters
    ----------
    tangent : array, shape (*K, *logits.shape)
        v: any floating or integer dtype; K any number of leading axes, all products for one read of the logits.
    logits, targets, axis, weight, ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets
        As in `cross_entropy`.

    Returns
    -------
    scalar or array
        Shape (*K, *loss.shape), dtype of the loss.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As `cross_entropy`; ValueError also for a tangent of the wrong shape.

    Examples
    --------
    >>> import softgrad
    >>> float(softgrad.cross_entropy_jvp([[1.0, 0.0]], logits=[[1.75, 1.75]], targets=[1]))
    0.5
    """
    call = _judge(
        logits, targets, axis, weight, ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets,
        tangent=tangent,
    )  # fmt: skip
    result = call.backend.cross_entropy_jvp(call.problem, call.tangent_rows)
    return call.backend.release(result.reshape(call.tangent_axes + call.loss_shape), logits)


def cross_entropy_hvp(
    tangent: Any,
    *,
    logits: Any,
    targets: Any,
    grad_output: Any = None,
    out: Any = None,
    axis: int = -1,
    weight: Any = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    reduction: str = "mean",
    check_targets: bool | None = None,
) -> Any:
    """Hessian of `cross_entropy` with respect to the logits, times a tangent: ΣW · p (u − Σ p u) per row.

    Exact: the second derivatives of z_loss and softcap are included.  With reduction "none" it is the Hessian of the
    sum of the losses weighted by `grad_output`.

    Parameters
    ----------
    tangent : array, shape (*K, *logits.shape)
        v: any floating or integer dtype; K any number of leading axes, all products for one read of the logits.
    logits, targets, axis, weight, ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets
        As in `cross_entropy`.
    grad_output : scalar or array, optional
        What the loss is multiplied by (1): a scalar, or with reduction "none" one number per row.
    out : array, optional
        Where to write the result: shape of `tangent`, dtype of `logits`; the very same view as `tangent` or (without
        leading axes) `logits` or probability targets, or memory shared with nothing.

    Returns
    -------
    array
        Shape of `tangent`, kind and dtype of `logits`; `out` if given.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As `cross_entropy_grad`; ValueError also for a tangent of the wrong shape.

    Examples
    --------
    >>> import softgrad
    >>> softgrad.cross_entropy_hvp([[1.0, 0.0]], logits=[[1.75, 1.75]], targets=[1])
    array([[ 0.25, -0.25]])
    """
    call = _judge(
        logits, targets, axis, weight, ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets,
        tangent=tangent, grad_output=grad_output, out=out,
    )  # fmt: skip
    result = call.result

    def write(view: Array) -> None:
        call.backend.cross_entropy_hvp(call.problem, call.tangent_rows, view if call.lead else view[None])

    write_rows(result, call.axis, write, call.backend.empty, call.lead)
    return call.backend.release(result, logits) if out is None else out


def _value_and_grad(
    logits: Any,
    targets: Any,
    axis: int,
    weight: Any,
    ignore_index: int | None,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    reduction: str,
    check_targets: bool | None,
    grad_output: Any,
    out: Any,
    *,
    with_loss: bool = True,
    with_grad: bool = True,
) -> tuple[Any, Any]:
    call = _judge(
        logits, targets, axis, weight, ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets,
        grad_output=grad_output, out=out, with_result=with_grad,
    )  # fmt: skip
    backend, problem = call.backend, call.problem
    loss = None

    def write(view: Array | None) -> None:
        nonlocal loss
        loss = backend.cross_entropy(problem, view, with_loss=with_loss)

    if with_grad:
        write_rows(call.result, call.axis, write, backend.empty)
    else:
        write(None)
    grad = out
    if with_grad and out is None:
        grad = backend.release(call.result, logits)
    return None if loss is None else backend.release(loss.reshape(call.loss_shape), logits), grad


@dataclass(frozen=True, slots=True)
class _Call:
    """A judged call: the backend, and every array the way the primitives take it."""

    backend: Backend
    problem: Loss
    z: Array
    axis: int
    loss_shape: tuple[int, ...]
    lead: int  # leading axes of the tangent
    tangent_axes: tuple[int, ...]
    tangent_rows: Array
    result: Array


def _judge(
    logits: Any,
    targets: Any,
    axis: int,
    weight: Any,
    ignore_index: int | None,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    reduction: str,
    check_targets: bool | None,
    *,
    tangent: Any = None,
    grad_output: Any = None,
    out: Any = None,
    with_result: bool = True,
) -> _Call:
    # Library and dtype.
    backend, z = arguments.main_input("logits", logits)
    t = arguments.target_input(backend, targets, z)
    w = None if weight is None else arguments.real_input(backend, "weight", weight)
    v = None if tangent is None else arguments.real_input(backend, "tangent", tangent)
    g = None if grad_output is None else arguments.real_input(backend, "grad_output", grad_output)
    result = arguments.out_input(backend, out, z.dtype, "logits")
    # Axis and shapes.
    axis = arguments.class_axis(axis, z, "logits")
    arguments.target_shape(t, z, axis)
    classes = z.shape[axis]
    if w is not None:
        arguments.weight_shape(w, classes)
    lead = 0 if v is None else arguments.leading_axes("tangent", v, z, "logits")
    # Options.
    reduction = arguments.reduction_option(reduction)
    ignore_index = arguments.ignore_index_option(ignore_index)
    label_smoothing = arguments.label_smoothing_option(label_smoothing)
    z_loss = arguments.z_loss_option(z_loss)
    softcap = arguments.softcap_option(softcap)
    check = arguments.check_option("check_targets", check_targets)
    row_shape = z.shape[:axis] + z.shape[axis + 1 :]
    scale = 1.0 if g is None else arguments.grad_output_rows(g, reduction, row_shape, axis)
    # The result's memory.
    dense = t.ndim == z.ndim
    if with_result:
        twins: dict[str, Array] = {"logits": z, "targets": t} if dense else {"logits": z}
        others: dict[str, Array | None] = {"weight": w, "grad_output": g}
        if not dense:
            others["targets"] = t
        if v is not None:
            twins, others = ({"tangent": v}, others | twins) if lead else ({"tangent": v} | twins, others)
        shape = z.shape if v is None else v.shape
        result = arguments.result_array(backend, result, shape, z, twins, others)
    # Values.
    if not dense and (backend.CHECKS_VALUES if check is None else check):
        arguments.judge_targets(backend, t, classes, ignore_index, axis)
    problem = Loss(
        z=rows(z, axis),
        targets=rows(t, axis) if dense else per_row(t, axis),
        weight=w,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        reduction=reduction,
        grad_output=scale,
    )
    return _Call(
        backend=backend,
        problem=problem,
        z=z,
        axis=axis,
        loss_shape=row_shape if reduction == "none" else (),
        lead=lead,
        tangent_axes=() if v is None else v.shape[:lead],
        tangent_rows=None if v is None else (rows(v, axis, lead) if lead else rows(v, axis)[None]),
        result=result,
    )
