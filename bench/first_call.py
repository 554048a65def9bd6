"""What the first call of each function with the `cupy` backend waits for the compiler: `python -m bench.first_call`.

No GPU is needed.  The calls are made over arrays of the host, with kernels noted instead of launched; then NVRTC makes
the machine code of each, one after the other and with CuPy's options, as it does on a device.  CuPy keeps what is made
on disk: a second process waits for none of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

import softgrad
from bench.inputs import numpy_dtype
from bench.stand_in import standing_in
from softgrad import host
from softgrad.backends.cuda.kernels import Kernel
from softgrad.backends.cuda.primitives import Primitives
from softgrad.protocol import members

ROWS = 4
BACKEND = "cupy"


class NotingRuntime:
    """A device with clusters that notes kernels and runs none."""

    def __init__(self) -> None:
        self.noted: list[Kernel] = []

    def pointer(self, array: np.ndarray) -> int:
        return int(array.__array_interface__["data"][0])

    def empty(self, shape: tuple[int, ...], dtype: Any, like: np.ndarray, spare: int = 0) -> np.ndarray:
        return np.zeros(shape, dtype)

    def convert(self, array: np.ndarray, dtype: Any) -> np.ndarray:
        return array.astype(dtype)

    def has_clusters(self, like: np.ndarray) -> bool:
        return True

    def scratch(self, like: np.ndarray) -> int:
        return 0

    def launch(self, kernel: Kernel, grid: int, arguments: bytes, like: np.ndarray) -> None:
        self.noted.append(kernel)


@contextmanager
def noting() -> Iterator[NotingRuntime]:
    """Every call inside the ``with`` block goes to the `cupy` backend over such a device."""
    runtime = NotingRuntime()
    module: Any = SimpleNamespace(
        **members(host, Primitives(runtime)) | {"CHECKS_VALUES": False, "TAKES_TWO_AXES": True}
    )
    with standing_in(BACKEND, module):
        yield runtime


def calls(classes: int, dtype: str) -> dict[str, Callable[[], Any]]:
    """Calls by name: one of every function, and more of the loss with its options."""
    z = np.zeros((ROWS, classes), numpy_dtype(dtype))
    v, t = z.copy(), np.zeros(ROWS, np.int64)
    ce = {"logits": z, "targets": t}
    return {
        "softmax": lambda: softgrad.softmax(z),
        "log_softmax": lambda: softgrad.log_softmax(z),
        "logsumexp": lambda: softgrad.logsumexp(z),
        "softmax_jvp, softmax_vjp": lambda: softgrad.softmax_vjp(v, logits=z),
        "the same from probs": lambda: softgrad.softmax_vjp(v, probs=z),
        "log_softmax_jvp": lambda: softgrad.log_softmax_jvp(v, logits=z),
        "log_softmax_vjp": lambda: softgrad.log_softmax_vjp(v, logits=z),
        "cross_entropy_value_and_grad, none": lambda: softgrad.cross_entropy_value_and_grad(**ce, reduction="none"),
        "cross_entropy_value_and_grad, mean": lambda: softgrad.cross_entropy_value_and_grad(**ce),
        "the same with label_smoothing, z_loss": lambda: softgrad.cross_entropy_value_and_grad(
            **ce, label_smoothing=0.1, z_loss=1e-4
        ),
        "the same with softcap": lambda: softgrad.cross_entropy_value_and_grad(**ce, softcap=30.0),
        "cross_entropy_jvp, mean": lambda: softgrad.cross_entropy_jvp(v, **ce),
        "cross_entropy_hvp, mean": lambda: softgrad.cross_entropy_hvp(v, **ce),
    }


def kernels_of(classes: int, dtype: str) -> dict[str, list[Kernel]]:
    """The kernels of each call, each once."""
    found = {}
    for name, call in calls(classes, dtype).items():
        with noting() as runtime:
            call()
        found[name] = list(dict.fromkeys(runtime.noted))
    return found


def seconds_to_compile(kernel: Kernel, architecture: str) -> float:
    """Seconds that NVRTC takes to make the kernel's machine code."""
    import cuda.core as core

    options = core.ProgramOptions(arch=architecture, std="c++17", ftz=True, fma=False)
    start = time.perf_counter()
    core.Program(kernel.text(), "c++", options).compile("cubin")
    return time.perf_counter() - start


def main(argv: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.first_call", description=__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--dtype", choices=("float32", "float64", "float16", "bfloat16"), default="float32")
    parser.add_argument("--architecture", default="sm_90")
    given = parser.parse_args(argv)
    took: dict[Kernel, float] = {}
    print(f"{given.dtype}, C = {given.classes}, {given.architecture}{'':30}{'programs':>10}{'seconds':>10}")
    for name, kernels in kernels_of(given.classes, given.dtype).items():
        for kernel in kernels:
            if not took:
                seconds_to_compile(kernel, given.architecture)  # the compiler itself is loaded, too
            if kernel not in took:
                took[kernel] = seconds_to_compile(kernel, given.architecture)
        print(f"  {name:52}{len(kernels):10}{sum(took[kernel] for kernel in kernels):10.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
