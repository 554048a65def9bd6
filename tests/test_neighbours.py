"""A row's bits depend neither on what the rows around it hold nor on how these lie in memory."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import softgrad
from softgrad.layout import rows
from tests import calls

ROW_WISE = [name for name in calls.EVERY if name != "softmax_jacobian"]
SHAPE = (3, 2, 70, 2)  # long rows for every backend
ORDERS = list(itertools.permutations(range(4)))


def logits_of(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Logits spread so widely that float64 exponentials are scaled."""
    return rng.uniform(-500.0, 0.0, shape)


def results(name: str, logits: np.ndarray, tangent: np.ndarray, axis: int) -> np.ndarray:
    changes: dict[str, Any] = {"logits": logits, "axis": axis}
    if name in calls.WITH_TANGENT:
        changes[calls.tangent_name(name)] = tangent
    if name in calls.LOSSES:
        shape = logits.shape[:axis] + logits.shape[axis + 1 :]
        changes |= {"targets": np.arange(np.prod(shape)).reshape(shape) % logits.shape[axis], "reduction": "none"}
    return np.asarray(calls.full_size(name, calls.call(name, **changes)))


@pytest.mark.parametrize("neighbour", [np.nan, np.inf, -np.inf, 1e30, "one entry"])
@pytest.mark.parametrize("classes", [5, 40, 70])
@pytest.mark.parametrize("name", ROW_WISE)
def test_other_values_around_it(backend: str, name: str, classes: int, neighbour: Any) -> None:
    rng = np.random.default_rng(classes)
    for dtype in (np.float64, np.float32):
        logits = logits_of(rng, (21, classes)).astype(dtype)
        tangent = rng.normal(size=logits.shape).astype(dtype)
        before = results(name, logits, tangent, 1)
        logits[7] = 0.0 if neighbour == "one entry" else neighbour
        logits[7, 0] = np.nan if neighbour == "one entry" else logits[7, 0]
        after = results(name, logits, tangent, 1)
        np.testing.assert_array_equal(np.delete(after, 7, axis=0), np.delete(before, 7, axis=0))


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_axes_in_any_order_in_memory(backend: str, dtype: np.dtype, order: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    logits, tangent = logits_of(rng, SHAPE).astype(dtype), rng.normal(size=SHAPE).astype(dtype)
    permuted = np.ascontiguousarray(logits.transpose(order)).transpose(np.argsort(order))
    lies_contiguous = order[-1] == 2
    for name in ("softmax", "softmax_jvp", "logsumexp", "cross_entropy_grad"):
        result = results(name, permuted, tangent, 2)
        if name != "logsumexp":
            result = np.moveaxis(result, 2, -1)
        for at in [(0, 0, 0), (2, 1, 1)]:
            where = (*at[:2], slice(None), at[2])
            row = np.zeros((SHAPE[2], 1 if lies_contiguous else 2), dtype)[:, 0]
            row[:] = logits[where]
            position = np.arange(12).reshape(3, 2, 2)[at]
            targets = {"targets": int(position), "reduction": "none"} if name in calls.LOSSES else {}
            moved = {"tangent": tangent[where]} if name in calls.WITH_TANGENT else {}
            alone = getattr(softgrad, name)(logits=row, **moved, **targets)
            np.testing.assert_array_equal(np.ravel(result[at]), np.ravel(alone))


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("axis", range(4))
def test_a_copy_keeps_whether_the_class_axis_is_contiguous(axis: int, order: tuple[int, ...]) -> None:
    array = np.arange(float(np.prod(SHAPE))).reshape(SHAPE).transpose(order)
    view = rows(array, axis)
    assert (view.strides[1] == view.itemsize) == (array.strides[axis] == array.itemsize)
    shape = array.shape
    np.testing.assert_array_equal(
        view, np.reshape(array.copy(), (np.prod(shape[:axis], dtype=int), shape[axis], -1)), strict=True
    )
