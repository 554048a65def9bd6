"""Jacobian products of softmax and log-softmax, and the full Jacobian: the public functions.

J = diag(p) − p pᵀ.  A product with it costs C per row, the matrix itself C²: only `softmax_jacobian` builds it.
The point at which a product is taken is passed by keyword, `logits=` or `probs=`: mixing the two up is the commonest
mistake in this field, so the signature makes the caller say which it is.
"""

from __future__ import annotations

from typing import Any

from softgrad import arguments
from softgrad.layout import deliver, rows, tangent_rows, writable
from softgrad.protocol import Backend


def softmax_jvp(
    tangent: Any,
    *,
    logits: Any = None,
    probs: Any = None,
    axis: int = -1,
    out: Any = None,
    check_probs: bool | None = None,
) -> Any:
    """J v, the derivative of softmax along a tangent: p (u − Σ p u), with u = v − v[k], k the first largest class.

    Subtracting v[k] changes nothing in exact arithmetic (the rows of J sum to 0), and keeps the digits of a sure
    row, where p_k (v_k − Σ p v) would cancel.

    Parameters
    ----------
    tangent : array, shape (*K, *logits.shape)
        v: any floating or integer dtype; K any number of leading axes, all products for one read of the point.
    logits, probs : array, shape (..., C, ...)
        The point, exactly one of the two: z, or A = softmax(z).
    axis : int
        The class axis, counted in `logits` (`probs`).
    out : array, optional
        Where to write the result: shape of `tangent`, dtype of the point; the very same view as `tangent` or (without
        leading axes) the point, or memory shared with nothing.
    check_probs : bool, optional
        Whether rows of `probs` that are no distribution are refused; by default on the CPU only.

    Returns
    -------
    array
        Shape of `tangent`, kind and dtype of the point; `out` if given.  Exactly 0 at masked classes (logit −inf).

    Raises
    ------
    TypeError
        For an array library or dtype that is not served, both or neither of `logits` and `probs`, or an `axis` that
        is not an integer.
    numpy.exceptions.AxisError
        If `axis` is out of range.
    ValueError
        If shapes do not match, `probs` is no distribution, or `out` is read-only or overlaps.

    Examples
    --------
    >>> import softgrad
    >>> softgrad.softmax_jvp([0.0, -2.0], logits=[1.75, 1.75])  # the chain rule: dE/dA · J = A − T
    array([ 0.5, -0.5])
    """
    return _product("softmax_product", "tangent", tangent, logits, "probs", probs, axis, out, check_probs)


def softmax_vjp(
    cotangent: Any,
    *,
    logits: Any = None,
    probs: Any = None,
    axis: int = -1,
    out: Any = None,
    check_probs: bool | None = None,
) -> Any:
    """Jᵀ g, the gradient with respect to the logits of a gradient g with respect to the probabilities.

    J is symmetric, so this is `softmax_jvp` under the name that backpropagation knows.

    Parameters
    ----------
    cotangent : array, shape (*K, *logits.shape)
        g = dE/dA: any floating or integer dtype; K any number of leading axes.
    logits, probs, axis, out, check_probs
        As in `softmax_jvp`.

    Returns
    -------
    array
        dE/dz: shape of `cotangent`, kind and dtype of the point.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As `softmax_jvp`.

    Examples
    --------
    >>> import softgrad
    >>> softgrad.softmax_vjp([0.0, -2.0], probs=[0.5, 0.5])
    array([ 0.5, -0.5])
    """
    return _product("softmax_product", "cotangent", cotangent, logits, "probs", probs, axis, out, check_probs)


def log_softmax_jvp(
    tangent: Any,
    *,
    logits: Any = None,
    log_probs: Any = None,
    axis: int = -1,
    out: Any = None,
    check_probs: bool | None = None,
) -> Any:
    """The derivative of log-softmax along a tangent: v − Σ p v, computed as u − Σ p u with u = v − v[k].

    Parameters
    ----------
    tangent : array, shape (*K, *logits.shape)
        v: any floating or integer dtype; K any number of leading axes.
    logits, log_probs : array, shape (..., C, ...)
        The point, exactly one of the two: z, or log_softmax(z).
    axis, out, check_probs
        As in `softmax_jvp`.

    Returns
    -------
    array
        Shape of `tangent`, kind and dtype of the point.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As `softmax_jvp`.

    Examples
    --------
    >>> import softgrad
    >>> softgrad.log_softmax_jvp([1.0, 0.0], logits=[0.0, 0.0])
    array([ 0.5, -0.5])
    """
    return _product("log_softmax_jvp", "tangent", tangent, logits, "log_probs", log_probs, axis, out, check_probs)


