"""What a backend is: a module with the functions of `Backend`, each over an (outer, C, inner) view.

Whatever the user passed, a primitive sees three axes: `outer` rows before the class axis, `C` classes, `inner` rows
after it (1 when the class axis is last).  Arrays are the backend's own kind, of any strides, and already checked:
a primitive contains mathematics and memory traffic, no policy.

    z, p, out, grad   (outer, C, inner)       dtype float64 | float32 | float16 | bfloat16
    v                 (K, outer, C, inner)    K tangents, any real dtype; strides may be 0
    their out         (K, outer, C, inner)    dtype of z
    targets           (outer, inner) integers, any integer dtype; or (outer, C, inner) probabilities, any real dtype
    weight            (C,)                    any real dtype, or None
    loss, lse         (outer, inner)          or () for a reduced loss: float64, or float32 for all other z
    its derivative    (K, outer, inner)       or (K,), dtype of the loss

A real dtype is one of the four, or any integer dtype, in the machine's byte order: longer ones arrive as float64.

A result as large as the logits is written to an array that is handed in: it may be the caller's, so it may be the very
same view as one input, and shares no element with any other.  One with a number per row or fewer is returned, new, so
that a device backend may put it and its scratch memory into one allocation; losses and their derivatives may have outer
· inner as one axis.  Results are rounded once.  The same row gives the same bits wherever it stands: classes are added
in an order fixed by C and by whether their axis is contiguous, reduced losses in a tree fixed by the number of rows.

Of an adopted array the code above uses `shape`, `strides` (bytes), `dtype`, `itemsize`, `ndim`, `size`, `flags`,
`reshape` (a view where the strides allow one, else a copy), `astype`, and where it must `transpose` and
`array[...] = other`; of its `flags` only `c_contiguous` and, if there is one, `writeable`.  No value is read, unless
to word an error: then indexing, `int` and `tolist`.

A module that cannot serve on this machine raises ImportError with the reason when it is imported.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

Array = Any


class Loss(NamedTuple):
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
    With `check_targets` an integer target outside [0, C) that is not `ignore_index` is a `BadTargetError`, raised
    before anything is written: whoever reads the targets judges them.
    """

    z: Array
    targets: Array
    weight: Array | None = None
    ignore_index: int | None = -100
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None
    reduction: str = "mean"
    grad_output: Array | float = 1.0  # a float, or (outer, inner) of any real dtype; on a device a 0-d array too
    check_targets: bool = False

    @property
    def dense(self) -> bool:
        """Whether the targets are probabilities, one per class."""
        return self.targets.ndim == self.z.ndim


class BadTargetError(Exception):
    """The first target that is neither in [0, C) nor ignored stands at this flat position in (outer, inner)."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class Backend(Protocol):
    """The row primitives, and the few services that let everything above be written once."""

    # --- arrays -------------------------------------------------------------------------------------------------
    CHECKS_VALUES: bool
    """Whether targets and probabilities are checked unless asked otherwise: yes where that needs no synchronisation."""

    TAKES_TWO_AXES: bool
    """Whether logits of shape (outer, C) are taken without a view of three axes, which takes time to make.  In such a
    call (outer, C) is (outer, C, 1), or of one tangent (1, outer, C, 1), and targets for each row are (outer,).
    """

    def adopt(self, name: str, array: Any, like: Array | None = None, /) -> Array:
        """The backend's own array over the caller's memory, on the device of `like`, the main input (None for itself).

        TypeError, naming the argument, where that cannot be: `registry.unserved` words it.  The argument `out` must be
        memory that a caller may see change.
        """

    def release(self, array: Array, like: Any, /) -> Any:
        """A result as the kind of array that `like`, the caller's main input, is; a 0-d one as a reduction gives it."""

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

    def logsumexp(self, z: Array, /) -> Array:
        """log Σ exp(z), (outer, inner); −inf where C is 0."""

    # --- products: `point` is logits (is_logits) or the softmax (its logarithm, for the log_ pair) ------------------
    def softmax_product(self, v: Array, point: Array, out: Array, /, *, is_logits: bool) -> None:
        """J v = p (u − Σ p u), u = v − v[k], k the first largest class; J is symmetric, so this is JVP and VJP."""

    def log_softmax_jvp(self, v: Array, point: Array, out: Array, /, *, is_logits: bool) -> None:
        """v − Σ p v, as u − Σ p u."""

    def log_softmax_vjp(self, v: Array, point: Array, out: Array, /, *, is_logits: bool) -> None:
        """v − p Σ v."""

    # --- cross-entropy -----------------------------------------------------------------------------------------------
    def cross_entropy(self, problem: Loss, grad: Array | None, /, *, with_loss: bool) -> Array | None:
        """The loss, if asked for, and d(loss · grad_output)/dz, if `grad` is given, in one pass."""

    def cross_entropy_jvp(self, problem: Loss, v: Array, /) -> Array:
        """The loss's derivative along each tangent: (K, outer, inner), or (K,) when reduced."""

    def cross_entropy_hvp(self, problem: Loss, v: Array, out: Array, /) -> None:
        """Hessian · v of the loss (of Σ grad_output · loss): (K, outer, C, inner)."""

    # --- values -------------------------------------------------------------------------------------------------------
    def first_bad_row(self, probs: Array, tolerance: float, /, *, log: bool) -> int | None:
        """Flat position in (outer, inner) of the first row with a negative entry, or whose probabilities (exp, if
        `log`) do not sum to 1 within `tolerance`; rows with a NaN pass.
        """


# The names of a backend: what it is besides its primitives, and these.
SERVICES = ("CHECKS_VALUES", "TAKES_TWO_AXES", "adopt", "release", "empty", "unit_tangents", "overlap")
PRIMITIVES = (
    "softmax", "log_softmax", "logsumexp", "softmax_product", "log_softmax_jvp", "log_softmax_vjp", "cross_entropy",
    "cross_entropy_jvp", "cross_entropy_hvp", "first_bad_row",
)  # fmt: skip


def members(services: object, primitives: object) -> dict[str, Any]:
    """A backend's members by name: its services, from what has them as attributes, and its primitives likewise."""
    return {name: getattr(services, name) for name in SERVICES} | {
        name: getattr(primitives, name) for name in PRIMITIVES
    }


_FLOAT64, _FLOAT32 = np.dtype(np.float64), np.dtype(np.float32)


def loss_dtype(dtype: Any) -> Any:
    """The dtype of losses and logsumexp: float64 for float64 logits, else float32."""
    return _FLOAT64 if dtype == _FLOAT64 else _FLOAT32
