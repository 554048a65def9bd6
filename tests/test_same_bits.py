"""A row gives the same bits wherever it stands: neighbours, position, strides, in place or not, company of others."""

from __future__ import annotations

import numpy as np
import pytest

import softgrad

# Class counts on both sides of every switch of method.
CLASSES = (1, 2, 5, 8, 17, 32, 33, 100, 257, 1024, 5000)


def rows(classes: int, dtype, b: int = 41) -> np.ndarray:
    """Narrow and wide rows, ties, masks and large offsets, side by side."""
    rng = np.random.default_rng(classes)
    z = rng.standard_normal((b, classes)) * rng.choice([0.1, 3.0, 50.0, 300.0], (b, 1))
    z += rng.choice([0.0, 0.0, 1000.0], (b, 1))
    z[::7, ::2] = np.where(classes > 1, -np.inf, 1.0)
    z[3] = 1.0
    return z.astype(dtype)


def functions(classes: int, b: int):
    """Every function of rows, as (name, rows of logits, rows of the other arrays) -> rows of results."""
    rng = np.random.default_rng(1)
    t, T = rng.integers(0, classes, b), rng.random((b, classes))
    v, g, w = rng.standard_normal((b, classes)), rng.standard_normal(b), rng.random(classes) + 0.5
    v[::5] = 0.0
    v[2::9] *= 1e-280  # beside ordinary tangents, some that are computed another way
    loss = {"reduction": "none", "weight": w, "label_smoothing": 0.1, "z_loss": 0.01}
    return {
        "softmax": lambda z, r: softgrad.softmax(z),
        "log_softmax": lambda z, r: softgrad.log_softmax(z),
        "logsumexp": lambda z, r: softgrad.logsumexp(z),
        "softmax_jvp": lambda z, r: softgrad.softmax_jvp(v[r], logits=z),
        "log_softmax_jvp": lambda z, r: softgrad.log_softmax_jvp(v[r], logits=z),
        "log_softmax_vjp": lambda z, r: softgrad.log_softmax_vjp(v[r], logits=z),
        "loss": lambda z, r: softgrad.cross_entropy(z, t[r], reduction="none"),
        "loss, every option": lambda z, r: softgrad.cross_entropy(z, t[r], softcap=20.0, **loss),
        "loss, probabilities": lambda z, r: softgrad.cross_entropy(z, T[r], reduction="none"),
        "grad": lambda z, r: softgrad.cross_entropy_grad(z, t[r], grad_output=g[r], reduction="none"),
        "grad, every option": lambda z, r: softgrad.cross_entropy_grad(z, t[r], softcap=20.0, grad_output=g[r], **loss),
        "grad, probabilities": lambda z, r: softgrad.cross_entropy_grad(z, T[r], reduction="none"),
        "jvp": lambda z, r: softgrad.cross_entropy_jvp(v[r], logits=z, targets=t[r], **loss),
        "hvp": lambda z, r: softgrad.cross_entropy_hvp(v[r], logits=z, targets=t[r], softcap=20.0, **loss),
    }


def assert_same(a, b, what):
    np.testing.assert_array_equal(bits(a), bits(b), err_msg=what, strict=True)


def bits(x: np.ndarray) -> np.ndarray:
    """The bit pattern of every element, one and the same for every NaN."""
    x = np.ascontiguousarray(x)
    pattern = x.view(f"u{x.itemsize}")
    return np.where(np.isnan(x.astype(np.float64)), np.iinfo(pattern.dtype).max, pattern)


over_classes = pytest.mark.parametrize("classes", CLASSES)


@over_classes
def test_alone_in_slices_and_elsewhere(classes, dtype, backend):
    z = rows(classes, dtype)
    b = len(z)
    shuffled = np.random.default_rng(2).permutation(b)
    for name, function in functions(classes, b).items():
        whole = function(z, slice(None))
        for part in (slice(0, 1), slice(3, 4), slice(b - 1, b), slice(5, 22), slice(None, None, 2)):
            assert_same(function(z[part], part), whole[part], f"{name}, rows {part}")
        assert_same(function(z[shuffled], shuffled), whole[shuffled], f"{name}, shuffled")


@over_classes
def test_row_stride_and_address(classes, dtype, backend):
    z = rows(classes, dtype)
    b = len(z)
    wide = np.zeros((b, classes + 3), dtype)
    shifted = wide[:, 1 : classes + 1]
    shifted[...] = z
    spaced = np.zeros((2 * b, classes), dtype)[::2]
    spaced[...] = z
    for name, function in functions(classes, b).items():
        whole = function(z, slice(None))
        assert_same(function(shifted, slice(None)), whole, f"{name}, shifted")
        assert_same(function(spaced, slice(None)), whole, f"{name}, spaced")
        assert_same(function(z[::-1], slice(None, None, -1)), whole[::-1], f"{name}, backwards")


