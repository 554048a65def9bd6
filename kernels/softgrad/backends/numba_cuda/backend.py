"""The backend as dispatch sees it: the primitives on the CUDA devices of this machine."""

from softgrad.backends.cuda.primitives import Primitives
from softgrad.backends.numba_cuda.driver import Driver
from softgrad.backends.numba_cuda.runtime import Runtime
from softgrad.protocol import PRIMITIVES, SERVICES, members

__all__ = [*SERVICES, *PRIMITIVES]
_runtime = Runtime(Driver())
globals().update(members(_runtime, Primitives(_runtime)))
