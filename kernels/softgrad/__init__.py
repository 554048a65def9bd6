"""Softmax, its Jacobian-vector products and the fused softmax + cross-entropy gradient, right to the last digits.

The front door: names only.  `softmax_ops`, `products` and `losses` hold the public functions, `naive` the way the
textbooks write them, with the full Jacobian.
"""

from typing import TYPE_CHECKING, Any

from softgrad import naive
from softgrad.dispatch import available_backends, use_backend
from softgrad.losses import (
    cross_entropy,
    cross_entropy_grad,
    cross_entropy_hvp,
    cross_entropy_jvp,
    cross_entropy_value_and_grad,
)
from softgrad.products import (
    log_softmax_jvp,
    log_softmax_vjp,
    softmax_jacobian,
    softmax_jvp,
    softmax_vjp,
)
from softgrad.softmax_ops import log_softmax, logsumexp, softmax

if TYPE_CHECKING:
    from softgrad.diagnosis import diagnose

__version__ = "0.1.0"

__all__ = [
    "available_backends",
    "cross_entropy",
    "cross_entropy_grad",
    "cross_entropy_hvp",
    "cross_entropy_jvp",
    "cross_entropy_value_and_grad",
    "diagnose",
    "log_softmax",
    "log_softmax_jvp",
    "log_softmax_vjp",
    "logsumexp",
    "naive",
    "softmax",
    "softmax_jacobian",
    "softmax_jvp",
    "softmax_vjp",
    "use_backend",
]


def __getattr__(name: str) -> Any:
    """Import the diagnosis the first time it is asked for: numerical programs never need it."""
    if name == "diagnose":
        from softgrad.diagnosis import diagnose

        return diagnose
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
