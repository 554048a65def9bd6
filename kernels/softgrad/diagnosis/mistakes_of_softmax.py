"""Mistakes in softmax itself: what it is applied to, along which axis, and how the exponentials are taken."""

from __future__ import annotations

import math
from collections.abc import Iterable

from softgrad.diagnosis.mistake import Changes, Mistake, Ways, derivative, is_loss
from softgrad.diagnosis.question import PRODUCTS, Question

_CALL_IT = {
    "jacobian": "J = jacobian_at(softmax(z))        # not jacobian_at(z)",
    "softmax_jvp": "A = softmax(z); Jv = A * (v - (A * v).sum(axis, keepdims=True))",
    "softmax_vjp": "A = softmax(z); dz = A * (g - (A * g).sum(axis, keepdims=True))",
    "cross_entropy_grad": "A = softmax(z); dz = (A - T) / N        # and J, where you multiply by it, from A too",
    "cross_entropy": "loss = -(T * np.log(softmax(z))).sum() / N",
}


def _logits_as_probs(q: Question) -> Iterable[tuple[str, Changes]]:
    yield "", {"point": "logits"}
    if q.what == "cross_entropy_grad":
        yield "the Jacobian is taken at Z, dE/dA = −T/A at A", {"point": "logits in J"}
        yield "dE/dA is taken as −T/Z, the Jacobian at A", {"point": "logits in dE/dA"}


def _softmax_twice(q: Question) -> Iterable[tuple[str, Changes]]:
    yield "", {"fed": "probs"}
    if derivative(q):
        yield "differentiated through both", {"fed": "through"}
    if q.what == "cross_entropy_grad":
        yield "in the Jacobian; dE/dA = −T/A is taken at A", {"fed": "probs", "outer": "right"}


def _wrong_axis(q: Question) -> Iterable[tuple[str, Changes]]:
    others = [axis for axis in range(q.logits.ndim) if axis != q.axis]
    for k, axis in enumerate(others):
        over = k - q.logits.ndim  # with the class axis moved to the end
        yield f"softmax sums over axis {axis}, the classes lie along axis {q.axis}", {"over": over}
        if q.what == "cross_entropy_grad":
            yield f"in the Jacobian, softmax sums over axis {axis}", {"over": over, "outer": "right"}
        if q.what in PRODUCTS:
            yield f"all sums run over axis {axis}, the classes lie along {q.axis}", {"over": over, "sum_over": over}
            yield f"Σ A v runs over axis {axis}, the classes lie along axis {q.axis}", {"sum_over": over}
        if q.what == "jacobian":
            yield f"the matrix couples the entries along axis {axis}", {"over": over, "output": "other axis"}
    if others:
        yield "the sum runs over every entry: `axis` is missing", {"over": None}
        if q.what in PRODUCTS:
            yield "Σ A v runs over every entry: `axis` is missing", {"sum_over": None}
            yield "both sums run over every entry: `axis` is missing", {"over": None, "sum_over": None}
    elif q.what in PRODUCTS and q.v.ndim > 1:
        yield "Σ A v runs over all tangents: `axis` is missing", {"sum_over": None}


def _keepdims(q: Question) -> Iterable[tuple[str, Changes]]:
    if q.logits.ndim > 1:
        yield "in the sum of exponentials", {"keepdims": False}
        if q.what in PRODUCTS:
            yield "in Σ A v", {"sum_keepdims": False}
            yield "in both sums", {"keepdims": False, "sum_keepdims": False}


def _wrong_base(q: Question) -> Iterable[tuple[str, Changes]]:
    for base in (2, 10):
        yield f"{base}ᶻ in place of eᶻ", {"base": float(base)}
        if derivative(q):
            yield f"{base}ᶻ in place of eᶻ, differentiated", {"base": float(base), "gain": math.log(base)}
        if q.what in ("log_softmax", "cross_entropy", "cross_entropy_grad"):
            yield f"log{'₂' if base == 2 else '₁₀'} in place of ln", {"log_base": float(base)}


def _no_max_shift(q: Question) -> Iterable[tuple[str, Changes]]:
    yield "", {"shifted": False}


def _log_of_softmax(q: Question) -> Iterable[tuple[str, Changes]]:
    if q.what in ("log_softmax", "cross_entropy"):
        yield "log(exp(z) / Σ exp(z))", {"log": "of probs", "shifted": False}
        yield "log(softmax(z))", {"log": "of probs"}


def _epsilon(q: Question) -> Iterable[tuple[str, Changes]]:
    if is_loss(q) or q.what == "log_softmax":
        for eps in (1e-15, 1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3):
            yield f"ε = {eps:g} is added", {"added": eps}
            yield f"clipped to [{eps:g}, 1 − {eps:g}]", {"added": eps, "clipped": True}


