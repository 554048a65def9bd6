"""softmax, log_softmax, logsumexp: the public functions.

One array goes: public call -> (outer, C, inner) view -> backend primitive -> kernel, and back.
"""

from __future__ import annotations

from typing import Any

from softgrad import arguments
from softgrad.layout import deliver, rows, writable


def softmax(logits: Any, *, axis: int = -1, out: Any = None) -> Any:
    """Probabilities p = exp(z) / Σ exp(z) along an axis.

    Every entry is right within 4 ulp for any finite logits, the tail's too: the rounding error of z − max z is
    carried into the exponential.

    Parameters
    ----------
    logits : array, shape (..., C, ...)
        z, of any number of dimensions: float64, float32, float16, bfloat16; integers and nested lists become float64.
        −inf masks a class (probability 0).  A row of −inf only, or with a NaN or +inf, gives NaN.
    axis : int
        The class axis.
    out : array, optional
        Where to write the result: shape and dtype of `logits`, and either `logits` itself or memory shared with
        nothing.

    Returns
    -------
    array
        Same kind, shape and dtype as `logits`; `out` if given.

    Raises
    ------
    TypeError
        For an array library or dtype that is not served, or an `axis` that is not an integer.
    numpy.exceptions.AxisError
        If `axis` is out of range.
    ValueError
        If `out` has the wrong shape, is read-only, or overlaps.

    Examples
    --------
    >>> import softgrad
    >>> softgrad.softmax([1.75, 1.75])
    array([0.5, 0.5])
    """
    return _normalise("softmax", logits, axis, out)


def log_softmax(logits: Any, *, axis: int = -1, out: Any = None) -> Any:
    """Log-probabilities log p = z − log Σ exp(z) along an axis.

    The largest entry, −log1p(Σ of the other exponentials / its own), keeps its digits however sure the row is.

    Parameters
    ----------
    logits : array, shape (..., C, ...)
        z: float64, float32, float16, bfloat16; integers and nested lists become float64.  −inf masks a class
        (log-probability −inf).  A row of −inf only, or with a NaN or +inf, gives NaN.
    axis : int
        The class axis.
    out : array, optional
        Where to write the result: shape and dtype of `logits`, and either `logits` itself or memory shared with
        nothing.

    Returns
    -------
    array
        Same kind, shape and dtype as `logits`; `out` if given.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError, ValueError
        As `softmax`.

    Examples
    --------
    >>> import softgrad
    >>> softgrad.log_softmax([40.0, 0.0])  # the first entry is lost by others, who return 0
    array([-4.24835426e-18, -4.00000000e+01])
    """
    return _normalise("log_softmax", logits, axis, out)


def logsumexp(logits: Any, *, axis: int = -1, keepdims: bool = False) -> Any:
    """lse = log Σ exp(z) of each row, as max + log1p(Σ of the others).

    Parameters
    ----------
    logits : array, shape (..., C, ...)
        z: float64, float32, float16, bfloat16; integers and nested lists become float64.  C may be 0: −inf.
    axis : int
        The class axis.
    keepdims : bool
        Keep the class axis, of length 1.

    Returns
    -------
    array
        Shape of `logits` without the class axis; float64 for float64, else float32.  A single row gives a scalar, as
        ``logits.max()`` would.  A row of −inf only gives −inf, one with +inf +inf, one with NaN NaN.

    Raises
    ------
    TypeError, numpy.exceptions.AxisError
        As `softmax`; TypeError also for a `keepdims` that is not True or False.

    Examples
    --------
    >>> import softgrad
    >>> softgrad.logsumexp([[1000.0, 1000.0], [0.0, 0.0]])
    array([1.00069315e+03, 6.93147181e-01])
    """
    backend, z = arguments.main_input("logits", logits, {})
    axis = arguments.class_axis(axis, z.shape, "logits")
    kept = (1,) if arguments.flag("keepdims", keepdims) else ()
    lse = backend.logsumexp(rows(z, axis, backend.TAKES_TWO_AXES))
    return backend.release(lse.reshape(z.shape[:axis] + kept + z.shape[axis + 1 :]), logits)


def _normalise(primitive: str, logits: Any, axis: int, out: Any) -> Any:
    copies: arguments.Copies = {}
    backend, z = arguments.main_input("logits", logits, copies)
    native_out = None if out is None else arguments.out_input(backend, out, z, "logits")
    axis = arguments.class_axis(axis, z.shape, "logits")
    if native_out is not None:
        arguments.out_memory(backend, native_out, z.shape, {"logits": z}, copies)
    result = writable(backend, native_out, z.shape, z, axis)
    two_axes = backend.TAKES_TWO_AXES
    getattr(backend, primitive)(rows(z, axis, two_axes), rows(result, axis, two_axes))
    return deliver(backend, result, native_out, out, logits)
