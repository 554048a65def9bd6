"""The question asked: what should have been computed, from which numbers, and the true answer.

Inside this package the class axis stands last: z has shape (*R, C), R the shape of the rows.  `Question.restore`
brings a result back to the layout the caller expects.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softgrad import arguments, losses, products, softmax_ops
from softgrad.dispatch import use_backend

Floats = NDArray[Any]
Bools = NDArray[np.bool_]

WHATS = ("softmax", "log_softmax", "jacobian", "softmax_jvp", "softmax_vjp", "cross_entropy", "cross_entropy_grad")
PRODUCTS = {"softmax_jvp": "tangent", "softmax_vjp": "cotangent"}
LOSSES = ("cross_entropy", "cross_entropy_grad")


@dataclass(frozen=True)
class Question:
    """What the candidate was meant to compute, with every input judged."""

    what: str
    logits: Floats  # in the caller's layout and dtype
    axis: int  # non-negative
    targets: Floats | None = None
    vector: Floats | None = None  # the tangent or cotangent
    weight: Floats | None = None
    ignore_index: int | None = -100
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None
    reduction: str = "mean"

    # --- the numbers, class axis last, in float64 ------------------------------------------------------------------

    @cached_property
    def z(self) -> Floats:
        """Logits, (*R, C)."""
        return np.moveaxis(self.logits.astype(np.float64), self.axis, -1)

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """R, the shape of the rows."""
        return self.z.shape[:-1]

    @cached_property
    def indices(self) -> NDArray[np.int64] | None:
        """Class indices, R, or None where the targets are probabilities."""
        if self.targets is None or self.targets.ndim == self.logits.ndim:
            return None
        return self.targets.astype(np.int64)

    @cached_property
    def probabilities(self) -> Floats | None:
        """Target probabilities, (*R, C), or None where the targets are class indices."""
        if self.targets is None or self.targets.ndim != self.logits.ndim:
            return None
        return np.moveaxis(self.targets.astype(np.float64), self.axis, -1)

    @cached_property
    def v(self) -> Floats:
        """Tangents or cotangents, (*K, *R, C)."""
        assert self.vector is not None
        return np.moveaxis(self.vector.astype(np.float64), self.axis - self.logits.ndim, -1)

    def restore(self, x: Floats) -> Floats:
        """Numbers per class, (*K, *R, C), in the caller's layout."""
        back = self.axis - self.logits.ndim
        return x if back == -1 else np.moveaxis(x, -1, back)

    # --- the truth -------------------------------------------------------------------------------------------------

    @cached_property
    def truth(self) -> Floats:
        """The answer, by softgrad itself in float64."""
        vector = None if self.vector is None else self.vector.astype(np.float64)
        z, targets, options, divisor = self.logits.astype(np.float64), self.targets, self.options, 1.0
        hot = self.probabilities
        if hot is not None and not self.label_smoothing and _is_one_hot(hot):
            # One-hot rows are class indices, whose gradient keeps its digits; only their mean divides otherwise.
            targets, options = hot.argmax(-1), {**options, "ignore_index": None}
            if self.reduction == "mean":
                options["reduction"], divisor = "sum", float(targets.size)
        with use_backend("numpy"):
            answer = _call(self.what, z, targets, vector, options)
        return np.asarray(answer / divisor if divisor != 1.0 else answer)

    @cached_property
    def options(self) -> dict[str, Any]:
        """The options of `cross_entropy` as the caller gave them."""
        return {
            "axis": self.axis,
            "weight": self.weight,
            "ignore_index": self.ignore_index,
            "label_smoothing": self.label_smoothing,
            "z_loss": self.z_loss,
            "softcap": self.softcap,
            "reduction": self.reduction,
        }

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape the answer has."""
        return self.truth.shape

    def at(self, logits: Floats) -> Question:
        """The same question at other logits of the same shape."""
        return replace(self, logits=logits)


def _is_one_hot(T: Floats) -> bool:
    return bool(np.all((T == 0.0) | (T == 1.0)) and np.all(T.sum(axis=-1) == 1.0))


def ask(
    what: Any,
    logits: Any,
    *,
    targets: Any,
    tangent: Any,
    cotangent: Any,
    axis: Any,
    reduction: Any,
    options: dict[str, Any],
) -> Question:
    """Judge the arguments of `diagnose`, in the library's own order and words."""
    if what not in WHATS:
        raise ValueError(f"`what` is {what!r}; expected one of {', '.join(map(repr, WHATS))}")
    unknown = set(options) - {"weight", "ignore_index", "label_smoothing", "z_loss", "softcap", "check_targets"}
    if unknown:
        raise TypeError(f"diagnose() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    if options and what not in LOSSES:
        raise TypeError(f"what={what!r} does not take `{next(iter(options))}`")
    arguments.known_reduction(reduction)
    vectors = {"tangent": tangent, "cotangent": cotangent}
    for name, given in {**vectors, "targets": targets}.items():
        takes = what in LOSSES if name == "targets" else name == PRODUCTS.get(what)
        if (given is not None) != takes:
            raise TypeError(f"what={what!r} {'needs' if takes else 'does not take'} `{name}`")
    vector = vectors.get(PRODUCTS.get(what, ""))
    # The library judges its arguments itself: the very call that the candidate imitates.
    options = {"axis": axis, "reduction": reduction, **options}
    with use_backend("numpy"):
        _call(what, logits, targets, vector, options)
    z = np.asarray(logits)
    if z.dtype.kind in "iuf" and not isinstance(logits, np.ndarray):
        z = z.astype(np.float64)
    if z.size == 0:
        raise ValueError(f"`logits` has shape {z.shape}; there is nothing to compare in an empty array")
    weight = options.get("weight")
    return Question(
        what=what,
        logits=z,
        axis=int(axis) % z.ndim,
        targets=None if targets is None else np.asarray(targets),
        vector=None if vector is None else np.asarray(vector),
        weight=None if weight is None else np.asarray(weight),
        ignore_index=options.get("ignore_index", -100),
        label_smoothing=float(options.get("label_smoothing", 0.0)),
        z_loss=float(options.get("z_loss", 0.0)),
        softcap=None if options.get("softcap") is None else float(options["softcap"]),
        reduction=reduction,
    )


def _call(what: str, logits: Any, targets: Any, vector: Any, options: dict[str, Any]) -> Any:
    """What softgrad itself answers."""
    axis = options["axis"]
    if what == "softmax":
        return softmax_ops.softmax(logits, axis=axis)
    if what == "log_softmax":
        return softmax_ops.log_softmax(logits, axis=axis)
    if what == "jacobian":
        return products.softmax_jacobian(logits=logits, axis=axis)
    if what == "softmax_jvp":
        return products.softmax_jvp(vector, logits=logits, axis=axis)
    if what == "softmax_vjp":
        return products.softmax_vjp(vector, logits=logits, axis=axis)
    if what == "cross_entropy":
        return losses.cross_entropy(logits, targets, **options)
    return losses.cross_entropy_grad(logits, targets, **options)
