"""Mistakes in the cross-entropy: targets, weights, smoothing, rows that do not count."""

from __future__ import annotations

from collections.abc import Iterable

from softgrad.diagnosis.mistake import Changes, Mistake, Ways, is_loss
from softgrad.diagnosis.question import Question


def _ignored_kept(q: Question) -> Iterable[tuple[str, Changes]]:
    if is_loss(q) and q.indices is not None and q.ignore_index is not None and (q.indices == q.ignore_index).any():
        kept = f"rows with target {q.ignore_index} are treated like any other"
        if 0 <= q.ignore_index < q.z.shape[-1]:
            yield kept, {"ignored": "kept"}
        else:
            yield kept + ", with no class for a target", {"ignored": "kept", "target_sum": "one"}
        if q.ignore_index < 0:
            yield f"target {q.ignore_index} is read as an index from the end", {"ignored": "modulo"}
        if q.ignore_index != 0:
            yield f"target {q.ignore_index} is replaced by class 0", {"ignored": "first class"}


def _ignored_counted(q: Question) -> Iterable[tuple[str, Changes]]:
    if not is_loss(q) or q.indices is None or q.ignore_index is None or q.reduction != "mean":
        return
    if (q.indices == q.ignore_index).any() and not 0 <= q.ignore_index < q.z.shape[-1]:
        yield "such rows add nothing, but are counted in the mean", {"ignored": "kept"}


def _target_ignored(q: Question) -> Iterable[tuple[str, Changes]]:
    if is_loss(q):
        yield "T is not subtracted", {"subtracted": False}
        yield "T is not subtracted", {"subtracted": False, "target_sum": "one"}


def _other_target(q: Question) -> Iterable[tuple[str, Changes]]:
    if is_loss(q):
        yield "every class is taken for the target", {"targets": "all ones"}
        yield "1 is subtracted from every class", {"targets": "all ones", "target_sum": "one"}
        yield "every class is taken for the target, 1/C of each", {"targets": "uniform"}
        yield "the first class is taken for the target", {"targets": "first class"}
        yield "the predicted class is taken for the target", {"targets": "prediction"}


def _target_shifted(q: Question) -> Iterable[tuple[str, Changes]]:
    if is_loss(q):
        for shift, name in ((1, "t + 1"), (-1, "t − 1")):
            yield f"{name}, modulo C", {"shift": shift, "targets": "wrapped"}
            if q.indices is not None:
                yield f"{name}, without a class beyond the ends", {"shift": shift}
                yield f"{name}, without a class beyond the ends", {"shift": shift, "target_sum": "one"}
                yield f"{name}, stopped at the ends", {"shift": shift, "targets": "stopped"}


def _one_hot(q: Question) -> Iterable[tuple[str, Changes]]:
    if not is_loss(q):
        return
    yield "the one-hot matrix is transposed", {"targets": "transposed"}
    if q.indices is None:
        yield "the largest probability is taken for a class index", {"targets": "hardened"}
        yield "the probabilities are cut to whole numbers", {"targets": "truncated"}
        return
    for total in ("one", "given"):
        yield "the class index is used as a number", {"targets": "numbers", "target_sum": total}
        yield (
            "the class indices are used as numbers, along the classes",
            {"targets": "numbers across", "target_sum": total},
        )
        if q.what == "cross_entropy_grad":
            yield "p[:, t] means every row at every target", {"targets": "every column", "target_sum": total}
    if q.what == "cross_entropy":
        yield "p[:, t] means every row at every target", {"targets": "every pair"}


def _target_sum(q: Question) -> Iterable[tuple[str, Changes]]:
    if is_loss(q):
        yield "A − T in place of A·ΣT − T", {"target_sum": "one"}
        if q.probabilities is not None:
            yield "the targets are divided by their sum", {"target_sum": "normalised"}


def reduction_ways(q: Question) -> Iterable[tuple[str, Changes]]:
    """Where the z_loss part has a divisor of its own, another divisor is no mere factor."""
    if is_loss(q) and q.z_loss and q.weight is not None and q.reduction == "mean":
        yield "the sum, not the mean", {"divide": "one"}
        yield "all is divided by the number of rows", {"divide": "rows"}
        yield "all is divided by the number of rows that count", {"divide": "counted"}


def _weights(q: Question) -> Iterable[tuple[str, Changes]]:
    if is_loss(q) and q.weight is not None:
        yield "", {"weight": "ignored"}
        if q.reduction == "mean" and q.indices is not None:
            yield "in the numerator; the divisor has them", {"weight": "numerator"}


def _weight_columns(q: Question) -> Iterable[tuple[str, Changes]]:
    if q.what == "cross_entropy_grad" and q.weight is not None:
        yield "", {"weight": "columns"}


def _smoothing(kinds: dict[str, str]) -> Ways:
    def ways(q: Question) -> Iterable[tuple[str, Changes]]:
        if is_loss(q) and q.label_smoothing:
            for kind, note in kinds.items():
                yield note, {"smoothing": kind}

    return ways


def _z_loss(q: Question) -> Iterable[tuple[str, Changes]]:
    if is_loss(q) and q.z_loss:
        yield "", {"z_loss": 0.0}


def _z_loss_slope(q: Question) -> Iterable[tuple[str, Changes]]:
    if is_loss(q) and q.z_loss:
        if q.what == "cross_entropy_grad":
            yield "the 2 of d lse² = 2·lse·A is missing", {"z_loss": 0.5}
        yield "lse in place of lse²", {"z_loss_power": 1}


