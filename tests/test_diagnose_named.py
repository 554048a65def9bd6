"""Each mistake is named, alone and in pairs, for arrays and for functions, by planting it as people write it."""

import itertools

import numpy as np
import pytest

import softgrad
from tests.planted import (
    diagonal_matrix,
    gradient,
    jacobian,
    jacobian_by_loops,
    jacobian_without_else,
    log_softmax,
    loss,
    mass,
    one_hot,
    product,
    product_without_diagonal,
    softmax,
    softmax_base_2,
    softmax_over_batch,
    softmax_over_everything,
)

SHAPES = [(4, 4), (3, 2), (6, 11)]


def assert_named(planted, function, *, logits, **question):
    """The planted set, no more and no less, both from the function and from its numbers alone."""
    for candidate in (function, function(logits)):
        found = softgrad.diagnose(candidate, logits=logits, **question)
        assert set(found.mistakes) == set(planted), (candidate, str(found))
        assert found.ok == (not planted)
        assert [e.id for e in found.explanations] == list(found.mistakes)


@pytest.fixture(params=SHAPES, ids=str)
def logits(request):
    return np.random.default_rng(sum(request.param)).normal(size=request.param) * 2


JACOBIANS = {
    (): lambda z: jacobian_by_loops(softmax(z)),
    ("logits-as-probs",): jacobian,
    ("diagonal-overwritten",): lambda z: jacobian_without_else(softmax(z)),
    ("diagonal-only",): lambda z: diagonal_matrix(softmax(z)),
    ("jacobian-ignored",): lambda z: np.broadcast_to(np.eye(z.shape[1]), (len(z), z.shape[1], z.shape[1])),
    ("sign-flipped",): lambda z: -jacobian(softmax(z)),
    ("wrong-axis",): lambda z: jacobian(softmax_over_batch(z)),
    ("softmax-twice",): lambda z: jacobian(softmax(softmax(z))),
    ("wrong-base",): lambda z: jacobian(softmax_base_2(z)),
    ("reduction-scale",): lambda z: jacobian(softmax(z)) / len(z),
    ("transposed",): lambda z: np.moveaxis(jacobian(softmax(z)), 0, -1),
    ("outer-product-forgotten",): lambda z: np.stack([np.diag(p) for p in softmax(z)]),
    ("outer-product-added",): lambda z: np.stack([np.diag(p) + np.outer(p, p) for p in softmax(z)]),
    ("diagonal-formula-everywhere",): lambda z: softmax(z)[:, :, None] * (1 - softmax(z)[:, None, :]),
    ("logits-as-probs", "diagonal-overwritten"): jacobian_without_else,
    ("logits-as-probs", "diagonal-only"): diagonal_matrix,
    ("logits-as-probs", "sign-flipped"): lambda z: -jacobian(z),
    ("wrong-axis", "diagonal-overwritten"): lambda z: jacobian_without_else(softmax_over_batch(z)),
    ("softmax-twice", "sign-flipped"): lambda z: -jacobian(softmax(softmax(z))),
}


@pytest.mark.parametrize("planted", JACOBIANS, ids="+".join)
def test_jacobian(planted, logits):
    if planted == ("transposed",) and logits.shape[0] == logits.shape[1]:
        pytest.skip("with B = C the layouts of a Jacobian are told apart in the next test")
    assert_named(planted, JACOBIANS[planted], logits=logits, what="jacobian")


def test_jacobian_with_the_batch_axis_last_and_as_many_rows_as_classes():
    z = np.random.default_rng(0).normal(size=(4, 4))
    assert_named(["transposed"], lambda z: np.moveaxis(jacobian(softmax(z)), 0, -1), logits=z, what="jacobian")


def test_the_derivative_as_a_vector(logits):
    assert_named(["diagonal-only"], lambda z: softmax(z) * (1 - softmax(z)), logits=logits, what="jacobian")


