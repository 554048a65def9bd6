"""A bad call is refused: the right exception, which names the argument, what was given and what was expected.

After every refusal the inputs and `out` are the same bytes as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.exceptions import AxisError

import softgrad
from tests import calls
from tests.calls import CLASSES, LEFT_OUT, LOGITS, LOSSES, PROBS, ROWS, SHAPE, TARGETS


@dataclass(frozen=True)
class Bad:
    """A change to the good calls of some functions, and how it is refused."""

    changes: dict[str, Any]
    error: type[Exception]
    says: tuple[str, ...]  # argument, given, expected
    functions: tuple[str, ...] = calls.EVERY


FOUR = "float64, float32, float16 or bfloat16"
LONG = (np.longdouble,) if np.dtype(np.longdouble).itemsize > 8 else ()  # it is float64 on some platforms
WRONG_TYPES = [
    *(
        Bad({"logits": LOGITS.astype(dtype)}, TypeError, ("`logits`", str(np.dtype(dtype)), FOUR))
        for dtype in (bool, complex, object, "U3", "S3", *LONG)
    ),
    Bad({"logits": np.zeros(SHAPE, "datetime64[s]")}, TypeError, ("`logits`", "datetime64", FOUR)),
    Bad(
        {"logits": np.zeros(SHAPE, ">f4")},
        TypeError,
        ("`logits`", "foreign byte order (>f4)", FOUR, "`logits.astype(logits.dtype.newbyteorder('='))`"),
    ),
    Bad({"logits": np.zeros(SHAPE, [("a", "f8")])}, TypeError, ("`logits`", "('a', '<f8')", FOUR)),
    Bad({"logits": [[1.0, "two"]]}, TypeError, ("`logits`", "<U", FOUR)),
    Bad({"logits": [[1.0, 1j]]}, TypeError, ("`logits`", "complex128", FOUR)),
    Bad({"logits": [[1.0, None]]}, TypeError, ("`logits`", "object", FOUR)),
    Bad({"logits": "abc"}, TypeError, ("`logits`", "str", "NumPy arrays")),
    Bad({"logits": {1.0, 2.0}}, TypeError, ("`logits`", "set", "NumPy arrays")),
    Bad({"logits": [[1.0, 2.0], [3.0]]}, ValueError, ("`logits`", "ragged")),
    Bad({"targets": TARGETS.astype(float)}, TypeError, ("`targets`", "float64", "integer dtype"), LOSSES),
    Bad({"targets": TARGETS.astype(bool)}, TypeError, ("`targets`", "bool", "integer dtype"), LOSSES),
    Bad({"targets": np.zeros(SHAPE, bool)}, TypeError, ("`targets`", "bool", "floating or integer"), LOSSES),
    Bad({"targets": np.zeros(SHAPE, complex)}, TypeError, ("`targets`", "complex128", "floating or integer"), LOSSES),
    Bad({"targets": TARGETS.astype(object)}, TypeError, ("`targets`", "object", "integer dtype"), LOSSES),
    Bad({"targets": None}, TypeError, ("`targets`", "NoneType", "NumPy (numbers and nested sequences"), LOSSES),
    Bad({"targets": [[2**64] * 4] * 3}, TypeError, ("`targets`", "object", "integer dtype"), LOSSES),
    Bad({"weight": np.ones(CLASSES, bool)}, TypeError, ("`weight`", "bool", "floating or integer"), LOSSES),
    Bad({"weight": np.ones(CLASSES, complex)}, TypeError, ("`weight`", "complex128", "floating or integer"), LOSSES),
    Bad({"weight": "abc"}, TypeError, ("`weight`", "str"), LOSSES),
    *(
        Bad({"grad_output": value}, TypeError, ("`grad_output`", given), calls.WITH_GRAD_OUTPUT)
        for value, given in ((True, "bool"), (1j, "complex"), ("x", "str"), (np.ones(ROWS, bool), "bool"))
    ),
]

OPTIONS = [
    *(Bad({"axis": axis}, AxisError, ("`axis`", str(axis), str(SHAPE))) for axis in (3, -4, 100, 2**70)),
    *(
        Bad({"axis": axis}, TypeError, ("`axis`", repr(axis), "integer"))
        for axis in (1.0, None, True, "1", (0, 1), np.float64(1))
    ),
    Bad({"logits": np.float64(3.0), "targets": 0, "axis": -1}, AxisError, ("`axis`", "()"), LOSSES[:3]),
    Bad({"logits": 3.0, "axis": -1}, AxisError, ("`axis`", "()"), calls.SOFTMAX),
    Bad({"keepdims": 1}, TypeError, ("`keepdims`", "1", "True or False"), ("logsumexp",)),
    *(
        Bad({"reduction": value}, ValueError, ("`reduction`", repr(value), "'none', 'sum' or 'mean'"), LOSSES)
        for value in ("avg", "MEAN", "", None, 1, ["mean"])
    ),
    *(
        Bad({"label_smoothing": value}, ValueError, ("`label_smoothing`", repr(value), "[0, 1]"), LOSSES)
        for value in (-0.1, 1.0001, 2, float("nan"), float("inf"))
    ),
    *(
        Bad({"softcap": value}, ValueError, ("`softcap`", repr(value), "finite number > 0"), LOSSES)
        for value in (0.0, -1.0, 0, float("nan"), float("inf"))
    ),
    *(
        Bad({"z_loss": value}, ValueError, ("`z_loss`", repr(value), "finite"), LOSSES)
        for value in (float("nan"), float("inf"), -float("inf"))
    ),
    *(
        Bad({option: value}, TypeError, (f"`{option}`", repr(value), "number"), LOSSES)
        for option in ("label_smoothing", "softcap", "z_loss")
        for value in ("0.1", True, 1j, [0.1])
    ),
    *(
        Bad({option: None}, TypeError, (f"`{option}`", "None", "number"), LOSSES)
        for option in ("label_smoothing", "z_loss")
    ),
    *(
        Bad({"ignore_index": value}, TypeError, ("`ignore_index`", repr(value), "integer"), LOSSES)
        for value in (1.0, "1", True, [1])
    ),
    *(
        Bad({"check_targets": value}, TypeError, ("`check_targets`", repr(value), "True or False"), LOSSES)
        for value in (0, 1, "yes")
    ),
    *(
        Bad({"check_probs": value}, TypeError, ("`check_probs`", repr(value), "True or False"), calls.WITH_PROBS)
        for value in (0, 1, "yes")
    ),
]

SHAPES = [
    *(
        Bad({"targets": np.zeros(shape, int)}, ValueError, ("`targets`", str(shape), str(ROWS), str(SHAPE)), LOSSES)
        for shape in ((3,), (4, 3), (3, 4, 5), (3, 5, 4, 1), (), (1, 4), (12,))
    ),
    *(
        Bad({"targets": np.zeros(shape)}, ValueError, ("`targets`", str(shape), str(ROWS), str(SHAPE)), LOSSES)
        for shape in ((3, 4, 5), (3, 5, 1), (1, 5, 4))
    ),
    *(
        Bad({"weight": np.ones(shape)}, ValueError, ("`weight`", str(shape), f"({CLASSES},)"), LOSSES)
        for shape in ((4,), (CLASSES, 1), (1, CLASSES), (), (1,))
    ),
    *(
        Bad(
            {"grad_output": np.ones(shape), "reduction": "none"},
            ValueError,
            ("`grad_output`", str(shape), str(ROWS), "scalar"),
            calls.WITH_GRAD_OUTPUT,
        )
        for shape in ((1,), (3,), (4, 3), (1, 1), (3, 1), SHAPE)
    ),
    *(
        Bad(
            {"grad_output": np.ones(ROWS), "reduction": reduction},
            ValueError,
            ("`grad_output`", str(ROWS), f"{reduction!r} expected a scalar"),
            calls.WITH_GRAD_OUTPUT,
        )
        for reduction in ("mean", "sum")
    ),
]


def every(table: list[Bad]) -> list[Any]:
    return [
        pytest.param(name, bad, id=f"{name}-{'-'.join(bad.changes)}-{i}")
        for i, bad in enumerate(table)
        for name in bad.functions
    ]


def refused(name: str, changes: dict[str, Any], error: type[Exception], says: tuple[str, ...]) -> str:
    """Make a call that must be refused with nothing written; returns the error's message."""
    given = calls.arguments(name, **changes)
    before = {key: value.tobytes() for key, value in given.items() if isinstance(value, np.ndarray)}
    with pytest.raises(error) as caught:
        getattr(softgrad, name)(**given)
    assert type(caught.value) is error
    message = str(caught.value)
    for words in says:
        assert words in message, message
    for key, raw in before.items():
        assert given[key].tobytes() == raw, f"{key} was written to"
    return message


