"""What softgrad returns, it takes: probabilities and their logarithms pass the check of `probs` and `log_probs`."""

import numpy as np
import pytest

import softgrad


@pytest.mark.parametrize("classes", [1, 2, 10, 1000, 50257])
@pytest.mark.parametrize("spread", [0.0, 3.0, 60.0])
def test_own_output_passes_the_checks(backend, dtype, classes, spread):
    z = (np.random.default_rng(classes).normal(size=(3, classes)) * spread).astype(dtype)
    v = np.ones_like(z)
    assert softgrad.softmax_vjp(v, probs=softgrad.softmax(z)).dtype == dtype
    assert softgrad.log_softmax_vjp(v, log_probs=softgrad.log_softmax(z)).dtype == dtype
