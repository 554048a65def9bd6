"""The whole benchmark on a GPU that is not there: `python -m tests.fake_gpu_bench FOLDER`.

Everything of it runs, at sizes next to nothing: CuPy and Numba are the fake machine's, torch and JAX are themselves on
the CPU, and of the libraries that no CPU runs there are stand-ins with the names and signatures of their own (Triton,
Liger-Kernel 0.8, QuACK 0.6).  Its times mean nothing.
"""

from __future__ import annotations

import importlib
import sys
import time
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fake_cuda import Machine
from tests.fake_cuda.backends import available


def main(folder: Path, options: list[str]) -> int:
    """The command, from its options to its exit status."""
    import jax
    import torch

    with pytest.MonkeyPatch.context() as patch, available(Machine()) as found:
        of_a_device(found.cupy)
        modules = {
            "cupy": found.cupy, "cupyx": types.ModuleType("cupyx"), "cupyx.scipy": cupyx_scipy(found.cupy),
            "torch": torch, **liger(torch), **quack(torch),
        }  # fmt: skip
        for name, module in modules.items():
            module.__spec__ = module.__spec__ or ModuleSpec(name, None)
            patch.setitem(sys.modules, name, module)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch, "compile", lambda function, **_: function)
        devices = jax.devices
        patch.setattr(jax, "devices", lambda kind: devices("cpu"))
        small(patch)
        command = importlib.import_module("bench.__main__")
        return int(command.main(["--device", "gpu", "--threads", "1", "--results", str(folder), *options]))


def small(patch: pytest.MonkeyPatch) -> None:
    """Sizes, and where torch's and the Jacobian's arrays really are."""
    from bench import accuracy, cases, contenders, gpu, inputs, jacobian, run
    from bench.contenders import naive, pytorch
    from tests import cases as tested

    patch.setattr(gpu, "FLUSH_BYTES", 1 << 10)
    patch.setattr(cases, "GPU_BYTES", 1 << 10)
    patch.setattr(cases, "GPU_CLASSES", (2, 10))
    patch.setattr(cases, "GPU_FEW", (10,))
    patch.setattr(cases, "GPU_DTYPES", ("float32", "bfloat16"))
    patch.setattr(cases, "OVERHEAD_SHAPES", ((1, 10),))
    patch.setattr(inputs, "KNOWN_ELEMENTS", 64)
    patch.setattr(accuracy, "MANY_CLASSES", [])
    patch.setattr(tested, "ADVERSARIAL", [case for case in tested.ADVERSARIAL if str(case) == "others flushed"])
    patch.setattr(jacobian, "CLASSES", (2, 4))
    patch.setattr(run, "OVERHEAD_CALLS", {"gpu": 2})
    patch.setattr(run.Settings, "rounds", 1)
    # Not faked: torch itself would use it.
    missing = contenders._missing
    patch.setattr(contenders, "_missing", lambda peer: None if peer.name == "torch.compile" else missing(peer))
    made = pytorch.Torch.__init__

    def on_the_cpu(self: Any, device: str, threads: int) -> None:
        made(self, device, threads)
        self.device = "cpu"

    patch.setattr(pytorch.Torch, "__init__", on_the_cpu)
    patch.setattr(naive.Naive, "__init__", lambda self, device: None)


def of_a_device(cupy: Any) -> None:
    """What the benchmark asks of CuPy beyond what the backends do."""
    cuda = cupy.cuda

    class Event:
        def record(self, stream: Any) -> None:
            assert stream is cuda.Stream.null
            self.at = time.perf_counter()

        def synchronize(self) -> None:
            pass

    class MemoryPointer(cuda.MemoryPointer):  # type: ignore[misc]
        def memset_async(self, value: int, size: int, stream: Any) -> None:
            assert stream is cuda.Stream.null

        def copy_from_device_async(self, source: Any, size: int, stream: Any) -> None:
            assert stream is cuda.Stream.null

    def ones(size: int, dtype: str) -> Any:
        array = cupy.asarray(np.ones(size, dtype))
        array.data = MemoryPointer(array.data.mem, 0)
        return array

    cupy.ones, cuda.Event = ones, Event
    cupy.get_elapsed_time = cuda.get_elapsed_time = lambda before, after: 1e3 * (after.at - before.at)
    runtime = cuda.runtime
    runtime.deviceSynchronize = lambda: None
    runtime.driverGetVersion, runtime.runtimeGetVersion = (lambda: 13000), (lambda: 13000)
    runtime.getDeviceProperties = lambda number: {"name": b"NVIDIA H200"}


