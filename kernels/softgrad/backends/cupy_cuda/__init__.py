"""The `cupy` backend: CUDA C++ kernels for CuPy arrays, and for any CUDA array that speaks DLPack or the CUDA array
interface, compiled at run time for the device at hand, on the caller's current stream.

`arrays` turns the caller's arrays into CuPy's and back, `runtime` compiles and launches; what is launched is decided in
`softgrad.backends.cuda`, which this backend shares with the emulation that tests it on the CPU.
"""

import cupy

if not cupy.cuda.is_available():
    raise ImportError("CuPy is installed, but finds no CUDA device (is there a driver?)")

from softgrad.backends.cuda.primitives import Primitives
from softgrad.backends.cupy_cuda.arrays import CHECKS_VALUES, adopt, empty, overlap, release, unit_tangents
from softgrad.backends.cupy_cuda.runtime import CupyRuntime

_primitives = Primitives(CupyRuntime())
softmax = _primitives.softmax
log_softmax = _primitives.log_softmax
logsumexp = _primitives.logsumexp
softmax_product = _primitives.softmax_product
log_softmax_jvp = _primitives.log_softmax_jvp
log_softmax_vjp = _primitives.log_softmax_vjp
cross_entropy = _primitives.cross_entropy
cross_entropy_jvp = _primitives.cross_entropy_jvp
cross_entropy_hvp = _primitives.cross_entropy_hvp
first_bad_target = _primitives.first_bad_target
first_bad_row = _primitives.first_bad_row

__all__ = [
    "CHECKS_VALUES",
    "adopt",
    "cross_entropy",
    "cross_entropy_hvp",
    "cross_entropy_jvp",
    "empty",
    "first_bad_row",
    "first_bad_target",
    "log_softmax",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "logsumexp",
    "overlap",
    "release",
    "softmax",
    "softmax_product",
    "unit_tangents",
]
