"""What the caller passed, judged: every user-facing error about an argument is worded here or in `registry`.

The order is the same everywhere: library and dtype first, then axis, shapes, options, `out`, and the values of
targets and probabilities last.  Nothing is written before everything has been judged.
"""

from __future__ import annotations

import math
import operator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.exceptions import AxisError

from softgrad import host
from softgrad.dispatch import backend_for
from softgrad.layout import per_row, rows
from softgrad.protocol import Array, Backend

REDUCTIONS = ("none", "sum", "mean")

_FOUR = "float64, float32, float16 or bfloat16"
_FOUND = {np.dtype(t) for t in (np.float64, np.float32, np.float16)}  # those of the four met so far
_PLAIN = {np.dtype(code) for code in "bBhHiIlLqQefd"}  # what backends take of any real input
_NUMBERS = (float, int, np.floating, np.integer)
_LONGEST = 8  # bytes of the longest real dtype that backends take


# --- library and dtype ------------------------------------------------------------------------------------------------


Copies = dict[str, Array]
"""The caller's own arrays, by argument, that had to be copied to another dtype: `out` may not lie over them either."""


def main_input(name: str, array: Any, copies: Copies) -> tuple[Backend, Array]:
    """The array that decides backend, shape, dtype and kind of the result; integers become float64."""
    backend = backend_for(name, array)
    native = backend.adopt(name, array)
    dtype = native.dtype
    if _is_one_of_the_four(dtype):
        return backend, native
    if (
        dtype.kind in "iu"
        or (native.size == 0 and isinstance(array, list | tuple))
        or _are_long_integers(array, native)
    ):
        copies[name] = native
        return backend, native.astype(np.float64)
    advice = "" if dtype.isnative else f". Convert it: `{name}.astype({name}.dtype.newbyteorder('='))`"
    raise TypeError(f"`{name}` has dtype {_spell(dtype)}; expected {_FOUR} (integers become float64){advice}")


def real_input(backend: Backend, name: str, array: Any, like: Array, copies: Copies) -> Array:
    """A second array of the call (tangent, weight, …): any floating or integer dtype."""
    native = backend.adopt(name, array, like)
    dtype = native.dtype
    if dtype in _PLAIN:
        return native
    if _is_real(dtype):
        return _plain(name, native, copies)
    if _are_long_integers(array, native):
        return native.astype(np.float64)
    raise TypeError(f"`{name}` has dtype {_spell(dtype)}; expected a floating or integer dtype")


def target_input(backend: Backend, targets: Any, logits: Array, copies: Copies) -> Array:
    """Class indices (one axis fewer than the logits) or probabilities (as many)."""
    native = backend.adopt("targets", targets, logits)
    dtype = native.dtype
    if dtype.kind in "iu":
        return native if dtype in _PLAIN else _plain("targets", native, copies)
    if native.size == 0 and isinstance(targets, list | tuple):
        return native.astype(np.int64)  # an empty list says nothing of its dtype
    if native.ndim != logits.ndim:
        raise TypeError(
            f"`targets` of shape {native.shape} has dtype {_spell(dtype)}; class indices must have an integer dtype "
            f"(probabilities would have the shape of `logits`, {logits.shape})"
        )
    if _is_one_of_the_four(dtype):
        return native
    if _is_number(dtype):
        return _plain("targets", native, copies)
    raise TypeError(
        f"`targets` has dtype {_spell(dtype)}; expected a floating or integer dtype for probabilities, "
        "an integer one for class indices"
    )


def scale_input(backend: Backend, grad_output: Any, like: Array, copies: Copies) -> Array | float:
    """`grad_output`: a number or a real array."""
    if isinstance(grad_output, _NUMBERS) and not isinstance(grad_output, bool):
        return _as_float(grad_output)
    native = real_input(backend, "grad_output", grad_output, like, copies)
    if native.ndim == 0 and isinstance(native, np.ndarray):
        copies.setdefault("grad_output", native)
        return float(native)
    return native