PRODUCTS = {
    (): lambda z, v: product(softmax(z), v),
    ("logits-as-probs",): product,
    ("diagonal-overwritten",): lambda z, v: product_without_diagonal(softmax(z), v),
    ("diagonal-only",): lambda z, v: softmax(z) * (1 - softmax(z)) * v,
    ("jacobian-ignored",): lambda z, v: v * 1.0,
    ("sign-flipped",): lambda z, v: -product(softmax(z), v),
    ("wrong-axis",): lambda z, v: product(softmax_over_batch(z), v),
    ("softmax-twice",): lambda z, v: product(softmax(softmax(z)), v),
    ("reduction-scale",): lambda z, v: product(softmax(z), v) / len(z),
    ("sum-not-weighted",): lambda z, v: softmax(z) * (v - v.sum(axis=-1, keepdims=True)),
    ("logits-as-probs", "diagonal-overwritten"): product_without_diagonal,
    ("wrong-axis", "sign-flipped"): lambda z, v: -product(softmax_over_batch(z), v),
    ("softmax-twice", "reduction-scale"): lambda z, v: product(softmax(softmax(z)), v) / len(z),
}


@pytest.mark.parametrize("lead", [(), (3,)], ids=["one", "K=3"])
@pytest.mark.parametrize(("what", "vector"), [("softmax_jvp", "tangent"), ("softmax_vjp", "cotangent")])
@pytest.mark.parametrize("planted", PRODUCTS, ids="+".join)
def test_product(planted, what, vector, lead, logits):
    v = np.random.default_rng(1).normal(size=(*lead, *logits.shape))
    assert_named(planted, lambda z: PRODUCTS[planted](z, v), logits=logits, what=what, **{vector: v})


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_sums_along_another_axis(axis):
    z, v = np.random.default_rng(2).normal(size=(2, 4, 3, 5))
    p = np.exp(z) / np.exp(z).sum(axis=axis, keepdims=True)
    right = p * (v - (p * v).sum(axis=axis, keepdims=True))
    for other in {0, 1, 2} - {axis}:
        wrong = p * (v - (p * v).sum(axis=other, keepdims=True))
        for numbers, planted in ((right, ()), (wrong, ("wrong-axis",)), (-wrong, ("wrong-axis", "sign-flipped"))):
            found = softgrad.diagnose(numbers, what="softmax_jvp", logits=z, tangent=v, axis=axis)
            assert found.mistakes == planted


SOFTMAXES = {
    (): softmax,
    ("logits-as-probs",): lambda z: z * 1.0,
    ("wrong-axis",): softmax_over_batch,
    ("softmax-twice",): lambda z: softmax(softmax(z)),
    ("wrong-base",): softmax_base_2,
    ("transposed",): lambda z: softmax(z).T,
    ("sign-flipped",): lambda z: -softmax(z),
    ("logits-negated",): lambda z: softmax(-z),
    ("logarithm-mixed-up",): log_softmax,
    ("derivative-returned",): lambda z: softmax(z) * (1 - softmax(z)),
    ("sigmoid-for-softmax",): lambda z: 1 / (1 + np.exp(-z)),
    ("argmax-for-softmax",): lambda z: (z == z.max(axis=1, keepdims=True)).astype(float),
    ("exp-forgotten",): lambda z: z / z.sum(axis=1, keepdims=True),
    ("temperature-applied",): lambda z: softmax(z / 2),
    ("wrong-axis", "transposed"): lambda z: softmax_over_batch(z).T,
}


@pytest.mark.parametrize("planted", SOFTMAXES, ids="+".join)
def test_softmax(planted, logits):
    assert_named(planted, SOFTMAXES[planted], logits=logits, what="softmax")


def test_softmax_over_every_entry(logits):
    assert_named(["wrong-axis"], softmax_over_everything, logits=logits, what="softmax")


def test_a_sum_without_keepdims():
    def function(z):
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1)

    z = np.random.default_rng(3).normal(size=(4, 4))
    assert_named(["keepdims-forgotten"], function, logits=z, what="softmax")


LOG_SOFTMAXES = {
    (): log_softmax,
    ("wrong-base",): lambda z: log_softmax(z) / np.log(2),
    ("sign-flipped",): lambda z: -log_softmax(z),
    ("softmax-twice",): lambda z: log_softmax(softmax(z)),
    ("wrong-axis",): lambda z: np.log(softmax_over_batch(z)),
    ("logarithm-mixed-up",): softmax,
    ("not-normalised",): lambda z: z - z.max(axis=1, keepdims=True),
    ("epsilon-added",): lambda z: np.log(softmax(z) + 1e-6),
    ("wrong-base", "sign-flipped"): lambda z: -np.log2(softmax(z)),
}


