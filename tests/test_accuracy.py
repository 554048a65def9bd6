"""Every entry of every function within its ulp budget, over the adversarial rows, tails and models of `tests.cases`."""

from __future__ import annotations

import numpy as np
import pytest

import softgrad
from softgrad.protocol import loss_dtype
from tests import truth
from tests.cases import ADVERSARIAL, DTYPES, LARGE, MODELS, TAILS, Case
from tests.truth import assert_right

# float16 and bfloat16 share float32's arithmetic: of the tails, which differ in C alone, they take every fourth.
CASES = [
    pytest.param(case, dtype, id=f"{case}, {dtype}")
    for cases, dtypes in (
        (ADVERSARIAL, list(DTYPES.values())),
        (TAILS, [DTYPES["float32"]]),
        (TAILS[::2], [DTYPES["float64"]]),
        (TAILS[::4], [d for d in DTYPES.values() if d.itemsize == 2]),
        (MODELS[:4] + LARGE, [DTYPES["float32"]]),
    )
    for dtype in dtypes
    for case in cases
]
over_cases = pytest.mark.parametrize(("case", "dtype"), CASES)


def small(case: Case, rows: int = 8) -> slice:
    return slice(None, 1 if case.shape[1] > 20_000 else rows)


@over_cases
def test_softmax(case, dtype, backend):
    z = case.logits(dtype)[: 1 if case.shape[1] > 20_000 else None]
    assert_right(softgrad.softmax(z), truth.softmax(z), dtype)
    assert_right(softgrad.log_softmax(z), truth.log_softmax(z), dtype)
    assert_right(softgrad.logsumexp(z), truth.logsumexp(z), loss_dtype(dtype))


@over_cases
def test_cross_entropy_of_class_indices(case, dtype, backend):
    rows = slice(None, 1 if case.shape[1] > 20_000 else None)
    z, t = case.logits(dtype)[rows], case.targets(np.int32)[rows]
    options = {"weight": case.weight(dtype), "reduction": "none"}
    grad_output = case.grad_output(np.float32)[rows]
    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, grad_output=grad_output, **options)
    assert_right(loss, truth.cross_entropy(z, t, **options), loss_dtype(dtype))
    assert_right(grad, truth.cross_entropy_grad(z, t, grad_output=grad_output, **options), dtype)
    for reduction in ("sum", "mean"):
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction=reduction)
        assert_right(loss, truth.cross_entropy(z, t, reduction=reduction), loss_dtype(dtype))
        assert_right(grad, truth.cross_entropy_grad(z, t, reduction=reduction), dtype)


@over_cases
def test_products(case, dtype, backend):
    rows = small(case)
    z, v = case.logits(dtype)[rows], case.tangents(dtype)[rows]
    for name in ("softmax_jvp", "softmax_vjp", "log_softmax_jvp", "log_softmax_vjp"):
        product = getattr(softgrad, name)(v, logits=z)
        assert_right(product, getattr(truth, name)(v, logits=z), dtype, what=name)
    if case.shape[1] <= 20_000:
        p, log_p = softgrad.softmax(z), softgrad.log_softmax(z)
        assert_right(softgrad.softmax_jvp(v, probs=p, check_probs=False), truth.softmax_jvp(v, probs=p), dtype)
        for name in ("log_softmax_jvp", "log_softmax_vjp"):
            product = getattr(softgrad, name)(v, log_probs=log_p, check_probs=False)
            assert_right(product, getattr(truth, name)(v, log_probs=log_p), dtype, what=name)


@pytest.mark.parametrize("case", [case for case in ADVERSARIAL if case.shape[1] <= 100], ids=str)
def test_jacobian(case, dtype, backend):
    z = case.logits(dtype)[small(case, 4)]
    assert_right(softgrad.softmax_jacobian(logits=z), truth.softmax_jacobian(logits=z), dtype)


@over_cases
def test_cross_entropy_jvp_and_hvp(case, dtype, backend):
    rows = small(case)
    z, t, v = case.logits(dtype)[rows], case.targets()[rows], case.tangents(dtype)[rows]
    derivative = softgrad.cross_entropy_jvp(v, logits=z, targets=t, reduction="none")
    assert_right(derivative, truth.cross_entropy_jvp(v, logits=z, targets=t, reduction="none"), loss_dtype(dtype))
    product = softgrad.cross_entropy_hvp(v, logits=z, targets=t)
    assert_right(product, truth.cross_entropy_hvp(v, logits=z, targets=t), dtype)


