"""Kind, dtype and shape of every result; any number of dimensions, axis and memory layout; nothing at all."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import softgrad
from tests import calls
from tests.calls import AXIS, CLASSES, LEFT_OUT, LOGITS, LOSSES, PROBS, ROWS, SHAPE, TANGENT, TARGETS

REDUCTIONS = ("none", "sum", "mean")


def loss_dtype(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def same(a: Any, b: Any, what: object = "") -> None:
    """The same bits, dtype and shape; NaN where NaN."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype, what
    assert a.shape == b.shape, what
    np.testing.assert_array_equal(a, b, err_msg=str(what))


def close(a: Any, b: Any) -> None:
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-12, atol=1e-14)


# --- kind, dtype, shape -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", calls.EVERY)
def test_kind_dtype_and_shape(backend: str, dtype: np.dtype, name: str) -> None:
    logits = LOGITS.astype(dtype)
    result = calls.call(name, logits=logits)
    if name == "cross_entropy_value_and_grad":
        loss, result = result
        assert type(loss) is loss_dtype(dtype).type
    if name in ("cross_entropy", "cross_entropy_jvp"):
        assert type(result) is loss_dtype(dtype).type  # a scalar, as logits.sum() would be
    elif name == "logsumexp":
        assert type(result) is np.ndarray
        assert result.dtype == loss_dtype(dtype)
        assert result.shape == ROWS
    else:
        assert type(result) is np.ndarray
        assert result.dtype == dtype
        assert result.shape == ((*ROWS, CLASSES, CLASSES) if name == "softmax_jacobian" else SHAPE)
    assert type(logits) is np.ndarray
    same(logits, LOGITS.astype(dtype), "inputs are left alone")


@pytest.mark.parametrize("name", calls.WITH_PROBS)
def test_probabilities_decide_as_logits_do(backend: str, dtype: np.dtype, name: str) -> None:
    argument = calls.point_name(name)
    point = (np.log(PROBS) if argument == "log_probs" else PROBS).astype(dtype)
    result = calls.call(name, **{"logits": LEFT_OUT, argument: point})
    assert type(result) is np.ndarray
    assert result.dtype == dtype


@pytest.mark.parametrize("k", [(), (2,), (1,), (2, 3), (0,), (3, 0)])
@pytest.mark.parametrize("name", calls.WITH_TANGENT)
def test_leading_axes(backend: str, name: str, k: tuple[int, ...]) -> None:
    argument = calls.tangent_name(name)
    tangents = np.random.default_rng(1).normal(size=(*k, *SHAPE))
    for reduction in REDUCTIONS if name in LOSSES else (None,):
        changes = {} if reduction is None else {"reduction": reduction}
        result = calls.call(name, **{argument: tangents}, **changes)
        expected = SHAPE if name != "cross_entropy_jvp" else ROWS if reduction == "none" else ()
        assert np.shape(result) == k + expected
        for at in np.ndindex(*k):
            same(result[at] if k else result, calls.call(name, **{argument: tangents[at]}, **changes))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_single_row(backend: str, name: str, reduction: str) -> None:
    result = calls.call(
        name,
        logits=LOGITS[0, :, 0],
        targets=2,
        axis=-1,
        reduction=reduction,
        **({"tangent": TANGENT[0, :, 0]} if name in calls.WITH_TANGENT else {}),
    )
    if name == "cross_entropy_value_and_grad":
        assert type(result[0]) is np.float64
        assert result[1].shape == (CLASSES,)
    elif name in ("cross_entropy", "cross_entropy_jvp"):
        assert type(result) is np.float64
    else:
        assert result.shape == (CLASSES,)


def test_logsumexp_keeps_the_axis_when_asked(backend: str) -> None:
    kept = softgrad.logsumexp(LOGITS, axis=AXIS, keepdims=True)
    assert kept.shape == (3, 1, 4)
    same(kept[:, 0], softgrad.logsumexp(LOGITS, axis=AXIS))
    assert type(softgrad.logsumexp([1.0, 2.0])) is np.float64
    assert softgrad.logsumexp([1.0, 2.0], keepdims=True).shape == (1,)


