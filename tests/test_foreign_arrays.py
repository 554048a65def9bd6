"""Objects of other libraries are refused, with the conversion to write: nothing is converted unasked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import softgrad
from tests import calls
from tests.calls import LOSSES, SHAPE
from tests.test_errors import refused


def torch_tensor(array: np.ndarray) -> Any:
    return pytest.importorskip("torch").from_numpy(array.copy())


def tensor_that_requires_grad(array: np.ndarray) -> Any:
    return torch_tensor(array.astype(float)).requires_grad_()


def jax_array(array: np.ndarray) -> Any:
    return pytest.importorskip("jax.numpy").asarray(array)


def frame(array: np.ndarray) -> Any:
    return pytest.importorskip("pandas").DataFrame(array.reshape(len(array), -1))


def series(array: np.ndarray) -> Any:
    return pytest.importorskip("pandas").Series(array.reshape(-1))


class Speaks:
    """An array of an unknown library: NumPy could convert it by `__array__`, and must not."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise AssertionError("it was converted")


class SpeaksDLPack:
    """An array of an unknown library, in the CPU's memory: NumPy could convert it by DLPack, and must not."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **_: Any) -> Any:
        raise AssertionError("it was converted")


class Table(Speaks):
    """A data frame of an unknown library: it has the usual `to_numpy`."""

    def to_numpy(self) -> np.ndarray:
        raise AssertionError("it was converted")


class Subclass(np.ndarray):
    """An array that means more than its numbers (their units, say), which would be lost."""


FOREIGN: list[tuple[Callable[[np.ndarray], Any], tuple[str, ...]]] = [
    (torch_tensor, ("torch.Tensor", "`{}.detach().cpu().numpy()`")),
    (tensor_that_requires_grad, ("torch.Tensor", "`{}.detach().cpu().numpy()`")),
    (jax_array, ("ArrayImpl", "`np.asarray({})`")),
    (frame, ("DataFrame", "`{}.to_numpy()`")),
    (series, ("Series", "`{}.to_numpy()`")),
    (Table, ("Table", "`{}.to_numpy()`")),
    (np.ma.masked_array, ("MaskedArray", "`{}.")),
    (lambda array: np.matrix(array.reshape(len(array), -1)), ("matrix", "`np.asarray({})`")),
    (lambda array: array.view(Subclass), ("Subclass", "`np.asarray({})`")),
    (lambda array: memoryview(array.copy()), ("memoryview", "`np.asarray({})`")),
    (Speaks, ("Speaks", "`np.asarray({})`")),
    (SpeaksDLPack, ("SpeaksDLPack", "`np.asarray({})`")),
]
NAMES = [
    "torch",
    "torch-grad",
    "jax",
    "frame",
    "series",
    "table",
    "masked",
    "matrix",
    "subclass",
    "memoryview",
    "array",
    "dlpack",
]


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize(("convert", "says"), FOREIGN, ids=NAMES)
@pytest.mark.parametrize("name", calls.EVERY)
def test_refused_with_the_conversion_to_write(name: str, convert: Any, says: tuple[str, ...]) -> None:
    arguments = calls.arguments(name)
    if name in LOSSES:
        arguments["weight"] = calls.WEIGHT
    if name in calls.WITH_GRAD_OUTPUT:
        arguments |= {"grad_output": np.ones(calls.ROWS), "reduction": "none"}
    if name in calls.WITH_OUT:
        arguments["out"] = np.zeros(SHAPE)
    for argument, value in arguments.items():
        if isinstance(value, np.ndarray):
            if argument == "out" and convert(value).__class__ is memoryview:
                continue  # no array at all
            expected = (f"`{argument}`", *(words.format(argument) for words in says), "NumPy", "converts nothing")
            refused(name, {**arguments, argument: convert(value)}, TypeError, expected)


def test_refused_inside_a_list_too() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"`logits\[1\]` is a torch\.Tensor.*`logits\[1\]\.detach\(\)"):
        softgrad.softmax([[0.0, 1.0], torch.zeros(2)])
    with pytest.raises(TypeError, match=r"`logits\[0\]\[1\]` is a torch\.Tensor"):
        softgrad.softmax([[0.0, torch.tensor(1.0)]])
    with pytest.raises(TypeError, match=r"`logits\[0\]` is a numpy\.ma"):
        softgrad.softmax([np.ma.masked_array([1.0, 2.0], [True, False])])
    with pytest.raises(TypeError, match=r"`targets\[0\]` is a .*Speaks"):
        softgrad.cross_entropy(np.zeros((1, 2)), [Speaks(np.zeros(1))])


def test_what_has_no_conversion_is_given_none() -> None:
    with pytest.raises(TypeError, match=r"`logits` is a NoneType; softgrad serves NumPy arrays") as caught:
        softgrad.softmax(None)
    assert "Convert" not in str(caught.value)


def test_a_masked_array_of_logits_is_told_how_to_mask() -> None:
    with pytest.raises(TypeError, match=r"`logits\.filled\(-np\.inf\)`, which masks those classes"):
        softgrad.softmax(np.ma.masked_array([1.0, 2.0], [True, False]))
    with pytest.raises(TypeError, match=r"`weight\.filled\(\.\.\.\)`"):
        softgrad.cross_entropy([1.0, 2.0], 0, weight=np.ma.masked_array([1.0, 2.0], [True, False]))


def test_a_masked_out_is_told_of_the_memory_below_it() -> None:
    """A filled copy of `out` would take the result away from the caller."""
    with pytest.raises(TypeError, match=r"Convert it yourself: `out\.data`"):
        softgrad.softmax([1.0, 2.0], out=np.ma.masked_array([1.0, 2.0], [True, False]))


@pytest.mark.parametrize("forced", ["numpy", "numba"])
def test_a_forced_backend_converts_nothing_either(forced: str) -> None:
    state = softgrad.available_backends()[forced]
    if state != "available":
        pytest.skip(f"{forced}: {state}")
    with softgrad.use_backend(forced), pytest.raises(TypeError, match=r"`logits` is a .*Speaks"):
        softgrad.softmax(Speaks(np.zeros(3)))
