"""The backend as dispatch sees it: the primitives on the CUDA devices of this machine."""

from softgrad.backends.cuda.primitives import Primitives
from softgrad.backends.cuda.segments import Cutting
from softgrad.backends.numba_cuda.driver import Driver
from softgrad.backends.numba_cuda.runtime import Runtime

# Targets and probabilities are judged on request only: it would synchronise.
CHECKS_VALUES = False

_runtime = Runtime(Driver())
adopt = _runtime.adopt
release = _runtime.release
empty = _runtime.empty
overlap = _runtime.overlap
unit_tangents = _runtime.unit_tangents

# No row is cut: its kernels know no segments.
_primitives = Primitives(_runtime, Cutting(beyond=2**63))
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