# --- what else is taken: integers, sequences, other dtypes beside the main one ----------------------------------------


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4"])
def test_integer_logits_become_float64(backend: str, dtype: str) -> None:
    z = np.array([[1, 2, 4], [7, 0, 3]], dtype)
    for name in calls.SOFTMAX:
        same(getattr(softgrad, name)(z), getattr(softgrad, name)(z.astype(np.float64)))


@pytest.mark.parametrize("make", [list, tuple], ids=["lists", "tuples"])
def test_nested_sequences_become_float64(backend: str, make: Any) -> None:
    z = make(make(row) for row in ((1, 2, 4), (7, 0, 3)))
    same(softgrad.softmax(z), softgrad.softmax(np.array(z, np.float64)))
    same(
        softgrad.cross_entropy_grad(z, make((0, 2))), softgrad.cross_entropy_grad(np.array(z, float), np.array([0, 2]))
    )
    same(softgrad.softmax(range(3)), softgrad.softmax(np.arange(3.0)))
    single = [np.float32(1), np.float32(2)]  # what a list holds does not decide
    assert softgrad.softmax(single).dtype == np.float64
    assert softgrad.softmax([np.array([1, 2], "f4"), np.array([3, 4], "f4")]).dtype == np.float64
    long = make((10**30, -(2**70), 3 * 10**30))  # integers beyond 64 bits
    same(softgrad.softmax(long), softgrad.softmax(np.array(long, np.float64)))
    same(
        softgrad.softmax_jvp(long, logits=[0.0, 1.0, 2.0]),
        softgrad.softmax_jvp(np.array(long, float), logits=[0, 1, 2]),
    )


def test_a_list_of_bfloat16_becomes_float64(backend: str) -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    same(softgrad.softmax([bfloat16(1), bfloat16(2)]), softgrad.softmax([1.0, 2.0]))


def test_options_may_be_scalars_of_any_real_dtype(backend: str) -> None:
    number = pytest.importorskip("ml_dtypes").bfloat16(0.5)
    expected = calls.call("cross_entropy_grad", label_smoothing=0.5, z_loss=0.5, softcap=0.5, grad_output=0.5)
    for half in (number, np.float16(0.5), np.longdouble(0.5), np.array(0.5, np.float32), np.array(number)):
        options = {"label_smoothing": half, "z_loss": half, "softcap": half, "grad_output": half}
        same(calls.call("cross_entropy_grad", **options), expected)


def test_a_memory_map_is_an_array(backend: str, tmp_path: Any) -> None:
    z = np.memmap(tmp_path / "z", np.float32, "w+", shape=(4, 8))
    z[...] = np.arange(32).reshape(4, 8)
    same(softgrad.softmax(z), softgrad.softmax(np.array(z)))
    assert softgrad.softmax(z, out=z) is z


@pytest.mark.parametrize("other", ["f8", "f4", "f2", "bfloat16", "i1", "u8", "i4", ">f4", ">i2", "g"])
@pytest.mark.parametrize("name", [*calls.PRODUCTS, *LOSSES])
def test_second_arrays_of_any_real_dtype(backend: str, name: str, other: str) -> None:
    other_dtype = pytest.importorskip("ml_dtypes").bfloat16 if other == "bfloat16" else np.dtype(other)
    rng = np.random.default_rng(2)
    second: dict[str, np.ndarray] = {}  # small integers: every dtype holds them exactly
    if name in calls.WITH_TANGENT:
        second[calls.tangent_name(name)] = rng.integers(0, 5, SHAPE)
    if name in LOSSES:
        second |= {"targets": rng.integers(0, 3, SHAPE), "weight": rng.integers(1, 5, CLASSES)}
    options = {}
    if name in calls.WITH_GRAD_OUTPUT:
        second["grad_output"] = rng.integers(1, 4, ROWS)
        options["reduction"] = "none"
    exact = calls.call(name, **{key: value.astype(np.float64) for key, value in second.items()}, **options)
    again = calls.call(name, **{key: value.astype(other_dtype) for key, value in second.items()}, **options)
    close(calls.full_size(name, again), calls.full_size(name, exact))


