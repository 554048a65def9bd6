"""No false accusation: what is right is `ok`, and what is noise is neither right nor accused."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import softgrad
from tests.planted import jacobian, jacobian_by_loops, log_softmax, one_hot, softmax

DTYPES = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def right_functions(dtype):
    """Textbook computations that stay in the dtype of the logits, and the question each answers."""

    def gradient(z, t):
        dz = softmax(z)
        dz[np.arange(len(t)), t] -= 1
        return dz / dz.dtype.type(len(t))

    def loss(z, t):
        return -log_softmax(z)[np.arange(len(t)), t].mean()

    def loss_by_logarithm(z, t):
        return -np.log(softmax(z)[np.arange(len(t)), t]).mean()

    def jvp(v, z):
        p = softmax(z)
        return p * (v - (p * v).sum(axis=-1, keepdims=True))

    def jacobian_of(z):
        p = softmax(z)
        return p[:, :, None] * (np.eye(p.shape[1], dtype=dtype) - p[:, None, :])

    yield "softmax", softmax
    yield "log_softmax", log_softmax
    yield "jacobian", jacobian_of
    yield "softmax_jvp", jvp
    yield "softmax_vjp", lambda logits, cotangent: jvp(cotangent, logits)
    yield "cross_entropy", loss
    yield "cross_entropy", loss_by_logarithm
    yield "cross_entropy_grad", gradient


def inputs(what, z, rng):
    more = {"logits": z}
    if what.startswith("cross_entropy"):
        more["targets"] = rng.integers(0, z.shape[1], len(z))
    elif what == "softmax_jvp":
        more["tangent"] = rng.normal(size=z.shape).astype(z.dtype)
    elif what == "softmax_vjp":
        more["cotangent"] = rng.normal(size=z.shape).astype(z.dtype)
    return more


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("shape", [(1, 2), (4, 3), (3, 17), (40, 5)], ids=str)
def test_textbook_formulas_are_right_in_every_dtype(shape, dtype):
    rng = np.random.default_rng(0)
    z = (1.5 * rng.normal(size=shape)).astype(dtype)
    for what, function in right_functions(dtype):
        found = softgrad.diagnose(function, what=what, **inputs(what, z, rng))
        assert found.ok, str(found)
        assert found
        assert not found.mistakes


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_textbook_formulas_are_right_on_any_ordinary_logits(data):
    rows, classes = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 5))
    numbers = st.floats(-8, 8, width=32)
    z = np.array(data.draw(st.lists(numbers, min_size=rows * classes, max_size=rows * classes))).reshape(rows, classes)
    rng = np.random.default_rng(data.draw(st.integers(0, 100)))
    what, function = data.draw(st.sampled_from(list(right_functions(np.float64))))
    found = softgrad.diagnose(function, what=what, **inputs(what, z, rng))
    assert found.ok, str(found)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16], ids=lambda d: d.__name__)
def test_right_numbers_rounded_to_a_coarser_dtype_are_right(dtype):
    rng = np.random.default_rng(1)
    z = rng.normal(size=(4, 6))
    t = rng.integers(0, 6, 4)
    dz = ((softmax(z) - one_hot(t, 6)) / 4).astype(dtype)
    assert softgrad.diagnose(dz, what="cross_entropy_grad", logits=z, targets=t)
    assert softgrad.diagnose(jacobian(softmax(z)).astype(dtype), what="jacobian", logits=z)


def test_a_print_out_is_right():
    z = [[1.0, 2.0, 3.0]]
    assert softgrad.diagnose([[0.09003057, 0.24472847, 0.66524096]], what="softmax", logits=z).ok
    assert not softgrad.diagnose([[0.09003057, 0.24472847, 0.66534096]], what="softmax", logits=z).ok
    assert not softgrad.diagnose([[0.1, 0.2, 0.7]], what="softmax", logits=z).ok


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_softgrads_own_functions_are_right_with_every_option(reduction):
    rng = np.random.default_rng(2)
    z = 3 * rng.normal(size=(2, 5, 3))
    options = {
        "axis": 1,
        "weight": rng.uniform(0.5, 2, 5),
        "ignore_index": 4,
        "label_smoothing": 0.1,
        "z_loss": 1e-3,
        "softcap": 7.0,
        "reduction": reduction,
    }
    t = rng.integers(0, 5, (2, 3))
    for what in ("cross_entropy", "cross_entropy_grad"):
        with softgrad.use_backend("numpy"):
            found = softgrad.diagnose(getattr(softgrad, what), what=what, logits=z, targets=t, **options)
        assert found.ok, str(found)


@pytest.mark.parametrize("module", [softgrad, softgrad.naive], ids=["softgrad", "naive"])
def test_the_librarys_softmaxes_and_products_are_right(module):
    rng = np.random.default_rng(3)
    z, v = rng.normal(size=(3, 4)), rng.normal(size=(2, 3, 4))
    with softgrad.use_backend("numpy"):
        assert softgrad.diagnose(module.softmax, what="softmax", logits=z).ok
        assert softgrad.diagnose(module.softmax_jvp, what="softmax_jvp", logits=z, tangent=v).ok
        assert softgrad.diagnose(module.softmax_vjp, what="softmax_vjp", logits=z, cotangent=v).ok
        assert softgrad.diagnose(module.softmax_jacobian, what="jacobian", logits=z).ok
        assert softgrad.diagnose(module.cross_entropy, what="cross_entropy", logits=z, targets=[0, 3, 1]).ok


def test_masked_classes():
    z = np.array([[0.0, -np.inf, 1.0], [2.0, 0.5, -1.0]])
    assert softgrad.diagnose(softmax, what="softmax", logits=z).ok
    assert softgrad.diagnose(lambda z: jacobian_by_loops(softmax(z)), what="jacobian", logits=z).ok
    assert softgrad.diagnose(-jacobian(softmax(z)), what="jacobian", logits=z).mistakes == ("sign-flipped",)


# --- mistakes that change nothing here are no mistakes --------------------------------------------------------------


def test_what_coincides_with_the_truth_is_right():
    z = np.random.default_rng(4).normal(size=(1, 4))
    assert softgrad.diagnose(jacobian(softmax(z)).swapaxes(1, 2), what="jacobian", logits=z).ok  # symmetric
    mean = (softmax(z) - one_hot([2], 4)) / 1
    for reduction in ("mean", "sum", "none"):  # one row: all reductions divide by 1
        assert softgrad.diagnose(mean, what="cross_entropy_grad", logits=z, targets=[2], reduction=reduction).ok
    weight = np.full(4, 3.0)  # equal weights cancel in a mean
    assert softgrad.diagnose(mean, what="cross_entropy_grad", logits=z, targets=[2], weight=weight).ok


# --- noise ----------------------------------------------------------------------------------------------------------

KINDS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "uniform": lambda rng, shape: rng.uniform(size=shape),
    "probabilities": lambda rng, shape: softmax(rng.normal(size=(*shape, 2)))[..., 0],
    "whole numbers": lambda rng, shape: rng.integers(-9, 10, size=shape),
    "small": lambda rng, shape: 1e-3 * rng.normal(size=shape),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("what", "draws"),
    [
        ("softmax", 120),
        ("log_softmax", 120),
        ("jacobian", 60),
        ("softmax_jvp", 50),
        ("softmax_vjp", 25),
        ("cross_entropy", 40),
        ("cross_entropy_grad", 15),
    ],
)
def test_noise_is_accused_of_nothing(what, draws, kind):
    rng = np.random.default_rng([draws, len(what), len(kind)])
    for draw in range(draws):
        rows, classes = [(1, 2), (2, 2), (1, 5), (3, 3), (4, 3)][draw % 5]
        z = np.full((rows, classes), 1.75) if draw % 7 == 0 else 2 * rng.normal(size=(rows, classes))
        dtype = np.float32 if draw % 3 == 0 else np.float64
        more = inputs(what, z.astype(dtype), rng)
        shape = {"jacobian": (rows, classes, classes), "cross_entropy": ()}.get(what, (rows, classes))
        if what == "cross_entropy" and draw % 2:
            more["reduction"], shape = "none", (rows,)
        if what == "cross_entropy_grad" and draw % 2:
            more["label_smoothing"], more["weight"] = 0.1, rng.uniform(0.5, 2, classes)
        noise = np.asarray(KINDS[kind](rng, shape)).reshape(shape).astype(dtype)
        candidate = (lambda z, noise=noise: noise) if draw % 10 == 9 else noise
        found = softgrad.diagnose(candidate, what=what, **more)
        assert not found.ok, str(found)
        assert found.mistakes == (), str(found)
        assert "no known mistake" in str(found)