@pytest.mark.parametrize(("name", "bad"), every(WRONG_TYPES + OPTIONS + SHAPES))
def test_refused(name: str, bad: Bad) -> None:
    changes = dict(bad.changes)
    if name in calls.WITH_OUT:
        changes |= {"out": np.full(SHAPE, 7.0)}
    refused(name, changes, bad.error, bad.says)


@pytest.mark.parametrize("name", LOSSES)
def test_targets_that_fit_another_axis(name: str) -> None:
    """As those of torch do, where classes stand on axis 1."""
    message = refused(name, {"axis": -1}, ValueError, ("`targets` has shape (3, 4)", "expected (3, 5)"))
    assert message.endswith(". Was `axis=1` meant? It would fit class indices")
    assert "meant" not in refused(name, {"targets": np.zeros((3, 4, 1), int)}, ValueError, ("(3, 4, 1)",))


@pytest.mark.parametrize("name", calls.WITH_TANGENT)
@pytest.mark.parametrize("shape", [(5, 4), (3, 5), (1, 5, 4), (3, 5, 4, 2), (4, 5, 3), ()])
def test_a_tangent_of_another_shape(name: str, shape: tuple[int, ...]) -> None:
    argument = calls.tangent_name(name)
    says = (f"`{argument}`", str(shape), "(*K, *logits.shape) = (*K, 3, 5, 4)")
    refused(name, {argument: np.ones(shape)}, ValueError, says)


