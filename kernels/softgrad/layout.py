"""Any (…, C, …) array and class axis as rows, and back: the (outer, C, inner) view that every primitive works on.

`outer` collects the axes before the class axis, `inner` those after it.  The view costs nothing where the strides
allow one; an input whose layout does not is copied once, an output is written through a contiguous stand-in.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

from softgrad.protocol import Array, Backend


def rows(array: Array, axis: int, two_axes: bool = False) -> Array:
    """`array` as (outer, C, inner), or, if `two_axes` will do, as (outer, C) where it is; `axis` is non-negative."""
    shape = array.shape
    if axis == 1 and len(shape) == 2:
        return array if two_axes else array.reshape(shape[0], shape[1], 1)
    outer, classes, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
    if _is_viewable(array, 0, axis):
        return array.reshape(outer, classes, inner)
    # The copy's class axis is contiguous if the array's is: a row's bits depend on that, and on no other axis.
    before, after = range(axis), range(axis + 1, len(shape))
    if array.strides[axis] == array.itemsize:
        return array.transpose(*before, *after, axis).reshape(outer, inner, classes).transpose(0, 2, 1)
    return array.transpose(axis, *before, *after).reshape(classes, outer, inner).transpose(1, 0, 2)


def tangent_rows(array: Array, axis: int, lead: int, two_axes: bool = False) -> Array:
    """Tangents as (K, outer, C, inner): `lead` axes come before those that `axis` counts, K = 1 if none does.

    If `two_axes` will do, one as (outer, C) where it is.
    """
    shape = array.shape
    if axis == 1 and len(shape) == 2:
        return array if two_axes else array.reshape(1, shape[0], shape[1], 1)
    at = lead + axis
    return array.reshape(prod(shape[:lead]), prod(shape[lead:at]), shape[at], prod(shape[at + 1 :]))


def per_row(array: Array, axis: int, two_axes: bool = False) -> Array:
    """One number per row, of the logits' shape without the class axis, as (outer, inner).

    If `two_axes` will do, as (outer,) where `rows` gives (outer, C).
    """
    shape = array.shape
    if axis == len(shape) == 1:
        return array if two_axes else array.reshape(shape[0], 1)
    return array.reshape(prod(shape[:axis]), prod(shape[axis:]))


def writable(
    backend: Backend, out: Array | None, shape: tuple[int, ...], like: Array, axis: int, lead: int = 0
) -> Array:
    """`out` where it can be seen as rows, else a new array of its shape: what the primitive writes to."""
    if out is not None and _is_viewable(out, lead, lead + axis):
        return out
    return backend.empty(shape, like.dtype, like)


def deliver(backend: Backend, written: Array, out: Array | None, given_out: Any, main: Any) -> Any:
    """What was written, as the caller wants it: in `out` as given, or as the kind of array that `main` is."""
    if out is None:
        return backend.release(written, main)
    if written is not out:
        out[...] = written
    return given_out


def _is_viewable(array: Array, lead: int, at: int) -> bool:
    if (not lead and array.ndim <= 2) or array.flags.c_contiguous:
        return True
    shape, strides = array.shape, array.strides
    return all(_merge(shape[group], strides[group]) for group in (slice(0, lead), slice(lead, at), slice(at + 1, None)))


def _merge(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether axes of these shapes and strides can be walked as one axis."""
    if 0 in shape:
        return True
    long = [(n, stride) for n, stride in zip(shape, strides, strict=True) if n > 1]
    return all(outer == n * inner for (_, outer), (n, inner) in pairwise(long))
