"""Mistakes that show in the finished numbers: a factor, a layout, lost digits, numbers that are none."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from math import prod
from typing import NamedTuple

from softgrad.diagnosis.mistake import Mistake
from softgrad.diagnosis.question import LOSSES, Floats, Question

MISTAKES = (
    Mistake(
        "transposed",
        "axes swapped",
        "The numbers are right for the transposed array.",
        "the answer has the layout of the logits (a Jacobian: rows first, then [i, j] = ∂aᵢ/∂zⱼ)",
        {"*": "return result.T        # for more axes np.moveaxis"},
    ),
    Mistake(
        "reduction-scale",
        "off by a count of rows, classes or weights",
        "A mean divides once, by the number of rows that count (with class weights: by the sum of their weights); a "
        "sum and 'none' do not divide. The loss and its gradient divide alike.",
        "mean: Σ rows / N;  sum: Σ rows",
        {
            "cross_entropy": "'mean': loss.sum() / N; 'sum': loss.sum()        # N: the rows that count",
            "cross_entropy_grad": "'mean': (A - T) / N; 'sum', 'none': A - T        # N: the rows that count",
            "*": "do not divide by (or multiply with) a number of rows here",
        },
    ),
    Mistake(
        "sign-flipped",
        "the opposite sign",
        "Every number has the other sign.",
        "E = −Σ Tᵢ log aᵢ;  dE/dZ = A − T;  J = diag(A) − A Aᵀ",
        {
            "cross_entropy_grad": "dz = (A - T) / N        # not T - A",
            "cross_entropy": "loss = -(T * log_A).sum() / N        # minus",
            "softmax": "A = +e / e.sum(axis, keepdims=True)",
            "log_softmax": "log_A = u - np.log(np.exp(u).sum(axis, keepdims=True))        # not -log_A",
        },
    ),
    Mistake(
        "factor-two",
        "off by a factor of 2",
        "The ½ (or 2) of a squared error has no place in a cross-entropy.",
        "E = −Σ Tᵢ log aᵢ",
        {"*": "remove the 0.5 (or 2)"},
    ),
    Mistake(
        "lost-digits",
        "the right formula, digits lost to rounding",
        "Where a probability rounds to 1, p − 1 (and 1 − p, and log p) has no correct digit left: what is left over is "
        "the rounding of p. The sum of the other classes' probabilities keeps them all.",
        "p_t − 1 = −Σ_{j≠t} pⱼ;  −log p_t = log1p(Σ_{j≠t} exp(zⱼ − z_t))",
        {
            "jacobian": "J[k][k] = a[k] * (a.sum() - a[k])        # summed without a[k]; softgrad.softmax_jacobian",
            "cross_entropy_grad": "dz = softgrad.cross_entropy_grad(z, t)        # sums the other classes for p_t - 1",
            "cross_entropy": "loss = np.log1p(np.exp(others - z_t).sum())        # softgrad.cross_entropy(z, t)",
            "softmax_jvp": "u = v - v[k]; Jv = A * (u - (A * u).sum())    # k = argmax; softgrad.softmax_jvp",
            "softmax_vjp": "u = g - g[k]; dz = A * (u - (A * u).sum())    # k = argmax; softgrad.softmax_vjp",
            "*": "compute in float64, or use softgrad",
        },
    ),
    Mistake(
        "not-finite",
        "NaN or infinity",
        "The answer is finite there.",
        "0/0, inf/inf, inf − inf and log of a negative number are NaN; log 0 and x/0 are infinite",
        {"*": "subtract the row's maximum before exp; take log-softmax, not the log of softmax"},
    ),
    Mistake(
        "wrong-shape",
        "the result has another shape",
        "",
        "a Jacobian has the shape of the logits without the class axis, then (C, C); products and gradients that of "
        "their vector; a loss one number per row, or one",
        {},
    ),
    Mistake(
        "wrong-dtype",
        "the result is not of a floating dtype",
        "Numbers written into an integer array (np.diag, np.zeros_like of an integer array) are cut to whole numbers.",
        "",
        {"*": "z = np.asarray(z, dtype=float)        # first"},
    ),
    Mistake(
        "raises",
        "the function raises an error",
        "",
        "",
        {"*": "see the error above"},
    ),
)


class Factor(NamedTuple):
    """A factor between the right numbers and the candidate's, and the mistakes it stands for."""

    value: float
    mistakes: tuple[str, ...]
    note: str


