"""Arrays of two axes, which GPU backends take without a view as three: the same bits, whichever they are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import softgrad
from softgrad import dispatch
from softgrad.backends.cuda.segments import Cutting
from tests.emulator.fixtures import device

ROWS = 3
OPTIONS = {"label_smoothing": 0.1, "z_loss": 0.01}


def calls(classes: int) -> dict[str, Any]:
    rng = np.random.default_rng(classes)
    z, v, T = (rng.standard_normal((ROWS, classes)).astype(np.float32) for _ in range(3))
    two, t, w = np.stack([v, z]), rng.integers(0, classes, ROWS), rng.random(classes).astype(np.float32)
    g = np.arange(1.0, ROWS + 1.0, dtype=np.float32)
    p, wide, whole = np.abs(T), w.astype(np.float64), g.astype(np.int64)
    return {
        "softmax": lambda: softgrad.softmax(z),
        "logsumexp": lambda: softgrad.logsumexp(z),
        "one tangent": lambda: softgrad.softmax_vjp(v, logits=z),
        "two tangents": lambda: softgrad.log_softmax_jvp(two, logits=z),
        "none": lambda: softgrad.cross_entropy_value_and_grad(z, t, weight=w, grad_output=g, reduction="none"),
        "mean": lambda: softgrad.cross_entropy_value_and_grad(z, t, weight=w, **OPTIONS),
        "probabilities": lambda: softgrad.cross_entropy_value_and_grad(z, p, grad_output=2.0),
        "slope": lambda: softgrad.cross_entropy_jvp(v, logits=z, targets=t, reduction="none"),
        "slopes": lambda: softgrad.cross_entropy_jvp(two, logits=z, targets=p),
        "curvature": lambda: softgrad.cross_entropy_hvp(v, logits=z, targets=t, grad_output=g, reduction="none"),
        "curvatures": lambda: softgrad.cross_entropy_hvp(two, logits=z, targets=t),
        "converted": lambda: softgrad.cross_entropy_grad(z, t, weight=wide, grad_output=whole, reduction="none"),
        "checked": lambda: softgrad.cross_entropy(z, t, check_targets=True),
    }  # fmt: skip


@pytest.mark.parametrize("classes", [5, 1025], ids=["whole rows", "cut rows"])
def test_two_axes_are_three(classes: int) -> None:
    with device(cutting=Cutting(beyond=1000, shortest=1)):
        backend: Any = dispatch._loaded["cupy"]
        for name, call in calls(classes).items():
            results = []
            for backend.TAKES_TWO_AXES in (False, True):
                result = call()
                results.append(result if isinstance(result, tuple) else (result,))
            for three, two in zip(*results, strict=True):
                assert (two.shape, two.dtype) == (three.shape, three.dtype), name
                assert two.tobytes() == three.tobytes(), name


def test_a_bad_target_is_found_all_the_same() -> None:
    with device():
        backend: Any = dispatch._loaded["cupy"]
        backend.TAKES_TWO_AXES = True
        with pytest.raises(ValueError, match=r"targets\[1\] is 7; expected \[0, 5\)"):
            softgrad.cross_entropy(np.zeros((2, 5)), [0, 7], check_targets=True)
