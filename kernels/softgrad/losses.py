"""Softmax + cross-entropy, its gradient A − T, directional derivative and Hessian product: the public functions.

Every function takes the same loss options; `loss_call` judges them and makes the call.
"""

from __future__ import annotations

from typing import Any

from softgrad.loss_call import LossCall


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
    options = ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets
    return LossCall(logits, targets, axis, weight, options).loss()


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
    options = ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets
    return LossCall(logits, targets, axis, weight, options, grad_output=grad_output, out=out).grad()


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
    options = ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets
    return LossCall(logits, targets, axis, weight, options, grad_output=grad_output, out=out).loss_and_grad()


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
    options = ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets
    return LossCall(logits, targets, axis, weight, options, tangent=tangent).jvp()


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
    options = ignore_index, label_smoothing, z_loss, softcap, reduction, check_targets
    return LossCall(logits, targets, axis, weight, options, tangent=tangent, grad_output=grad_output, out=out).hvp()
