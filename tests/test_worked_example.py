"""The question this library grew from: why the chain rule through softmax and through cross-entropy did not meet A − T.

Two outputs, Z = (1.75, 1.75), hence A = (0.5, 0.5); T = (0, 1).  The Jacobian had been built from Z where A belongs.
"""

from __future__ import annotations

import numpy as np
import pytest

import softgrad
from softgrad import naive

Z = np.array([1.75, 1.75])
A = np.array([0.5, 0.5])
T = np.array([0.0, 1.0])
JACOBIAN = np.array([[0.25, -0.25], [-0.25, 0.25]])
ANSWER = np.array([0.5, -0.5])


@pytest.fixture(params=[softgrad, naive], ids=["softgrad", "naive"])
def way(request: pytest.FixtureRequest, backend: str):
    """Both ways of computing, the library's under every backend."""
    return request.param


def test_the_probabilities(way) -> None:
    np.testing.assert_array_equal(way.softmax(Z), A)


def test_the_jacobian_is_built_from_a(way) -> None:
    np.testing.assert_array_equal(way.softmax_jacobian(probs=A), JACOBIAN)
    np.testing.assert_array_equal(way.softmax_jacobian(logits=Z), JACOBIAN)


def test_the_chain_rule_is_a_minus_t(way) -> None:
    of_the_loss = -T / A
    np.testing.assert_array_equal(of_the_loss, (0.0, -2.0))
    np.testing.assert_array_equal(of_the_loss @ JACOBIAN, ANSWER)
    np.testing.assert_array_equal(way.softmax_vjp(of_the_loss, probs=A), ANSWER)
    np.testing.assert_array_equal(way.softmax_vjp(of_the_loss, logits=Z), ANSWER)
    np.testing.assert_array_equal(way.log_softmax_vjp(-T, logits=Z), ANSWER)
    np.testing.assert_array_equal(A - T, ANSWER)


def test_the_fused_gradient_is_the_same(way) -> None:
    np.testing.assert_array_equal(way.cross_entropy_grad(Z, 1), ANSWER)
    np.testing.assert_array_equal(way.cross_entropy_grad(Z, T), ANSWER)
    np.testing.assert_array_equal(way.cross_entropy_grad(Z[None], [1]), ANSWER[None])
    np.testing.assert_allclose(way.cross_entropy(Z, 1), np.log(2.0), rtol=2.0**-52)


@pytest.mark.parametrize("product", ["softmax_vjp", "softmax_jvp"])
def test_the_mistaken_call_is_refused_and_asks_whether_logits_were_meant(way, product: str) -> None:
    with pytest.raises(ValueError, match=r"Were logits \(Z\) meant"):
        getattr(way, product)(-T / A, probs=Z)
    with pytest.raises(ValueError, match=r"Were logits \(Z\) meant"):
        way.softmax_jacobian(probs=Z)


def test_what_the_mistake_amounted_to(backend: str) -> None:
    """With the check off, the product at Z is what the mistaken matrix gives once its diagonal is right: not A − T."""
    mistaken = np.diag(Z) - np.outer(Z, Z)
    np.testing.assert_array_equal(np.diag(mistaken), -1.3125)
    np.testing.assert_array_equal(mistaken[0, 1], -3.0625)
    np.testing.assert_array_equal(-T / A @ mistaken, (6.125, 2.625))
    wrong = softgrad.softmax_vjp(-T / A, probs=Z, check_probs=False)
    assert not np.allclose(wrong, ANSWER)


def test_the_message_says_what_was_wrong(backend: str) -> None:
    with pytest.raises(ValueError, match="`probs`") as caught:
        softgrad.softmax_vjp(-T / A, probs=Z)
    message = str(caught.value)
    assert "softmax(logits), A" in message
    assert "it sums to 3.5, not 1" in message
    assert "pass `logits=`" in message
