"""The `numpy` backend: pure NumPy, always there, and the readable reference.

`exponentials` holds the derivation that every other backend follows, symbol by symbol.
"""

from softgrad.backends.numpy_cpu.checks import first_bad_row
from softgrad.backends.numpy_cpu.cross_entropy import cross_entropy, cross_entropy_hvp, cross_entropy_jvp
from softgrad.backends.numpy_cpu.products import log_softmax_jvp, log_softmax_vjp, softmax_product
from softgrad.backends.numpy_cpu.softmax import log_softmax, logsumexp, softmax
from softgrad.host import CHECKS_VALUES, TAKES_TWO_AXES, adopt, empty, overlap, release, unit_tangents

__all__ = [
    "CHECKS_VALUES",
    "TAKES_TWO_AXES",
    "adopt",
    "cross_entropy",
    "cross_entropy_hvp",
    "cross_entropy_jvp",
    "empty",
    "first_bad_row",
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
