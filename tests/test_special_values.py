"""Contract of infinities, NaN, masks, ignored rows and empty arrays: exactly these values, and no other row touched."""

from __future__ import annotations

import numpy as np
import pytest

import softgrad
from tests import truth
from tests.truth import assert_right

inf, nan = np.inf, np.nan


@pytest.fixture
def z(dtype):
    """Ordinary rows 0, 2, 4; between them one of −inf only, one with +inf, one with NaN."""
    rows = [[1.0, 2.0, -1.0], [-inf] * 3, [0.5, -inf, 0.0], [0.0, inf, -inf], [3.0, 3.0, 3.0], [nan, 0.0, inf]]
    return np.array(rows, dtype)


BROKEN, WHOLE = [1, 3, 5], [0, 2, 4]


def assert_rows(result, alone):
    """Broken rows are NaN; every other row has the bits that it has alone."""
    assert np.isnan(result[BROKEN].astype(float)).all()
    for row in WHOLE:
        np.testing.assert_array_equal(result[row], alone(slice(row, row + 1))[0], strict=True)
    assert not np.isnan(result[WHOLE].astype(float)).any()


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_broken_rows_are_nan_and_touch_no_other(z, softcap, backend):
    v, t = np.ones_like(z), np.zeros(6, int)
    v[:, 1] = 2
    assert_rows(softgrad.softmax(z), lambda r: softgrad.softmax(z[r]))
    assert_rows(softgrad.log_softmax(z), lambda r: softgrad.log_softmax(z[r]))
    for name in ("softmax_jvp", "softmax_vjp", "log_softmax_jvp", "log_softmax_vjp"):
        product = getattr(softgrad, name)
        assert_rows(product(v, logits=z), lambda r, product=product: product(v[r], logits=z[r]))
    options = {"softcap": softcap, "reduction": "none"}
    T = np.full(z.shape, 0.25, z.dtype)
    T[2, 1] = 0
    for targets in (t, T):
        assert_rows(
            softgrad.cross_entropy(z, targets, **options),
            lambda r, targets=targets: softgrad.cross_entropy(z[r], targets[r], **options),
        )
        assert_rows(
            softgrad.cross_entropy_grad(z, targets, **options),
            lambda r, targets=targets: softgrad.cross_entropy_grad(z[r], targets[r], **options),
        )
        assert_rows(
            softgrad.cross_entropy_jvp(v, logits=z, targets=targets, **options),
            lambda r, targets=targets: softgrad.cross_entropy_jvp(v[r], logits=z[r], targets=targets[r], **options),
        )
        assert_rows(
            softgrad.cross_entropy_hvp(v, logits=z, targets=targets, **options),
            lambda r, targets=targets: softgrad.cross_entropy_hvp(v[r], logits=z[r], targets=targets[r], **options),
        )
        for reduction in ("sum", "mean"):
            assert np.isnan(softgrad.cross_entropy(z, targets, softcap=softcap, reduction=reduction))


def test_logsumexp_alone_says_which_infinity(z, backend):
    lse = softgrad.logsumexp(z)
    np.testing.assert_array_equal(lse[BROKEN], np.array([-inf, inf, nan], lse.dtype), strict=True)
    assert np.isfinite(lse[WHOLE]).all()


def test_masked_classes(dtype, backend):
    z = np.array([[1.0, -inf, 0.5, -inf], [-inf, -inf, -inf, 2.0]], dtype)
    masked = np.isneginf(z.astype(float))
    assert (softgrad.softmax(z)[masked] == 0).all()
    assert np.isneginf(softgrad.log_softmax(z)[masked].astype(float)).all()
    v = np.array([[1.0, 2.0, 3.0, 4.0]] * 2, dtype)
    for name in ("softmax_jvp", "softmax_vjp"):
        assert (getattr(softgrad, name)(v, logits=z)[masked] == 0).all()
    for name in ("log_softmax_jvp", "log_softmax_vjp"):
        assert_right(getattr(softgrad, name)(v, logits=z), getattr(truth, name)(v, logits=z), dtype)
    t = np.array([0, 3])
    for options in ({}, {"z_loss": 0.5}, {"softcap": 5.0}, {"softcap": 5.0, "z_loss": 0.5}):
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction="none", **options)
        assert np.isfinite(loss).all()
        assert (grad[masked] == 0).all()
        assert (softgrad.cross_entropy_hvp(v, logits=z, targets=t, **options)[masked] == 0).all()


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_a_masked_class_without_target_mass_adds_nothing_to_the_loss(dtype, softcap, backend):
    z = np.array([[1.0, -inf, 0.5]], dtype)
    T = np.array([[0.5, 0.0, 0.5]], dtype)
    expected = softgrad.cross_entropy(z[:, [0, 2]], T[:, [0, 2]], softcap=softcap)
    np.testing.assert_allclose(softgrad.cross_entropy(z, T, softcap=softcap), expected, rtol=1e-6)
    # Weight 0 is no mass either, not even on the target itself or under smoothing.
    weight = np.array([1.0, 0.0, 1.0])
    assert softgrad.cross_entropy(z, [1], weight=weight, softcap=softcap, reduction="sum") == 0.0
    assert np.isfinite(softgrad.cross_entropy(z, [0], weight=weight, label_smoothing=0.1, softcap=softcap))


