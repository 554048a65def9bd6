"""Targets: compared by value whatever their dtype; what counts, what is ignored, what is out of range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import softgrad
from tests import calls
from tests.calls import LOSSES

B, C = 6, 5
Z = np.random.default_rng(7).normal(size=(B, C))
V = np.random.default_rng(8).normal(size=(2, B, C))
T = np.array([0, 4, 2, 1, 3, 2])
INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i8", ">u2"]
REDUCTIONS = ("none", "sum", "mean")


def everything(targets: Any, **options: Any) -> dict[str, np.ndarray]:
    """Loss, gradient, directional derivatives and Hessian products of these targets."""
    scale = {key: options.pop(key) for key in ("grad_output",) if key in options}
    loss, grad = softgrad.cross_entropy_value_and_grad(Z, targets, **scale, **options)
    return {
        "loss": np.asarray(loss),
        "grad": grad,
        "jvp": np.asarray(softgrad.cross_entropy_jvp(V, logits=Z, targets=targets, **options)),
        "hvp": softgrad.cross_entropy_hvp(V, logits=Z, targets=targets, **scale, **options),
    }


def agree(mine: dict[str, np.ndarray], expected: dict[str, np.ndarray], rtol: float = 0.0) -> None:
    for what, value in expected.items():
        np.testing.assert_allclose(mine[what], value, rtol=rtol, atol=rtol, err_msg=what)


# --- dtypes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", INTEGERS)
def test_any_integer_dtype(backend: str, dtype: str) -> None:
    agree(everything(T.astype(dtype)), everything(T))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("u8", 2**64 - 100),
        ("u4", 2**32 - 100),
        ("u2", 2**16 - 100),
        ("u1", 2**8 - 100),
        ("u8", 2**63),
        ("u8", 2**64 - 1),
    ],
)
def test_a_large_unsigned_target_is_not_a_negative_one(backend: str, dtype: str, value: int) -> None:
    targets = T.astype(dtype)
    targets[3] = value  # wrapped into a signed integer it would be ignore_index, or −1
    with pytest.raises(ValueError, match=rf"targets\[3\] is {value}"):
        softgrad.cross_entropy(Z, targets)
    loss = softgrad.cross_entropy(Z, targets, reduction="none", check_targets=False)
    np.testing.assert_array_equal(np.isnan(loss), np.arange(B) == 3)


@pytest.mark.parametrize(
    ("dtype", "ignore_index"),
    [("u8", 2**64 - 100), ("u1", 255), ("i1", -128), ("i8", -(2**63)), ("u4", 2**32 - 1), ("i4", 2**31 - 1)],
)
def test_any_ignore_index_that_the_dtype_holds(backend: str, dtype: str, ignore_index: int) -> None:
    targets = T.astype(dtype)
    targets[3] = ignore_index
    ignored = T.copy()
    ignored[3] = -100
    agree(everything(targets, ignore_index=ignore_index), everything(ignored))


@pytest.mark.parametrize("ignore_index", [2**64 + 2, 2**32 + 2, 2**8 + 2, -254, -(2**64) + 2, 2**100])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_an_ignore_index_beyond_the_dtype_ignores_nothing(backend: str, dtype: str, ignore_index: int) -> None:
    limits = np.iinfo(np.dtype(dtype))
    if limits.min <= ignore_index <= limits.max:
        ignore_index += 2**70
    agree(everything(T.astype(dtype), ignore_index=ignore_index), everything(T))


def test_ignore_index_none_ignores_nothing(backend: str) -> None:
    agree(everything(T, ignore_index=None), everything(T))
    targets = T.copy()
    targets[0] = -100
    with pytest.raises(ValueError, match=r"targets\[0\] is -100; expected \[0, 5\)$"):
        softgrad.cross_entropy(Z, targets, ignore_index=None)


@pytest.mark.parametrize("dtype", ["i1", "u8", "i8", "f2", "f4", "f8", ">f8", ">i4"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_one_hot_rows_are_indices(backend: str, dtype: str, reduction: str) -> None:
    one_hot = (T[:, None] == np.arange(C)).astype(dtype)
    agree(everything(one_hot, reduction=reduction), everything(T, reduction=reduction), rtol=1e-12)


def test_probabilities_do_not_know_ignore_index(backend: str) -> None:
    probabilities = np.random.default_rng(9).integers(0, 3, (B, C))
    for ignore_index in (None, -100, 0, 1, 2):
        agree(everything(probabilities, ignore_index=ignore_index), everything(probabilities.astype(float)))


def test_the_gradient_of_probabilities_that_do_not_sum_to_one(backend: str) -> None:
    t = np.random.default_rng(10).random((B, C)) * 3.0
    grad = softgrad.cross_entropy_grad(Z, t, reduction="sum")
    np.testing.assert_allclose(grad, softgrad.softmax(Z) * t.sum(1, keepdims=True) - t, rtol=1e-12, atol=1e-14)


# --- what the mean divides by -----------------------------------------------------------------------------------------


def test_divisors(backend: str) -> None:
    w = np.array([0.5, 2.0, 1.5, 3.0, 0.25])
    targets = T.copy()
    targets[[1, 4]] = -100
    counts = targets != -100
    lse = softgrad.logsumexp(Z)
    for smoothing in (0.0, 0.3):
        options = {"weight": w, "label_smoothing": smoothing}
        each = softgrad.cross_entropy(Z, targets, reduction="none", **options)
        # The z_loss part is not weighted: it is divided by the number of rows that count.
        mean = softgrad.cross_entropy(Z, targets, z_loss=0.1, **options)
        expected = each.sum() / w[targets[counts]].sum() + 0.1 * (lse[counts] ** 2).sum() / counts.sum()
        np.testing.assert_allclose(mean, expected, rtol=1e-13)
        probabilities = np.random.default_rng(11).random((B, C))
        each = softgrad.cross_entropy(Z, probabilities, reduction="none", **options)
        mean = softgrad.cross_entropy(Z, probabilities, z_loss=0.1, **options)
        np.testing.assert_allclose(mean, each.sum() / B + 0.1 * (lse**2).sum() / B, rtol=1e-13)


# --- rows that count for nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("poison", "reduction"),
    [*((poison, reduction) for poison in ("logits", "tangent") for reduction in REDUCTIONS), ("grad_output", "none")],
)
def test_an_ignored_row_is_exactly_zero_whatever_it_holds(backend: str, reduction: str, poison: str) -> None:
    targets = T.copy()
    targets[2] = -100
    options: dict[str, Any] = {"z_loss": 0.2, "softcap": 4.0, "label_smoothing": 0.1, "reduction": reduction}
    for value in (np.nan, np.inf, -np.inf):
        z, v, scale = Z.copy(), V.copy(), np.ones(B)
        {"logits": z, "grad_output": scale}.get(poison, v[0])[2] = value
        scaled = {**options, "grad_output": scale} if reduction == "none" else options
        loss, grad = softgrad.cross_entropy_value_and_grad(z, targets, **scaled)
        jvp = softgrad.cross_entropy_jvp(v, logits=z, targets=targets, **options)
        hvp = softgrad.cross_entropy_hvp(v, logits=z, targets=targets, **scaled)
        keep = np.arange(B) != 2
        clean_loss, clean_grad = softgrad.cross_entropy_value_and_grad(Z[keep], targets[keep], **options)
        clean_hvp = softgrad.cross_entropy_hvp(V[:, keep], logits=Z[keep], targets=targets[keep], **options)
        clean_jvp = softgrad.cross_entropy_jvp(V[:, keep], logits=Z[keep], targets=targets[keep], **options)
        for ours, theirs, zero in ((grad, clean_grad, grad[2]), (hvp[0], clean_hvp[0], hvp[:, 2])):
            np.testing.assert_array_equal(zero, np.zeros_like(zero))
            np.testing.assert_allclose(ours[keep], theirs, rtol=1e-13)
        if reduction == "none":
            assert loss[2] == 0.0
            np.testing.assert_array_equal(jvp[:, 2], 0.0)
            np.testing.assert_array_equal(loss[keep], clean_loss)
        else:
            np.testing.assert_allclose(loss, clean_loss, rtol=1e-14)
            np.testing.assert_allclose(jvp, clean_jvp, rtol=1e-13)


@pytest.mark.parametrize("options", [{}, {"z_loss": 0.3}, {"label_smoothing": 0.2}, {"weight": np.ones(C)}], ids=str)
def test_when_no_row_counts_the_mean_is_nan_and_every_derivative_zero(backend: str, options: dict[str, Any]) -> None:
    result = everything(np.full(B, -100), grad_output=np.nan, **options)
    assert np.isnan(result.pop("loss"))
    for value in result.values():
        np.testing.assert_array_equal(value, np.zeros_like(value))
    summed = everything(np.full(B, -100), reduction="sum", **options)
    for value in summed.values():
        np.testing.assert_array_equal(value, np.zeros_like(value))


@pytest.mark.parametrize("z_loss", [0.0, 0.3])
def test_when_the_weights_that_count_sum_to_zero(backend: str, z_loss: float) -> None:
    weight = np.array([0.0, 1.0, 0.0, 1.0, 1.0])
    result = everything(np.array([0, 2, 0, -100, 2, 2]), weight=weight, z_loss=z_loss)
    assert np.isnan(result.pop("loss"))
    for value in result.values():
        np.testing.assert_array_equal(value, np.zeros_like(value))


# --- out of range, unchecked ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [C, -1, -101, 2**40, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "options", [{}, {"weight": np.arange(1.0, C + 1), "label_smoothing": 0.1, "z_loss": 0.1}], ids=["plain", "all"]
)
def test_unchecked_poisons_its_own_row_alone(backend: str, bad: int, reduction: str, options: dict[str, Any]) -> None:
    targets = T.copy()
    targets[4] = bad
    without = T.copy()
    without[4] = -100  # counts in neither divisor
    options = {**options, "reduction": reduction}
    mine, expected = everything(targets, check_targets=False, **options), everything(without, **options)
    assert np.isnan(mine["grad"][4]).all()
    assert np.isnan(mine["hvp"][:, 4]).all()
    keep = np.arange(B) != 4
    np.testing.assert_array_equal(mine["grad"][keep], expected["grad"][keep])
    np.testing.assert_array_equal(mine["hvp"][:, keep], expected["hvp"][:, keep])
    if reduction == "none":
        assert np.isnan(mine["loss"][4])
        assert np.isnan(mine["jvp"][:, 4]).all()
        np.testing.assert_array_equal(mine["loss"][keep], expected["loss"][keep])
        np.testing.assert_array_equal(mine["jvp"][:, keep], expected["jvp"][:, keep])
    else:
        assert np.isnan(mine["loss"])
        assert np.isnan(mine["jvp"]).all()


@pytest.mark.parametrize("name", LOSSES)
def test_checked_unless_told_otherwise_on_the_cpu(backend: str, name: str) -> None:
    targets = calls.TARGETS.copy()
    targets[0, 0] = calls.CLASSES
    for check in ({}, {"check_targets": None}, {"check_targets": True}):
        with pytest.raises(ValueError, match="out of range"):
            calls.call(name, targets=targets, **check)
    calls.call(name, targets=targets, check_targets=False)


def test_an_ignored_index_may_be_a_class(backend: str) -> None:
    targets = np.where(T == 2, -100, T)
    agree(everything(T, ignore_index=2), everything(targets))


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize("classes", [5, 20, 64, 200, 500])  # short, middling and long rows take different paths
def test_an_unchecked_row_is_nan_and_an_ignored_one_0_at_every_length(
    backend: str, dtype: np.dtype, classes: int, rows: int
) -> None:
    logits = np.random.default_rng(0).normal(size=(rows, classes)).astype(dtype)
    targets = np.zeros(rows, int)
    targets[0], targets[1:4] = classes + 3, -100
    for options in ({}, {"weight": np.ones(classes)}):
        for reduction in ("none", "sum"):
            grad = softgrad.cross_entropy_grad(
                logits, targets, reduction=reduction, check_targets=False, **options
            ).astype(np.float64)
            assert np.isnan(grad[0]).all()
            assert (grad[1:4] == 0.0).all()
            assert np.isfinite(grad[4:]).all()


def test_the_largest_ignore_index_does_not_stand_for_another(backend: str) -> None:
    targets = T.copy()
    targets[1] = 2**63 - 1
    agree(everything(targets, ignore_index=2**63 - 1), everything(np.where(targets > C, -100, T)))
    targets[4] = -1
    with pytest.raises(ValueError, match=r"targets\[4\] is -1"):
        everything(targets, ignore_index=2**63 - 1)


# --- the first that is out of range -----------------------------------------------------------------------------------


def laid_out(targets: np.ndarray, layout: str) -> np.ndarray:
    """The same targets at other places in memory."""
    if layout == "every other":
        twice = np.full(2 * targets.size, 99, targets.dtype)
        twice[::2] = targets
        return twice[::2]
    return targets[::-1].copy()[::-1] if layout == "backwards" else targets


@pytest.mark.parametrize("layout", ["side by side", "every other", "backwards"])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_first_bad_target_is_named_wherever_it_stands(backend: str, dtype: str, layout: str) -> None:
    rows, classes = 21, 5  # two groups of eight, and some more
    logits = np.zeros((rows, classes), np.float32)
    good = np.full(rows, 120, dtype)
    for first in (0, 7, 8, 15, 16, 20):
        targets = good.copy()
        targets[first], targets[20] = 5, 6 if first != 20 else 5
        with pytest.raises(ValueError, match=rf"targets\[{first}\] is 5; expected \[0, 5\)"):
            softgrad.cross_entropy(logits, laid_out(targets, layout), ignore_index=120)
    assert np.isnan(softgrad.cross_entropy(logits, laid_out(good, layout), ignore_index=120))  # nothing counts


@pytest.mark.parametrize(
    "shape", [(21, 5), (21, 40), (21, 400), (2000, 5), (2000, 40), (40, 400), (3, 20_000), (1, 0), (21, 5, 3)]
)
@pytest.mark.parametrize(
    "options",
    [{}, {"z_loss": 0.1}, {"weight": 1, "label_smoothing": 0.1}, {"softcap": 3.0}, {"grad_output": 1}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_a_bad_target_is_refused_before_anything_is_written(
    backend: str, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    classes, rows = shape[1], shape[:1] + shape[2:]
    if "weight" in options:
        options = options | {"weight": np.ones(classes)}
    if "grad_output" in options:
        options = options | {"grad_output": np.ones(rows), "reduction": "none"}
    of_jvp = {name: value for name, value in options.items() if name != "grad_output"}
    targets = np.zeros(rows, int)
    targets[13 % len(targets)] = classes
    for dtype in (np.float64, np.float32):
        logits = np.zeros(shape, dtype)
        v, out = np.ones(shape, dtype), np.full(shape, 7.0, dtype)
        problem: dict[str, Any] = {"logits": logits, "targets": targets, "axis": 1}
        at = 13 % len(targets)
        for call in (
            lambda: softgrad.cross_entropy(**problem, **of_jvp),  # noqa: B023
            lambda: softgrad.cross_entropy_grad(**problem, out=out, **options),  # noqa: B023
            lambda: softgrad.cross_entropy_value_and_grad(**problem, out=logits, **options),  # noqa: B023
            lambda: softgrad.cross_entropy_jvp(v, **problem, **of_jvp),  # noqa: B023
            lambda: softgrad.cross_entropy_hvp(v, **problem, out=out, **options),  # noqa: B023
            lambda: softgrad.cross_entropy_hvp(v[None][:0], **problem, **options),  # noqa: B023
        ):
            with pytest.raises(ValueError, match=rf"targets\[{at}.* is {classes}; expected \[0, {classes}\)"):
                call()
        assert (out == 7.0).all()
        assert (logits == 0.0).all()
