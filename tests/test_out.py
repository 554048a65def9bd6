"""`out`: any layout, in place of any input of its shape, returned as it is; the same bits as without."""

from __future__ import annotations

import operator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import softgrad
from softgrad import layout
from softgrad.dispatch import backend_for
from softgrad.host import overlaps_itself
from tests import calls
from tests.calls import LEFT_OUT, PROBS, SHAPE


def places(shape: tuple[int, ...], dtype: Any = np.float64) -> dict[str, np.ndarray]:
    """Arrays of a shape to write to, laid out in every way; filled with what must not be left over."""
    spread = np.full([2 * n + 3 for n in shape], 7.0, dtype)
    return {
        "contiguous": np.full(shape, 7.0, dtype),
        "Fortran": np.full(shape[::-1], 7.0, dtype).T,
        "strided": spread[tuple(slice(1, 2 * n + 1, 2) for n in shape)],
        "negative strides": np.full(shape, 7.0, dtype)[(slice(None, None, -1),) * len(shape)],
        "permuted": np.moveaxis(np.full((*shape[1:], shape[0]), 7.0, dtype), -1, 0),
        "padded rows": np.full((*shape[:-1], shape[-1] + 5), 7.0, dtype)[..., : shape[-1]],
    }


@pytest.mark.parametrize("where", places(SHAPE))
@pytest.mark.parametrize("name", calls.WITH_OUT)
def test_of_any_layout(backend: str, dtype: np.dtype, name: str, where: str) -> None:
    logits = calls.LOGITS.astype(dtype)
    expected = calls.full_size(name, calls.call(name, logits=logits))
    out = places(SHAPE, dtype)[where]
    around = out.base if out.base is not None else out
    inside = np.zeros(around.shape, bool)
    inside_view = np.lib.stride_tricks.as_strided(
        inside.reshape(-1)[(out.ctypes.data - around.ctypes.data) // dtype.itemsize :],
        out.shape,
        [stride // dtype.itemsize for stride in out.strides],
    )
    inside_view[...] = True
    result = calls.full_size(name, calls.call(name, logits=logits, out=out))
    assert result is out
    np.testing.assert_allclose(out.astype(float), expected.astype(float), rtol=1e-14)
    assert (around[~inside] == 7.0).all(), "written outside of it"


def test_a_contiguous_out_gets_the_same_bits(backend: str, dtype: np.dtype) -> None:
    for name in calls.WITH_OUT:
        logits = calls.LOGITS.astype(dtype)
        out = np.empty(SHAPE, dtype)
        calls.call(name, logits=logits, out=out)
        np.testing.assert_array_equal(out, calls.full_size(name, calls.call(name, logits=logits)))


@pytest.mark.parametrize("where", places(SHAPE))
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", calls.WITH_OUT)
def test_in_place_of_each_input_of_its_shape(backend: str, name: str, axis: int, where: str) -> None:
    rows = SHAPE[:axis] + SHAPE[axis + 1 :]
    changes: dict[str, Any] = {"axis": axis}
    if name in calls.LOSSES:
        changes["targets"] = np.random.default_rng(4).integers(0, SHAPE[axis], rows)
    inputs = {"logits": calls.LOGITS}
    if name in calls.WITH_TANGENT:
        inputs[calls.tangent_name(name)] = calls.TANGENT
    if name in calls.LOSSES:
        inputs["targets"] = calls.DENSE
    for argument, values in inputs.items():
        place, apart, expected = (places(SHAPE)[where] for _ in range(3))
        place[...] = apart[...] = values
        calls.call(name, **{**changes, argument: apart, "out": expected})
        # The very same view, though not the same object.
        result = calls.full_size(name, calls.call(name, **{**changes, argument: place, "out": place[:]}))
        assert np.shares_memory(result, place)
        np.testing.assert_array_equal(place, expected, err_msg=f"{argument} {where}")


@pytest.mark.parametrize("name", calls.PRODUCTS)
def test_in_place_of_probs(backend: str, name: str) -> None:
    argument = calls.point_name(name)
    point = np.log(PROBS) if argument == "log_probs" else PROBS.copy()
    expected = calls.call(name, **{"logits": LEFT_OUT, argument: point.copy()})
    assert calls.call(name, **{"logits": LEFT_OUT, argument: point, "out": point}) is point
    np.testing.assert_array_equal(point, expected)


@pytest.mark.parametrize("name", [name for name in calls.WITH_OUT if name in calls.WITH_TANGENT])
def test_in_place_of_tangents_with_leading_axes(backend: str, name: str) -> None:
    for where in ("contiguous", "Fortran", "strided", "permuted"):
        tangents, apart, expected = (places((2, 3, *SHAPE))[where] for _ in range(3))
        tangents[...] = apart[...] = np.random.default_rng(5).normal(size=tangents.shape)
        calls.call(name, **{calls.tangent_name(name): apart, "out": expected})
        assert calls.call(name, **{calls.tangent_name(name): tangents, "out": tangents}) is tangents
        np.testing.assert_array_equal(tangents, expected)


def test_beside_an_input_in_the_same_buffer(backend: str) -> None:
    memory = np.random.default_rng(6).normal(size=(4, 2, 10))
    z, out = memory[:, 0], memory[:, 1]  # the bounds overlap, no element does
    expected = softgrad.softmax(z)
    assert softgrad.softmax(z, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_of_nothing(backend: str) -> None:
    for shape in ((0, 4), (3, 0)):
        out = np.empty(shape)
        assert softgrad.softmax(np.zeros(shape), out=out) is out


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_written_through_is_a_view(data: st.DataObject) -> None:
    """`writable` says `out` can be seen as rows exactly where NumPy's reshape makes a view of it."""
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=5)))
    order = data.draw(st.permutations(range(len(shape))))
    out = np.zeros([2 * shape[i] for i in order]).transpose(np.argsort(order))
    out = out[tuple(slice(0, n * data.draw(st.sampled_from([1, 2])), None) for n in shape)]
    steps = [data.draw(st.sampled_from([1, 2, -1])) for _ in shape]
    out = out[tuple(slice(None, None, step) for step in steps)]
    lead = data.draw(st.integers(0, len(shape) - 1))
    axis = data.draw(st.integers(0, len(shape) - lead - 1))
    chosen = layout.writable(backend_for("out", out), out, out.shape, out, axis, lead)
    is_view = np.shares_memory(layout.tangent_rows(out, axis, lead), out)
    assert (chosen is out) == is_view


