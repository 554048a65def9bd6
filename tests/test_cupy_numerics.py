"""The CUDA kernels, run on the CPU, against the truth: every promise of accuracy, over every primitive."""

import numpy as np
import pytest

import softgrad
from tests import cases, truth
from tests.cases import ADVERSARIAL, DTYPES, TAILS
from tests.emulator.fixtures import device

ADVERSE = {str(case): case for case in ADVERSARIAL}
# For the dtypes beside float32: one case of every kind of trouble.
FEW = [ADVERSE[name] for name in ("wide", "sure and right", "sure and wrong, few classes", "others flushed", "offset",
                                  "huge", "ties", "masked", "broken rows", "one class")]  # fmt: skip
CASES = {"float32": ADVERSARIAL + TAILS[::3], "float64": FEW, "float16": FEW, "bfloat16": FEW}
# Each dtype costs a compilation of the kernels; what float16 adds to bfloat16 is left to --slow.
TYPES = ["float32", "float64", pytest.param("float16", marks=pytest.mark.slow), "bfloat16"]


@pytest.fixture(autouse=True)
def _has_the_dtype(request):
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("name", "float32") not in DTYPES:
        pytest.skip("bfloat16 needs ml_dtypes")


def judge(result, true, what, within=4.0):
    worst = truth.worst_ulp(result, true)
    assert worst <= within, f"{what}: {worst:.3g} ulp"


@pytest.mark.parametrize("name", TYPES)
def test_softmax_and_its_logarithms(name):
    with device() as ran:
        for case in CASES[name]:
            z = case.logits(DTYPES[name])
            for function in ("softmax", "log_softmax", "logsumexp"):
                judge(getattr(softgrad, function)(z), getattr(truth, function)(z), (function, case), 3.0)
    assert sum(ran.ran.values()) == 3 * len(CASES[name])


@pytest.mark.parametrize("name", TYPES)
def test_cross_entropy_and_its_gradient(name):
    with device():
        for case in CASES[name]:
            z, t = case.logits(DTYPES[name]), case.targets()
            for options in ({"reduction": "none"}, {"reduction": "mean", "weight": case.weight()}):
                loss, grad = softgrad.cross_entropy_value_and_grad(z, t, **options)
                true_loss, true_grad = truth.cross_entropy_value_and_grad(z, t, **options)
                judge(loss, true_loss, ("loss", case, options))
                judge(grad, true_grad, ("gradient", case, options))


def test_factors_are_applied_before_the_last_rounding():
    z = np.zeros((4, 300), np.float32)
    z[:, 0] = 120.0  # the others' probabilities are 7.7e-53: flushed to 0 they would stay 0 times anything
    t, scale = np.zeros(4, int), np.array([1e20, 1e30, -3e25, 1.0], np.float32)
    with device():
        got = softgrad.cross_entropy_grad(z, t, reduction="none", grad_output=scale)
    judge(got, truth.cross_entropy_grad(z, t, reduction="none", grad_output=scale), "gradient")
    assert (got[:3] != 0.0).all()


@pytest.mark.parametrize("name", ["float32", *(pytest.param(name, marks=pytest.mark.slow) for name in list(CASES)[1:])])
def test_products(name):
    with device():
        for case in CASES[name][::2]:
            dtype = DTYPES[name]
            z, v = case.logits(dtype), case.tangents(dtype, (2,))
            for function in ("softmax_jvp", "log_softmax_jvp", "log_softmax_vjp"):
                got = getattr(softgrad, function)(v, logits=z)
                judge(got, getattr(truth, function)(v, logits=z), (function, case))
            p, log_p = softgrad.softmax(z), softgrad.log_softmax(z)
            got = softgrad.softmax_vjp(v, probs=p, check_probs=False)
            judge(got, truth.softmax_vjp(v, probs=p), ("softmax_vjp from probs", case))
            for function in ("log_softmax_jvp", "log_softmax_vjp"):
                got = getattr(softgrad, function)(v, log_probs=log_p, check_probs=False)
                judge(got, getattr(truth, function)(v, log_probs=log_p), (function, "from log_probs", case))


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_products_with_given_probabilities_below_the_normal_numbers(name):
    """They are flushed where they are computed with; a product with a large tangent is a number like any other."""
    p, v = np.zeros((3, 40), DTYPES[name]), np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    p[:, 0], p[:, 1:] = 1.0, np.geomspace(2.0**-133, 2.0**-120, 39)
    p[2, 1::2] *= -1.0  # as a caller might have it who has them not checked
    for scale in (1.0, 2.0**20, 2.0**100):
        tangent = (v * np.float32(scale)).astype(np.float32)
        with device():
            got = softgrad.softmax_jvp(tangent, probs=p, check_probs=False)
        judge(got, truth.softmax_jvp(tangent, probs=p), ("softmax_jvp", scale))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_products_with_tangents_of_any_size(size):
    rng = np.random.default_rng(3)
    z = (rng.standard_normal((3, 700)) * 20).astype(np.float32)
    v = (rng.standard_normal((3, 700)) * size).astype(np.float32)
    with device():
        for function in ("softmax_jvp", "log_softmax_jvp", "log_softmax_vjp"):
            judge(getattr(softgrad, function)(v, logits=z), getattr(truth, function)(v, logits=z), function)


