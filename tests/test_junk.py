"""Whatever is passed, a call either works or is refused cleanly: one of four exceptions, naming an argument."""

from __future__ import annotations

import datetime
import decimal
import fractions
import inspect
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.exceptions import AxisError

import softgrad
from tests import calls
from tests.calls import LOGITS, ROWS, SHAPE


class Hostile:
    """An object whose attributes and length raise errors of its own."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"do not look at my {name}")

    def __len__(self) -> int:
        raise RuntimeError("nor count me")


JUNK: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 2**70, -(2**70), 0.5, -0.5, float("nan"), float("inf"), 1j, "", "mean", b"x"),
    *([], (), [[]], [1.0, 2.0], [[0, 1], [1, 0]], [[1.0], [2.0, 3.0]], [None], ["a"], {}, {1}, range(3), [10**400]),
    *(np.float32(1), np.int8(1), np.bool_(True), np.str_("x"), np.datetime64("2026-01-01"), np.longdouble(2)),
    *(np.array(1.0), np.array(1), np.array(None), np.array("x"), np.zeros(0), np.zeros((0, 5, 4)), np.zeros((3, 0, 4))),
    *(LOGITS, LOGITS.astype("f4"), LOGITS.astype("c8"), LOGITS > 0, LOGITS.astype(object), LOGITS.astype(">f8")),
    *(np.zeros(ROWS, int), np.full(ROWS, 99), np.zeros(ROWS), np.ones(5), np.ones(SHAPE), np.ones((2, *SHAPE))),
    *(np.ma.masked_array(LOGITS), np.rec.array([(1, 2.0)]), memoryview(b"abc"), bytearray(b"abc"), Hostile(), object),
    *(decimal.Decimal(1), fractions.Fraction(1, 2), datetime.date(2026, 1, 1), np, lambda: None, iter([1.0]), slice(3)),
    *(Ellipsis, NotImplemented, np.float64, np.broadcast_to(np.float64(1), SHAPE), np.zeros(SHAPE)[::-1], "float64"),
]
ANY = st.sampled_from(range(len(JUNK)))
CLEAN = (TypeError, ValueError, AxisError)


def clean(name: str, given_arguments: dict[str, Any]) -> None:
    """Make a call: it must work, or be refused with an error that names an argument, and then write nothing."""
    arrays = {key: value for key, value in given_arguments.items() if type(value) is np.ndarray}
    before = {key: array.tobytes() for key, array in arrays.items()}
    with np.errstate(all="raise"):
        try:
            getattr(softgrad, name)(**given_arguments)
            return
        except CLEAN as refusal:
            message = str(refusal)
    assert any(f"`{parameter}" in message for parameter in given_arguments), message
    for key, raw in before.items():
        assert arrays[key].tobytes() == raw, f"{key} was written to: {message}"


@pytest.mark.parametrize("name", calls.EVERY)
def test_one_junk_argument(backend: str, name: str) -> None:
    for parameter in inspect.signature(getattr(softgrad, name)).parameters:
        for junk in JUNK:
            out = {"out": np.full(SHAPE, 7.0)} if name in calls.WITH_OUT else {}
            # What is junk here may be good there, and then be written to as `out`.
            mine = junk.copy() if type(junk) is np.ndarray and parameter == "out" else junk
            clean(name, calls.arguments(name, **{**out, parameter: mine}))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(calls.EVERY))
def test_several_junk_arguments(backend: str, data: st.DataObject, name: str) -> None:
    parameters = list(inspect.signature(getattr(softgrad, name)).parameters)
    chosen = data.draw(st.lists(st.sampled_from(parameters), min_size=2, max_size=4, unique=True))
    changes = {parameter: JUNK[data.draw(ANY)] for parameter in chosen}
    if type(changes.get("out")) is np.ndarray:
        changes["out"] = changes["out"].copy()
    clean(name, calls.arguments(name, **changes))


@pytest.mark.parametrize("name", calls.EVERY)
def test_positional_and_unknown_arguments(name: str) -> None:
    function = getattr(softgrad, name)
    given_arguments = calls.arguments(name)
    with pytest.raises(TypeError, match="unexpected keyword argument 'dim'"):
        function(**given_arguments, dim=1)
    positional = [p for p in inspect.signature(function).parameters.values() if p.kind == p.POSITIONAL_OR_KEYWORD]
    values = [given_arguments.pop(p.name) for p in positional]
    function(*values, **given_arguments)
    with pytest.raises(TypeError, match="positional argument"):
        function(*values, LOGITS, **given_arguments)