@pytest.mark.parametrize("name", calls.WITH_TANGENT)
@pytest.mark.parametrize(("dtype", "given"), [(bool, "bool"), (complex, "complex128"), (object, "object")])
def test_a_tangent_of_another_dtype(name: str, dtype: Any, given: str) -> None:
    argument = calls.tangent_name(name)
    refused(name, {argument: np.ones(SHAPE, dtype)}, TypeError, (f"`{argument}`", given, "floating or integer"))
    refused(name, {argument: None}, TypeError, (f"`{argument}`", "NoneType"))


@pytest.mark.parametrize("name", calls.WITH_PROBS)
def test_both_or_neither_point(name: str) -> None:
    other = calls.point_name(name)
    refused(name, {other: PROBS}, TypeError, ("`logits`", f"`{other}`", "exactly one", "both"))
    refused(name, {"logits": LEFT_OUT}, TypeError, ("`logits`", f"`{other}`", "exactly one", "neither"))
    refused(name, {"logits": None}, TypeError, ("`logits`", f"`{other}`", "exactly one", "neither"))


# --- out --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", calls.WITH_OUT)
class TestOut:
    @pytest.mark.parametrize("shape", [(3, 5), (3, 5, 3), (1, 3, 5, 4), (60,), (), (1, 5, 4)])
    def test_of_another_shape(self, name: str, shape: tuple[int, ...]) -> None:
        refused(name, {"out": np.full(shape, 7.0)}, ValueError, ("`out`", str(shape), str(SHAPE)))

    @pytest.mark.parametrize("dtype", ["f4", "f2", "i8", ">f8", "c16", "?", "O"])
    def test_of_another_dtype(self, name: str, dtype: str) -> None:
        refused(name, {"out": np.zeros(SHAPE, dtype)}, TypeError, ("`out`", "dtype", "expected float64"))

    @pytest.mark.parametrize("out", [[0.0], (0.0,), 1.0, "out", True, {}], ids=repr)
    def test_that_is_no_array(self, name: str, out: Any) -> None:
        refused(name, {"out": out}, TypeError, ("`out`", type(out).__name__))

    def test_read_only(self, name: str) -> None:
        out = np.full(SHAPE, 7.0)
        out.flags.writeable = False
        refused(name, {"out": out}, ValueError, ("`out`", "read-only", "written"))

    def test_whose_elements_share_memory(self, name: str) -> None:
        out = np.lib.stride_tricks.as_strided(np.zeros(100), SHAPE, (64, 8, 16))
        refused(name, {"out": out}, ValueError, ("`out`", "share memory with each other"))
        out = np.lib.stride_tricks.as_strided(np.zeros(20), SHAPE, (0, 32, 8), writeable=True)
        refused(name, {"out": out}, ValueError, ("`out`", "share memory with each other"))

    def test_that_overlaps_an_input_of_its_shape(self, name: str) -> None:
        inputs = ["logits"]
        if name in calls.WITH_TANGENT:
            inputs.append(calls.tangent_name(name))
        for argument in inputs:
            memory = np.random.default_rng(0).normal(size=200)
            whole = memory[:60].reshape(SHAPE)
            for other in (
                memory[1:61].reshape(SHAPE),  # shifted
                memory[59:119].reshape(SHAPE),  # one element
                whole[::-1],  # the same elements, another order
                whole[:, ::-1],
            ):
                says = ("`out`", f"`{argument}`", "overlaps", "very same view")
                refused(name, {argument: whole, "out": other}, ValueError, says)