def _not_normalised(q: Question) -> Iterable[tuple[str, Changes]]:
    yield "exp(z) is not divided by its sum", {"form": "exp"}
    yield "exp(z − max z) is not divided by its sum", {"form": "exp shifted"}


def _not_exponentiated(q: Question) -> Iterable[tuple[str, Changes]]:
    yield "", {"form": "linear"}


def _sigmoid(q: Question) -> Iterable[tuple[str, Changes]]:
    yield "", {"form": "sigmoid"}


def _hardmax(q: Question) -> Iterable[tuple[str, Changes]]:
    if q.what != "jacobian" and q.what not in PRODUCTS:
        yield "", {"form": "hardmax"}


def _negated(q: Question) -> Iterable[tuple[str, Changes]]:
    yield "", {"fed": "negated"}


def _temperature(q: Question) -> Iterable[tuple[str, Changes]]:
    root = math.sqrt(q.z.shape[-1])
    for value, name in ((2.0, "2"), (0.5, "1/2"), (10.0, "10"), (0.1, "1/10"), (root, "√C"), (1.0 / root, "1/√C")):
        if value not in (1.0, 2.0, 0.5) or name in ("2", "1/2"):
            yield f"z is divided by {name}", {"temperature": value}


def _logarithm(q: Question) -> Iterable[tuple[str, Changes]]:
    if q.what == "softmax":
        yield "log A is returned, A was asked for", {"output": "log"}
    elif q.what == "log_softmax":
        yield "A is returned, log A was asked for", {"output": "exp"}


def _derivative_returned(q: Question) -> Iterable[tuple[str, Changes]]:
    if q.what == "softmax":
        yield "", {"output": "derivative"}


def _softcap(changes: Changes, *, gradient_only: bool = False) -> Ways:
    def ways(q: Question) -> Iterable[tuple[str, Changes]]:
        if q.softcap is not None and (q.what == "cross_entropy_grad" or not gradient_only):
            yield "", changes

    return ways


