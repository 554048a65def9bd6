"""The question this project began with, whole: Z = (1.75, 1.75), T = (0, 1), and a Jacobian taken at Z."""

import numpy as np
import pytest

import softgrad

Z = np.array([[1.75, 1.75]])
A = np.array([[0.5, 0.5]])
T = np.array([[0.0, 1.0]])

AS_PRINTED = """
import numpy as np

def df2(d):
    def softmax_prime(f):
        jacobian = np.diag(f)
        for i in range(len(jacobian)):
            for j in range(len(jacobian)):
                if i == j:
                    jacobian[i][j] = f[i] * (1 - f[i])
                    jacobian[i][j] = -f[i]*f[j]
        return jacobian
return np.apply_along_axis(softmax_prime, axis=1, arr=d)
"""


def as_printed(d):
    """Both assignments under the `if`, as the page shows them; the last line indented, or Python refuses it."""

    def softmax_prime(f):
        jacobian = np.diag(f)
        for i in range(len(jacobian)):
            for j in range(len(jacobian)):
                if i == j:
                    jacobian[i][j] = f[i] * (1 - f[i])
                    jacobian[i][j] = -f[i] * f[j]
        return jacobian

    return np.apply_along_axis(softmax_prime, axis=1, arr=d)


def with_a_lost_else(d):
    """The second assignment for every i and j: what the loop does when only the `else` is missing."""

    def softmax_prime(f):
        jacobian = np.diag(f)
        for i in range(len(jacobian)):
            for j in range(len(jacobian)):
                if i == j:
                    jacobian[i][j] = f[i] * (1 - f[i])
                jacobian[i][j] = -f[i] * f[j]
        return jacobian

    return np.apply_along_axis(softmax_prime, axis=1, arr=d)


def as_meant(d):
    """With the `else`: the function that gave the printed matrix."""

    def softmax_prime(f):
        jacobian = np.diag(f)
        for i in range(len(jacobian)):
            for j in range(len(jacobian)):
                if i == j:
                    jacobian[i][j] = f[i] * (1 - f[i])
                else:
                    jacobian[i][j] = -f[i] * f[j]
        return jacobian

    return np.apply_along_axis(softmax_prime, axis=1, arr=d)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_the_printed_function_is_no_python():
    with pytest.raises(SyntaxError, match="'return' outside function"):
        compile(AS_PRINTED, "df2.py", "exec")


@pytest.mark.parametrize("logits", [Z, Z[0], Z.tolist()], ids=["batch of one", "one row", "list"])
@pytest.mark.parametrize(
    ("function", "planted"),
    [
        (as_printed, ("logits-as-probs", "diagonal-overwritten")),
        (with_a_lost_else, ("logits-as-probs", "diagonal-overwritten")),
        (as_meant, ("logits-as-probs",)),
        (lambda z: as_printed(softmax(z)), ("diagonal-overwritten",)),
        (lambda z: with_a_lost_else(softmax(z)), ("diagonal-overwritten",)),
        (lambda z: as_meant(softmax(z)), ()),
    ],
)
def test_his_functions(function, planted, logits):
    found = softgrad.diagnose(function, what="jacobian", logits=logits)
    assert found.mistakes == planted, str(found)
    assert found.ok == (not planted)


def test_his_matrix():
    matrix = [[-1.3125, -3.0625], [-3.0625, -1.3125]]
    assert as_meant(Z).tolist() == [matrix]
    found = softgrad.diagnose(matrix, what="jacobian", logits=Z[0])
    assert found.mistakes == ("logits-as-probs",)
    assert not found.alternatives
    text = str(found)
    assert "[0, 1]: candidate -3.0625, right -0.25" in text
    assert "softmax(z)" in text
    # Chained onto −T/A, it gives his other numbers.
    delta = (-T / A) @ np.array(matrix)
    assert delta.tolist() == [[6.125, 2.625]]


@pytest.mark.parametrize("targets", [[1], [[0, 1]]], ids=["class index", "one-hot"])
def test_his_gradient(targets):
    found = softgrad.diagnose([[6.125, 2.625]], what="cross_entropy_grad", logits=Z, targets=targets)
    assert found.mistakes == ("logits-as-probs",)
    assert "Jacobian is taken at Z" in str(found)
    assert "[0, 0]: candidate 6.125, right 0.5" in str(found)


def test_his_gradient_with_the_lost_else_too():
    delta = (-T / A) @ with_a_lost_else(Z)[0]
    found = softgrad.diagnose(delta, what="cross_entropy_grad", logits=Z, targets=[1])
    assert found.mistakes == ("logits-as-probs", "diagonal-overwritten")


def test_the_mended_chain_rule():
    def gradient(z, t):
        a = softmax(z)
        return np.einsum("bi,bij->bj", -t / a, as_meant(a))

    assert gradient(Z, T).tolist() == [[0.5, -0.5]]
    assert softgrad.diagnose(gradient, what="cross_entropy_grad", logits=Z, targets=T).ok
    assert softgrad.diagnose(A - T, what="cross_entropy_grad", logits=Z, targets=T).ok


def test_what_equal_logits_cannot_show_a_function_does():
    # At p = (1/2, 1/2), p_i(1 − p_j) is 1/4 everywhere.
    def everywhere(z):
        a = softmax(z)
        return a[:, :, None] * (1 - a[:, None, :])

    alone = softgrad.diagnose(everywhere(Z), what="jacobian", logits=Z)
    probed = softgrad.diagnose(everywhere, what="jacobian", logits=Z)
    assert probed.mistakes == ("diagonal-formula-everywhere",)
    assert not probed.alternatives
    assert probed.mistakes in {alone.mistakes, *alone.alternatives}


def test_two_classes_alike_are_told_apart_by_calling_the_function():
    """(0.5, −0.5) the other way round: the sign, or the neighbouring target."""

    def other_target(z, t):
        dz = softmax(z)
        dz[np.arange(len(t)), (t + 1) % z.shape[1]] -= 1
        return dz / len(t)

    numbers = softgrad.diagnose(other_target(Z, np.array([1])), what="cross_entropy_grad", logits=Z, targets=[1])
    assert {numbers.mistakes, *numbers.alternatives} >= {("sign-flipped",), ("target-off-by-one",)}
    assert "cannot tell" in str(numbers)
    function = softgrad.diagnose(other_target, what="cross_entropy_grad", logits=Z, targets=[1])
    assert function.mistakes == ("target-off-by-one",)
    assert "excluded" in str(function)