@pytest.mark.parametrize("classes", [10, 700])
def test_tangents_of_double_are_differences_in_double(classes):
    rng = np.random.default_rng(classes)
    z = rng.standard_normal((3, classes)).astype(np.float32)
    v = rng.standard_normal((2, 3, classes)) * 1e3 + 1e6
    with device():
        for function in ("softmax_jvp", "log_softmax_jvp", "log_softmax_vjp"):
            judge(getattr(softgrad, function)(v, logits=z), getattr(truth, function)(v, logits=z), function)


EVERYTHING = {"label_smoothing": 0.3, "z_loss": 0.1, "softcap": 5.0}


@pytest.mark.parametrize("name", ["float64", "bfloat16"])
def test_products_of_other_dtypes(name):
    with device():
        for case in FEW:
            z, v = case.logits(DTYPES[name]), case.tangents(DTYPES[name])
            judge(softgrad.softmax_jvp(v, logits=z), truth.softmax_jvp(v, logits=z), case)


@pytest.mark.parametrize(
    "options", [{"label_smoothing": 0.1}, {"z_loss": 0.01}, {"softcap": 30.0}, EVERYTHING], ids=str
)
def test_options(options):
    within = 4.0 + options.get("softcap", 0.0)
    with device():
        for name in ("float32", "float64"):
            for case in FEW[:: 1 if options is EVERYTHING else 3]:
                z, v = case.logits(name), case.tangents(name, (2,))
                for t in (case.targets(), case.probabilities(name)):
                    every = options | {"weight": case.weight(), "reduction": "mean" if t.ndim == 1 else "none"}
                    loss, grad = softgrad.cross_entropy_value_and_grad(z, t, **every)
                    true_loss, true_grad = truth.cross_entropy_value_and_grad(z, t, **every)
                    judge(loss, true_loss, ("loss", name, case), within)
                    judge(grad, true_grad, ("gradient", name, case), within)
                    for function in ("cross_entropy_jvp", "cross_entropy_hvp"):
                        got = getattr(softgrad, function)(v, logits=z, targets=t, **every)
                        true = getattr(truth, function)(v, logits=z, targets=t, **every)
                        judge(got, true, (function, name, case), within)


@pytest.mark.parametrize("classes", [1000, 40_000])
def test_long_rows_of_real_models(classes):
    z = cases.rows(classes, 2 * classes).logits(np.float32)
    t = np.array([3, classes - 1])
    with device():
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
        p = softgrad.softmax(z)
    judge(p, truth.softmax(z), "softmax", 2.5)
    judge(loss, truth.cross_entropy(z, t, reduction="none"), "loss", 2.5)
    judge(grad, truth.cross_entropy_grad(z, t, reduction="none"), "gradient", 2.5)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases.LARGE, ids=str)
def test_a_quarter_of_a_million_classes(case):
    z, t = case.logits(np.float32), case.targets()
    with device():
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none")
        judge(loss, truth.cross_entropy(z, t, reduction="none"), "loss")
        judge(grad, truth.cross_entropy_grad(z, t, reduction="none"), "gradient")
        judge(softgrad.softmax(z), truth.softmax(z), "softmax")
