"""Functions: how they are called, and what other logits than the caller's bring to light."""

import math

import numpy as np
import pytest

import softgrad
from tests.planted import (
    jacobian,
    jacobian_by_loops,
    jacobian_without_else,
    log_softmax,
    one_hot,
    softmax,
    softmax_over_batch,
    softmax_unshifted,
)

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(4, 5))
V = RNG.normal(size=(4, 5))
T = np.array([0, 1, 2, 3])


def product(p, v):
    return p * (v - (p * v).sum(axis=-1, keepdims=True))


# --- which argument is which ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda z, v: product(softmax(z), v),
        lambda v, z: product(softmax(z), v),
        lambda x, vec: product(softmax(x), vec),
        lambda first, second: product(softmax(first), second),
        lambda second, first: product(softmax(first), second),
        lambda tangent, *, logits: product(softmax(logits), tangent),
        lambda tangent, logits=None: product(softmax(logits), tangent),
        lambda z: product(softmax(z), V),
        lambda *arguments: product(softmax(arguments[0]), arguments[1]),
        lambda z=None: product(softmax(z), V),
    ],
    ids=["z, v", "v, z", "x, vec", "?, ?", "?, ? swapped", "keyword", "default", "z alone", "star", "optional z"],
)
def test_products(function):
    found = softgrad.diagnose(function, what="softmax_jvp", logits=Z, tangent=V)
    assert found.ok, str(found)


@pytest.mark.parametrize(
    "function",
    [
        lambda z, t: (softmax(z) - one_hot(t, 5)) / 4,
        lambda t, z: (softmax(z) - one_hot(t, 5)) / 4,
        lambda first, second: (softmax(first) - one_hot(second, 5)) / 4,
        lambda z, y, axis: (softmax(z) - one_hot(y, z.shape[axis])) / 4,
        lambda z, t, reduction="mean": (softmax(z) - one_hot(t, 5)) / 4,
        lambda z: (softmax(z) - one_hot(T, 5)) / 4,
    ],
    ids=["z, t", "t, z", "?, ?", "axis", "an option left alone", "z alone"],
)
def test_gradients(function):
    found = softgrad.diagnose(function, what="cross_entropy_grad", logits=Z, targets=T)
    assert found.ok, str(found)


def test_an_option_that_was_given_is_passed_on():
    def gradient(z, t, reduction="mean"):
        return (softmax(z) - one_hot(t, 5)) / (4 if reduction == "mean" else 1)

    assert softgrad.diagnose(gradient, what="cross_entropy_grad", logits=Z, targets=T, reduction="sum").ok


def test_a_function_of_one_argument_gets_the_logits_whatever_it_calls_them():
    def derivative(p):
        return jacobian(p)

    found = softgrad.diagnose(derivative, what="jacobian", logits=Z)
    assert found.mistakes == ("logits-as-probs",)
    assert "Called with softmax(z) in place of z, the function is right." in str(found)


def test_what_is_left_once_it_gets_probabilities():
    found = softgrad.diagnose(jacobian_without_else, what="jacobian", logits=Z)
    assert "what is left is diagonal-overwritten" in str(found)


