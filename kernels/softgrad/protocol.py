"""What a backend is: a module with the functions of `Backend`, each over an (outer, C, inner) view.

Whatever the user passed, a primitive sees three axes: `outer` rows before the class axis, `C` classes, `inner` rows
after it (1 when the class axis is last).  Arrays are the backend's own kind, of any strides, and already checked:
a primitive contains mathematics and memory traffic, no policy.

    z, p, out, grad   (outer, C, inner)       dtype float64 | float32 | float16 | bfloat16
    v                 (K, outer, C, inner)    K tangents, any real dtype; strides may be 0
    their out         (K, outer, C, inner)    dtype of z
    targets           (outer, inner) integers, any integer dtype; or (outer, C, inner) probabilities, any real dtype
    weight            (C,)                    any real dtype, or None
    loss              (outer, inner)          with reduction "none"; else () : float64, or float32 for all other z

An output may be the very same view as one input, and shares no element with any other.  Results are rounded once,
to the dtype of the array they are written to.  The same row gives the same bits wherever it stands: classes are
added in an order fixed by C and by whether their axis is contiguous, reduced losses in a tree fixed by the number
of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

Array = Any


@dataclass(frozen=True, slots=True)
class Loss:
    """A cross-entropy: every argument of `cross_entropy`, checked and laid out in rows.

    With W_j the row's target mass (after smoothing and weight), lse = log Σ exp z and z softcapped if `softcap`:
    loss of a row = Σ_j W_j (lse − z_j) + z_loss · lse².

    integer target t    W_j = w_t (1 − ε) [j = t] + w_j ε / C
    probabilities T     W_j = w_j (T_j (1 − ε) + ε / C)

    A row whose integer target is `ignore_index` counts for nothing: loss and derivatives exactly 0, whatever it or
    `grad_output` holds.  One whose target lies outside [0, C) is NaN (the caller asked not to check); nothing is
    read or written outside it, and it counts in neither divisor.  `reduction` "mean" divides the loss proper by
    Σ w_t over the rows that count (probabilities: by the number of rows), the z_loss part by their number;
    if either divisor is 0, the loss is NaN and every derivative exactly 0.
    `grad_output` scales `grad` and Hessian products, never the loss or its directional derivative.
    """

    z: Array
    targets: Array
    weight: Array | None = None
    ignore_index: int | None = -100
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None
    reduction: str = "mean"
    grad_output: Array | float = 1.0  # a float or (outer, inner); on a device a 0-d array too

    @property
    def dense(self) -> bool:
        """Whether the targets are probabilities, one per class."""
        return self.targets.ndim == 3


class Backend(Protocol):
    """The row primitives, and the few services that let everything above be written once."""

    # --- arrays -------------------------------------------------------------------------------------------------
    CHECKS_VALUES: bool
    """Whether targets and probabilities are checked unless asked otherwise: yes where that needs no synchronisation."""

    def adopt(self, name: str, array: Any, /) -> Array:
        """The backend's own array over the caller's memory; TypeError, naming the argument, where it cannot."""

    def release(self, array: Array, like: Any, /) -> Any:
        """A result as the kind of array that `like`, the caller's main input, is."""

    def empty(self, shape: tuple[int, ...], dtype: Any, like: Array, /) -> Array:
        """A new C-contiguous array on the device of `like`."""

    def unit_tangents(self, shape: tuple[int, int, int], like: Array, /) -> Array:
        """The C unit vectors as tangents for rows of `shape` (outer, C, inner): (C, outer, C, inner) over one C × C."""

    def overlap(self, a: Array, b: Array, /) -> Literal["none", "same", "partial"]:
        """How the memory of two arrays overlaps: no element shared, the very same view, or anything else."""

    # --- softmax ------------------------------------------------------------------------------------------------
    def softmax(self, z: Array, out: Array, /) -> None:
        """p = exp(z) / Σ exp(z)."""

    def log_softmax(self, z: Array, out: Array, /) -> None:
        """log p."""

    def logsumexp(self, z: Array, out: Array, /) -> None:
        """log Σ exp(z), into `out` (outer, inner); −inf where C is 0."""

    # --- products: `point` is logits (is_logits) or the softmax (its logarithm, for the log_ pair) ------------------
    def softmax_product(self, v: Array, point: Array, out: Array, /, *, is_logits: bool) -> None:
        """J v = p (u − Σ p u), u = v − v[k], k the first largest class; J is symmetric, so this is JVP and VJP."""

    def log_softmax_jvp(self, v: Array, point: Array, out: Array, /, *, is_logits: bool) -> None:
        """v − Σ p v, as u − Σ p u."""

    def log_softmax_vjp(self, v: Array, point: Array, out: Array, /, *, is_logits: bool) -> None:
        """v − p Σ v."""

    # --- cross-entropy -----------------------------------------------------------------------------------------------
    def cross_entropy(self, problem: Loss, loss: Array | None, grad: Array | None, /) -> None:
        """The loss and d(loss · grad_output)/dz, each where an array is given, in one pass."""

    def cross_entropy_jvp(self, problem: Loss, v: Array, out: Array, /) -> None:
        """The loss's derivative along each tangent: (K, outer, inner), or (K,) when reduced."""

    def cross_entropy_hvp(self, problem: Loss, v: Array, out: Array, /) -> None:
        """Hessian · v of the loss (of Σ grad_output · loss): (K, outer, C, inner)."""

    # --- values -------------------------------------------------------------------------------------------------------
    def first_bad_target(self, targets: Array, classes: int, ignore_index: int | None, /) -> int | None:
        """Flat position in (outer, inner) of the first target that is neither in [0, classes) nor ignored."""

    def first_bad_row(self, probs: Array, tolerance: float, /, *, log: bool) -> int | None:
        """Flat position in (outer, inner) of the first row with a negative entry, or whose probabilities (exp, if
        `log`) do not sum to 1 within `tolerance`; rows with a NaN pass.
        """


def loss_dtype(dtype: Any) -> Any:
    """The dtype of losses and logsumexp: float64 for float64 logits, else float32."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)