@over_classes
def test_class_axis_that_is_not_contiguous(classes, dtype, backend):
    """May differ from the contiguous one, but not with the columns around, their number or their stride."""
    z = rows(classes, dtype).T  # (C, n), classes first
    if classes == 1:
        return
    columns = np.asfortranarray(z.T)  # (n, C), its class axis strided
    whole = softgrad.softmax(columns), softgrad.logsumexp(columns)
    first = np.ascontiguousarray(z)
    assert_same(softgrad.softmax(first, axis=0).T, whole[0], "axis 0")
    for part in (slice(0, 2), slice(5, 22), slice(None, None, 3)):
        some = np.asfortranarray(columns[part])
        if some.strides[1] != some.itemsize:
            assert_same(softgrad.softmax(some), whole[0][part], f"rows {part}")
            assert_same(softgrad.logsumexp(some), whole[1][part], f"rows {part}")
    stacked = np.stack([first, first + 1, first])  # (3, C, n)
    assert_same(softgrad.softmax(stacked, axis=1)[2].T, whole[0], "outer and inner axes")


@over_classes
def test_in_place_and_out(classes, dtype, backend):
    z = rows(classes, dtype)
    b = len(z)
    v = np.random.default_rng(3).standard_normal(z.shape).astype(dtype)
    t = np.random.default_rng(4).integers(0, classes, b)
    calls = {
        "softmax": lambda z, v, out: softgrad.softmax(z, out=out),
        "log_softmax": lambda z, v, out: softgrad.log_softmax(z, out=out),
        "softmax_jvp": lambda z, v, out: softgrad.softmax_jvp(v, logits=z, out=out),
        "log_softmax_jvp": lambda z, v, out: softgrad.log_softmax_jvp(v, logits=z, out=out),
        "grad": lambda z, v, out: softgrad.cross_entropy_grad(z, t, out=out),
        "hvp": lambda z, v, out: softgrad.cross_entropy_hvp(v, logits=z, targets=t, softcap=20.0, out=out),
    }
    for name, call in calls.items():
        expected = call(z, v, None)
        separate = np.empty_like(z)
        assert call(z, v, separate) is separate
        assert_same(separate, expected, f"{name}, out")
        strided = np.zeros((b, 2 * classes), dtype)[:, ::2]
        assert_same(call(z, v, strided), expected, f"{name}, strided out")
        in_place = z.copy()
        assert_same(call(in_place, v, in_place), expected, f"{name}, in place of the logits")
        if name in ("softmax_jvp", "log_softmax_jvp", "hvp"):
            in_place = v.copy()
            assert_same(call(z, in_place, in_place), expected, f"{name}, in place of the tangent")


@over_classes
def test_tangents_alone_or_together(classes, dtype, backend):
    z = rows(classes, dtype, 9)
    v = np.random.default_rng(5).standard_normal((3, 2, *z.shape)).astype(dtype)
    t = np.random.default_rng(6).integers(0, classes, len(z))
    point = {"logits": z, "targets": t, "z_loss": 0.1, "softcap": 20.0}
    calls = {
        "softmax_jvp": lambda v: softgrad.softmax_jvp(v, logits=z),
        "log_softmax_jvp": lambda v: softgrad.log_softmax_jvp(v, logits=z),
        "log_softmax_vjp": lambda v: softgrad.log_softmax_vjp(v, logits=z),
        "jvp": lambda v: softgrad.cross_entropy_jvp(v, reduction="none", **point),
        "mean jvp": lambda v: softgrad.cross_entropy_jvp(v, **point),
        "hvp": lambda v: softgrad.cross_entropy_hvp(v, **point),
    }
    for name, call in calls.items():
        together = np.asarray(call(v))
        for at in ((0, 0), (2, 1)):
            assert_same(np.asarray(call(v[at])), np.asarray(together[at]), name)


@over_classes
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_loss_and_gradient_alone_or_together(classes, reduction, dtype, backend):
    z = rows(classes, dtype)
    t = np.random.default_rng(7).integers(0, classes, len(z))
    for options in ({}, {"z_loss": 0.1, "label_smoothing": 0.1, "softcap": 20.0}):
        loss, grad = softgrad.cross_entropy_value_and_grad(z, t, reduction=reduction, **options)
        assert_same(np.asarray(softgrad.cross_entropy(z, t, reduction=reduction, **options)), np.asarray(loss), "loss")
        assert_same(softgrad.cross_entropy_grad(z, t, reduction=reduction, **options), grad, "grad")


def test_reduced_losses_are_added_in_a_tree_fixed_by_their_number(backend):
    """Neither strides nor the number of classes around, only the losses and their number matter."""
    rng = np.random.default_rng(8)
    for b in (3, 1000, 1025, 5000):
        z, t = (rng.standard_normal((b, 10)) * 30).astype(np.float64), rng.integers(0, 10, b)
        expected = softgrad.cross_entropy(z, t, reduction="sum")
        spaced = np.zeros((b, 13))[:, 2:12]
        spaced[...] = z
        assert softgrad.cross_entropy(spaced, t, reduction="sum") == expected
        assert softgrad.cross_entropy(z.reshape(b, 1, 10), t.reshape(b, 1), reduction="sum") == expected


def test_a_change_of_one_bit_is_seen():
    """`bits`, by which all these tests compare, tells 0 from −0, and takes every NaN for the same."""
    assert_same(np.array([np.nan]), -np.array([np.nan]), "")
    for a, b in ((0.0, -0.0), (1.0, np.nextafter(1.0, 2.0)), (np.nan, np.inf)):
        with pytest.raises(AssertionError):
            assert_same(np.array([a]), np.array([b]), "")