def factors(q: Question, divisor: float) -> list[Factor]:
    """1, −1, and every ratio of counts that a wrong reduction leaves, with either sign.

    `divisor` is what the computation at hand has divided by: 1 unless the reduction is a mean.
    """
    rows, classes = prod(q.rows), q.z.shape[-1]
    counts: dict[str, float] = {"B": rows, "C": classes, "B·C": rows * classes}
    right = {"1": 1.0}
    if q.what in LOSSES:
        counted = float(rows)
        if q.indices is not None and q.ignore_index is not None:
            counted = float((q.indices != q.ignore_index).sum())
            counts["N"] = counted
        if q.weight is not None:
            w = q.weight.astype(float)
            counts["ΣW"] = float(w.sum())
            if q.indices is not None:
                kept = q.indices[q.indices != q.ignore_index] if q.ignore_index is not None else q.indices
                counts["Σw[t]"] = float(w[kept].sum())
        if q.reduction == "mean":
            right[next((name for name, n in counts.items() if n == divisor), "the divisor")] = divisor
    if len(q.rows) > 1:
        others = [n for axis, n in enumerate(q.logits.shape) if axis != q.axis]
        counts |= {f"axis of {n}": n for n in others}
    scales: dict[float, str] = {}
    for right_name, numerator in right.items():
        for name, n in {"1": 1.0, **counts}.items():
            for top, bottom, note in (
                (numerator, n, f"{right_name}/{name}"),
                (n, numerator, f"{name}/{right_name}"),
            ):
                if bottom and top:
                    scales.setdefault(top / bottom, note)
    found = [Factor(1.0, (), ""), Factor(-1.0, ("sign-flipped",), "")]
    for value, note in scales.items():
        if value not in (1.0, -1.0):
            said = {"B": rows, "C": classes}
            legend = ", ".join(f"{k} = {v:g}" for k, v in (said | counts).items() if k in note.split("/"))
            found.append(Factor(value, ("reduction-scale",), f"by {note}: {legend}"))
            found.append(Factor(-value, ("reduction-scale", "sign-flipped"), f"by {note}: {legend}"))
    for value in (2.0, 0.5):
        if value not in scales:
            found.append(Factor(value, ("factor-two",), f"by {value:g}"))
            found.append(Factor(-value, ("factor-two", "sign-flipped"), f"by {value:g}"))
    return found


class View(NamedTuple):
    """The candidate's numbers in the layout of the answer, and the mistakes that brought them out of it."""

    numbers: Floats
    mistakes: tuple[str, ...]
    note: str


def views(candidate: Floats, shape: tuple[int, ...]) -> Iterator[View]:
    """Every way in which the candidate may be the answer in another layout."""
    if candidate.shape == shape:
        yield View(candidate, (), "")
    for order in _orders(candidate.ndim):
        turned = candidate.transpose(order)
        if turned.shape == shape:
            yield View(turned, ("transposed",), f"shape {candidate.shape}: axes {order} of it are meant")
    if candidate.shape != shape and squeezed(candidate.shape) == squeezed(shape):
        yield View(candidate.reshape(shape), ("wrong-shape",), f"shape {candidate.shape}, expected {shape}")


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without axes of length 1."""
    return tuple(n for n in shape if n != 1)


def _orders(ndim: int) -> Iterator[tuple[int, ...]]:
    """Permutations of the axes, the most usual first."""
    identity = tuple(range(ndim))
    if 2 <= ndim <= 4:
        yield identity[::-1]
        yield from (order for order in permutations(identity) if order not in (identity, identity[::-1]))