def wrong_shape_ways(q: Question) -> Iterable[tuple[str, Changes]]:
    """Results of another shape than the one asked for."""
    if q.what == "cross_entropy" and q.rows != ():
        asked = "one number per row" if q.reduction == "none" else f"the {q.reduction} over the rows"
        given = "one number" if q.reduction == "none" else "one number per row"
        yield f"{given} is returned, {asked} was asked for", {"output": "other reduction"}
    if q.what == "jacobian" and q.rows != ():
        yield "derivatives of every row with respect to every row (mostly 0)", {"output": "every pair"}


MISTAKES = (
    Mistake(
        "ignored-rows-kept",
        "rows whose target is ignore_index are kept",
        "Such rows (padding) count for nothing: loss and gradient are 0, and they are left out of the mean's divisor.",
        "rows with t = ignore_index: loss 0, gradient 0",
        {"*": "keep = t != ignore_index; dz[~keep] = 0; N = keep.sum()"},
        _ignored_kept,
        _ignored_counted,
    ),
    Mistake(
        "target-ignored",
        "the targets do not enter",
        "A alone is the derivative of log Σ exp(z); the target's own logit brings the −T.",
        "dE/dZ = A − T;  E = −Σ Tᵢ log aᵢ",
        {"cross_entropy_grad": "dz = (A - T) / N"},
        _target_ignored,
        _other_target,
    ),
    Mistake(
        "target-off-by-one",
        "targets one class off",
        "Class indices run from 0 to C − 1.",
        "Tᵢ = [i = t],  t in 0 … C − 1",
        {"*": "T = np.eye(C)[t]        # not t - 1, not t + 1"},
        _target_shifted,
    ),
    Mistake(
        "one-hot-mismatch",
        "class indices and one-hot (probability) targets confused",
        "A class index t stands for the one-hot row Tᵢ = [i = t]: it is neither a number to subtract nor a column to "
        "pick from every row.",
        "Tᵢ = [i = t]",
        {
            "cross_entropy_grad": "dz = A.copy(); dz[np.arange(B), t] -= 1; dz /= N        # or A - np.eye(C)[t]",
            "cross_entropy": "loss = -log_A[np.arange(B), t].sum() / N        # not log_A[:, t]",
        },
        _one_hot,
    ),
    Mistake(
        "weights-ignored",
        "class weights left out",
        "Each row is multiplied by the weight of its target's class, and the mean divided by the sum of those weights.",
        "loss = −Σ w_t log a_t / Σ w_t",
        {
            "cross_entropy_grad": "dz = weight[t][:, None] * (A - T) / weight[t].sum()",
            "cross_entropy": "loss = -(weight[t] * log_A[np.arange(B), t]).sum() / weight[t].sum()",
        },
        _weights,
    ),
    Mistake(
        "weight-per-column",
        "class weights multiplied into the columns",
        "A row's weight is that of its target's class, for all its entries.",
        "dE/dZ = w_t (A − T)",
        {"*": "dz = weight[t][:, None] * (A - T) / weight[t].sum()        # not weight * (A - T)"},
        _weight_columns,
    ),
    Mistake(
        "smoothing-ignored",
        "label smoothing left out",
        "With label smoothing ε the targets are (1 − ε)T + ε/C.",
        "T ← (1 − ε)T + ε/C",
        {"*": "T = (1 - eps) * T + eps / C"},
        _smoothing({"ignored": ""}),
    ),
    Mistake(
        "smoothing-misspread",
        "label smoothing spread otherwise",
        "ε is shared by all C classes, the target among them, and taken from the target.",
        "T ← (1 − ε)T + ε/C",
        {"*": "T = (1 - eps) * T + eps / C"},
        _smoothing(
            {
                "others": "ε/(C − 1) on the other classes only",
                "added": "ε/C is added, 1 − ε forgotten",
                "target only": "1 − ε on the target, nothing elsewhere",
            }
        ),
    ),
    Mistake(
        "target-sum-assumed-one",
        "ΣT taken for 1",
        "Target mass (probabilities, weights included) need not sum to 1: then it multiplies A.",
        "dE/dZ = A·ΣT − T;  E = ΣT·log Σ exp(z) − ΣT·z",
        {
            "cross_entropy_grad": "dz = (A * T.sum(-1, keepdims=True) - T) / N        # T with weights",
            "cross_entropy": "loss = -(T * log_A).sum() / N        # T with weights",
        },
        _target_sum,
    ),
    Mistake(
        "z-loss-ignored",
        "z_loss left out",
        "z_loss adds z_loss · lse² for each row that counts.",
        "E ← E + z_loss · lse²;  dE/dZ ← dE/dZ + 2 z_loss · lse · A",
        {
            "cross_entropy_grad": "dz += 2 * z_loss * lse * A / N",
            "cross_entropy": "loss += z_loss * (lse ** 2).sum() / N",
        },
        _z_loss,
    ),
    Mistake(
        "z-loss-miscounted",
        "z_loss with another derivative or power",
        "It is the square of lse that is added; its derivative is 2 · lse · A.",
        "E ← E + z_loss · lse²;  dE/dZ ← dE/dZ + 2 z_loss · lse · A",
        {
            "cross_entropy_grad": "dz += 2 * z_loss * lse * A / N",
            "cross_entropy": "loss += z_loss * (lse ** 2).sum() / N",
        },
        _z_loss_slope,
    ),
)
