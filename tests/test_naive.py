"""The textbook way gives the same numbers where it has digits left, at C² the cost; it does so in any array library."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest

import softgrad
from softgrad import naive
from tests import calls
from tests.calls import AXIS, CLASSES, DENSE, LEFT_OUT, LOGITS, PROBS, ROWS, SHAPE, TANGENT, TARGETS, WEIGHT

SHARED = sorted(set(naive.__all__) - {"log_softmax"})


def both(name: str, **changes: Any) -> tuple[Any, Any]:
    given = calls.arguments(name, **changes)
    return getattr(naive, name)(**given), getattr(softgrad, name)(**given)


def agree(name: str, rtol: float = 1e-12, **changes: Any) -> None:
    mine, theirs = both(name, **changes)
    assert type(mine) is type(theirs)
    assert mine.dtype == theirs.dtype
    assert mine.shape == theirs.shape
    np.testing.assert_allclose(mine.astype(float), theirs.astype(float), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("name", naive.__all__)
def test_any_axis(name: str, axis: int) -> None:
    changes: dict[str, Any] = {"axis": axis}
    if name in calls.LOSSES:
        shape = list(SHAPE)
        classes = shape.pop(axis)
        changes["targets"] = np.random.default_rng(1).integers(0, classes, shape)
    agree(name, **changes)


@pytest.mark.parametrize("name", naive.__all__)
def test_any_dtype(name: str, dtype: np.dtype) -> None:
    agree(name, rtol={8: 1e-12, 4: 1e-5, 2: 2e-2}[dtype.itemsize], logits=LOGITS.astype(dtype))


@pytest.mark.parametrize("name", calls.PRODUCTS)
def test_leading_axes_out_and_probabilities(name: str) -> None:
    tangents = np.random.default_rng(2).normal(size=(2, 3, *SHAPE))
    agree(name, **{calls.tangent_name(name): tangents})
    argument = calls.point_name(name)
    point = np.log(PROBS) if argument == "log_probs" else PROBS
    agree(name, **{"logits": LEFT_OUT, argument: point, calls.tangent_name(name): tangents})
    out = np.empty(SHAPE)
    assert calls_naive(name, out=out) is out
    np.testing.assert_array_equal(out, calls_naive(name))


def calls_naive(name: str, **changes: Any) -> Any:
    return getattr(naive, name)(**calls.arguments(name, **changes))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("dense", [False, True], ids=["indices", "probabilities"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight": WEIGHT},
        {"label_smoothing": 0.2},
        {"z_loss": 0.1},
        {"softcap": 2.0},
        {"weight": WEIGHT, "label_smoothing": 0.2, "z_loss": 0.1, "softcap": 2.0, "ignore_index": 3},
        {"ignore_index": None},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_every_option_of_the_loss(options: dict[str, Any], dense: bool, reduction: str) -> None:
    targets = DENSE if dense else np.where(TARGETS == 3, options.get("ignore_index", -100) or 0, TARGETS)
    agree("cross_entropy", targets=targets, reduction=reduction, **options)
    scale = np.random.default_rng(3).normal(size=ROWS) if reduction == "none" else 0.5
    agree("cross_entropy_grad", targets=targets, reduction=reduction, grad_output=scale, **options)


@pytest.mark.parametrize("shape", [(3, 0), (0, 4), (0, 0)])
def test_no_classes_or_no_rows(shape: tuple[int, int]) -> None:
    z = np.zeros(shape)
    rows, classes = shape
    assert naive.softmax(z).shape == shape
    assert naive.softmax_jacobian(logits=z).shape == (rows, classes, classes)
    assert naive.softmax_vjp(z, logits=z).shape == shape
    for targets in (z, np.full(rows, -100)):
        assert naive.cross_entropy_grad(z, targets, reduction="sum").shape == shape
        assert naive.cross_entropy(z, targets, reduction="sum") == 0.0


def test_the_jacobian_of_a_batch_is_b_by_c_by_c() -> None:
    assert naive.softmax_jacobian(logits=LOGITS, axis=AXIS).shape == (*ROWS, CLASSES, CLASSES)
    assert naive.softmax_jacobian(logits=LOGITS[:, :, 0]).shape == (3, CLASSES, CLASSES)


def test_bad_calls_are_refused() -> None:
    with pytest.raises(TypeError, match="exactly one of `logits` and `probs`"):
        naive.softmax_jvp(TANGENT)
    with pytest.raises(ValueError, match="Were logits"):
        naive.softmax_jvp(TANGENT, probs=LOGITS)
    with pytest.raises(ValueError, match=r"`targets` out of range: 9; expected \[0, 2\)"):
        naive.cross_entropy(np.zeros((1, 2)), [9])
    assert np.isnan(naive.cross_entropy(np.zeros((1, 2)), [9], check_targets=False))
    with pytest.raises(np.exceptions.AxisError, match="axis 5 is out of bounds"):
        naive.softmax(LOGITS, axis=5)
    for name in ("cross_entropy", "cross_entropy_grad"):
        with pytest.raises(ValueError, match="`reduction` is 'avg'; expected 'none', 'sum' or 'mean'"):
            calls_naive(name, reduction="avg")


def test_what_it_loses_is_what_the_library_keeps() -> None:
    """The docstring's claim: in a sure row the target's gradient and the loss round to 0."""
    z, t = np.array([[0.0, 40.0]]), np.array([1])
    assert naive.cross_entropy_grad(z, t)[0, 1] == 0.0
    assert naive.cross_entropy(z, t) == 0.0
    np.testing.assert_allclose(softgrad.cross_entropy_grad(z, t)[0, 1], -np.exp(-40.0), rtol=1e-15)
    np.testing.assert_allclose(softgrad.cross_entropy(z, t), np.exp(-40.0), rtol=1e-15)


class ForeignArray(np.ndarray):
    """An array of another library with NumPy's names."""


ForeignArray.__module__ = "an_array_library._core"


@pytest.mark.parametrize("name", SHARED)
def test_another_array_library_with_the_same_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library, used = types.ModuleType("an_array_library"), set()

    def lookup(function: str) -> Any:
        used.add(function)
        return getattr(np, function)

    library.__getattr__ = lookup  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "an_array_library", library)
    given = calls.arguments(name)
    foreign = {
        key: value.view(ForeignArray) if isinstance(value, np.ndarray) else value for key, value in given.items()
    }
    result = getattr(naive, name)(**foreign)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(getattr(naive, name)(**given)))
    assert "exp" in used