MISTAKES = (
    Mistake(
        "logits-as-probs",
        "logits (Z) where probabilities (A) belong",
        "The derivative of softmax is written with its output: aᵢ, not zᵢ. Given Z, the same code computes something "
        "else without complaint.",
        "∂aᵢ/∂zⱼ = aᵢ([i=j] − aⱼ),  A = softmax(Z)",
        _CALL_IT,
        _logits_as_probs,
    ),
    Mistake(
        "softmax-twice",
        "softmax applied to probabilities",
        "Softmax of a softmax is a much flatter distribution; a loss that applies softmax itself wants logits.",
        "softmax(softmax(z)) ≠ softmax(z)",
        {"*": "pass z itself: the function applies softmax once"},
        _softmax_twice,
    ),
    Mistake(
        "wrong-axis",
        "sums along the wrong axis",
        "Each row is a distribution of its own: exponentials and products are summed over the classes, never over the "
        "batch.",
        "aᵢ = exp(zᵢ) / Σⱼ exp(zⱼ),  j over the classes of that row",
        {
            "softmax": "A = e / e.sum(axis=-1, keepdims=True)        # the class axis",
            "softmax_jvp": "Jv = A * (v - (A * v).sum(axis=-1, keepdims=True))        # the class axis, in both sums",
            "softmax_vjp": "dz = A * (g - (A * g).sum(axis=-1, keepdims=True))        # the class axis, in both sums",
            "*": "A = e / e.sum(axis=-1, keepdims=True)        # the class axis",
        },
        _wrong_axis,
    ),
    Mistake(
        "keepdims-forgotten",
        "a sum without keepdims",
        "Without keepdims the sums (B,) line up with the classes (B, C) when B = C: column j is divided by the sum of "
        "row j.",
        "(B, C) / (B, 1), not (B, C) / (B,)",
        {"*": "e.sum(axis=-1, keepdims=True)"},
        rare_ways=_keepdims,
    ),
    Mistake(
        "no-max-shift",
        "exp(z) without subtracting the maximum",
        "Softmax does not change when a constant is added to a row, but exp overflows (beyond 88.7 in float32, 709.8 "
        "in float64) or underflows, and inf/inf and 0/0 are NaN.",
        "softmax(z) = softmax(z − max z)",
        {"*": "e = np.exp(z - z.max(axis=-1, keepdims=True))"},
        _no_max_shift,
    ),
    Mistake(
        "log-of-unstable-softmax",
        "the logarithm of a probability that overflowed or underflowed",
        "log A is finite where A itself is 0 or NaN in floating point: take the logarithm before dividing.",
        "log aᵢ = (zᵢ − m) − log Σ exp(zⱼ − m),  m = max z",
        {
            "cross_entropy": "u = z - z.max(-1, keepdims=True); log_A = u - np.log(np.exp(u).sum(-1, keepdims=True))",
        },
        _log_of_softmax,
    ),
    Mistake(
        "epsilon-added",
        "a small number added to (or a clip of) the probabilities",
        "It hides log(0), and changes every other number; with log-softmax nothing needs hiding.",
        "−log(aᵢ + ε) ≠ −log aᵢ",
        {
            "cross_entropy_grad": "dz = (A - T) / N        # no quotient T / A is left in it",
            "cross_entropy": "u = z - z.max(-1, keepdims=True); log_A = u - np.log(np.exp(u).sum(-1, keepdims=True))",
        },
        rare_ways=_epsilon,
    ),
    Mistake(
        "wrong-base",
        "another base than e",
        "Exponentials and logarithms of base 2 or 10 give another function: log₂ x = ln x / ln 2.",
        "softmax uses eᶻ, cross-entropy ln",
        {"log_softmax": "np.log, not np.log2 or np.log10; np.exp, not 2 ** z", "*": "np.exp and np.log"},
        _wrong_base,
    ),
    Mistake(
        "not-normalised",
        "exponentials that are not divided by their sum",
        "Without the division nothing couples the classes, and the numbers are no probabilities.",
        "aᵢ = exp(zᵢ) / Σⱼ exp(zⱼ)",
        {"*": "A = e / e.sum(axis=-1, keepdims=True)"},
        _not_normalised,
    ),
    Mistake(
        "exp-forgotten",
        "z / Σz, without exponentials",
        "Dividing by the sum alone is no softmax: negative logits give negative numbers.",
        "aᵢ = exp(zᵢ) / Σⱼ exp(zⱼ)",
        {"*": "e = np.exp(z - z.max(axis=-1, keepdims=True)); A = e / e.sum(axis=-1, keepdims=True)"},
        rare_ways=_not_exponentiated,
    ),
    Mistake(
        "sigmoid-for-softmax",
        "the logistic function of each logit",
        "The sigmoid treats each class alone; its outputs do not sum to 1.",
        "1 / (1 + exp(−zᵢ)) ≠ exp(zᵢ) / Σⱼ exp(zⱼ)",
        {"*": "A = e / e.sum(axis=-1, keepdims=True)        # e = exp(z − max z)"},
        rare_ways=_sigmoid,
    ),
    Mistake(
        "argmax-for-softmax",
        "1 at the largest logit, 0 elsewhere",
        "The arg max is the limit of softmax for ever larger logits, and has no useful derivative.",
        "aᵢ = exp(zᵢ) / Σⱼ exp(zⱼ)",
        {"*": "A = e / e.sum(axis=-1, keepdims=True)        # e = exp(z − max z)"},
        rare_ways=_hardmax,
    ),
    Mistake(
        "logits-negated",
        "softmax of −z",
        "The largest logit has the largest probability: exp(+z).",
        "aᵢ = exp(+zᵢ) / Σⱼ exp(+zⱼ)",
        {"*": "e = np.exp(z - z.max(axis=-1, keepdims=True))        # not z.max() - z"},
        _negated,
    ),
    Mistake(
        "temperature-applied",
        "logits scaled before softmax",
        "A temperature is part of the model, not of softmax; where it is meant, give the scaled logits to diagnose.",
        "softmax(z / τ) ≠ softmax(z)",
        {"*": "use z, not z / τ"},
        rare_ways=_temperature,
    ),
    Mistake(
        "logarithm-mixed-up",
        "A and log A confused",
        "The logarithm of the probabilities was returned for the probabilities, or the other way round.",
        "log A = z − log Σ exp(z)",
        {},
        rare_ways=_logarithm,
    ),
    Mistake(
        "derivative-returned",
        "A(1 − A) in place of A",
        "That is the diagonal of softmax's Jacobian, not softmax.",
        "A = exp(z) / Σ exp(z)",
        {},
        rare_ways=_derivative_returned,
    ),
    Mistake(
        "softcap-ignored",
        "softcap left out",
        "With softcap s every logit is replaced by s·tanh(z/s) before all else.",
        "z ← s·tanh(z/s)",
        {"*": "z = s * np.tanh(z / s)        # first"},
        _softcap({"cap": "ignored"}),
    ),
    Mistake(
        "softcap-slope-ignored",
        "the softcap's own derivative left out",
        "The gradient with respect to the raw logits goes through s·tanh(z/s), whose slope is 1 − tanh²(z/s).",
        "dE/dz = (A − T) · (1 − tanh²(z/s))",
        {"*": "dz = (A - T) * (1 - np.tanh(z / s) ** 2) / N"},
        _softcap({"slope": False}, gradient_only=True),
    ),
    Mistake(
        "softcap-clipped",
        "logits clipped to ±s in place of the smooth cap",
        "np.clip(z, −s, s) has no slope beyond s; the softcap is s·tanh(z/s).",
        "z ← s·tanh(z/s)",
        {"*": "z = s * np.tanh(z / s)"},
        _softcap({"cap": "clipped"}),
    ),
)
