"""Other libraries' arrays under both GPU backends on a device: torch's, Numba's, JAX's.  Run by `python3 ci gpu`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import softgrad
from tests import truth
from tests.cases import DTYPES
from tests.gpu import NumbaArrays

pytestmark = pytest.mark.gpu


@pytest.fixture
def torch() -> Any:
    """torch, if it sees the GPU."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch sees no GPU: it was built without CUDA, or for another driver")
    return torch


@pytest.mark.parametrize("name", ["float64", "float32", "bfloat16", "float16"])
def test_tensors_in_and_out(gpu_backend: str, torch: Any, name: str) -> None:
    dtype = getattr(torch, name)
    z = torch.randn(64, 1000, device="cuda").to(dtype)
    t = torch.randint(0, 1000, (64,), device="cuda")
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t)
    assert (type(loss), type(grad), grad.dtype, loss.shape) == (torch.Tensor, torch.Tensor, dtype, ())
    assert loss.dtype == (torch.float64 if name == "float64" else torch.float32)
    wide = z.double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(wide, t)
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-6, atol=0)
    expected.backward()
    close = {"rtol": 2e-2 if "16" in name else 1e-4, "atol": 1e-7}  # float16's smallest number is 6e-8
    torch.testing.assert_close(grad.double(), wide.grad, **close)
    per_row = softgrad.cross_entropy(z, t, reduction="none")
    assert per_row.shape == (64,)
    out = torch.empty_like(z)
    assert softgrad.softmax(z, out=out) is out
    torch.testing.assert_close(
        out, torch.softmax(z.double(), -1).to(dtype), rtol=2e-2 if "16" in name else 1e-5, atol=0
    )
    cube = z.reshape(8, 8, 1000).transpose(0, 2)  # no view has its rows
    torch.testing.assert_close(softgrad.softmax(cube, axis=0), out.reshape(8, 8, 1000).transpose(0, 2), rtol=0, atol=0)


def test_tensors_follow_torch_s_stream(gpu_backend: str, torch: Any) -> None:
    z, t = torch.randn(4096, 1000, device="cuda"), torch.randint(0, 1000, (4096,), device="cuda")
    softgrad.cross_entropy_value_and_grad(z, t)  # compiles
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = torch.zeros_like(z)
        for _ in range(50):
            late = late * 0.5 + z * 0.5
        loss, grad = softgrad.cross_entropy_value_and_grad(late, t)
    stream.synchronize()
    expected = softgrad.cross_entropy_value_and_grad(late, t)
    assert torch.equal(loss, expected[0])
    assert torch.equal(grad, expected[1])


def test_tensors_in_torch_s_graphs(gpu_backend: str, torch: Any) -> None:
    z, t = torch.randn(256, 1000, device="cuda"), torch.randint(0, 1000, (256,), device="cuda")
    out = torch.empty_like(z)
    softgrad.cross_entropy_value_and_grad(z, t, out=out)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # on a stream of its own, in the strictest mode
        loss, _ = softgrad.cross_entropy_value_and_grad(z, t, out=out)
    for _ in range(3):
        z.copy_(torch.randn_like(z))
        graph.replay()
        torch.cuda.synchronize()
        got = loss.clone(), out.clone()
        expected = softgrad.cross_entropy_value_and_grad(z, t)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


def test_tensors_that_are_more_than_their_memory_are_refused(gpu_backend: str, torch: Any) -> None:
    z = torch.randn(4, 10, device="cuda")
    negated = torch.view_as_complex(torch.randn(4, 10, 2, device="cuda")).conj().imag
    assert negated.is_neg()
    for tensor in (z.clone().requires_grad_(), negated, z.cpu()):
        with pytest.raises(TypeError, match="detach"):
            softgrad.softmax(tensor)
    assert type(softgrad.softmax(z)) is torch.Tensor


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_numba_s_device_arrays_in_and_out(gpu_backend: str, name: str) -> None:
    if name not in DTYPES:
        pytest.skip("bfloat16 needs ml_dtypes")
    numba = NumbaArrays()
    z, t = np.random.default_rng(0).standard_normal((8, 50)).astype(DTYPES[name]), np.arange(8)
    zd, td = numba.put(z), numba.put(t)
    truth.assert_right(numba.get(softgrad.softmax(zd)), truth.softmax(z), DTYPES[name])
    loss = numba.get(softgrad.cross_entropy(zd, td))
    truth.assert_right(loss, truth.cross_entropy(z, t), np.float32)


def test_jax_s_arrays_in_and_out(gpu_backend: str) -> None:
    jax = pytest.importorskip("jax", reason="needs JAX: pip install 'jax[cuda13]'")
    try:
        device = jax.devices("cuda")[0]
    except RuntimeError:
        pytest.skip("this JAX sees no GPU: pip install 'jax[cuda13]'")
    z = np.random.default_rng(0).standard_normal((8, 50)).astype(np.float32)
    zd = jax.device_put(z, device)
    if gpu_backend != "cupy":
        with pytest.raises(TypeError, match="`logits` is a jaxlib"):
            softgrad.softmax(zd)
        return
    p = softgrad.softmax(zd)
    assert isinstance(p, jax.Array)
    truth.assert_right(np.asarray(p), truth.softmax(z), np.float32)
    with pytest.raises(TypeError, match="`out` is a jaxlib"):
        softgrad.softmax(zd, out=zd)
    np.testing.assert_array_equal(np.asarray(zd), z)
