"""The `numba` backend: compiled for the CPU, one fused pass over each row, vectorised, on all cores."""

from softgrad.backends.numba_cpu.checks import first_bad_row
from softgrad.backends.numba_cpu.cross_entropy import cross_entropy, cross_entropy_hvp, cross_entropy_jvp
from softgrad.backends.numba_cpu.products import log_softmax_jvp, log_softmax_vjp, softmax_product
from softgrad.backends.numba_cpu.softmax import log_softmax, logsumexp, softmax
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