TWO = (2, 2.0, np.float32(2), np.int8(2), np.array(2.0), np.array(2, "i4"), np.array(2.0, "f2"), np.full(ROWS, 2.0))


@pytest.mark.parametrize("two", TWO, ids=repr)
def test_grad_output_scales_the_gradient_never_the_loss(backend: str, two: Any) -> None:
    for reduction in REDUCTIONS if np.ndim(two) == 0 else ("none",):
        options = {"axis": AXIS, "reduction": reduction}
        loss, grad = softgrad.cross_entropy_value_and_grad(LOGITS, TARGETS, grad_output=two, **options)
        same(loss, softgrad.cross_entropy(LOGITS, TARGETS, **options))
        close(grad, 2.0 * softgrad.cross_entropy_grad(LOGITS, TARGETS, **options))
        same(grad, softgrad.cross_entropy_grad(LOGITS, TARGETS, grad_output=two, **options))
        point = {"logits": LOGITS, "targets": TARGETS, **options}
        once = softgrad.cross_entropy_hvp(TANGENT, **point)
        close(softgrad.cross_entropy_hvp(TANGENT, grad_output=two, **point), 2.0 * once)


def test_grad_output_per_row(backend: str) -> None:
    scale = np.random.default_rng(3).normal(size=ROWS)
    options = {"axis": AXIS, "reduction": "none"}
    once = softgrad.cross_entropy_grad(LOGITS, TARGETS, **options)
    for given_scale in (scale, scale.tolist(), scale[::-1].copy()[::-1], np.asfortranarray(scale)):
        grad = softgrad.cross_entropy_grad(LOGITS, TARGETS, grad_output=given_scale, **options)
        close(grad, scale[:, None] * once)


# --- axes and layouts -------------------------------------------------------------------------------------------------


def classes_last(name: str, result: Any, axis: int, ndim: int) -> Any:
    """A result computed with classes last, brought to where `axis` would have put it."""
    if name in ("softmax_jacobian", "logsumexp", "cross_entropy", "cross_entropy_jvp"):
        return result
    return np.moveaxis(result, -1, axis - ndim)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple),
    axis=st.integers(0, 4),
    negative=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_axis_is_the_last_axis_moved(backend: str, shape: Any, axis: int, negative: bool, seed: int) -> None:
    axis %= len(shape)
    given_axis = axis - len(shape) if negative else axis
    rng = np.random.default_rng(seed)
    logits, tangent = rng.normal(size=shape), rng.normal(size=(2, *shape))
    rows = shape[:axis] + shape[axis + 1 :]
    targets = rng.integers(0, shape[axis], rows)
    for name in calls.EVERY:
        changes: dict[str, Any] = {"logits": logits, "axis": given_axis}
        last: dict[str, Any] = {"logits": np.moveaxis(logits, axis, -1).copy(), "axis": -1}
        if name in calls.WITH_TANGENT:
            argument = calls.tangent_name(name)
            changes[argument], last[argument] = tangent, np.moveaxis(tangent, axis - len(shape), -1).copy()
        if name in LOSSES:
            for each in (changes, last):
                each |= {"targets": targets, "reduction": "none"}
        mine = calls.full_size(name, calls.call(name, **changes))
        close(mine, classes_last(name, calls.full_size(name, calls.call(name, **last)), axis, len(shape)))