# --- combinations of options ----------------------------------------------------------------------------------------

# Those on which weights, temperatures and factors of all sizes may be piled without leaving a dtype's range.
MILD = [case for case in ADVERSARIAL if not case.name.startswith("huge")]


def drawn(seed: int):
    """A case by its seed: logits, targets, tangents and options, drawn at random."""
    rng = np.random.default_rng(seed)
    case = MILD[seed % len(MILD)]
    options = {"reduction": str(rng.choice(["none", "sum", "mean"]))}
    if rng.random() < 0.5:
        options["label_smoothing"] = float(rng.choice([1e-6, 0.1, 0.9, 1.0]))
    if rng.random() < 0.5:
        options["z_loss"] = float(rng.choice([1e-4, 0.1, 2.0]))
    if rng.random() < 0.5:
        options["softcap"] = float(rng.choice([0.25, 1.0, 5.0, 30.0, 50.0, 1e4]))
    return case, options, rng


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("seed", range(24))
def test_every_option(seed, name, backend):
    dtype = DTYPES[name]
    case, options, rng = drawn(seed)
    rows = slice(None, 8)
    z, v = case.logits(dtype)[rows], case.tangents(dtype, (2,))[:, rows]
    size = 1.0 if name == "float16" else 10.0 ** rng.integers(-12, 12)
    if rng.random() < 0.5:
        options["weight"] = case.weight(dtype) * dtype.type(size)
        options["weight"][rng.integers(case.shape[1])] = 0
    targets = case.targets(np.uint8 if case.shape[1] < 100 else np.int64)[rows]
    if rng.random() < 0.3:
        targets, options["ignore_index"] = targets.copy(), int(targets[0])
    if rng.random() < 0.4:
        targets = case.probabilities(dtype)[rows]
    scale = {}
    if rng.random() < 0.7:
        per_row = options["reduction"] == "none" and rng.random() < 0.7
        scale["grad_output"] = case.grad_output(np.float32)[rows] if per_row else float(rng.choice([0.25, -3.0, 1e-10]))
    within = 4.0 + options.get("softcap", 0.0)
    loss = softgrad.cross_entropy(z, targets, **options)
    assert_right(loss, truth.cross_entropy(z, targets, **options), loss_dtype(dtype), within=within, what="loss")
    grad = softgrad.cross_entropy_grad(z, targets, **scale, **options)
    assert_right(grad, truth.cross_entropy_grad(z, targets, **scale, **options), dtype, within=within, what="grad")
    point = {"logits": z, "targets": targets, **options}
    derivative = softgrad.cross_entropy_jvp(v, **point)
    assert_right(derivative, truth.cross_entropy_jvp(v, **point), loss_dtype(dtype), within=within, what="jvp")
    product = softgrad.cross_entropy_hvp(v, **scale, **point)
    assert_right(product, truth.cross_entropy_hvp(v, **scale, **point), dtype, within=within, what="hvp")


# --- where digits are lost in particular ----------------------------------------------------------------------------


def test_factors_come_before_the_last_rounding(backend):
    """Probabilities below the smallest normal number, times factors that make them ordinary numbers."""
    for dtype, gap, factor in ((np.float64, 730.0, 1e30), (np.float32, 95.0, 1e20)):
        z = np.array([[0.0, -gap, -gap - 1.0], [0.0, 0.0, -gap]], dtype)
        v, t = np.array([[1.0, 2.0, -3.0]] * 2, dtype), np.array([0, 2])
        weight = np.full(3, factor, dtype)
        options = {"weight": weight, "reduction": "none"}
        assert_right(softgrad.cross_entropy(z, t, **options), truth.cross_entropy(z, t, **options), dtype)
        for scale in (None, factor, np.array([factor, 1.0 / factor])):
            grad = softgrad.cross_entropy_grad(z, t, grad_output=scale, reduction="none")
            assert_right(grad, truth.cross_entropy_grad(z, t, grad_output=scale, reduction="none"), dtype)
        assert_right(softgrad.cross_entropy_grad(z, t, **options), truth.cross_entropy_grad(z, t, **options), dtype)
        large = (v * dtype(factor)).astype(dtype)
        assert_right(softgrad.softmax_jvp(large, logits=z), truth.softmax_jvp(large, logits=z), dtype)
        assert_right(softgrad.log_softmax_jvp(large, logits=z), truth.log_softmax_jvp(large, logits=z), dtype)
        product = softgrad.cross_entropy_hvp(v, logits=z, targets=t, grad_output=factor)
        assert_right(product, truth.cross_entropy_hvp(v, logits=z, targets=t, grad_output=factor), dtype)


