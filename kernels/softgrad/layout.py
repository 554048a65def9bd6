"""Any (…, C, …) array and class axis as rows, and back: the (outer, C, inner) view that every primitive works on.

`outer` collects the axes before the class axis, `inner` those after it.  The view costs nothing where the strides
allow one; an input whose layout does not is copied once, an output is written through a contiguous stand-in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

Array = Any


def rows(array: Array, axis: int, lead: int = 0) -> Array:
    """`array` as (outer, C, inner), or (K, outer, C, inner) where `lead` axes of tangents come before.

    `axis` is non-negative and counts after the leading axes.
    """
    if array.ndim == 2 and axis == 1 and not lead:
        return array[:, :, None]
    shape = array.shape
    at = lead + axis
    new = (prod(shape[lead:at]), shape[at], prod(shape[at + 1 :]))
    return array.reshape((prod(shape[:lead]), *new) if lead else new)


def per_row(array: Array, axis: int, lead: int = 0) -> Array:
    """One number per row, of the logits' shape without the class axis, as (outer, inner) or (K, outer, inner)."""
    shape = array.shape
    at = lead + axis
    new = (prod(shape[lead:at]), prod(shape[at:]))
    return array.reshape((prod(shape[:lead]), *new) if lead else new)


def write_rows(
    result: Array, axis: int, write: Callable[[Array], None], empty: Callable[..., Array], lead: int = 0
) -> None:
    """Let `write` fill `result` through its rows."""
    if _is_viewable(result, lead, lead + axis):
        write(rows(result, axis, lead))
        return
    stand_in = empty(result.shape, result.dtype, result)
    write(rows(stand_in, axis, lead))
    result[...] = stand_in


def _is_viewable(array: Array, lead: int, at: int) -> bool:
    if array.ndim <= 2 and not lead:
        return True
    shape, strides = array.shape, array.strides
    return all(_merge(shape[group], strides[group]) for group in (slice(0, lead), slice(lead, at), slice(at + 1, None)))


def _merge(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether axes of these shapes and strides can be walked as one axis."""
    if 0 in shape:
        return True
    long = [(n, stride) for n, stride in zip(shape, strides, strict=True) if n > 1]
    return all(outer == n * inner for (_, outer), (n, inner) in pairwise(long))
