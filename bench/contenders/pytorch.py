"""PyTorch, eager and compiled, on the CPU or a GPU."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional

from bench.contenders.base import Call, Contender


class Torch(Contender):
    """Eager PyTorch: no fused value-and-grad, so a forward and a backward pass."""

    name = library = "torch"
    notes: ClassVar = {
        "softmax_vjp": "forward + backward",
        "softmax_jvp": "torch.func.jvp",
        "softmax_vjp_from_probs": "aten::_softmax_backward_data",
        "cross_entropy_value_and_grad": "forward + backward",
        "cross_entropy_hvp": "torch.func.jvp of torch.func.grad",
    }

    def __init__(self, device: str, threads: int) -> None:
        self.device = "cuda" if device == "gpu" else "cpu"
        if device == "gpu" and not torch.cuda.is_available():
            raise RuntimeError("this torch has no CUDA device")
        torch.set_num_threads(threads)
        self._softmax, self._cross_entropy = torch.softmax, functional.cross_entropy

    def array(self, x: np.ndarray) -> Any:
        """On the CPU without a copy; bfloat16 by way of its bits."""
        if x.dtype.name == "bfloat16":
            return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16).to(self.device)
        return torch.from_numpy(x).to(self.device)

    def numpy(self, x: Any) -> np.ndarray:
        """bfloat16 by way of its bits."""
        x = x.detach().cpu()
        if x.dtype == torch.bfloat16:
            import ml_dtypes

            return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return x.numpy()

    def softmax(self, logits: Any, out: Any) -> Call:
        return lambda: torch.softmax(logits, -1, out=out)

    def log_softmax(self, logits: Any, out: Any) -> Call:
        return lambda: torch.log_softmax(logits, -1, out=out)

    def logsumexp(self, logits: Any, out: Any) -> Call:
        return lambda: torch.logsumexp(logits, -1)

    def softmax_vjp(self, logits: Any, tangent: Any, out: Any) -> Call:
        z = logits.detach().requires_grad_()
        return lambda: torch.autograd.grad(self._softmax(z, -1), z, tangent)[0]

    def softmax_jvp(self, logits: Any, tangent: Any, out: Any) -> Call:
        return lambda: torch.func.jvp(lambda z: torch.softmax(z, -1), (logits,), (tangent,))[1]

    def softmax_vjp_from_probs(self, probs: Any, tangent: Any, out: Any) -> Call:
        backward = torch.ops.aten._softmax_backward_data.out
        return lambda: backward(tangent, probs, -1, probs.dtype, grad_input=out)

    def cross_entropy_value_and_grad(self, logits: Any, targets: Any, out: Any) -> Call:
        z = logits.detach().requires_grad_()

        def call() -> Any:
            loss = self._cross_entropy(z, targets)
            return loss, torch.autograd.grad(loss, z)[0]

        return call

    def cross_entropy_hvp(self, logits: Any, tangent: Any, targets: Any, out: Any) -> Call:
        gradient = torch.func.grad(lambda z: functional.cross_entropy(z, targets))
        return lambda: torch.func.jvp(gradient, (logits,), (tangent,))[1]


class TorchCompiled(Torch):
    """`torch.compile` over the same functions; it has no `out`."""

    name = "torch.compile"
    lacks = ("logsumexp", "softmax_jvp", "cross_entropy_hvp")  # as in eager mode: nothing to compare
    notes: ClassVar = {
        "softmax_vjp": "compiled forward + backward",
        "softmax_vjp_from_probs": "compiled p·(v − Σp·v)",
        "cross_entropy_value_and_grad": "compiled forward + backward",
    }

    def __init__(self, device: str, threads: int) -> None:
        super().__init__(device, threads)
        torch._dynamo.config.cache_size_limit = 256
        self._softmax = torch.compile(torch.softmax, dynamic=False)
        self._cross_entropy = torch.compile(functional.cross_entropy, dynamic=False)
        self._log_softmax = torch.compile(torch.log_softmax, dynamic=False)
        self._product = torch.compile(lambda p, v: p * (v - (p * v).sum(-1, keepdim=True)), dynamic=False)

    def softmax(self, logits: Any, out: Any) -> Call:
        return lambda: self._softmax(logits, -1)

    def log_softmax(self, logits: Any, out: Any) -> Call:
        return lambda: self._log_softmax(logits, -1)

    def softmax_vjp_from_probs(self, probs: Any, tangent: Any, out: Any) -> Call:
        return lambda: self._product(probs, tangent)


class Liger(Torch):
    """Liger-Kernel (Triton): the loss's gradient comes with its forward pass, and overwrites the logits."""

    name = "liger"
    lacks = ("log_softmax", "logsumexp", "softmax_jvp", "softmax_vjp_from_probs", "cross_entropy_hvp")
    dtypes = ("float32", "float16", "bfloat16")
    notes: ClassVar = {
        "softmax_vjp": "forward + backward",
        "cross_entropy_value_and_grad": "fused in the forward pass, in place of the logits; backward returns it",
    }

    def __init__(self, device: str, threads: int) -> None:
        super().__init__(device, threads)
        from liger_kernel.ops.cross_entropy import LigerCrossEntropyFunction
        from liger_kernel.ops.softmax import LigerSoftmaxFunction

        self._softmax = lambda z, axis: LigerSoftmaxFunction.apply(z)
        self._loss = LigerCrossEntropyFunction.apply

    def softmax(self, logits: Any, out: Any) -> Call:
        return lambda: self._softmax(logits, -1)

    def cross_entropy_value_and_grad(self, logits: Any, targets: Any, out: Any) -> Call:
        z = logits.detach().clone().requires_grad_()

        def call() -> Any:
            loss = self._loss(z, targets, None, -100, 0.0, 0.0, "mean", None, False)[0]
            return loss, torch.autograd.grad(loss, z)[0]

        return call


class Quack(Torch):
    """QuACK (CuTe DSL): one launch for loss and gradient, unreduced: the mean's factor is not applied."""

    name = "quack"
    lacks = ("log_softmax", "logsumexp", "softmax_jvp", "cross_entropy_hvp")
    dtypes = ("float32", "float16", "bfloat16")
    notes: ClassVar = {"cross_entropy_value_and_grad": "one launch; per-row loss and unscaled gradient"}

    def __init__(self, device: str, threads: int) -> None:
        super().__init__(device, threads)
        from quack.cross_entropy import cross_entropy_fwd
        from quack.softmax import softmax_bwd, softmax_fwd

        self._fwd, self._bwd, self._fused = softmax_fwd, softmax_bwd, cross_entropy_fwd

    def softmax(self, logits: Any, out: Any) -> Call:
        return lambda: self._fwd(logits)

    def softmax_vjp(self, logits: Any, tangent: Any, out: Any) -> Call:
        return lambda: self._bwd(tangent, self._fwd(logits))

    def softmax_vjp_from_probs(self, probs: Any, tangent: Any, out: Any) -> Call:
        return lambda: self._bwd(tangent, probs)

    def cross_entropy_value_and_grad(self, logits: Any, targets: Any, out: Any) -> Call:
        return lambda: self._fused(logits, targets, return_dx=True)

    def finish(self, case: Any, results: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
        """Take the mean that the kernel leaves out."""
        if len(results) == 2:
            results = (results[0].double().mean().float(), results[1] / case.rows)
        return super().finish(case, results)