def test_softcap_far_out_on_its_tail(backend):
    """Where q = exp(−2 |z / s|) magnifies the rounding of z / s, and where q is no normal number."""
    rng = np.random.default_rng(0)
    for softcap in (1.0, 5.0, 50.0):
        z = rng.uniform(-370.0, 370.0, (32, 20)) * softcap
        t = rng.integers(0, 20, 32)
        options = {"softcap": softcap, "reduction": "sum"}
        for scale in (None, 1e30):
            grad = softgrad.cross_entropy_grad(z, t, grad_output=scale, **options)
            assert_right(
                grad, truth.cross_entropy_grad(z, t, grad_output=scale, **options), z.dtype, within=4 + softcap
            )


@pytest.mark.parametrize(("seed", "softcap"), [(5, 100.0), (40, 300.0)])
def test_the_hessian_under_a_wide_softcap(backend, seed, softcap):
    """Where the largest logit, capped, has a rounding error that the others would not share."""
    rng = np.random.default_rng(seed)
    z, t = rng.normal(size=(256, 20)) * 0.6 * softcap, rng.integers(0, 20, 256)
    z[np.arange(256), t] += 0.25 * softcap
    v, options = rng.normal(size=z.shape), {"softcap": softcap, "reduction": "sum"}
    product = softgrad.cross_entropy_hvp(v, logits=z, targets=t, **options)
    expected = truth.cross_entropy_hvp(v, logits=z, targets=t, **options)
    assert_right(product, expected, z.dtype, within=4 + softcap)


def test_negative_probabilities_that_cancel_against_smoothing(backend):
    T = np.array([[-1.0 / 9.0, 0.5, 0.25], [0.0, -0.11, 1.0]])
    z = np.array([[0.5, -60.0, 1.0], [3.0, -2.0, 0.0]])
    grad = softgrad.cross_entropy_grad(z, T, label_smoothing=0.25)
    assert_right(grad, truth.cross_entropy_grad(z, T, label_smoothing=0.25), z.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reduced_losses_are_added_in_twice_the_precision(dtype, backend):
    """A thousand small losses beside one large one; and losses whose sum overflows though their mean does not."""
    z = np.zeros((2001, 2), dtype)
    z[:, 1] = -30.0 if dtype == np.float32 else -40.0
    z[1000] = [0.0, 1e6]
    t = np.zeros(2001, int)
    for reduction in ("sum", "mean"):
        loss = softgrad.cross_entropy(z, t, reduction=reduction)
        assert_right(loss, truth.cross_entropy(z, t, reduction=reduction), dtype, within=1.0)
    largest = np.finfo(dtype).max
    z = np.array([[0.0, largest], [0.0, largest], [0.0, 1.0]], dtype)
    assert_right(softgrad.cross_entropy(z, [0, 0, 0]), truth.cross_entropy(z, [0, 0, 0]), dtype)


def test_lone_class_is_certain(dtype, backend):
    """Probability 1 to the last bit, loss and gradient 0."""
    z = np.array([[3.0], [-70.0], [0.1]], dtype)
    np.testing.assert_array_equal(softgrad.softmax(z).astype(float), 1.0)
    np.testing.assert_array_equal(softgrad.log_softmax(z).astype(float), 0.0)
    loss, grad = softgrad.cross_entropy_value_and_grad(z, [0, 0, 0])
    assert loss == 0.0
    np.testing.assert_array_equal(grad.astype(float), 0.0)
