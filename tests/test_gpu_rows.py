"""Both GPU backends on a device: rows of every kind, right to the last digits.  Run by `python3 ci gpu`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import softgrad
from tests import gpu as sizes
from tests import truth
from tests.cases import DTYPES, Case

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "bfloat16"])
def test_every_case_is_right(gpu: Any, name: str) -> None:
    if name not in DTYPES:
        pytest.skip("bfloat16 needs ml_dtypes")
    dtype = DTYPES[name]
    wide = np.float64 if name == "float64" else np.float32
    for case in sizes.CASES:
        z, t, v = case.logits(dtype), case.targets(), case.tangents(dtype, (2,))
        zd, td, vd = map(gpu.put, (z, t, v))
        for function in ("softmax", "log_softmax", "logsumexp"):
            result = gpu.get(getattr(softgrad, function)(zd))
            kind = wide if function == "logsumexp" else dtype
            truth.assert_right(result, getattr(truth, function)(z), kind, what=f"{function}, {case}")
        for reduction in ("none", "mean"):
            loss, grad = map(gpu.get, softgrad.cross_entropy_value_and_grad(zd, td, reduction=reduction))
            true = truth.cross_entropy(z, t, reduction=reduction)
            truth.assert_right(loss, true, wide, what=f"loss, {reduction}, {case}")
            true = truth.cross_entropy_grad(z, t, reduction=reduction)
            truth.assert_right(grad, true, dtype, what=f"gradient, {reduction}, {case}")
        for function in ("softmax_jvp", "log_softmax_jvp", "log_softmax_vjp"):
            result = gpu.get(getattr(softgrad, function)(vd, logits=zd))
            truth.assert_right(result, getattr(truth, function)(v, logits=z), dtype, what=f"{function}, {case}")
        p = softgrad.softmax(zd)
        result = gpu.get(softgrad.softmax_vjp(vd, probs=p))
        truth.assert_right(result, truth.softmax_vjp(v, probs=gpu.get(p)), dtype, what=f"from probs, {case}")


@pytest.mark.parametrize("case", sizes.LONG_CASES, ids=str)
def test_long_rows_are_right(gpu: Any, case: Case) -> None:
    z, t = case.logits(np.float32), case.targets()
    zd = gpu.put(z)
    loss, grad = map(gpu.get, softgrad.cross_entropy_value_and_grad(zd, gpu.put(t), reduction="none"))
    truth.assert_right(loss, truth.cross_entropy(z, t, reduction="none"), np.float32, what="loss")
    truth.assert_right(grad, truth.cross_entropy_grad(z, t, reduction="none"), np.float32, what="gradient")
    truth.assert_right(gpu.get(softgrad.softmax(zd)), truth.softmax(z), np.float32, what="softmax")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dense", [False, True])
def test_every_option_in_any_layout(gpu: Any, axis: int, dense: bool) -> None:
    rng = np.random.default_rng(axis)
    shape = (6, 40, 50)
    z, v = rng.standard_normal((2, *shape)) * 4
    targets = rng.random(shape) if dense else rng.integers(0, shape[axis], shape[:axis] + shape[axis + 1 :])
    options = {
        "axis": axis, "label_smoothing": 0.2, "z_loss": 0.1, "softcap": 9.0, "weight": rng.random(shape[axis]),
    }  # fmt: skip

    def results(on: Any, back: Any) -> list[np.ndarray]:
        given = {key: on(x) if isinstance(x, np.ndarray) else x for key, x in options.items()}
        a, b, t = map(on, (z, v, targets))
        found = [softgrad.cross_entropy(a, t, **given), softgrad.cross_entropy_grad(a, t, **given)]
        found += [softgrad.cross_entropy_jvp(b, logits=a, targets=t, **given)]
        found += [softgrad.cross_entropy_hvp(b, logits=a, targets=t, **given)]
        return [back(x) for x in found]

    got = results(gpu.put, gpu.get)
    with softgrad.use_backend("numpy"):
        expected = results(lambda x: x, lambda x: x)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-14)


def test_laws(gpu: Any) -> None:
    rng = np.random.default_rng(0)
    z, v, w = rng.standard_normal((3, 7, 129)) * 3
    t = rng.integers(0, 129, 7)
    zd, vd, wd, td = map(gpu.put, (z, v, w, t))

    def inner(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * b).sum(-1)

    p = gpu.get(softgrad.softmax(zd))
    np.testing.assert_allclose(p.sum(-1), 1.0, rtol=1e-14)
    np.testing.assert_array_equal(gpu.get(softgrad.softmax(gpu.put(z[:, ::-1].copy()))).argmax(-1), 128 - p.argmax(-1))
    # Logits shifted by what rounds none of them.
    coarse = np.round(z * 64) / 64
    shifted = gpu.get(softgrad.softmax(gpu.put(coarse + 1024.0)))
    np.testing.assert_allclose(shifted, gpu.get(softgrad.softmax(gpu.put(coarse))), rtol=8 * 2.0**-52)
    jv, jw = (gpu.get(softgrad.softmax_jvp(x, logits=zd)) for x in (vd, wd))
    np.testing.assert_allclose(inner(jv, w), inner(jw, v), rtol=0, atol=1e-13)
    ones = gpu.put(np.ones_like(z))
    assert np.abs(gpu.get(softgrad.softmax_jvp(ones, logits=zd))).max() == 0.0
    forward, back = softgrad.log_softmax_jvp(vd, logits=zd), softgrad.log_softmax_vjp(wd, logits=zd)
    np.testing.assert_allclose(inner(gpu.get(forward), w), inner(gpu.get(back), v), rtol=1e-12, atol=1e-12)
    grad = gpu.get(softgrad.cross_entropy_grad(zd, td))
    np.testing.assert_allclose(grad.sum(-1), 0.0, atol=129 * 2.0**-52)
    # Finite differences of the loss and of its gradient.
    h = 1e-5
    up, down = (softgrad.cross_entropy_value_and_grad(gpu.put(z + s * h * v), td) for s in (1, -1))
    slope = gpu.get(softgrad.cross_entropy_jvp(vd, logits=zd, targets=td))
    np.testing.assert_allclose((gpu.get(up[0]) - gpu.get(down[0])) / (2 * h), slope, rtol=1e-7, atol=1e-9)
    curvature = gpu.get(softgrad.cross_entropy_hvp(vd, logits=zd, targets=td))
    np.testing.assert_allclose((gpu.get(up[1]) - gpu.get(down[1])) / (2 * h), curvature, rtol=1e-6, atol=1e-8)


def test_masks_and_broken_rows(gpu: Any) -> None:
    z = np.random.default_rng(0).standard_normal((6, 300)).astype(np.float32)
    clean = gpu.get(softgrad.softmax(gpu.put(z)))
    z[1, ::3], z[2], z[3, 7], z[4, 8] = -np.inf, -np.inf, np.nan, np.inf
    p = gpu.get(softgrad.softmax(gpu.put(z)))
    assert (p[1, ::3] == 0.0).all()
    assert np.isnan(p[2:5]).all()
    np.testing.assert_array_equal(p[[0, 5]], clean[[0, 5]])
    lse = gpu.get(softgrad.logsumexp(gpu.put(z)))
    assert lse[2] == -np.inf
    assert np.isnan(lse[3])
    assert lse[4] == np.inf
    t = np.array([1, -100, 2, -100, 3, 5])
    loss, grad = map(gpu.get, softgrad.cross_entropy_value_and_grad(gpu.put(z), gpu.put(t), reduction="none"))
    assert (loss[[1, 3]] == 0.0).all()
    assert (grad[[1, 3]] == 0.0).all()
    assert np.isnan(loss[[2, 4]]).all()


def test_nothing_to_do(gpu: Any) -> None:
    assert gpu.get(softgrad.softmax(gpu.put(np.zeros((0, 4))))).shape == (0, 4)
    assert gpu.get(softgrad.softmax(gpu.put(np.zeros((4, 0))))).shape == (4, 0)
    assert gpu.get(softgrad.logsumexp(gpu.put(np.zeros((2, 0))))).tolist() == [-np.inf] * 2
    nothing = gpu.put(np.zeros((0, 4))), gpu.put(np.zeros(0, np.int64))
    assert gpu.get(softgrad.cross_entropy(*nothing, reduction="sum")) == 0.0
    assert np.isnan(gpu.get(softgrad.cross_entropy(*nothing)))


def test_one_huge_row(gpu: Any) -> None:
    classes = sizes.HUGE_ROW
    z = (np.random.default_rng(0).standard_normal(classes) * 3).astype(np.float32)
    e = np.exp(z.astype(np.float64) - z.max())
    true = e / e.sum()
    zd = gpu.put(z)
    p = gpu.get(softgrad.softmax(zd)).astype(np.float64)
    assert np.abs(p / true - 1.0).max() < 4 * 2.0**-23
    loss, grad = map(gpu.get, softgrad.cross_entropy_value_and_grad(zd, gpu.put(np.array(classes // 2))))
    assert abs(loss / -np.log(true[classes // 2]) - 1.0) < 4 * 2.0**-23
    rest = true.copy()
    rest[classes // 2] = 0.0
    true[classes // 2] = -rest.sum()
    assert np.abs(grad.astype(np.float64) / true - 1.0).max() < 4 * 2.0**-23


def test_more_elements_than_32_bits_count(gpu: Any) -> None:
    rows, classes = sizes.MANY_ELEMENTS
    z = np.zeros((rows, classes), np.float16)
    z[-1, 7], z[-2, 8] = 5.0, 6.0
    zd = gpu.put(z)
    assert softgrad.cross_entropy_grad(zd, gpu.put(np.zeros(rows, np.int32)), out=zd, reduction="none") is zd
    last, before, first = (gpu.get(zd[i : i + 1])[0].astype(np.float64) for i in (rows - 1, rows - 2, 0))
    for row, at, logit in ((last, 7, 5.0), (before, 8, 6.0)):
        e, others = np.exp(logit), classes - 1
        assert abs(row[at] - e / (e + others)) < 1e-4
        assert abs(row[0] + (e + others - 1) / (e + others)) < 1e-3
    assert abs(first[0] + (classes - 1) / classes) < 1e-3
