"""Candidates that are no answer at all, and calls of `diagnose` that are no question."""

import numpy as np
import pytest
from numpy.exceptions import AxisError

import softgrad
from tests.planted import jacobian, log_softmax, one_hot, softmax

Z = np.random.default_rng(0).normal(size=(4, 5))
RIGHT = jacobian(softmax(Z))


def with_entry(value, at=(0, 0, 0)):
    numbers = RIGHT.copy()
    numbers[at] = value
    return numbers


def boom(z):
    raise RuntimeError("out of cheese")


def nothing(z):
    RIGHT.copy()


FAULTS = [
    ("one NaN", with_entry(np.nan), "not-finite", "[0, 0, 0] is nan"),
    ("an infinity", with_entry(np.inf, (1, 2, 3)), "not-finite", "[1, 2, 3] is inf"),
    ("NaN throughout", RIGHT * np.nan, "not-finite", "100 of 100"),
    ("a class too few", RIGHT[..., :-1], "wrong-shape", "(4, 5, 4)"),
    ("an axis too many", RIGHT[None], "wrong-shape", "(1, 4, 5, 5)"),
    ("one row's matrix", RIGHT[0], "wrong-shape", "(4, 5, 5)"),
    ("another array", np.zeros(3), "wrong-shape", "(3,)"),
    ("a number", 0.25, "wrong-shape", "()"),
    ("integers", RIGHT.astype(int), "wrong-dtype", "int"),
    ("complex numbers", RIGHT + 0j, "wrong-dtype", "complex"),
    ("booleans", RIGHT > 0, "wrong-dtype", "bool"),
    ("objects", RIGHT.astype(object), "wrong-dtype", "object"),
    ("text", "abc", "wrong-dtype", "<U3"),
    ("nothing", None, "wrong-dtype", "return"),
    ("a ragged list", [[1.0], [2.0, 3.0]], "wrong-shape", "rectangular"),
]


