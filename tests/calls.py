"""One good call of every public function, to be varied by tests of what functions share."""

from __future__ import annotations

from typing import Any

import numpy as np

import softgrad

SHAPE = (3, 5, 4)
AXIS = 1
CLASSES = SHAPE[AXIS]
ROWS = (3, 4)

_rng = np.random.default_rng(20261124)
LOGITS = _rng.normal(size=SHAPE)
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(AXIS, keepdims=True)
TANGENT = _rng.normal(size=SHAPE)
TARGETS = _rng.integers(0, CLASSES, ROWS)
DENSE = _rng.random(SHAPE)
WEIGHT = _rng.uniform(0.5, 2.0, CLASSES)

SOFTMAX = ("softmax", "log_softmax", "logsumexp")
PRODUCTS = ("softmax_jvp", "softmax_vjp", "log_softmax_jvp", "log_softmax_vjp")
LOSSES = (
    "cross_entropy",
    "cross_entropy_grad",
    "cross_entropy_value_and_grad",
    "cross_entropy_jvp",
    "cross_entropy_hvp",
)
EVERY = (*SOFTMAX, *PRODUCTS, "softmax_jacobian", *LOSSES)
WITH_TANGENT = (*PRODUCTS, "cross_entropy_jvp", "cross_entropy_hvp")
WITH_OUT = (
    "softmax",
    "log_softmax",
    *PRODUCTS,
    "cross_entropy_grad",
    "cross_entropy_value_and_grad",
    "cross_entropy_hvp",
)
WITH_PROBS = ("softmax_jvp", "softmax_vjp", "softmax_jacobian", "log_softmax_jvp", "log_softmax_vjp")
WITH_GRAD_OUTPUT = ("cross_entropy_grad", "cross_entropy_value_and_grad", "cross_entropy_hvp")


def tangent_name(name: str) -> str:
    """What the function calls its tangent."""
    return "cotangent" if name.endswith("_vjp") else "tangent"


def point_name(name: str) -> str:
    """What a product calls its point where that is not logits."""
    return "log_probs" if name.startswith("log_") else "probs"


def arguments(name: str, **changes: Any) -> dict[str, Any]:
    """The arguments of a good call of the function, changed; fresh arrays, so that a call may be seen to alter them."""
    good: dict[str, Any] = {"logits": LOGITS.copy(), "axis": AXIS}
    if name in WITH_TANGENT:
        good[tangent_name(name)] = TANGENT.copy()
    if name in LOSSES:
        good["targets"] = TARGETS.copy()
    good |= changes
    return {key: value for key, value in good.items() if value is not LEFT_OUT}


LEFT_OUT: Any = object()  # as a change: do not pass this argument


def call(name: str, **changes: Any) -> Any:
    """Call the function with the good arguments, changed."""
    return getattr(softgrad, name)(**arguments(name, **changes))


def full_size(name: str, result: Any) -> Any:
    """The part of a result that `out` would hold."""
    return result[1] if name == "cross_entropy_value_and_grad" else result