def log_softmax_vjp(
    cotangent: Any,
    *,
    logits: Any = None,
    log_probs: Any = None,
    axis: int = -1,
    out: Any = None,
    check_probs: bool | None = None,
) -> Any:
    """The gradient with respect to the logits of a gradient g with respect to the log-probabilities: g − p Σ g.

    Parameters
    ----------
    cotangent : array, shape (*K, *logits.shape)
        g: any floating or integer dtype; K any number of leading axes.
    logits, log_probs : array, shape (..., C, ...)
        The point, exactly one of the two: z, or log_softmax(z).
    axis, out, check_probs
        As in `softmax_jvp`.

    Returns
    -------
    array
        Shape of `cotangent`, kind and dtype of the point.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As `softmax_jvp`.

    Examples
    --------
    >>> import softgrad
    >>> softgrad.log_softmax_vjp([0.0, -1.0], logits=[1.75, 1.75])  # the gradient of the cross-entropy: A − T
    array([ 0.5, -0.5])
    """
    return _product("log_softmax_vjp", "cotangent", cotangent, logits, "log_probs", log_probs, axis, out, check_probs)


def softmax_jacobian(*, logits: Any = None, probs: Any = None, axis: int = -1, check_probs: bool | None = None) -> Any:
    """The full Jacobian, J_ij = ∂p_i/∂z_j = p_i ([i = j] − p_j), of every row.

    To learn from and to test against: it costs C² per row in time and memory, where a product costs C.

    Parameters
    ----------
    logits, probs : array, shape (..., C, ...)
        The point, exactly one of the two: z, or A = softmax(z).
    axis : int
        The class axis.
    check_probs : bool, optional
        Whether rows of `probs` that are no distribution are refused; by default on the CPU only.

    Returns
    -------
    array
        Shape of the point without the class axis, then (C, C); same kind and dtype.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As `softmax_jvp`.

    Examples
    --------
    >>> import softgrad
    >>> softgrad.softmax_jacobian(logits=[1.75, 1.75])
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    name, given = _point(logits, "probs", probs)
    backend, point = arguments.main_input(name, given, {})
    axis = arguments.class_axis(axis, point.shape, name)
    if _check(backend, name, check_probs):
        arguments.probs_values(backend, name, point, axis)
    view = rows(point, axis)
    outer, classes, inner = view.shape
    # Column j of J is the product with the j-th unit vector: K = C tangents, the same for every row.
    units = backend.unit_tangents((outer, classes, inner), point)
    jacobian = backend.empty((outer, inner, classes, classes), point.dtype, point)
    columns = jacobian.transpose(3, 0, 2, 1)
    backend.softmax_product(units, view, columns, is_logits=name == "logits")
    shape = point.shape[:axis] + point.shape[axis + 1 :] + (classes, classes)
    return backend.release(jacobian.reshape(shape), given)


def _product(
    primitive: str,
    tangent_name: str,
    tangent: Any,
    logits: Any,
    point_name: str,
    point: Any,
    axis: int,
    out: Any,
    check_probs: bool | None,
) -> Any:
    name, given = _point(logits, point_name, point)
    copies: arguments.Copies = {}
    backend, z = arguments.main_input(name, given, copies)
    v = arguments.real_input(backend, tangent_name, tangent, z, copies)
    native_out = None if out is None else arguments.out_input(backend, out, z, name)
    axis = arguments.class_axis(axis, z.shape, name)
    lead = arguments.leading_axes(tangent_name, v, z, name)
    check = _check(backend, name, check_probs)
    if native_out is not None:
        twins = {tangent_name: v}
        (copies if lead else twins).setdefault(name, z)
        arguments.out_memory(backend, native_out, v.shape, twins, copies)
    if check:
        arguments.probs_values(backend, name, z, axis)
    result = writable(backend, native_out, v.shape, z, axis, lead)
    two_axes = backend.TAKES_TWO_AXES
    getattr(backend, primitive)(
        tangent_rows(v, axis, lead, two_axes),
        rows(z, axis, two_axes),
        tangent_rows(result, axis, lead, two_axes),
        is_logits=name == "logits",
    )
    return deliver(backend, result, native_out, out, given)


def _point(logits: Any, other_name: str, other: Any) -> tuple[str, Any]:
    """Name and array of the point that was given."""
    if (logits is None) == (other is None):
        fault = "neither was given" if logits is None else "both were given"
        meaning = "softmax(logits), A" if other_name == "probs" else "log_softmax(logits)"
        raise TypeError(
            f"the point is exactly one of `logits` (Z) and `{other_name}` ({meaning}), passed by keyword; {fault}"
        )
    return ("logits", logits) if other is None else (other_name, other)


def _check(backend: Backend, name: str, check_probs: Any) -> bool:
    """Whether the values of the point are judged: logits have nothing to be judged."""
    asked = arguments.check_option("check_probs", check_probs)
    return name != "logits" and (backend.CHECKS_VALUES if asked is None else asked)
