"""The `cupy` backend: CUDA C++ kernels for CuPy arrays, and for any CUDA array that speaks DLPack or the CUDA array
interface, compiled at run time for the device at hand, on the caller's current stream.

`arrays` turns the caller's arrays into CuPy's and back, `runtime` compiles and launches; what is launched is decided in
`softgrad.backends.cuda`, which this backend shares with the emulation that tests it on the CPU.
"""

import cupy

if not cupy.cuda.is_available():
    raise ImportError("CuPy is installed, but finds no CUDA device (is there a driver?)")

from softgrad.backends.cuda.primitives import Primitives
from softgrad.backends.cupy_cuda import arrays
from softgrad.backends.cupy_cuda.runtime import CupyRuntime
from softgrad.protocol import PRIMITIVES, SERVICES, members

__all__ = [*SERVICES, *PRIMITIVES]
globals().update(members(arrays, Primitives(CupyRuntime())))
