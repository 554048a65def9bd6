"""Calling what people write: which argument is which, on copies, and what came back as numbers.

Arguments go by name where the names are the field's own (z, logits, x; t, y, labels, targets; v, g, tangent,
cotangent, …), else by place: (logits), (logits, targets), (vector, logits) and (logits, vector).  A function of one
argument gets the logits, even if it calls them `p`: a derivative that wants A and is given Z is the commonest
mistake there is.  An option (axis, weight, …) is passed where the function requires it, or has a parameter of that
name and the caller of `diagnose` gave it.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softgrad.diagnosis.question import LOSSES, PRODUCTS, Floats, Question

_NAMES = {
    "logits": {"logits", "logit", "z", "zs", "x", "xs", "scores", "p", "ps", "probs", "prob", "a", "s", "softmax"},
    "targets": {"targets", "target", "t", "ts", "y", "ys", "labels", "label", "y_true", "one_hot", "onehot", "truth"},
    "vector": {
        "tangent", "cotangent", "v", "vs", "vec", "vector", "u", "g", "gs", "grad", "grad_output", "grad_out", "dy",
        "dz", "da", "dp", "dout", "upstream", "direction", "de_da", "delta",
    },
}  # fmt: skip
_OPTIONS = {
    "axis": "axis",
    "weight": "weight",
    "weights": "weight",
    "class_weight": "weight",
    "ignore_index": "ignore_index",
    "label_smoothing": "label_smoothing",
    "smoothing": "label_smoothing",
    "z_loss": "z_loss",
    "softcap": "softcap",
    "reduction": "reduction",
}
_DEFAULTS = {"axis": -1, "weight": None, "ignore_index": -100, "label_smoothing": 0.0, "z_loss": 0.0, "softcap": None,
             "reduction": "mean"}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """A result that is no array of numbers."""

    mistake: str
    text: str
    error: str = ""  # the type of what was raised


@dataclass(frozen=True)
class Outcome:
    """What one call of the candidate gave."""

    numbers: Floats | None
    dtype: Any
    fault: Fault | None = None
    changed: tuple[str, ...] = ()  # arguments the function wrote to


@dataclass(frozen=True)
class Order:
    """Which role each argument plays."""

    positional: tuple[str, ...]
    keyword: tuple[tuple[str, str], ...] = ()

    def takes(self, role: str) -> bool:
        """Whether the function is given this."""
        return role in self.positional or role in dict(self.keyword).values()

    def spelled(self) -> str:
        """The arguments as one reads them in a call."""
        return ", ".join([*self.positional, *(f"{name}=" for name, _ in self.keyword)])


def orders(function: Callable[..., Any], q: Question) -> list[Order]:
    """The ways in which the function may want to be called, the likeliest first."""
    needed = ["logits", *(["targets"] if q.what in LOSSES else ["vector"] if q.what in PRODUCTS else [])]
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a builtin tells nothing
        return [Order(tuple(needed)), Order(("logits",))]
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in by_place if p.default is p.empty]
    roles: list[str | None] = [_OPTIONS.get(p.name) for p in required]
    free = [i for i, role in enumerate(roles) if role is None]
    remaining = list(needed)
    for i in free:
        role = _role(required[i].name, remaining)
        if role and not (len(free) == 1 and role == "targets"):
            roles[i] = role
            remaining.remove(role)
    open_places = [i for i in free if roles[i] is None]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) and not required:
        return [Order(("logits", *needed[1:])), Order((*needed[1:], "logits"))][: len(needed)]
    fillings = [remaining] if len(open_places) < 2 or "vector" not in remaining else [remaining[::-1], remaining]
    found = []
    for filling in fillings:
        complete = list(roles)
        for place, role in zip(open_places, filling, strict=False):
            complete[place] = role
        positional = [role for role in complete if role is not None]
        found.append(Order(*_by_keyword(parameters, required, positional, needed, q)))
    return found


def _role(name: str, remaining: list[str]) -> str | None:
    lower = name.lower()
    return next((role for role in remaining if lower in _NAMES[role]), None)


def _by_keyword(
    parameters: list[inspect.Parameter],
    required: list[inspect.Parameter],
    positional: list[str],
    needed: list[str],
    q: Question,
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Optional parameters that are plainly meant for what is not passed yet, and the options given."""
    optional = [p for p in parameters if p not in required and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    keyword: list[tuple[str, str]] = []
    given = {name for name, default in _DEFAULTS.items() if _given(q, name, default)}
    for p in optional:
        missing = [role for role in needed if role not in positional and role not in dict(keyword).values()]
        role = _role(p.name, missing)
        option = _OPTIONS.get(p.name)
        if role:
            keyword.append((p.name, role))
        elif option and (option in given or p.default is p.empty):
            keyword.append((p.name, option))
    if not positional and "logits" not in dict(keyword).values():
        place = next((p for p in optional if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in dict(keyword)), None)
        if place is not None:
            positional = ["logits"]
    return tuple(positional), tuple(keyword)


def _given(q: Question, name: str, default: Any) -> bool:
    value = getattr(q, name)
    if name == "axis":
        return bool(value != q.logits.ndim - 1)
    return value is not default and value is not None and not (np.ndim(value) == 0 and value == default)


def call(function: Callable[..., Any], q: Question, order: Order) -> Outcome:
    """One call, on copies of the arrays; floating-point warnings of the candidate are not shown."""
    originals = {role: getattr(q, role) for role in (*order.positional, *dict(order.keyword).values())}
    given = {role: value.copy() if isinstance(value, np.ndarray) else value for role, value in originals.items()}
    arguments = [given[role] for role in order.positional]
    keywords = {name: given[role] for name, role in order.keyword}
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            result = function(*arguments, **keywords)
            numbers, dtype, fault = as_numbers(result, returned=True)
    except (Exception, SystemExit) as error:
        kind = type(error).__name__
        fault = Fault("raises", f"called with ({order.spelled()}) it raises {kind}: {error}", kind)
        return Outcome(None, None, fault)
    changed = tuple(
        role
        for role, value in originals.items()
        if isinstance(value, np.ndarray) and not np.array_equal(value, given[role], equal_nan=value.dtype.kind == "f")
    )
    return Outcome(numbers, dtype, fault, changed)


def as_numbers(result: Any, *, returned: bool = False) -> tuple[Floats | None, Any, Fault | None]:
    """A candidate as float64, with its own dtype; or what is wrong with it."""
    verb = "it returned" if returned else "the candidate is"
    if result is None:
        return None, None, Fault("wrong-dtype", f"{verb} None: is a `return` missing?")
    if hasattr(result, "detach"):
        result = result.detach().cpu().numpy()
    elif hasattr(result, "get") and hasattr(result, "__cuda_array_interface__"):
        result = result.get()
    elif hasattr(result, "copy_to_host"):
        result = result.copy_to_host()
    try:
        array = np.asarray(result)
    except (ValueError, TypeError) as error:
        return None, None, Fault("wrong-shape", f"{verb} no rectangular array of numbers: {error}")
    dtype = array.dtype
    if dtype.kind in "iu" and (isinstance(result, list | tuple | int) or np.ndim(result) == 0):
        return array.astype(np.float64), np.dtype(np.float64), None
    if dtype.kind == "f" or dtype.name == "bfloat16":
        return array.astype(np.float64), dtype, None
    return (
        None,
        dtype,
        Fault("wrong-dtype", f"{verb} an array of dtype {dtype}, shape {array.shape}; floats are expected"),
    )


# --- functions of one row, or of a batch only -----------------------------------------------------------------------


def batch_of_one(q: Question) -> Question | None:
    """The same question with one more axis in front, for functions that want a batch."""
    if q.logits.ndim != 1:
        return None
    return replace(
        q,
        logits=q.logits[None],
        axis=q.axis + 1,
        targets=None if q.targets is None else q.targets[None],
        vector=None if q.vector is None else np.expand_dims(q.vector, q.vector.ndim - 1),
    )


def out_of_batch(q: Question, outer: Question, outcome: Outcome) -> Outcome | None:
    """The answer without the axis that `batch_of_one` added."""
    if outcome.numbers is None or outcome.numbers.shape != outer.shape:
        return None
    return replace(outcome, numbers=outcome.numbers.reshape(q.shape))


def one_row_each(q: Question) -> Iterator[tuple[tuple[int, ...], Question]]:
    """The questions of the single rows."""
    for at in np.ndindex(*q.rows):
        vector = None if q.vector is None else np.ascontiguousarray(q.v[at])
        z = np.moveaxis(q.logits, q.axis, -1)[at]
        yield at, replace(q, logits=np.ascontiguousarray(z), axis=0, vector=vector)


def row_by_row(function: Callable[..., Any], q: Question, order: Order) -> Outcome | None:
    """The answer put together from calls with one row; None where that makes no sense or does not work."""
    if q.logits.ndim < 2 or q.what in LOSSES or (q.vector is not None and q.vector.ndim != q.logits.ndim):
        return None
    answer = np.empty(q.shape if q.what == "jacobian" else q.z.shape)
    dtype: Any = None
    for at, row in one_row_each(q):
        outcome = call(function, row, order)
        if outcome.numbers is None or outcome.numbers.shape != row.shape:
            return None
        answer[at], dtype = outcome.numbers, outcome.dtype
    return Outcome(answer if q.what == "jacobian" else q.restore(answer), dtype)