@pytest.mark.parametrize("name", [name for name in LOSSES if name in calls.WITH_OUT])
def test_out_that_overlaps_an_input_of_another_shape(name: str) -> None:
    memory = np.zeros(200)
    out = memory[:60].reshape(SHAPE)
    says = ("`out`", "shares memory", "`weight`")
    refused(name, {"weight": memory[50 : 50 + CLASSES], "out": out}, ValueError, says)
    scale = {"grad_output": memory[48:60].reshape(ROWS), "reduction": "none"}
    refused(name, {**scale, "out": out}, ValueError, ("`out`", "shares memory", "`grad_output`"))
    targets = memory[48:60].view(np.int64).reshape(ROWS)
    refused(name, {"targets": targets, "out": out}, ValueError, ("`out`", "shares memory", "`targets`"))
    dense = memory[40:100].reshape(SHAPE)
    refused(name, {"targets": dense, "out": out}, ValueError, ("`out`", "overlaps", "`targets`", "very same view"))


@pytest.mark.parametrize("name", [name for name in calls.WITH_TANGENT if name in calls.WITH_OUT])
def test_out_under_leading_axes_that_shares_memory_with_the_point(name: str) -> None:
    memory = np.random.default_rng(0).normal(size=(2, *SHAPE))
    changes = {calls.tangent_name(name): np.ones((2, *SHAPE)), "logits": memory[0], "out": memory}
    refused(name, changes, ValueError, ("`out`", "shares memory", "`logits`"))


@pytest.mark.parametrize("name", calls.WITH_OUT)
def test_out_over_integer_logits(name: str) -> None:
    """Integer logits are copied to float64; the integers themselves must not be overwritten all the same."""
    logits = np.arange(60).reshape(SHAPE) % 7
    refused(
        name, {"logits": logits, "out": logits.view(np.float64)}, ValueError, ("`out`", "shares memory", "`logits`")
    )


@pytest.mark.parametrize("name", [*calls.PRODUCTS, "cross_entropy_hvp"])
@pytest.mark.parametrize("dtype", [">f8", ">i8", np.longdouble], ids=str)
def test_out_over_a_tangent_that_is_copied(name: str, dtype: Any) -> None:
    tangent = np.zeros(SHAPE, dtype)
    out = tangent.reshape(-1).view(np.float64)[:60].reshape(SHAPE)
    argument = calls.tangent_name(name)
    refused(name, {argument: tangent, "out": out}, ValueError, ("`out`", "shares memory", f"`{argument}`"))


@pytest.mark.parametrize("name", [name for name in LOSSES if name in calls.WITH_OUT])
def test_out_over_a_second_array_that_is_copied(name: str) -> None:
    memory = np.zeros(60)
    out, foreign = memory.reshape(SHAPE), memory.view(">f8")
    shared: list[dict[str, Any]] = [
        {"targets": foreign.reshape(SHAPE)},
        {"targets": memory.view(">i8")[:12].reshape(ROWS)},
        {"weight": foreign[:CLASSES]},
        {"grad_output": foreign[:12].reshape(ROWS), "reduction": "none"},
        {"grad_output": memory[7:8].reshape(())},
    ]
    for changes in shared:
        says = ("`out`", "shares memory", f"`{next(iter(changes))}`")
        refused(name, {**changes, "out": out}, ValueError, says)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [CLASSES, -1, -99, 2**40, -(2**63)])
def test_a_target_out_of_range_is_named_with_its_position(backend: str, name: str, bad: int) -> None:
    targets = TARGETS.copy()
    targets[1, 2] = bad
    targets[2, 3] = 99  # only the first is named
    says = ("`targets`", "targets[1, 2]", f" {bad};", f"[0, {CLASSES})", "ignore_index = -100")
    refused(name, {"targets": targets}, ValueError, says)


def test_a_single_target_out_of_range(backend: str) -> None:
    with pytest.raises(ValueError, match=r"`targets` out of range: the target is 2; expected \[0, 2\)"):
        softgrad.cross_entropy([0.0, 1.0], 2, ignore_index=None)


