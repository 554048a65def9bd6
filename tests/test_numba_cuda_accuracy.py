"""The Numba CUDA kernels, run on the CPU: every function within its budget, over every kind of row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import softgrad
from softgrad.backends.cuda.segments import Cutting
from tests import truth
from tests.cases import ADVERSARIAL, DTYPES, LARGE, MODELS, TAILS, Case

pytest.importorskip("numba_cuda", reason="needs numba-cuda: pip install 'softgrad[numba-cuda]'")
from tests.emulator import emulated

DTYPE = [pytest.param(dtype, id=name) for name, dtype in DTYPES.items()]
FEW_ROWS = 12


@pytest.fixture(autouse=True)
def device() -> Iterator[Any]:
    with emulated("numba_cuda") as runtime:
        yield runtime


def per_row(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of losses."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def assert_all_right(case: Case, dtype: np.dtype[Any], names: tuple[str, ...]) -> None:
    z, t = case.logits(dtype)[:FEW_ROWS], case.targets()[:FEW_ROWS]
    v = case.tangents(dtype)[:FEW_ROWS]
    calls: dict[str, dict[str, Any]] = {
        "softmax": {"logits": z},
        "log_softmax": {"logits": z},
        "logsumexp": {"logits": z},
        "softmax_jvp": {"tangent": v, "logits": z},
        "log_softmax_jvp": {"tangent": v, "logits": z},
        "log_softmax_vjp": {"cotangent": v, "logits": z},
        "cross_entropy": {"logits": z, "targets": t, "reduction": "none"},
        "cross_entropy_grad": {"logits": z, "targets": t, "weight": case.weight(), "grad_output": 0.37},
    }
    for name in names:
        result, true = getattr(softgrad, name)(**calls[name]), getattr(truth, name)(**calls[name])
        expected = per_row(dtype) if name in ("logsumexp", "cross_entropy") else dtype
        truth.assert_right(result, true, expected, what=f"{name} {case}")


SOFTMAX = ("softmax", "log_softmax", "logsumexp")
PRODUCTS = ("softmax_jvp", "log_softmax_jvp", "log_softmax_vjp")
LOSSES = ("cross_entropy", "cross_entropy_grad")


@pytest.mark.parametrize("dtype", DTYPE)
@pytest.mark.parametrize("case", ADVERSARIAL, ids=str)
def test_adversarial_rows(case: Case, dtype: np.dtype[Any]) -> None:
    assert_all_right(case, dtype, SOFTMAX + PRODUCTS + LOSSES)


@pytest.mark.parametrize("dtype", DTYPE)
@pytest.mark.parametrize("case", TAILS, ids=str)
def test_tails(case: Case, dtype: np.dtype[Any]) -> None:
    assert_all_right(case, dtype, ("softmax", "softmax_jvp", "cross_entropy_grad"))


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_class_counts_of_models(case: Case) -> None:
    assert_all_right(case, DTYPES["float32"], ("softmax", "cross_entropy", "cross_entropy_grad"))


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_262144_classes(case: Case) -> None:
    z, t = np.ascontiguousarray(case.logits(np.float32)), case.targets()
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t)
    true_loss, true_grad = truth.cross_entropy_value_and_grad(z, t)
    truth.assert_right(loss, true_loss, np.float32, what="loss")
    truth.assert_right(grad, true_grad, np.float32, what="gradient")


@pytest.mark.parametrize("name", ["ordinary", "others flushed", "spread", "masked", "broken rows"])
def test_rows_cut_into_segments(name: str) -> None:
    case = next(case for case in ADVERSARIAL if case.name == name)
    with emulated("numba_cuda", cutting=Cutting(beyond=1, shortest=1)) as cut:
        assert_all_right(case, DTYPES["float32"], SOFTMAX + PRODUCTS + LOSSES)
    of_rows = [kernel for kernel in cut.ran if "check_targets" not in kernel and "divisor" not in kernel]
    assert all("segments" in kernel for kernel in of_rows)


def test_a_thread_s_long_sum_is_compensated() -> None:
    """Thousands of terms one after the other: what each addition rounds away would add up."""
    z = np.full((60_000, 2), [-0.3, -0.7], np.float32)
    z[0] = 0.0
    truth.assert_right(softgrad.softmax(z, axis=0), truth.softmax(z, axis=0), np.float32)


# --- every option -----------------------------------------------------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    {},
    {"weight": True, "ignore_index": 1},
    {"label_smoothing": 0.1, "reduction": "sum"},
    {"label_smoothing": 1.0, "weight": True},
    {"z_loss": 1e-3},
    {"z_loss": 0.3, "weight": True, "label_smoothing": 0.2},
    {"softcap": 5.0, "reduction": "none"},
    {"softcap": 30.0, "z_loss": 1e-4, "label_smoothing": 0.1, "weight": True},
]


def varied(
    case: Case, dtype: np.dtype[Any], options: dict[str, Any], *, dense: bool
) -> tuple[Any, Any, dict[str, Any]]:
    z = case.logits(dtype)[:FEW_ROWS]
    if dense:
        targets = np.where(np.isneginf(z.astype(np.float64)), 0.0, case.probabilities()[:FEW_ROWS]).astype(dtype)
    else:
        targets = case.targets(np.int32)[:FEW_ROWS]
    options = dict(options)
    if "weight" in options:
        options["weight"] = case.weight(np.float32)
    return z, targets, options


@pytest.mark.parametrize("dtype", DTYPE)
@pytest.mark.parametrize("dense", [False, True], ids=["indices", "probabilities"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", ["ordinary", "sure and wrong, few classes", "masked, few classes"])
def test_options(name: str, options: dict[str, Any], dense: bool, dtype: np.dtype[Any]) -> None:
    case = next(case for case in ADVERSARIAL if case.name == name)
    z, targets, loss = varied(case, dtype, options, dense=dense)
    v = case.tangents(dtype, k=(2,))[:, :FEW_ROWS]
    within = 4.0 + (loss.get("softcap") or 0.0)
    value, grad = softgrad.cross_entropy_value_and_grad(z, targets, grad_output=-1.7, **loss)
    true_value, true_grad = truth.cross_entropy_value_and_grad(z, targets, grad_output=-1.7, **loss)
    truth.assert_right(value, true_value, per_row(dtype), within=within, what="loss")
    truth.assert_right(grad, true_grad, dtype, within=within, what="gradient")
    slope = softgrad.cross_entropy_jvp(v, logits=z, targets=targets, **loss)
    true_slope = truth.cross_entropy_jvp(v, logits=z, targets=targets, **loss)
    truth.assert_right(slope, true_slope, per_row(dtype), within=within, what="jvp")
    product = softgrad.cross_entropy_hvp(v, logits=z, targets=targets, grad_output=0.3, **loss)
    true_product = truth.cross_entropy_hvp(v, logits=z, targets=targets, grad_output=0.3, **loss)
    truth.assert_right(product, true_product, dtype, within=within, what="hvp")


@pytest.mark.parametrize("dtype", DTYPE)
def test_products_from_probabilities(dtype: np.dtype[Any]) -> None:
    for case in (ADVERSARIAL[0], ADVERSARIAL[5]):
        v = case.tangents(np.float32, k=(3,))[:, :FEW_ROWS]
        p = softgrad.softmax(case.logits(dtype)[:FEW_ROWS])
        log_p = softgrad.log_softmax(case.logits(dtype)[:FEW_ROWS])
        truth.assert_right(softgrad.softmax_jvp(v, probs=p), truth.softmax_jvp(v, probs=p), dtype)
        result, true = softgrad.log_softmax_jvp(v, log_probs=log_p), truth.log_softmax_jvp(v, log_probs=log_p)
        truth.assert_right(result, true, dtype)
        result, true = softgrad.log_softmax_vjp(v, log_probs=log_p), truth.log_softmax_vjp(v, log_probs=log_p)
        truth.assert_right(result, true, dtype)


@pytest.mark.parametrize("tangent", [np.float64, np.int64])
def test_wide_tangents_keep_the_digits_that_are_left_by_the_largest_class(tangent: type) -> None:
    case = ADVERSARIAL[0]
    z = case.logits(np.float32)[:FEW_ROWS]
    v = (case.tangents(np.float64)[:FEW_ROWS] * 1e3 + 2e9).astype(tangent)
    for name in ("softmax_jvp", "log_softmax_jvp"):
        result, true = getattr(softgrad, name)(v, logits=z), getattr(truth, name)(v, logits=z)
        truth.assert_right(result, true, np.float32, what=name)


def test_a_class_of_probability_0_has_no_share_of_what_overflows() -> None:
    z, t = np.array([[3e38, -3e38, -2e38, 1.0]], np.float32), np.array([1])
    loss = {"label_smoothing": 1.0, "z_loss": 0.3, "grad_output": 3, "reduction": "none"}
    result = softgrad.cross_entropy_grad(z, t, **loss)
    truth.assert_right(result, truth.cross_entropy_grad(z, t, **loss), np.float32)


@pytest.mark.parametrize("options", [{}, {"z_loss": 0.3, "label_smoothing": 0.1}, {"softcap": 30.0}], ids=str)
@pytest.mark.parametrize("name", ["huge", "others flushed"])
def test_float64_derivatives_keep_digits_below_the_smallest_normal_number(name: str, options: dict[str, Any]) -> None:
    case = next(case for case in ADVERSARIAL if case.name == name)
    z, t, v = case.logits()[:FEW_ROWS], case.targets()[:FEW_ROWS], case.tangents()[:FEW_ROWS]
    within = 4.0 + options.get("softcap", 0.0)
    for function in ("cross_entropy_jvp", "cross_entropy_hvp"):
        result = getattr(softgrad, function)(v, logits=z, targets=t, **options)
        true = getattr(truth, function)(v, logits=z, targets=t, **options)
        truth.assert_right(result, true, np.float64, within=within, what=function)


@pytest.mark.parametrize("dtype", DTYPE)
@pytest.mark.parametrize("shape", [(5, 3, 7), (2, 40, 33), (3, 300, 2), (1, 1100, 3)], ids=str)
def test_a_class_axis_that_is_not_the_last(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    rng = np.random.default_rng(7)
    z, t = (rng.standard_normal(shape) * 8).astype(dtype), rng.integers(0, shape[1], (shape[0], shape[2]))
    v = rng.standard_normal(shape).astype(dtype)
    truth.assert_right(softgrad.softmax(z, axis=1), truth.softmax(z, axis=1), dtype)
    result = softgrad.softmax_vjp(v, logits=z, axis=1)
    truth.assert_right(result, truth.softmax_vjp(v, logits=z, axis=1), dtype)
    loss = {"axis": 1, "reduction": "none"}
    result = softgrad.cross_entropy_value_and_grad(z, t, **loss)
    for got, true in zip(result, truth.cross_entropy_value_and_grad(z, t, **loss), strict=True):
        truth.assert_right(got, true, got.dtype)