def cupyx_scipy(cupy: Any) -> Any:
    """`cupyx.scipy`, by way of the host."""
    from scipy import special

    def of(function: Any) -> Any:
        return lambda z, axis: cupy.asarray(np.asarray(function(z.get(), axis=axis)))

    module: Any = types.ModuleType("cupyx.scipy")
    module.special = types.SimpleNamespace(
        softmax=of(special.softmax), log_softmax=of(special.log_softmax), logsumexp=of(special.logsumexp)
    )
    return module


def liger(torch: Any) -> dict[str, Any]:
    """Liger-Kernel: the gradient of the loss takes the place of the logits."""

    class LigerCrossEntropyFunction(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(
            ctx: Any, _input: Any, target: Any, weight: Any, ignore_index: int = -100, lse_square_scale: float = 0.0,
            label_smoothing: float = 0.0, reduction: str = "mean", softcap: Any = None, return_z_loss: bool = False,
            return_token_accuracy: bool = False, return_predicted_tokens: bool = False,
        ) -> Any:  # fmt: skip
            loss, grad = value_and_grad(torch, _input, target, reduction)
            _input.detach().copy_(grad)
            ctx.save_for_backward(_input.detach())
            return loss, None, None, None

        @staticmethod
        def backward(ctx: Any, grad_output: Any, *_: Any) -> Any:
            return (ctx.saved_tensors[0] * grad_output, *[None] * 10)

    class LigerSoftmaxFunction(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, input_: Any) -> Any:
            p = torch.softmax(input_, -1)
            ctx.save_for_backward(p)
            return p

        @staticmethod
        def backward(ctx: Any, grad_output: Any) -> Any:
            (p,) = ctx.saved_tensors
            return p * (grad_output - (p * grad_output).sum(-1, keepdim=True))

    names = ("liger_kernel", "liger_kernel.ops", "liger_kernel.ops.cross_entropy", "liger_kernel.ops.softmax")
    modules: dict[str, Any] = {name: types.ModuleType(name) for name in names}
    modules["liger_kernel.ops.cross_entropy"].LigerCrossEntropyFunction = LigerCrossEntropyFunction
    modules["liger_kernel.ops.softmax"].LigerSoftmaxFunction = LigerSoftmaxFunction
    return modules


def quack(torch: Any) -> dict[str, Any]:
    """QuACK: one launch for loss and gradient of each row; its softmax has rows of whole 16 bytes alone."""

    def softmax_fwd(x: Any) -> Any:
        assert x.shape[1] * x.itemsize % 16 == 0
        return torch.softmax(x, -1)

    def softmax_bwd(dy: Any, y: Any) -> Any:
        return y * (dy - (y * dy).sum(-1, keepdim=True))

    def cross_entropy_fwd(
        x: Any, target: Any, target_logit: Any = None, weight: Any = None, ignore_index: int = -100,
        return_lse: bool = False, return_dx: bool = False, inplace_backward: bool = False,
    ) -> Any:  # fmt: skip
        assert return_dx
        return value_and_grad(torch, x, target, "none")

    names = ("quack", "quack.cross_entropy", "quack.softmax")
    modules: dict[str, Any] = {name: types.ModuleType(name) for name in names}
    modules["quack.cross_entropy"].cross_entropy_fwd = cross_entropy_fwd
    modules["quack.softmax"].softmax_fwd, modules["quack.softmax"].softmax_bwd = softmax_fwd, softmax_bwd
    return modules


def value_and_grad(torch: Any, x: Any, target: Any, reduction: str) -> Any:
    """Loss and gradient (of its sum, where there is one for each row)."""
    with torch.enable_grad():
        z = x.detach().clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(z, target, reduction=reduction)
        return loss.detach(), torch.autograd.grad(loss.sum(), z)[0]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
