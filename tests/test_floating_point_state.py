"""No call emits a floating-point warning or raises FloatingPointError, and the caller's np.errstate is left alone."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from softgrad import naive
from tests import calls
from tests.calls import AXIS, LEFT_OUT, LOGITS, LOSSES, SHAPE


def hard(dtype: Any) -> np.ndarray:
    """Logits that overflow, underflow, divide by zero and are invalid wherever arithmetic is careless."""
    limits = np.finfo(dtype) if np.dtype(dtype).kind == "f" else pytest.importorskip("ml_dtypes").finfo(dtype)
    big, small = float(limits.max), float(limits.smallest_subnormal)
    rows = [
        (big, -big, 0.0, big, small),
        (-np.inf, -np.inf, -np.inf, -np.inf, -np.inf),
        (np.nan, 0.0, np.inf, -np.inf, big),
        (np.inf, 0.0, 0.0, 0.0, 0.0),
        (-np.inf, 0.0, -80.0, -700.0, -1e4),
        (small, -small, 0.0, small, small),
        (1e3, -1e3, 0.0, 5.0, 88.8),
    ]
    block = np.array(rows).astype(dtype)
    return np.stack([block] * SHAPE[2], -1)


@pytest.mark.parametrize("name", calls.EVERY)
def test_the_caller_is_told_nothing(backend: str, dtype: np.dtype, name: str) -> None:
    logits = hard(dtype)
    rows = (len(logits), SHAPE[2])
    changes: dict[str, Any] = {"logits": logits}
    variants: list[dict[str, Any]] = [{}]
    if name in calls.WITH_TANGENT:
        changes[calls.tangent_name(name)] = np.stack([logits[::-1], logits])
        variants.append({calls.tangent_name(name): np.full(logits.shape, np.finfo(np.longdouble).max)})
    if name in LOSSES:
        targets = np.arange(rows[0] * rows[1]).reshape(rows) % SHAPE[AXIS]
        targets[1] = -100
        variants = [
            {"targets": targets, "reduction": reduction, "softcap": softcap, "z_loss": 1e300, "label_smoothing": 0.5}
            for reduction in ("none", "mean")
            for softcap in (None, 1e-300, 3.0)
        ]
        variants += [
            {"targets": np.abs(logits), "weight": np.array([0.0, 1e300, 1e-300, np.inf, 1.0])},
            {"targets": targets, "weight": np.full(SHAPE[AXIS], np.inf)},
            {"targets": targets, "weight": np.full(SHAPE[AXIS], np.finfo(np.longdouble).max)},
            {"targets": np.full(rows, 99), "check_targets": False},
            {"targets": np.full(rows, -100)},
        ]
        if name in calls.WITH_GRAD_OUTPUT:
            variants += [{"targets": targets, "grad_output": value} for value in (np.inf, np.nan, 1e300, 5e-324)]
    told: list[str] = []
    with np.errstate(all="call", call=lambda kind, _: told.append(kind)):
        before = np.geterr()
        for variant in variants:
            calls.call(name, **changes | variant)
        assert np.geterr() == before
    assert told == []


@pytest.mark.parametrize("name", calls.EVERY)
@pytest.mark.parametrize("mode", ["raise", "warn", "ignore"])
def test_whatever_the_state_the_result_is_the_same(backend: str, name: str, mode: Any) -> None:
    expected = calls.full_size(name, calls.call(name, logits=LOGITS * 1e3))
    with np.errstate(all=mode), warnings.catch_warnings():
        warnings.simplefilter("error")
        before = np.geterr()
        np.testing.assert_array_equal(calls.full_size(name, calls.call(name, logits=LOGITS * 1e3)), expected)
        assert np.geterr() == before


@pytest.mark.parametrize("name", calls.WITH_PROBS)
def test_a_refusal_leaves_the_state_alone(backend: str, name: str) -> None:
    with np.errstate(all="raise"):
        before = np.geterr()
        with pytest.raises(ValueError, match="Were logits"):
            calls.call(name, **{"logits": LEFT_OUT, calls.point_name(name): LOGITS * 1e300})
        assert np.geterr() == before


def test_the_textbook_way_is_as_quiet() -> None:
    with np.errstate(all="raise"):
        assert np.isnan(naive.softmax([-np.inf, -np.inf])).all()
        naive.cross_entropy_grad(np.array([[1e4, 0.0]]), [1])