def test_copies_are_passed_and_writing_to_them_is_reported():
    def in_place(z):
        z -= z.max(axis=1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(axis=1, keepdims=True)
        return z

    before = Z.copy()
    found = softgrad.diagnose(in_place, what="softmax", logits=Z)
    np.testing.assert_array_equal(Z, before)
    assert found.ok
    assert "writes to the logits" in str(found)


def test_a_function_of_one_row():
    def of_one_row(z):
        if z.ndim != 1:
            raise ValueError("one row, please")
        return np.diag(softmax(z)) - np.outer(softmax(z), softmax(z))

    found = softgrad.diagnose(of_one_row, what="jacobian", logits=Z)
    assert found.ok
    (remark, *_) = found.remarks
    assert "row by row" in remark
    assert "one row, please" in remark
    assert softgrad.diagnose(of_one_row, what="jacobian", logits=Z[0]).ok


def test_a_batch_flattened_into_one_row():
    def flattened(z):
        s = softmax(z).reshape(-1, 1)
        return np.diagflat(s) - s @ s.T

    found = softgrad.diagnose(flattened, what="jacobian", logits=Z)
    assert found.mistakes == ("wrong-shape",)
    assert "one row at a time it is right" in str(found)


# --- fresh logits ---------------------------------------------------------------------------------------------------


def test_a_mistake_that_the_given_logits_cannot_show():
    # Every row the same: softmax over the classes of a symmetric square is softmax over the batch.
    z = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert softgrad.diagnose(softmax_over_batch(z), what="softmax", logits=z).ok
    found = softgrad.diagnose(softmax_over_batch, what="softmax", logits=z)
    assert found.mistakes == ("wrong-axis",)
    assert "cannot show it" in str(found)


def test_equal_logits_and_two_mistakes():
    z = np.full((1, 2), 1.75)
    found = softgrad.diagnose(lambda z: jacobian_without_else(softmax(z)), what="jacobian", logits=z)
    assert found.mistakes == ("diagonal-overwritten",)
    assert not found.alternatives


def test_constant_functions_are_judged_by_the_logits_given():
    right = jacobian(softmax(Z))
    found = softgrad.diagnose(lambda z: right, what="jacobian", logits=Z)
    assert found.ok
    assert "whatever the logits" in str(found)
    assert softgrad.diagnose(lambda z: -right, what="jacobian", logits=Z).mistakes == ("sign-flipped",)


def test_numbers_made_from_the_given_logits():
    outer = -one_hot(T, 5) / softmax(Z) / 4  # dE/dA, made once
    found = softgrad.diagnose(lambda z: product(softmax(z), outer), what="cross_entropy_grad", logits=Z, targets=T)
    assert found.ok
    assert "made from the logits given" in str(found)


# --- shifted logits -------------------------------------------------------------------------------------------------

UNSHIFTED = [
    ("softmax", ("no-max-shift",), softmax_unshifted, {}),
    ("jacobian", ("no-max-shift",), lambda z: jacobian(softmax_unshifted(z)), {}),
    ("jacobian", ("no-max-shift", "diagonal-overwritten"), lambda z: jacobian_without_else(softmax_unshifted(z)), {}),
    ("softmax_jvp", ("no-max-shift",), lambda v, z: product(softmax_unshifted(z), v), {"tangent": V}),
    ("log_softmax", ("no-max-shift",), lambda z: z - np.log(np.exp(z).sum(axis=1, keepdims=True)), {}),
    ("log_softmax", ("log-of-unstable-softmax",), lambda z: np.log(softmax_unshifted(z)), {}),
    (
        "cross_entropy",
        ("log-of-unstable-softmax",),
        lambda z, t: -np.log(softmax_unshifted(z)[np.arange(4), t]).mean(),
        {"targets": T},
    ),
    (
        "cross_entropy",
        ("log-of-unstable-softmax", "sign-flipped"),
        lambda z, t: np.log(softmax_unshifted(z)[np.arange(4), t]).mean(),
        {"targets": T},
    ),
    (
        "cross_entropy_grad",
        ("no-max-shift",),
        lambda z, t: (softmax_unshifted(z) - one_hot(t, 5)) / 4,
        {"targets": T},
    ),
    (
        "cross_entropy_grad",
        ("no-max-shift", "reduction-scale", "sign-flipped"),
        lambda z, t: one_hot(t, 5) - softmax_unshifted(z),
        {"targets": T},
    ),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("what", "planted", "function", "more"), UNSHIFTED)
def test_overflow_is_found_by_shifting(what, planted, function, more, dtype):
    found = softgrad.diagnose(function, what=what, logits=Z.astype(dtype), **more)
    assert found.mistakes == planted, str(found)
    assert "+1000 on every logit" in str(found)


def test_math_exp_raises_where_numpy_gives_infinity():
    def by_loops(z):
        return np.array([[math.exp(x) / sum(math.exp(y) for y in row) for x in row] for row in z])

    found = softgrad.diagnose(by_loops, what="softmax", logits=Z)
    assert found.mistakes == ("no-max-shift",)
    assert "OverflowError" in str(found)


def test_the_log_of_a_stable_softmax_is_right_with_a_remark():
    found = softgrad.diagnose(lambda z: np.log(softmax(z)), what="log_softmax", logits=Z)
    assert found.ok
    assert any("underflowed" in remark for remark in found.remarks)
    stable = softgrad.diagnose(log_softmax, what="log_softmax", logits=Z)
    assert stable.ok
    assert not any("underflowed" in remark for remark in stable.remarks)
    assert softgrad.diagnose(softgrad.log_softmax, what="log_softmax", logits=Z).remarks == ()


def test_digits_lost_only_elsewhere_are_a_remark():
    found = softgrad.diagnose(lambda z: jacobian_by_loops(softmax(z)), what="jacobian", logits=Z)
    assert found.ok
    assert "lost-digits" in str(found)
    own = softgrad.diagnose(softgrad.softmax_jacobian, what="jacobian", logits=Z)
    assert own.ok
    assert own.remarks == ()