@pytest.mark.parametrize("name", calls.WITH_PROBS)
class TestProbs:
    def rows(self, name: str) -> tuple[str, np.ndarray]:
        argument = calls.point_name(name)
        return argument, np.log(PROBS) if argument == "log_probs" else PROBS.copy()

    def test_that_do_not_sum_to_one(self, backend: str, name: str) -> None:
        argument, point = self.rows(name)
        point[1, :, 2] *= 2.0
        says = (f"`{argument}`", "(1, 2)", "sums to", "Were logits (Z) meant?", "logits=")
        refused(name, {"logits": LEFT_OUT, argument: point}, ValueError, says)
        refused(name, {"logits": LEFT_OUT, argument: point, "check_probs": True}, ValueError, says)
        calls.call(name, **{"logits": LEFT_OUT, argument: point, "check_probs": False})

    def test_of_nan_pass_as_nan(self, backend: str, name: str) -> None:
        argument, point = self.rows(name)
        point[1, 3, 2] = np.nan
        result = calls.call(name, **{"logits": LEFT_OUT, argument: point})
        if name != "softmax_jacobian":
            assert np.isnan(result[1, :, 2]).any()
            result[1, :, 2] = 0.0
            assert np.isfinite(result).all()

    def test_within_the_tolerance_pass(self, backend: str, name: str) -> None:
        argument, point = self.rows(name)
        for off, passes in ((9e-4, True), (1.2e-3, False)):
            scaled = point + np.log1p(off) if argument == "log_probs" else point * (1.0 + off)
            changes = {"logits": LEFT_OUT, argument: scaled}
            if passes:
                calls.call(name, **changes)
            else:
                refused(name, changes, ValueError, ("sums to 1.0012",))

    def test_of_16_bits_are_allowed_their_rounding(self, backend: str, name: str) -> None:
        argument, point = self.rows(name)
        for off, passes in ((9e-3, True), (2e-2, False)):
            scaled = point + np.log1p(off) if argument == "log_probs" else point * (1.0 + off)
            changes = {"logits": LEFT_OUT, argument: scaled.astype(np.float16)}
            if passes:
                calls.call(name, **changes)
            else:
                refused(name, changes, ValueError, ("sums to 1.0",))


@pytest.mark.parametrize("name", ["softmax_jvp", "softmax_vjp", "softmax_jacobian"])
def test_probs_with_a_negative_entry(backend: str, name: str) -> None:
    probs = PROBS.copy()
    probs[2, :2, 1] += (-1.0, 1.0)  # the sum stays 1
    says = ("`probs`", "(2, 1)", "negative", "Were logits (Z) meant?")
    refused(name, {"logits": LEFT_OUT, "probs": probs}, ValueError, says)


# --- the order in which faults are judged -----------------------------------------------------------------------------

# One fault of each kind, in the order of judgement, and the words that tell its refusal from the others'.
LOSS_FAULTS = [
    ({"weight": np.ones(CLASSES, complex)}, TypeError, "complex128"),
    ({"axis": 7}, AxisError, "`axis`"),
    ({"weight": np.ones(9)}, ValueError, "`weight` has shape"),
    ({"grad_output": np.ones(9)}, ValueError, "`grad_output` has shape"),
    ({"reduction": "avg"}, ValueError, "`reduction`"),
    ({"label_smoothing": 3.0}, ValueError, "`label_smoothing`"),
    ({"out": np.zeros((2, 2))}, ValueError, "`out` has shape"),
    ({"targets": np.full(ROWS, 77)}, ValueError, "77"),
]
PRODUCT_FAULTS = [
    ({"out": np.zeros(SHAPE, "f4")}, TypeError, "`out` has dtype"),
    ({"axis": 7}, AxisError, "`axis`"),
    ({"tangent": np.ones((2, 2))}, ValueError, "`tangent` has shape"),
    ({"check_probs": "yes"}, TypeError, "`check_probs`"),
    ({"out": np.zeros((2, 2))}, ValueError, "`out` has shape"),
    ({"probs": LOGITS}, ValueError, "Were logits"),
]


@pytest.mark.parametrize(
    ("name", "faults", "point"),
    [
        ("cross_entropy_hvp", LOSS_FAULTS, {}),
        ("cross_entropy_grad", LOSS_FAULTS, {}),
        ("softmax_jvp", PRODUCT_FAULTS, {"logits": LEFT_OUT, "probs": PROBS}),
    ],
)
def test_the_earlier_kind_of_fault_is_reported(name: str, faults: list[Any], point: dict[str, Any]) -> None:
    for i, (first, error, words) in enumerate(faults):
        for later, _, _ in faults[i + 1 :]:
            refused(name, {**point, **later, **first}, error, (words,))