def layouts(array: np.ndarray) -> dict[str, np.ndarray]:
    """The same numbers, laid out otherwise."""
    spread = np.zeros([2 * n + 3 for n in array.shape], array.dtype)
    strided = spread[tuple(slice(1, 2 * n + 1, 2) for n in array.shape)]
    strided[...] = array
    backwards = array[(slice(None, None, -1),) * array.ndim].copy()[(slice(None, None, -1),) * array.ndim]
    bytewise = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    bytewise[...] = array
    assert not bytewise.flags.aligned
    read_only = array.copy()
    read_only.flags.writeable = False
    return {
        "Fortran": np.asfortranarray(array),
        "strided": strided,
        "negative strides": backwards,
        "permuted": np.moveaxis(np.moveaxis(array, 0, -1).copy(), -1, 0),
        "unaligned": bytewise,
        "read-only": read_only,
    }


@pytest.mark.parametrize("name", calls.EVERY)
def test_inputs_of_any_layout(backend: str, name: str) -> None:
    plain = calls.full_size(name, calls.call(name))
    given_arrays = {key: value for key, value in calls.arguments(name).items() if isinstance(value, np.ndarray)}
    for argument, array in given_arrays.items():
        for layout, other in layouts(array).items():
            result = calls.full_size(name, calls.call(name, **{argument: other}))
            np.testing.assert_allclose(result, plain, rtol=1e-14, atol=1e-16, err_msg=f"{argument}: {layout}")
            assert result.flags.c_contiguous or name == "softmax_jacobian"
            same(other, array, "left alone")


@pytest.mark.parametrize("name", calls.EVERY)
def test_inputs_that_repeat_one_row(backend: str, name: str) -> None:
    once = calls.arguments(name)
    repeated = {
        key: np.broadcast_to(value[:1], value.shape) if isinstance(value, np.ndarray) else value
        for key, value in once.items()
    }
    copied = {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in repeated.items()}
    function = getattr(softgrad, name)
    close(calls.full_size(name, function(**repeated)), calls.full_size(name, function(**copied)))


# --- nothing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", calls.EVERY)
@pytest.mark.parametrize("shape", [(0, 5, 4), (3, 5, 0), (3, 0, 4), (0, 0, 0), (0, 0, 4), (1, 0, 1)])
def test_no_rows_and_no_classes(backend: str, dtype: np.dtype, name: str, shape: tuple[int, ...]) -> None:
    rows = (shape[0], shape[2])
    classes = shape[1]
    for reduction, dense in itertools.product(REDUCTIONS, (False, True)) if name in LOSSES else ((None, None),):
        changes: dict[str, Any] = {"logits": np.zeros(shape, dtype)}
        if name in calls.WITH_TANGENT:
            changes[calls.tangent_name(name)] = np.zeros((2, *shape))
        if name in LOSSES:
            ignored = np.full(rows, -100)
            changes |= {"targets": np.zeros(shape) if dense else ignored, "reduction": reduction}
        result = calls.call(name, **changes)
        loss = None
        if name == "cross_entropy_value_and_grad":
            loss, result = result
        elif name == "cross_entropy":
            loss = result
        if loss is not None:
            nothing_counts = reduction == "mean" and (not dense or 0 in rows)
            expected = np.full(rows if reduction == "none" else (), np.nan if nothing_counts else 0.0)
            same(loss, expected.astype(loss_dtype(dtype)))
        if name == "cross_entropy_jvp":
            assert result.shape == (2, *rows) if reduction == "none" else (2,)
        elif name == "logsumexp":
            assert result.shape == rows
            assert (result == -np.inf).all()
        elif name == "softmax_jacobian":
            assert result.shape == (*rows, classes, classes)
        elif name != "cross_entropy":
            lead = (2,) if name in calls.WITH_TANGENT else ()
            assert result.shape == lead + shape
            assert result.dtype == dtype


def test_empty_lists(backend: str) -> None:
    assert softgrad.softmax([]).shape == (0,)
    assert softgrad.softmax([[], []]).shape == (2, 0)
    assert softgrad.logsumexp([]) == -np.inf
    assert np.isnan(softgrad.cross_entropy(np.zeros((0, 3)), []))
    assert softgrad.cross_entropy_grad(np.zeros((0, 3)), []).shape == (0, 3)