def test_elements_that_lie_between_each_other_s() -> None:
    # Three classes two apart, two rows three apart: 0 2 4, 3 5 7.
    memory = np.full(8, np.nan)
    out = np.lib.stride_tricks.as_strided(memory, (2, 3), (24, 16))
    z = np.random.default_rng(0).normal(size=(2, 3))
    for name in ("numpy", *(name for name, state in softgrad.available_backends().items() if state == "available")):
        with softgrad.use_backend(name):
            assert softgrad.softmax(z, out=out) is out
            np.testing.assert_array_equal(out, softgrad.softmax(z))
    assert np.isnan(memory[[1, 6]]).all()
    crossing = np.lib.stride_tricks.as_strided(memory, (3, 2), (24, 16))  # 0 2, 3 5, 6 8
    assert not overlaps_itself(crossing.shape, crossing.strides, 8)
    colliding = np.lib.stride_tricks.as_strided(memory, (3, 2), (16, 32))  # 0 4, 2 6, 4 8
    with pytest.raises(ValueError, match="elements that share memory with each other"):
        softgrad.softmax(np.zeros((3, 2)), out=colliding)


def test_an_overlap_with_itself_is_decided_exactly() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(500):
        axes, itemsize = rng.integers(1, 5), int(rng.choice([2, 4, 8]))
        shape = tuple(map(int, rng.integers(1, 5, axes)))
        strides = tuple(map(int, rng.integers(-12, 13, axes) * rng.choice([1, 2, 4])))
        at = sorted(sum(map(operator.mul, index, strides)) for index in np.ndindex(shape))
        true = any(b - a < itemsize for a, b in pairwise(at))
        assert overlaps_itself(shape, strides, itemsize) == true, (shape, strides, itemsize)
        found.append(true)
    assert 50 < sum(found) < 450