def test_target_mass_on_a_masked_class(dtype, backend):
    z = np.array([[1.0, -inf, 0.5], [0.0, 0.0, 0.0]], dtype)
    loss, grad = softgrad.cross_entropy_value_and_grad(z, [1, 0], weight=[1.0, 2.0, 1.0], reduction="none")
    assert loss[0] == inf
    assert np.isfinite(loss[1])
    assert grad[0, 1] == -2.0
    assert_right(grad, truth.cross_entropy_grad(z, [1, 0], weight=[1.0, 2.0, 1.0], reduction="none"), dtype)
    T = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], dtype)
    loss, grad = softgrad.cross_entropy_value_and_grad(z, T, reduction="none")
    assert loss[0] == inf
    assert grad[0, 1] == -0.25
    loss, grad = softgrad.cross_entropy_value_and_grad(z, [0, 0], label_smoothing=0.75, reduction="none")
    assert loss[0] == inf
    assert grad[0, 1] == -0.25
    assert softgrad.cross_entropy(z, [1, 0], reduction="mean") == inf


@pytest.mark.parametrize("poison", [nan, inf, -inf])
def test_a_broken_tangent_stays_in_its_row_of_its_product(poison, dtype, backend):
    rng = np.random.default_rng(0)
    z, t = rng.standard_normal((4, 5)).astype(dtype), np.array([0, 1, 2, 3])
    clean = rng.standard_normal((3, 4, 5)).astype(dtype)
    broken = clean.copy()
    broken[1, 2, 4] = poison
    others = np.ones((3, 4), bool)
    others[1, 2] = False
    for name in ("softmax_jvp", "softmax_vjp", "log_softmax_jvp", "log_softmax_vjp"):
        product = getattr(softgrad, name)
        result = product(broken, logits=z)
        np.testing.assert_array_equal(result[others], product(clean, logits=z)[others])
        assert not np.isfinite(result[1, 2].astype(float)).all()
    for targets in (t, np.full(z.shape, 0.25)):
        point = {"logits": z, "targets": targets, "softcap": 3.0, "z_loss": 0.1, "label_smoothing": 0.1}
        result = softgrad.cross_entropy_hvp(broken, **point)
        np.testing.assert_array_equal(result[others], softgrad.cross_entropy_hvp(clean, **point)[others])
        result = softgrad.cross_entropy_jvp(broken, reduction="none", **point)
        np.testing.assert_array_equal(
            result[others], softgrad.cross_entropy_jvp(clean, reduction="none", **point)[others]
        )
        assert not np.isfinite(result[1, 2])


def test_a_nan_tangent_at_a_masked_class_gives_0_there(dtype, backend):
    z, v = np.array([[1.0, -inf, 0.5]], dtype), np.array([[1.0, nan, 2.0]], dtype)
    assert softgrad.softmax_jvp(v, logits=z)[0, 1] == 0
    assert softgrad.cross_entropy_hvp(v, logits=z, targets=[0])[0, 1] == 0


