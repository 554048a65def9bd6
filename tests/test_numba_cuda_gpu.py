"""The `numba_cuda` backend on a device: what the emulation shows, again, and what it cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import softgrad
from tests import truth
from tests.cases import ADVERSARIAL, DTYPES, LARGE, TAILS, Case

pytestmark = pytest.mark.gpu
cuda: Any = pytest.importorskip("numba.cuda", reason="needs numba-cuda: pip install 'softgrad[numba-cuda]'")


@pytest.fixture(autouse=True)
def backend() -> Any:
    with softgrad.use_backend("numba_cuda"):
        yield


def moved(array: np.ndarray) -> Any:
    """On the device, strides kept."""
    return cuda.to_device(np.ascontiguousarray(array))


@pytest.mark.parametrize("dtype", [pytest.param(d, id=n) for n, d in DTYPES.items()])
@pytest.mark.parametrize("case", ADVERSARIAL + TAILS + LARGE, ids=str)
def test_rows(case: Case, dtype: np.dtype[Any]) -> None:
    z, t, v = case.logits(dtype), case.targets(), case.tangents(dtype)
    p = softgrad.softmax(moved(z)).copy_to_host()
    truth.assert_right(p, truth.softmax(z), dtype, what="softmax")
    product = softgrad.softmax_jvp(moved(v), logits=moved(z)).copy_to_host()
    truth.assert_right(product, truth.softmax_jvp(v, logits=z), dtype, what="product")
    loss, grad = softgrad.cross_entropy_value_and_grad(moved(z), moved(t), reduction="none")
    true_loss, true_grad = truth.cross_entropy_value_and_grad(z, t, reduction="none")
    truth.assert_right(loss.copy_to_host(), true_loss, loss.dtype, what="loss")
    truth.assert_right(grad.copy_to_host(), true_grad, dtype, what="gradient")


def test_on_the_caller_s_stream_and_the_same_bits_as_emulated() -> None:
    from tests.emulator import emulated

    stream = cuda.stream()
    z = np.random.default_rng(0).standard_normal((64, 3000)).astype(np.float32)
    result = softgrad.softmax(cuda.to_device(z, stream=stream))
    stream.synchronize()
    with emulated("numba_cuda"):
        expected = softgrad.softmax(z)
    np.testing.assert_array_equal(result.copy_to_host(), expected)


def test_other_libraries_arrays_come_back_as_theirs() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch was built without CUDA")
    z = torch.randn(5, 100, device="cuda", dtype=torch.bfloat16)
    p = softgrad.softmax(z)
    assert type(p) is torch.Tensor
    assert p.dtype == torch.bfloat16
    loss = softgrad.cross_entropy(z, torch.zeros(5, dtype=torch.int64, device="cuda"))
    assert loss.shape == ()
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(z.float(), loss.new_zeros(5, dtype=torch.int64)))


def test_a_row_of_ten_million_classes() -> None:
    z = np.random.default_rng(0).standard_normal((1, 10_000_000)).astype(np.float32)
    p = softgrad.softmax(moved(z)).copy_to_host()
    assert abs(float(p.sum(dtype=np.float64)) - 1.0) < 1e-6