@pytest.mark.parametrize("planted", LOG_SOFTMAXES, ids="+".join)
def test_log_softmax(planted, logits):
    assert_named(planted, LOG_SOFTMAXES[planted], logits=logits, what="log_softmax")


# --- cross-entropy: every mistake under every option ----------------------------------------------------------------


class Problem:
    """A cross-entropy of five rows and seven classes with options, and what its parts are when written by hand."""

    def __init__(self, reduction, weighted, eps, dense):
        rng = np.random.default_rng(4)
        self.B, self.C, self.reduction, self.eps, self.dense = 5, 7, reduction, eps, dense
        self.z = 2 * rng.normal(size=(self.B, self.C))
        self.indices = np.array([0, 3, 3, 6, 1])
        self.targets = (
            rng.dirichlet(np.ones(self.C), self.B) * [[0.5], [2], [1.5], [0.7], [1]] if dense else self.indices
        )
        self.weight = rng.uniform(0.3, 3, self.C) if weighted else None
        self.options = {
            "targets": self.targets,
            "weight": self.weight,
            "label_smoothing": eps,
            "reduction": reduction,
        }

    def mass(self, targets=None, weighted=True, smoothed=True):
        targets = self.targets if targets is None else targets
        return mass(targets, self.C, self.weight if weighted else None, self.eps if smoothed else 0.0)

    def divisor(self, targets=None, weighted=True):
        if self.reduction != "mean":
            return 1.0
        if self.weight is None or self.dense or not weighted:
            return self.B
        return sum(self.weight[k] for k in (self.indices if targets is None else targets))

    @property
    def other_divisor(self):
        return 1.0 if self.reduction == "mean" else self.B


OPTIONS = list(itertools.product(["mean", "sum", "none"], [False, True], [0.0, 0.1], [False, True]))


@pytest.fixture(params=OPTIONS, ids=lambda o: f"{o[0]}{'-weight' * o[1]}{'-smoothing' * bool(o[2])}{'-dense' * o[3]}")
def problem(request):
    return Problem(*request.param)


def gradients(p):
    """The mistakes of a gradient that can be made with these options."""
    W, D, other = p.mass(), p.divisor(), p.other_divisor
    yield (), lambda z: gradient(softmax(z), W, D)
    yield ("sign-flipped",), lambda z: -gradient(softmax(z), W, D)
    yield ("wrong-axis",), lambda z: gradient(softmax_over_batch(z), W, D)
    yield ("logits-as-probs",), lambda z: gradient(z, W, D)
    yield ("softmax-twice",), lambda z: gradient(softmax(softmax(z)), W, D)
    yield ("jacobian-ignored",), lambda z: -W / softmax(z) / D
    yield ("diagonal-only",), lambda z: -W * (1 - softmax(z)) / D
    yield ("target-ignored",), lambda z: softmax(z) / D
    yield ("reduction-scale",), lambda z: gradient(softmax(z), W, other)
    yield ("transposed",), lambda z: gradient(softmax(z), W, D).T
    yield ("sign-flipped", "reduction-scale"), lambda z: -gradient(softmax(z), W, other)
    yield ("wrong-axis", "sign-flipped"), lambda z: -gradient(softmax_over_batch(z), W, D)
    yield ("logits-as-probs", "reduction-scale"), lambda z: gradient(z, W, other)
    if p.eps:
        bare = p.mass(smoothed=False)
        yield ("smoothing-ignored",), lambda z: gradient(softmax(z), bare, D)
        yield ("smoothing-ignored", "sign-flipped"), lambda z: -gradient(softmax(z), bare, D)
    if p.weight is not None:
        flat, flat_divisor = p.mass(weighted=False), p.divisor(weighted=False)
        yield ("weights-ignored",), lambda z: gradient(softmax(z), flat, flat_divisor)
        yield ("weights-ignored", "reduction-scale"), lambda z: gradient(softmax(z), flat, other)
    if p.dense:
        yield ("target-sum-assumed-one",), lambda z: (softmax(z) - W) / D
    else:
        for shift in (1, -1):
            moved = (p.indices + shift) % p.C
            V, E = p.mass(moved), p.divisor(moved)
            yield ("target-off-by-one",), lambda z, V=V, E=E: gradient(softmax(z), V, E)
            yield ("target-off-by-one", "reduction-scale"), lambda z, V=V: gradient(softmax(z), V, other)
        if p.weight is None and not p.eps:
            yield ("one-hot-mismatch",), lambda z: (softmax(z) - p.indices[:, None]) / D

            def every_row_at_every_target(z):
                dz = softmax(z)
                dz[:, p.indices] -= 1
                return dz / D

            yield ("one-hot-mismatch",), every_row_at_every_target