# --- rows that do not count -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 0.1}, {"softcap": 5.0}], ids=str)
def test_ignored_rows_are_exactly_0_whatever_they_hold(z, options, backend):
    t = np.array([0, 7, 0, 7, 0, 7])
    scale = np.array([1.0, nan, 1.0, inf, 1.0, nan])
    v = np.ones_like(z)
    v[BROKEN] = nan
    loss, grad = softgrad.cross_entropy_value_and_grad(
        z, t, ignore_index=7, grad_output=scale, reduction="none", **(options | {"label_smoothing": 0.0})
    )
    product = softgrad.cross_entropy_hvp(
        v, logits=z, targets=t, ignore_index=7, grad_output=scale, reduction="none", **options
    )
    derivative = softgrad.cross_entropy_jvp(v, logits=z, targets=t, ignore_index=7, reduction="none", **options)
    for result in (loss, grad, product, derivative):
        assert (result[BROKEN] == 0).all()
        assert np.isfinite(result[WHOLE].astype(float)).all()
    mean = softgrad.cross_entropy(z, t, ignore_index=7, **(options | {"label_smoothing": 0.0}))
    np.testing.assert_allclose(mean, loss[WHOLE].mean(), rtol=1e-6)


@pytest.mark.parametrize("options", [{"targets": [-100, -100]}, {"targets": [0, 0], "weight": [0.0, 1.0]}], ids=str)
def test_when_nothing_counts_the_mean_is_nan_and_its_gradient_0(options, dtype, backend):
    z = np.array([[1.0, 2.0], [nan, 0.0]], dtype)
    options = {"logits": z, "z_loss": 0.1, **options}
    loss, grad = softgrad.cross_entropy_value_and_grad(**options)
    assert np.isnan(loss)
    assert (grad == 0).all()
    assert (softgrad.cross_entropy_hvp(np.ones_like(z), **options) == 0).all()


def test_targets_out_of_range_unchecked(dtype, backend):
    z = np.array([[1.0, 2.0], [0.5, 0.0], [3.0, 1.0]], dtype)
    options = {"check_targets": False, "z_loss": 0.1}
    loss, grad = softgrad.cross_entropy_value_and_grad(z, [0, 2, 1], reduction="none", **options)
    assert np.isnan(loss[1])
    assert np.isnan(grad[1].astype(float)).all()
    mean, grad = softgrad.cross_entropy_value_and_grad(z, [0, 2, 1], **options)
    assert np.isnan(mean)
    # It counts in neither divisor.
    rows = [0, 2]
    assert_right(grad[rows], truth.cross_entropy_grad(z[rows], np.array([0, 1]), z_loss=0.1), dtype)


def test_integer_targets_are_compared_by_value_and_never_wrapped(backend):
    z = np.zeros((1, 3))
    for targets in (np.array([253], np.uint8), np.array([2**64 - 1], np.uint64), np.array([2**32], np.int64)):
        with pytest.raises(ValueError, match="targets"):
            softgrad.cross_entropy(z, targets)
        assert np.isnan(softgrad.cross_entropy(z, targets, check_targets=False, ignore_index=-1))
    assert softgrad.cross_entropy(z, np.array([255], np.uint8), ignore_index=255, reduction="sum") == 0


# --- empty arrays ---------------------------------------------------------------------------------------------------


def test_no_rows(dtype, backend):
    z = np.zeros((0, 3), dtype)
    assert softgrad.softmax(z).shape == (0, 3)
    assert softgrad.logsumexp(z).shape == (0,)
    assert np.isnan(softgrad.cross_entropy(z, np.zeros(0, int)))
    assert softgrad.cross_entropy(z, np.zeros(0, int), reduction="sum") == 0
    assert softgrad.cross_entropy_grad(z, np.zeros(0, int)).shape == (0, 3)


def test_no_classes(dtype, backend):
    z = np.zeros((2, 0), dtype)
    assert softgrad.softmax(z).shape == softgrad.log_softmax(z).shape == (2, 0)
    np.testing.assert_array_equal(softgrad.logsumexp(z), [-inf, -inf])
    assert softgrad.softmax_jvp(z, logits=z).shape == (2, 0)


@pytest.mark.parametrize("name", ["huge", "sure and wrong"])
def test_no_call_warns_or_raises_whatever_the_errstate(name, dtype, backend):
    from tests.cases import ADVERSARIAL

    case = next(case for case in ADVERSARIAL if case.name == name)
    z, t, v = case.logits(dtype), case.targets(), case.tangents(dtype)
    with np.errstate(all="raise"):
        softgrad.softmax(z)
        softgrad.log_softmax(z)
        softgrad.logsumexp(z)
        softgrad.softmax_jvp(v, logits=z)
        softgrad.log_softmax_vjp(v, logits=z)
        softgrad.cross_entropy_value_and_grad(z, t, z_loss=0.1, softcap=5.0, label_smoothing=0.1)
        softgrad.cross_entropy_hvp(v, logits=z, targets=t, z_loss=0.1, softcap=5.0)