@pytest.mark.parametrize(("candidate", "mistake", "said"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_faults(candidate, mistake, said):
    for given in (candidate, lambda z: candidate):
        found = softgrad.diagnose(given, what="jacobian", logits=Z)
        assert not found.ok
        assert found.mistakes == (mistake,)
        assert said in str(found)


def test_a_function_that_raises():
    found = softgrad.diagnose(boom, what="jacobian", logits=Z)
    assert found.mistakes == ("raises",)
    assert "RuntimeError: out of cheese" in str(found)


def test_a_function_that_returns_nothing():
    assert "`return`" in str(softgrad.diagnose(nothing, what="jacobian", logits=Z))


def test_a_loss_per_row_where_the_mean_was_asked():
    per_row = -log_softmax(Z)[np.arange(4), [0, 1, 2, 3]]
    found = softgrad.diagnose(per_row, what="cross_entropy", logits=Z, targets=[0, 1, 2, 3])
    assert found.mistakes == ("wrong-shape",)
    assert "one number per row is returned" in str(found)


def test_a_known_mistake_in_another_shape():
    found = softgrad.diagnose(jacobian(Z)[:, None], what="jacobian", logits=Z)
    assert found.mistakes == ("logits-as-probs", "wrong-shape")


def test_the_derivative_of_every_row_by_every_row():
    full = np.zeros((4, 5, 4, 5))
    for b in range(4):
        full[b, :, b] = RIGHT[b]
    assert softgrad.diagnose(full, what="jacobian", logits=Z).mistakes == ("wrong-shape",)
    assert "every row with respect to every row" in str(softgrad.diagnose(full, what="jacobian", logits=Z))


def test_integer_logits_cut_the_answer():
    def truncated(z):
        out = np.zeros_like(z)
        out[...] = softmax(z)
        return out

    found = softgrad.diagnose(truncated, what="softmax", logits=np.array([[1, 2, 3]]))
    assert found.mistakes == ("wrong-dtype",)
    assert "whole numbers" in str(found)
    assert softgrad.diagnose(softmax, what="softmax", logits=np.array([[1, 2, 3]])).ok


def test_zeros_are_explained_by_nothing():
    found = softgrad.diagnose(np.zeros_like(RIGHT), what="jacobian", logits=Z)
    assert found.mistakes == ()
    assert "Every entry is 0" in str(found)


def test_arrays_that_overflowed():
    big = np.array([[0.0, 800.0, 799.0], [0.0, 1.0, 2.0]])
    with np.errstate(all="ignore"):
        unshifted = np.exp(big) / np.exp(big).sum(axis=1, keepdims=True)
    assert softgrad.diagnose(unshifted, what="softmax", logits=big).mistakes == ("no-max-shift",)
    far = np.array([[0.0, -800.0, 3.0], [1.0, 2.0, 3.0]])
    with np.errstate(divide="ignore"):
        logarithm = np.log(softmax(far))
    assert softgrad.diagnose(logarithm, what="log_softmax", logits=far).mistakes == ("log-of-unstable-softmax",)


# --- what is said of numbers that nothing explains ------------------------------------------------------------------


def test_patterns_of_the_unexplained():
    def said(numbers):
        return " ".join(softgrad.diagnose(numbers, what="jacobian", logits=Z).findings)

    assert "the ratio candidate / right is 1.37 everywhere" in said(1.37 * RIGHT)
    assert "the difference candidate − right is 0.01 everywhere" in said(RIGHT + 0.01)
    assert "only on the diagonal" in said(RIGHT + 0.1 * np.eye(5))
    one_row = softgrad.diagnose(with_entry(7.0, (2,)), what="jacobian", logits=Z)
    assert "only at index 2 of axis 0" in str(one_row)
    assert "25 of 100 entries are wrong" in str(one_row)
    one = softgrad.diagnose(with_entry(7.0, (2, 1, 3)), what="jacobian", logits=Z)
    assert one.entries[0].index == (2, 1, 3)
    assert one.entries[0].candidate == 7.0
    assert len(one.entries) == 1


def test_finite_differences_of_the_candidates_own_loss():
    t = np.array([0, 1, 2, 3])

    def squared(z, t):
        return 0.5 * ((softmax(z) - one_hot(t, 5)) ** 2).sum()

    def its_gradient(z, t):
        p = softmax(z)
        g = p - one_hot(t, 5)
        return p * (g - (p * g).sum(axis=1, keepdims=True))

    question = {"what": "cross_entropy_grad", "logits": Z, "targets": t}
    own = softgrad.diagnose(its_gradient, **question, own_loss=squared)
    assert own.mistakes == ()
    assert "agree with it" in str(own)
    assert "so is the loss" in str(own)
    other = softgrad.diagnose(-its_gradient(Z, t), **question, own_loss=squared)
    assert "do not agree with it either" in str(other)


# --- questions that are none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"what": "hessian"}, ValueError, "'jacobian'"),
        ({"what": "cross_entropy"}, TypeError, "needs `targets`"),
        ({"what": "softmax_jvp"}, TypeError, "needs `tangent`"),
        ({"what": "softmax_vjp", "tangent": Z}, TypeError, "does not take `tangent`"),
        ({"what": "jacobian", "targets": [0, 1, 2, 3]}, TypeError, "does not take `targets`"),
        ({"what": "jacobian", "weight": np.ones(5)}, TypeError, "does not take `weight`"),
        ({"what": "cross_entropy", "targets": [0, 1, 2, 3], "smoothing": 0.1}, TypeError, "'smoothing'"),
        ({"what": "cross_entropy", "targets": [0, 1, 2, 5]}, ValueError, "targets[3] is 5"),
        ({"what": "cross_entropy", "targets": [0, 1, 2, 3], "reduction": "avg"}, ValueError, "'avg'"),
        ({"what": "softmax", "reduction": "avg"}, ValueError, "'avg'"),
        ({"what": "softmax", "own_loss": np.sum}, TypeError, "does not take `own_loss`"),
        ({"what": "cross_entropy_grad", "targets": [0, 1, 2, 3], "own_loss": 3}, TypeError, "`own_loss` is 3"),
        ({"what": "cross_entropy", "targets": [0, 1]}, ValueError, "`targets` has shape (2,)"),
        ({"what": "softmax_jvp", "tangent": Z[0]}, ValueError, "`tangent` has shape (5,)"),
        ({"what": "softmax", "axis": 2}, AxisError, "axis"),
        ({"what": "softmax", "logits": np.zeros((0, 3))}, ValueError, "empty"),
        ({"what": "softmax", "logits": Z > 0}, TypeError, "`logits` has dtype bool"),
    ],
)
def test_no_question(arguments, error, said):
    with pytest.raises(error) as raised:
        softgrad.diagnose(RIGHT, **{"logits": Z, **arguments})
    assert said in str(raised.value)


def test_a_function_that_ends_the_program_is_diagnosed():
    def leaves(z):
        raise SystemExit(3)

    found = softgrad.diagnose(leaves, what="jacobian", logits=Z)
    assert found.mistakes == ("raises",)
    assert "it raises SystemExit: 3" in str(found)


def test_diagnose_changes_no_array_of_the_caller():
    z, t, v = Z.copy(), np.array([0, 1, 2, 3]), Z + 1
    softgrad.diagnose(v, what="cross_entropy_grad", logits=z, targets=t)
    softgrad.diagnose(lambda v, z: v, what="softmax_jvp", logits=z, tangent=v)
    np.testing.assert_array_equal(z, Z)
    np.testing.assert_array_equal(v, Z + 1)


def test_the_value():
    found = softgrad.diagnose(-RIGHT, what="jacobian", logits=Z)
    assert repr(found) == "<Diagnosis of jacobian: sign-flipped>"
    assert not found
    assert "\x1b[" not in str(found)
    assert "\x1b[" in found.render(color=True)
    np.testing.assert_allclose(found.truth, RIGHT, rtol=1e-13)
    np.testing.assert_array_equal(found.candidate, -RIGHT)
    assert repr(softgrad.diagnose(RIGHT, what="jacobian", logits=Z)) == "<Diagnosis of jacobian: ok>"