def out_input(backend: Backend, out: Any, main: Array, main_name: str) -> Array:
    """`out` as the backend's array; its shape and memory are judged later, by `out_memory`."""
    if type(out) is not type(main) and not _is_array(out):
        raise TypeError(f"`out` is a {type(out).__name__}; expected an array of dtype {main.dtype} to write to")
    native = backend.adopt("out", out, main)
    if native.dtype != main.dtype:
        raise TypeError(f"`out` has dtype {_spell(native.dtype)}; expected {main.dtype}, the dtype of `{main_name}`")
    return native


def _is_one_of_the_four(dtype: Any) -> bool:
    if dtype in _FOUND:
        return True
    if dtype.name != "bfloat16":  # its type is known to ml_dtypes alone, which may never be imported
        return False
    _FOUND.add(dtype)
    return True


def _is_real(dtype: Any) -> bool:
    return _is_number(dtype) or _is_one_of_the_four(dtype)  # to NumPy, bfloat16 is of kind "V"


def _is_number(dtype: Any) -> bool:
    """Whether NumPy itself computes with it: of ml_dtypes' formats of 8 bits, some call themselves floating."""
    return dtype.kind in "iu" or (dtype.kind == "f" and dtype.itemsize > 1)


def _are_long_integers(given: Any, native: Array) -> bool:
    """Whether a sequence holds Python integers only, some beyond 64 bits, all within float64's range."""
    return (
        native.dtype.kind == "O"
        and not isinstance(given, np.ndarray)
        and all(type(element) is int and element.bit_length() < 1024 for element in native.flat)
    )


def _is_array(array: Any) -> bool:
    speaks = ("__array__", "__dlpack__", "__cuda_array_interface__")
    return any(hasattr(type(array), protocol) for protocol in speaks) and not isinstance(array, np.generic)


def _plain(name: str, native: Array, copies: Copies) -> Array:
    """The array in the machine's byte order and of at most 64 bits an element, which is what backends take."""
    dtype = native.dtype
    if dtype.itemsize <= _LONGEST and dtype.isnative:
        return native
    copies[name] = native
    with np.errstate(over="ignore", under="ignore"):
        return native.astype(np.float64 if dtype.itemsize > _LONGEST else dtype.newbyteorder("="))


def _spell(dtype: Any) -> str:
    return str(dtype) if dtype.isnative else f"{dtype.newbyteorder('=')} in foreign byte order ({dtype.str})"


# --- axis and shapes --------------------------------------------------------------------------------------------------


def class_axis(axis: Any, shape: tuple[int, ...], name: str) -> int:
    """`axis` of the array `name` of this shape, as a non-negative int."""
    ndim = len(shape)
    if type(axis) is not int:
        axis = _integer("axis", axis)
    if -ndim <= axis < ndim:
        return axis if axis >= 0 else axis + ndim
    raise AxisError(axis, ndim, f"`axis` of `{name}`, whose shape is {shape}")


def leading_axes(name: str, array: Array, main: Array, main_name: str) -> int:
    """How many leading axes of tangents `array`, of shape (*K, *main.shape), has."""
    shape, of_main = array.shape, main.shape
    if shape == of_main:
        return 0
    lead = len(shape) - len(of_main)
    if lead < 0 or shape[lead:] != of_main:
        raise ValueError(
            f"`{name}` has shape {shape}; expected (*K, *{main_name}.shape) = (*K, {_list(of_main)}), "
            "K any number of leading axes, none included"
        )
    return lead


def are_probabilities(given: tuple[int, ...], shape: tuple[int, ...], axis: int, rows_shape: tuple[int, ...]) -> bool:
    """Whether targets of the shape `given` are probabilities; judged against the logits', with and without classes."""
    if given == rows_shape:
        return False
    if given == shape:
        return True
    fitting = [other for other in range(len(shape)) if given == shape[:other] + shape[other + 1 :]]
    hint = f". Was `axis={fitting[0]}` meant? It would fit class indices" if fitting else ""
    raise ValueError(
        f"`targets` has shape {given}; for `logits` of shape {shape} and axis {axis} expected {rows_shape} "
        f"(class indices) or {shape} (probabilities){hint}"
    )