def test_gradient(problem):
    for planted, function in gradients(problem):
        assert_named(planted, function, logits=problem.z, what="cross_entropy_grad", **problem.options)


def losses(p):
    """The mistakes of a reduced loss that can be made with these options."""
    W, D, other = p.mass(), p.divisor(), p.other_divisor
    yield (), lambda z: loss(log_softmax(z), W, D)
    yield ("sign-flipped",), lambda z: -loss(log_softmax(z), W, D)
    yield ("wrong-base",), lambda z: loss(log_softmax(z), W, D) / np.log(2)
    yield ("softmax-twice",), lambda z: loss(log_softmax(softmax(z)), W, D)
    yield ("reduction-scale",), lambda z: loss(log_softmax(z), W, other)
    yield ("sign-flipped", "reduction-scale"), lambda z: -loss(log_softmax(z), W, other)
    if p.eps:
        bare = p.mass(smoothed=False)
        yield ("smoothing-ignored",), lambda z: loss(log_softmax(z), bare, D)
    if p.weight is not None:
        flat, flat_divisor = p.mass(weighted=False), p.divisor(weighted=False)
        yield ("weights-ignored",), lambda z: loss(log_softmax(z), flat, flat_divisor)
        yield ("weights-ignored", "reduction-scale"), lambda z: loss(log_softmax(z), flat, other)


def test_loss(problem):
    if problem.reduction == "none":
        per_row = -(problem.mass() * log_softmax(problem.z)).sum(axis=1)
        for planted, numbers in (((), per_row), (("sign-flipped",), -per_row), (("reduction-scale",), per_row / 5)):
            found = softgrad.diagnose(numbers, what="cross_entropy", logits=problem.z, **problem.options)
            assert found.mistakes == planted
        return
    for planted, function in losses(problem):
        assert_named(planted, function, logits=problem.z, what="cross_entropy", **problem.options)


def test_the_chain_rule_with_a_wrong_jacobian():
    z, t = np.random.default_rng(10).normal(size=(5, 4)), np.array([0, 3, 1, 1, 2])
    outer = -one_hot(t, 4) / softmax(z) / 5
    cases = {
        (): jacobian(softmax(z)),
        ("logits-as-probs",): jacobian(z),
        ("logits-as-probs", "diagonal-overwritten"): jacobian_without_else(z),
        ("softmax-twice",): jacobian(softmax(softmax(z))),
        ("wrong-axis",): jacobian(softmax_over_batch(z)),
        ("diagonal-only",): diagonal_matrix(softmax(z)),
        ("sign-flipped",): -jacobian(softmax(z)),
    }
    for planted, matrix in cases.items():
        numbers = np.einsum("bi,bij->bj", outer, matrix)
        found = softgrad.diagnose(numbers, what="cross_entropy_grad", logits=z, targets=t)
        assert set(found.mistakes) == set(planted), str(found)
    whole = softgrad.diagnose(outer[:, None, :] * jacobian(softmax(z)), what="cross_entropy_grad", logits=z, targets=t)
    assert whole.mistakes == ("diagonal-only",)
    assert "entry by entry" in str(whole)


def test_losses_that_misread_the_targets():
    z, t = np.random.default_rng(11).normal(size=(5, 4)), np.array([0, 3, 1, 1, 2])
    log_p, rows = log_softmax(z), np.arange(5)
    cases = {
        "one-hot-mismatch": (-(t[:, None] * log_p).sum() / 5, -log_p[:, t].mean()),
        "target-ignored": (-log_p.mean(), -log_p.sum() / 5, -log_p.max(axis=1).mean()),
        "target-off-by-one": (-log_p[rows, t - 1].mean(),),
    }
    for planted, numbers in cases.items():
        for number in numbers:
            found = softgrad.diagnose(number, what="cross_entropy", logits=z, targets=t)
            assert found.mistakes == (planted,), str(found)