def weight_shape(weight: Array, classes: int) -> None:
    """Judge the shape of the class weights."""
    if weight.shape != (classes,):
        raise ValueError(f"`weight` has shape {weight.shape}; expected ({classes},), one weight per class")


def scale_shape(grad_output: Array | float, rows_shape: tuple[int, ...]) -> None:
    """Judge the shape of `grad_output`, as far as that can be done without `reduction`."""
    if not isinstance(grad_output, float) and grad_output.shape not in ((), rows_shape):
        raise ValueError(
            f"`grad_output` has shape {grad_output.shape}; expected a scalar, or with reduction 'none' {rows_shape}, "
            "the shape of the loss"
        )


def scale_rows(grad_output: Array | float, reduction: str, axis: int) -> Array | float:
    """`grad_output` as a number, or one number per row."""
    if isinstance(grad_output, float) or grad_output.ndim == 0:
        return grad_output
    if reduction == "none":
        return per_row(grad_output, axis)
    raise ValueError(
        f"`grad_output` has shape {grad_output.shape}; with reduction {reduction!r} expected a scalar, as the loss is"
    )


def _list(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


# --- options ----------------------------------------------------------------------------------------------------------


class LossOptions(NamedTuple):
    """The options of the cross-entropy family, as the caller gave them or judged."""

    ignore_index: int | None
    label_smoothing: float
    z_loss: float
    softcap: float | None
    reduction: str
    check_targets: bool | None  # None: what the backend does unasked


def loss_options(*options: Any) -> LossOptions:
    """The options that `LossOptions` lists, in its order, judged."""
    try:
        return _known_options(*options)
    except TypeError:  # one is wrong, or an array, which cannot be looked up
        return _judged_options(*options)


def _judged_options(
    ignore_index: Any, label_smoothing: Any, z_loss: Any, softcap: Any, reduction: Any, check_targets: Any
) -> LossOptions:
    known_reduction(reduction)
    if ignore_index is not None:
        ignore_index = _integer("ignore_index", ignore_index, ", or None to ignore nothing")
    smoothing = _number("label_smoothing", label_smoothing)
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"`label_smoothing` is {label_smoothing!r}; expected a number in [0, 1]")
    zeta = _number("z_loss", z_loss)
    if not math.isfinite(zeta):
        raise ValueError(f"`z_loss` is {z_loss!r}; expected a finite number")
    cap = None if softcap is None else _number("softcap", softcap)
    if not (cap is None or (math.isfinite(cap) and cap > 0.0)):
        raise ValueError(f"`softcap` is {softcap!r}; expected a finite number > 0, or None for no cap")
    return LossOptions(ignore_index, smoothing, zeta, cap, reduction, check_option("check_targets", check_targets))


def known_reduction(reduction: Any) -> None:
    """Judge the name of a reduction."""
    if not (isinstance(reduction, str) and reduction in REDUCTIONS):
        raise ValueError(f"`reduction` is {reduction!r}; expected 'none', 'sum' or 'mean'")


# By type as well as by value: True is not 1.
_known_options = lru_cache(64, typed=True)(_judged_options)


def flag(name: str, value: Any, expected: str = "True or False") -> bool:
    """An argument that must be True or False."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise TypeError(f"`{name}` is {value!r}; expected {expected}")


def check_option(name: str, check: Any) -> bool | None:
    """An argument that must be True or False, or None for what the backend does unasked."""
    return None if check is None else flag(name, check, "None, True or False")


def _integer(name: str, value: Any, alternative: str = "") -> int:
    if not isinstance(value, bool | np.bool_):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"`{name}` is {value!r}; expected an integer{alternative}")


def _number(name: str, value: Any) -> float:
    if type(value) is float:
        return value
    if isinstance(value, _NUMBERS) and not isinstance(value, bool):
        return _as_float(value)
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0 and _is_real(value.dtype):
        return _as_float(value)
    raise TypeError(f"`{name}` is {value!r}; expected a number")


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer beyond float64
        return math.inf if value > 0 else -math.inf


# --- out --------------------------------------------------------------------------------------------------------------


def out_memory(
    backend: Backend, out: Array, shape: tuple[int, ...], twins: dict[str, Array], others: dict[str, Array]
) -> None:
    """Judge the shape and memory of `out`.

    `twins` are the inputs of the result's shape, any of whose very views `out` may be; it shares no memory with
    `others`.
    """
    if out.shape != shape:
        raise ValueError(f"`out` has shape {out.shape}; expected {shape}")
    flags = out.flags
    if not getattr(flags, "writeable", True):
        raise ValueError("`out` is read-only; expected an array that can be written to")
    if not flags.c_contiguous and _overlaps_itself(out):
        raise ValueError(
            f"`out` has elements that share memory with each other (strides {out.strides}); expected each its own"
        )
    for name, array in twins.items():
        if backend.overlap(out, array) == "partial":
            raise ValueError(
                f"`out` overlaps `{name}`; expected the very same view (memory, shape, strides, dtype), "
                "or memory that shares nothing with it"
            )
    for name, array in others.items():
        if backend.overlap(out, array) != "none":
            raise ValueError(f"`out` shares memory with `{name}`; expected memory that shares nothing with it")


def _overlaps_itself(array: Array) -> bool:
    """False only when no two elements share memory: at once where each stride steps over all the smaller ones cover."""
    if array.size == 0:
        return False
    covered = array.itemsize
    for stride, n in sorted((abs(stride), n) for stride, n in zip(array.strides, array.shape, strict=True) if n > 1):
        if stride < covered:
            return host.overlaps_itself(array.shape, array.strides, array.itemsize)
        covered += stride * (n - 1)
    return False


# --- values -----------------------------------------------------------------------------------------------------------


def bad_target(position: int, targets: Array, classes: int, ignore_index: int | None) -> ValueError:
    """The error for a class index out of range, at this flat position, with its position and value."""
    at = tuple(map(int, np.unravel_index(position, targets.shape)))
    where = f"targets[{_list(at)}]" if at else "the target"
    ignored = "" if ignore_index is None else f" or ignore_index = {ignore_index}"
    return ValueError(f"`targets` out of range: {where} is {int(targets[at])}; expected [0, {classes}){ignored}")


def probs_values(backend: Backend, name: str, probs: Array, axis: int) -> None:
    """ValueError that asks whether logits were meant where a row is no probability distribution."""
    classes = probs.shape[axis]
    log = name == "log_probs"
    tolerance = 1e-3
    if probs.dtype.itemsize == 2:
        tolerance = 1e-2 + classes * 2.0**-25
        if log:
            # Rounding log p to bfloat16 changes p by up to 2⁻⁹ p |log p|, and Σ p |log p| ≤ log C.
            tolerance += math.log(max(classes, 1)) * 2.0**-8
    view = rows(probs, axis)
    bad = None if classes == 0 else backend.first_bad_row(view, tolerance, log=log)
    if bad is None:
        return
    row = np.asarray(view[bad // view.shape[2], :, bad % view.shape[2]].tolist(), np.float64)
    where = tuple(map(int, np.unravel_index(bad, probs.shape[:axis] + probs.shape[axis + 1 :])))
    which = f"row {where}" if where else "it"
    lowest = row.min()
    if lowest < 0 and not log:
        fault = f"{which} has the negative entry {lowest:.6g}"
    else:
        with np.errstate(all="ignore"):
            total = np.exp(row).sum() if log else row.sum()
        fault = f"{'exp of ' if log else ''}{which} sums to {total:.6g}, not 1"
    what = "log_softmax(logits)" if log else "softmax(logits), A,"
    raise ValueError(
        f"`{name}` must be {what} but {fault}. Were logits (Z) meant? Then pass `logits=`. "
        f"(`check_probs=False` skips this check.)"
    )