@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 2])
def test_ignored_rows(ignore_index):
    z = np.random.default_rng(5).normal(size=(6, 4))
    t = np.array([ignore_index, 1, 3, 1, ignore_index, 3])
    keep = t != ignore_index
    everything = softmax(z) - one_hot(t, 4)
    kept = np.where(keep[:, None], everything, 0)
    cases = {
        (): kept / keep.sum(),
        ("ignored-rows-kept",): everything / 6,
        ("reduction-scale",): kept / 6,
        ("ignored-rows-kept", "reduction-scale"): everything / keep.sum(),
        ("ignored-rows-kept", "sign-flipped"): -everything / 6,
    }
    for planted, numbers in cases.items():
        found = softgrad.diagnose(numbers, what="cross_entropy_grad", logits=z, targets=t, ignore_index=ignore_index)
        assert set(found.mistakes) == set(planted), str(found)


def test_softcap_and_z_loss():
    z = 3 * np.random.default_rng(6).normal(size=(4, 5))
    t = np.array([0, 4, 2, 2])
    s, weight = 3.0, 1e-2
    capped = s * np.tanh(z / s)
    p, lse = softmax(capped), np.log(np.exp(capped).sum(axis=1, keepdims=True))
    slope = 1 - np.tanh(z / s) ** 2
    plain, extra = p - one_hot(t, 5), 2 * weight * lse * p
    cases = {
        (): (plain + extra) * slope / 4,
        ("softcap-slope-ignored",): (plain + extra) / 4,
        ("z-loss-ignored",): plain * slope / 4,
        ("z-loss-miscounted",): (plain + extra / 2) * slope / 4,
        ("z-loss-ignored", "sign-flipped"): -plain * slope / 4,
        ("softcap-slope-ignored", "reduction-scale"): plain + extra,
    }
    for planted, numbers in cases.items():
        found = softgrad.diagnose(numbers, what="cross_entropy_grad", logits=z, targets=t, softcap=s, z_loss=weight)
        assert set(found.mistakes) == set(planted), str(found)


def test_a_transposed_square():
    z, t = np.random.default_rng(7).normal(size=(5, 5)), np.array([0, 1, 1, 4, 2])
    right = (softmax(z) - one_hot(t, 5)) / 5
    for planted, numbers in ((("transposed",), right.T), (("transposed", "sign-flipped"), -right.T)):
        assert softgrad.diagnose(numbers, what="cross_entropy_grad", logits=z, targets=t).mistakes == planted


def test_float32_numbers_are_recognised():
    z, t = np.random.default_rng(8).normal(size=(5, 6)).astype(np.float32), np.array([0, 1, 5, 4, 2])
    wrong = (one_hot(t, 6) - softmax(z)).astype(np.float32)
    found = softgrad.diagnose(wrong, what="cross_entropy_grad", logits=z, targets=t)
    assert found.mistakes == ("reduction-scale", "sign-flipped")


# --- digits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "gap"), [("float64", 36), ("float64", 40), ("float32", 22), ("float32", 25)])
def test_lost_digits(dtype, gap):
    t = np.array([0, 1, 2, 3])
    z = np.random.default_rng(9).normal(size=(4, 5)).astype(dtype)
    z[np.arange(4), t] += gap
    dz = softmax(z)
    dz[np.arange(4), t] -= 1
    candidates = {
        "cross_entropy_grad": dz / dz.dtype.type(4),
        "cross_entropy": -np.log(softmax(z)[np.arange(4), t]).mean(),
        "jacobian": jacobian_by_loops(softmax(z)),
    }
    for what, numbers in candidates.items():
        targets = {} if what == "jacobian" else {"targets": t}
        found = softgrad.diagnose(numbers, what=what, logits=z, **targets)
        assert found.mistakes == ("lost-digits",), str(found)
        assert found.entries[0].ulp > 1e3
        assert f"{found.entries[0].truth:.9g}" in str(found)
        assert "ulp" in str(found)
    assert softgrad.diagnose(softgrad.cross_entropy_grad, what="cross_entropy_grad", logits=z, targets=t).ok
